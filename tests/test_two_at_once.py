"""Two engines, or two of a kind, on one checkout: one waits or refuses, and the results are those of one alone.

The real engines, from raw clips to the manifest of a tiny study. A test that holds the lock of a job keeps its engine
at that job for as long as it likes.
"""

import fcntl
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from clone import Clone
from forked import Forked

TINY = ["study=demo", "dial.clips=12", "num_parts=1"]
ENGINES = {
    "snakemake": ["snakemake", "--cores", "2", "data/dial/manifest.json"],
    "dvc": ["dvc", "repro", "ingest"],
}
STATUS = ["status", "--with-deps", "ingest"]


@pytest.fixture(scope="module")
def fresh(forked: Forked, tmp_path_factory: pytest.TempPathFactory) -> Clone:
    """A checkout in which nothing is made; what is started in it is a process of its own, which may be killed."""
    return Clone(Clone.make(tmp_path_factory.mktemp("fresh"), *TINY, forked=forked).folder)


@pytest.fixture(scope="module")
def undisturbed(fresh: Clone, forked: Forked, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What one engine alone makes."""
    clone = Clone(fresh.copy(tmp_path_factory.mktemp("undisturbed")).folder, forked)
    clone.run(*ENGINES["dvc"])
    return results(clone)


@pytest.fixture
def clone(fresh: Clone, tmp_path: Path) -> Iterator[Clone]:
    yield fresh.copy(tmp_path)
    for process in started:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    started.clear()


started: list[subprocess.Popen[str]] = []


def results(clone: Clone) -> dict[str, bytes]:
    files = [file for file in (clone.folder / "data").rglob("*") if file.is_file()]
    return {
        str(file.relative_to(clone.folder)): file.read_bytes() for file in files if file.name != ".snakemake_timestamp"
    }


def times(clone: Clone) -> dict[Path, int]:
    """Of the keys and the indexes, which say to Snakemake what is up to date."""
    return {
        file: file.stat().st_mtime_ns for name in (".cache", "data") for file in (clone.folder / name).rglob("*.json")
    }


def start(clone: Clone, *module_and_arguments: str) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-m", *module_and_arguments],
        cwd=clone.folder,
        env=clone.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    started.append(process)
    return process


def end(process: subprocess.Popen[str]) -> tuple[int, str]:
    said = process.communicate(timeout=300)[0]
    return process.returncode, said


@contextmanager
def first_job_kept(clone: Clone) -> Iterator[int]:
    """Whoever starts the study's first job waits at its lock until the context ends; yields the lock."""
    lock = clone.folder / ".cache/locks/generate/dial.lock"
    lock.parent.mkdir(parents=True, exist_ok=True)
    with open(lock, "w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        yield held.fileno()


def waited_for(lock: int, *processes: subprocess.Popen[str]) -> None:
    """Return when as many jobs as there are `processes` wait for the lock."""
    inode = f":{os.fstat(lock).st_ino} "
    while sum("->" in line and inode in line for line in Path("/proc/locks").read_text().splitlines()) < len(processes):
        for process in processes:
            assert process.poll() is None, process.stdout.read()
        time.sleep(0.1)


@pytest.mark.heavy
@pytest.mark.parametrize(
    ("first", "second", "refusal"),
    [
        ("snakemake", "dvc", "is busy, it is being blocked by"),
        ("dvc", "snakemake", "DVC or Snakemake is at work in this folder already"),
        ("snakemake", "snakemake", "Directory cannot be locked"),
        ("dvc", "dvc", "is busy, it is being blocked by"),
    ],
)
def test_the_second_engine_refuses(
    clone: Clone, undisturbed: dict[str, bytes], first: str, second: str, refusal: str
) -> None:
    with first_job_kept(clone) as lock:
        running = start(clone, *ENGINES[first])
        waited_for(lock, running)
        status, said = end(start(clone, *ENGINES[second]))
        assert status != 0 and refusal in said
        if second == "dvc" or first == "dvc":
            assert f"(PID {running.pid}): " in said, "who is there"
    assert end(running)[0] == 0
    assert results(clone) == undisturbed

    # Run again, the one that refused finds nothing to do.
    if first == "snakemake":
        clone.agm("record")
    again = clone.run(sys.executable, "-m", *ENGINES[second])
    assert ("Nothing to be done" if second == "snakemake" else "Data and pipelines are up to date") in again
    assert "up to date" in clone.dvc(*STATUS)
    assert results(clone) == undisturbed


@pytest.mark.heavy
def test_beside_a_running_snakemake(clone: Clone, undisturbed: dict[str, bytes]) -> None:
    """A plan may be asked for; what would change results, or bless them, refuses."""
    clone.run(sys.executable, "-m", *ENGINES["dvc"])
    with first_job_kept(clone) as lock:
        running = start(clone, *ENGINES["snakemake"], "--forceall")
        waited_for(lock, running)
        before = times(clone)
        clone.snakemake("-n")
        assert times(clone) == before
        blocked = f"(PID {running.pid}): snakemake"
        assert blocked in clone.agm("sync", fails=True)
        for command in (["repro", "list"], ["commit", "--force", "list"]):
            assert blocked in clone.run(sys.executable, "-m", "dvc", *command, fails=True)
    assert end(running)[0] == 0
    assert results(clone) == undisturbed


@pytest.mark.heavy
@pytest.mark.parametrize("then", ENGINES)
def test_a_killed_snakemake_locks_nobody_out(clone: Clone, undisturbed: dict[str, bytes], then: str) -> None:
    """Its job lives on, as an orphan: the next engine's waits for that, and does not do it again."""
    with first_job_kept(clone) as lock:
        running = start(clone, *ENGINES["snakemake"])
        waited_for(lock, running)
        os.kill(running.pid, signal.SIGKILL)
        running.wait()
        if then == "snakemake":
            clone.snakemake("--unlock")
        following = start(clone, *ENGINES[then])
        time.sleep(random.uniform(0, 10))
    status, said = end(following)
    assert status == 0, said
    if then == "dvc":
        assert "had been killed. Auto removed it from the lock file" in said
    assert results(clone) == undisturbed
    assert then == "snakemake" or "up to date" in clone.dvc(*STATUS)


def test_two_of_the_same_job(fresh: Clone, forked: Forked, tmp_path: Path) -> None:
    alone, shared = (Clone(fresh.copy(tmp_path / name).folder, forked) for name in ("alone", "shared"))
    alone.agm("generate", "dial")
    with first_job_kept(shared) as lock:
        both = [forked.start(shared.folder, "agm", "generate", "dial") for _ in range(2)]
        waited_for(lock, *both)
    ends = [end(process) for process in both]
    assert [status for status, _ in ends] == [0, 0], ends
    assert sum("generate dial: up to date" in said for _, said in ends) == 1, ends
    assert results(shared) == results(alone) != {}


@pytest.mark.heavy
def test_started_at_any_moment(fresh: Clone, undisturbed: dict[str, bytes], tmp_path: Path) -> None:
    """Whoever comes when: nothing is corrupt, and who refused is content when started again."""
    for number, pair in enumerate([("snakemake", "dvc"), ("dvc", "snakemake"), ("dvc", "dvc"), ("snakemake",) * 2]):
        clone = fresh.copy(tmp_path / str(number))
        first = start(clone, *ENGINES[pair[0]])
        time.sleep(random.uniform(0, 15))
        second = start(clone, *ENGINES[pair[1]])
        ends = [end(first), end(second)]
        for name in pair:
            clone.run(sys.executable, "-m", *ENGINES[name])
        assert results(clone) == undisturbed, (pair, ends)
