"""Whatever is done in whatever order: what is on disk is what its parameters, its source and its raw files give.

Hypothesis draws sequences of actions, edits and both engines among them. After each, all results that the folder claims
are up to date are compared, byte for byte, with an oracle: the same study made from nothing by its commands, in another
folder. After each that tells DVC something, dvc.lock is compared with the files, by checksums that are worked out anew.

    AGM_SEQUENCES=50 AGM_SEQUENCES_SEED=1 AGM_SEQUENCES_LOG=log.jsonl pytest -m heavy tests/test_any_order.py

draws more of them, from another seed, and writes a line about each.
"""

import hashlib
import json
import os
import random
import re
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from clone import Clone
from forked import Forked
from media import write_image
from record import check_record
from test_exactness import CLIPS, STUDY, write_clips, write_table

pytestmark = pytest.mark.heavy

SEQUENCES = int(os.environ.get("AGM_SEQUENCES", "6"))
SEED = int(os.environ.get("AGM_SEQUENCES_SEED", "0"))
LENGTH = 7
MADE = ("data", "runs", "evaluations", "reports", "records")
# What a study is about, without the records of it: those hold times of raw files.
RESULTS = ("data/spoken_digits/shards/", "runs/", "evaluations/", "reports/")
# Parameters and their two values, as they stand in params.yaml.
PARAMETERS = {
    "alpha": ("    alpha: 1.0\n", "    alpha: 2.0\n"),
    "ridge": ("  ridge_alpha: null\n", "  ridge_alpha: 7.0\n"),
    "rows": ("  rows: 1024\n", "  rows: 5\n"),
    "name": ("  name: spoken_digits\n  seeds", "  name: other\n  seeds"),
}
# Places in the source and two texts for each; the second changes what is made, or, of a method, only its fingerprint.
SOURCE = {
    "page": ("src/agm/pipeline/steps/report/page.html.j2", "</html>", "<!-- edited --></html>"),
    "scores": (
        "src/agm/pipeline/steps/evaluate/step.py",
        '"failed": failed,\n',
        '"failed": failed,\n        "edited": True,\n',
    ),
    "method": ("src/agm/methods/agm.py", "\nclass ", "\nEDITED = True\n\n\nclass "),
}
GREYS = (0, 200)
# Each as often as it stands here; both engines run in each sequence.
ACTIONS = [
    *("edit_a_parameter", "edit_the_source", "touch", "replace_a_raw_file", "delete_a_result"),
    *("snakemake", "snakemake", "dvc_repro", "dvc_repro", "kill"),
    *("record", "sync", "checkout", "apply"),
]
# Hypothesis begins with the first one again and again.
random.Random(SEED).shuffle(ACTIONS)
ENGINES = {"snakemake": ("snakemake", "--cores", "2"), "dvc": ("dvc", "repro")}


Draw = Callable[[st.SearchStrategy], Any]


class World:
    """A finished study to start from, and the oracle with what it has found so far."""

    def __init__(self, folder: Path, forked: Forked) -> None:
        self.folder = folder
        self.forked = forked
        self.found: dict[str, dict[str, str]] = {}
        self.counts: Counter[str] = Counter()
        self.numbers = iter(range(1_000_000))
        (folder / "start").mkdir()
        self.start = Clone.make(folder / "start")
        write_clips(folder / "start/raw", range(CLIPS))
        write_table(folder / "start/raw", range(CLIPS))
        (folder / "start/.gitignore").write_text((folder / "start/.gitignore").read_text() + "/raw\n")
        for command in (
            ("agm", "compose", *STUDY[:-1], "method=[joint,agm]", "dataset.root=raw"),
            ("snakemake", "--cores", "2"),
            ("agm", "record", "--name", "first"),
        ):
            status, said = self.run(self.start.folder, *command)
            assert status == 0, said
        self.start.commit()

    def run(self, folder: Path, *command: str) -> tuple[int, str]:
        return self.forked.run(folder, *command, **self.environment)

    @property
    def environment(self) -> dict[str, str]:
        names = self.start.environment
        return {**{name: names[name] for name in names if name.startswith("GIT_")}, **ENVIRONMENT}

    def oracle(self, folder: Path) -> dict[str, str]:
        """The results of the parameters, the source and the raw files in `folder`, made from nothing."""
        state = digest(folder / "params.yaml", folder / "src", folder / "raw")
        if state not in self.found:
            place = self.folder / "oracle"
            shutil.rmtree(place, ignore_errors=True)
            place.mkdir()
            for name in ("params.yaml", "src", "raw"):
                copy = shutil.copytree if (folder / name).is_dir() else shutil.copy2
                copy(folder / name, place / name)
            status, said = self.run(place, "claims", "make")
            assert status == 0, said
            self.found[state] = results(place)
        return self.found[state]


ENVIRONMENT = {"AGM_WORKERS": "1", "OMP_NUM_THREADS": "1", "AGM_DEVICE": "cpu"}


def digest(*paths: Path) -> str:
    """Checksum of the contents of files and folders."""
    found = hashlib.sha256()
    for path in paths:
        files = sorted(each for each in path.rglob("*") if each.is_file()) if path.is_dir() else [path]
        for each in files:
            if each.suffix != ".pyc":
                found.update(f"{each.relative_to(path.parent)}\0".encode() + each.read_bytes() + b"\0")
    return found.hexdigest()


def results(folder: Path) -> dict[str, str]:
    files = [path for name in MADE for path in (folder / name).rglob("[!.]*") if path.is_file()]
    return {name: content(path) for path in files if (name := path.relative_to(folder).as_posix()).startswith(RESULTS)}


def content(path: Path) -> str:
    """Checksum of a result; of the page without the git revision that it was made at."""
    written = path.read_bytes()
    if path.name == "index.html":
        written = re.sub(rb"<dt>git revision</dt>\s*<dd>[^<]*</dd>", b"", written)
    return hashlib.sha256(written).hexdigest()


class AnyOrder(RuleBasedStateMachine):
    """The actions; what is true after each is asserted in it."""

    world: World

    @initialize()
    def copy(self) -> None:
        self.clone = self.world.start.copy(self.world.folder / f"sequence-{next(self.world.numbers)}")
        self.folder = self.clone.folder
        self.saved = ["first"]
        self.done: list[str] = []
        self.began = time.monotonic()

    @rule(data=st.data())
    def act(self, data: st.DataObject) -> None:
        """Draw an action; the last of a sequence are the engines that have not run in it."""
        due = [name for name in ("snakemake", "dvc_repro") if name.replace("_", " ") not in self.done]
        possible = ACTIONS if len(self.done) + len(due) < LENGTH else due
        getattr(self, data.draw(st.sampled_from(possible)))(data.draw)

    # --- edits ---

    def edit_a_parameter(self, draw: Draw) -> None:
        name = draw(st.sampled_from(sorted(PARAMETERS)))
        self.exchange("params.yaml", *PARAMETERS[name])
        self.finish(f"parameter {name}")

    def edit_the_source(self, draw: Draw) -> None:
        name = draw(st.sampled_from(sorted(SOURCE)))
        self.exchange(*SOURCE[name])
        self.finish(f"source {name}")

    def touch(self, draw: Draw) -> None:
        chance = random.Random(draw(st.integers(0, 99)))
        files = [path for name in (*MADE, "raw", "src") for path in (self.folder / name).rglob("*") if path.is_file()]
        for path in chance.sample(files, 40):
            moment = chance.choice([1, time.time() + 10_000, time.time()])
            os.utime(path, (moment, moment))
        self.finish("touch")

    def replace_a_raw_file(self, draw: Draw) -> None:
        write_image(self.folder / "raw/5.png", np.full((28, 28), draw(st.sampled_from(GREYS)), np.uint8))
        self.finish("raw file")

    def delete_a_result(self, draw: Draw) -> None:
        files = [path for name in MADE[:4] for path in (self.folder / name).rglob("*.*") if path.is_file()]
        if files:
            draw(st.sampled_from(sorted(files))).unlink()
        self.finish("delete")

    # --- engines ---

    def snakemake(self, _: Draw) -> None:
        self.must("snakemake", "--cores", "2")
        assert results(self.folder) == self.world.oracle(self.folder)
        self.finish("snakemake")
        said = self.must("snakemake", "--dry-run")
        assert "Nothing to be done" in said, said

    def dvc_repro(self, _: Draw) -> None:
        self.must("agm", "check")
        self.must("dvc", "repro", "--quiet")
        assert results(self.folder) == self.world.oracle(self.folder)
        check_record(self.folder)
        self.finish("dvc repro")
        said = self.must("dvc", "status")
        assert "up to date" in said, said

    def kill(self, draw: Draw) -> None:
        engine = draw(st.sampled_from(sorted(ENGINES)))
        process = self.world.forked.start(self.folder, *ENGINES[engine], **self.world.environment)
        time.sleep(0.5 + 6 * draw(st.floats(0, 1)))
        process.kill()
        process.communicate()
        time.sleep(0.2)
        self.world.run(self.folder, "snakemake", "--unlock")
        self.finish(f"kill {engine}")

    # --- crossings ---

    def record(self, _: Draw) -> None:
        name = f"saved{len(self.saved)}"
        status, said = self.world.run(self.folder, "agm", "record", "--name", name)
        if status == 0 and "saved the experiment" in said:
            self.saved.append(name)
            assert results(self.folder) == self.world.oracle(self.folder)
            check_record(self.folder)
        elif status:
            assert self.claims()["stale"], f"nothing is out of date, and yet: {said}"
        self.finish("record" if status == 0 else "record refused")

    def sync(self, _: Draw) -> None:
        status, _ = self.world.run(self.folder, "agm", "sync")
        if status == 0:
            assert results(self.folder) == self.world.oracle(self.folder)
        self.finish("sync" if status == 0 else "sync refused")

    def checkout(self, _: Draw) -> None:
        self.must("dvc", "checkout", "--force", "--quiet")
        check_record(self.folder)
        self.finish("checkout")

    def apply(self, draw: Draw) -> None:
        name = draw(st.sampled_from(self.saved))
        status, _ = self.world.run(self.folder, "dvc", "exp", "apply", name)
        if status == 0:
            check_record(self.folder)
        self.finish("apply" if status == 0 else "apply refused")

    # --- what is true ---

    def finish(self, action: str) -> None:
        """Compare what the folder claims with the oracle."""
        self.done.append(action)
        self.world.counts[action] += 1
        files = {name: content(self.folder / name) for name in self.claims()["files"] if name.startswith(RESULTS)}
        if files:
            oracle = self.world.oracle(self.folder)
            wrong = {name for name, found in files.items() if oracle.get(name) != found}
            assert not wrong, f"after {self.done}: up to date, and not what is made from nothing: {sorted(wrong)[:5]}"

    def claims(self) -> dict:
        return json.loads(self.must("claims").splitlines()[-1])

    def must(self, *command: str) -> str:
        status, said = self.world.run(self.folder, *command)
        assert status == 0, f"after {self.done}: {' '.join(command)} ended with {status}: {said}"
        return said

    def exchange(self, file: str, one: str, other: str) -> None:
        """Put one text in the place of the other, whichever is there."""
        path = self.folder / file
        text = path.read_text()
        # The longer of two, one of which may hold the other, is looked for first.
        old, new = (other, one) if other in text else (one, other)
        path.write_text(text.replace(old, new, 1))

    def teardown(self) -> None:
        if hasattr(self, "folder"):
            shutil.rmtree(self.folder)
            log(self.done, time.monotonic() - self.began)


def log(actions: list[str], seconds: float) -> None:
    path = os.environ.get("AGM_SEQUENCES_LOG")
    if path and actions:
        with open(path, "a") as file:
            file.write(json.dumps({"seed": SEED, "seconds": round(seconds, 1), "actions": actions}) + "\n")


@pytest.fixture(scope="module")
def world(forked: Forked, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    made = World(tmp_path_factory.mktemp("world"), forked)
    yield made
    print(f"\n{sum(made.counts.values())} actions: {dict(made.counts.most_common())}; {len(made.found)} states")


def test_any_order(world: World) -> None:
    AnyOrder.world = world
    seed(SEED)(AnyOrder)
    run_state_machine_as_test(
        AnyOrder,
        settings=settings(
            max_examples=SEQUENCES,
            stateful_step_count=LENGTH + 1,  # and the copy
            deadline=None,
            database=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        ),
    )
