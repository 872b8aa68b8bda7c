"""What DVC has on record, and checksums of the files that are worked out anew."""

import hashlib
import json
from pathlib import Path

import yaml


def checksum(path: Path) -> str:
    """DVC's checksum of a file or a folder."""
    if not path.is_dir():
        return hashlib.md5(path.read_bytes()).hexdigest()
    files = sorted(each for each in path.rglob("*") if each.is_file() and each.name != ".snakemake_timestamp")
    listing = [{"md5": checksum(each), "relpath": each.relative_to(path).as_posix()} for each in files]
    return hashlib.md5(json.dumps(listing, sort_keys=True).encode()).hexdigest() + ".dir"


def check_record(folder: Path) -> None:
    """Check that dvc.lock says what the outputs are, and that nobody has written into DVC's cache."""
    stages = yaml.safe_load((folder / "dvc.lock").read_text())["stages"].values()
    recorded = {out["path"]: out["md5"] for stage in stages for out in stage.get("outs", ())}
    assert recorded == {name: checksum(folder / name) for name in recorded}
    for path in (folder / ".dvc/cache/files/md5").glob("*/*"):
        assert path.parent.name + path.name.removesuffix(".dir") == checksum(path)
