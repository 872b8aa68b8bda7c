"""A full disk and an unwritable folder, at each step: an error that a person understands, and nothing half-written.

Each command runs for real in a mount namespace of its own, where the study's folder is an overlay whose upper layer
has no byte left, or is mounted read-only.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from agm import cli, config
from agm.compose import compose
from agm.graph import CODE, Graph
from clone import ROOT

TINY = [
    "dial.clips=60",
    "dial.noise={video: 0, audio: 0, text: 0}",
    "parts=[0]",
    "study.seeds=[0]",
    "study.methods=[agm]",
    "trainer.epochs=1",
    "evaluation.bootstrap=5",
]
# The upper layer is filled to its last byte; what a command leaves there is printed behind a line of its own.
FULL = """
mount -t tmpfs -o size=64k tmpfs {layers} && mkdir {layers}/upper {layers}/work
mount -t overlay overlay -o lowerdir={study},upperdir={layers}/upper,workdir={layers}/work {study} || exit 77
cat /dev/zero > {layers}/filler 2> /dev/null
cd {study} && {command}
status=$?
echo left behind:; find {layers}/upper -type f
exit $status
"""
UNWRITABLE = """
mount --bind {study} {study} && mount -o remount,bind,ro {study} || exit 77
cd {study} && exec {command}
"""


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which every step is done."""
    folder = tmp_path_factory.mktemp("study")
    compose(TINY, folder / "params.yaml", groups=ROOT / "params")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for job in Graph(config.load()).jobs:
            assert cli.main(job.command.split()[1:]) == 0
    return folder


def first_job(study: Path, step: str) -> str:
    graph = Graph(config.load(study / "params.yaml"))
    return next(job.command for job in graph.jobs if job.step == step)


def run(script: str, study: Path, command: str, layers: Path) -> subprocess.CompletedProcess[str]:
    command = f"{sys.executable} -m agm.cli {command.removeprefix('agm ')}"
    script = script.format(study=study, command=command, layers=layers)
    environment = {**os.environ, "AGM_WORKERS": "1", "OMP_NUM_THREADS": "1"}
    private = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", script]
    done = subprocess.run(private, capture_output=True, text=True, env=environment)
    if done.returncode == 77 or "unshare" in done.stderr:
        pytest.skip(f"this machine does not let its users mount: {done.stderr.strip()}")
    return done


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("step", CODE)
def test_a_full_disk(study: Path, tmp_path: Path, step: str) -> None:
    done = run(FULL, study, first_job(study, step), tmp_path)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert "error: cannot read or write: No space left on device\n  where: " in done.stderr
    assert done.stdout.partition("left behind:\n")[2] == ""


@pytest.mark.parametrize("step", CODE)
def test_a_folder_that_cannot_be_written_to(study: Path, tmp_path: Path, step: str) -> None:
    before = contents(study)
    done = run(UNWRITABLE, study, first_job(study, step), tmp_path)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert "error: cannot read or write: Read-only file system\n  where: " in done.stderr
    assert contents(study) == before
