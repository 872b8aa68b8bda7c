"""A study under a real SLURM, hit in the midst of training by all that happens on a cluster, equals the local one."""

import contextlib
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from agm.pipeline import config
from agm.pipeline.dag.graph import Graph
from agm.pipeline.dag.unfinished import checkpoint_folder
from clone import Clone
from slurm import NODES, Slurm, missing, wait_for
from test_engines import JOBS, TINY

pytestmark = pytest.mark.heavy

EPOCHS = 80  # of about 0.1 s: long enough to be stopped in their midst
STUDY = [
    "method=[joint,agm]",
    *(each for each in TINY if "method=" not in each),
    f"trainer.epochs={EPOCHS}",
    "shards.row_group_size=4",  # so that each of two processes has clips to validate
]
RUNS = {
    "rule_train_wildcards_late_concat_joint_0": ("train", "late_concat", "joint"),
    "rule_train_wildcards_late_concat_agm_0": ("train", "late_concat", "agm"),
    "rule_concept_wildcards_late_concat_video_0": ("concept", "late_concat", "video"),
    "rule_concept_wildcards_late_concat_audio_0": ("concept", "late_concat", "audio"),
}
SAID = "logs/snakemake.txt"
QUICKLY = ["--slurm-init-seconds-before-status-checks", "1", "--latency-wait", "10"]


@dataclass
class Study:
    """A study that runs on the cluster, and what was done to it.

    Attributes:
        stopped: by fault, what the log of each run that it hit said last.
        resumed: by fault, where each of them went on: where it had stopped.
        asked: of a run that failed, the time and memory of its first job and of its second.
        waited: the states of jobs while all nodes were drained.
    """

    clone: Clone
    slurm: Slurm
    stopped: dict[str, list[str]] = field(default_factory=dict)
    resumed: dict[str, list[str]] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    waited: list[str] = field(default_factory=list)

    def log(self, run: str) -> str:
        file = self.clone.folder.joinpath("logs", *RUNS[run], "0.log")
        return file.read_text() if file.exists() else ""

    def jobs(self) -> dict[str, str]:
        """By run, the id of the job that trains it, or will."""
        return {what: job for job, what in self.slurm.jobs().items() if what in RUNS}

    def stop_all(self) -> dict[str, str]:
        """Let each run stand still once it has a checkpoint, so that none gets away; returns the jobs."""
        wait_for("jobs that train", lambda: set(self.jobs()) == set(RUNS), 900)
        jobs = self.jobs()
        with contextlib.chdir(self.clone.folder):
            graph = Graph(config.load())
            folders = {run: checkpoint_folder(graph.params, graph.job(*RUNS[run], 0)).absolute() for run in RUNS}

        def stand_still() -> bool:
            for run in [run for run, folder in folders.items() if list(folder.glob("epoch-*"))]:
                self.slurm.run("scancel", "--signal", "STOP", jobs[run])
                del folders[run]
            return not folders

        wait_for("training", stand_still, 300)
        return jobs

    def request(self, job: str) -> str:
        return self.slurm.run("squeue", "--noheader", "--job", job, "--format", "%l %m").strip()

    def hit(self, fault: str, *runs: str, by: Callable[[], object]) -> None:
        """Do it, and wait until all `runs` have written their checkpoints and stopped."""
        by()
        for run in runs:
            wait_for(f"stop of {run} by {fault}", lambda run=run: "stopped by SIGTERM" in self.log(run), 120)
            self.stopped.setdefault(fault, []).append(self.log(run).splitlines()[-1])

    def goes_on(self, fault: str, *runs: str) -> None:
        """Wait until the runs that a fault stopped go on, each from exactly where it stopped."""
        for run, stopped in zip(runs, self.stopped[fault], strict=True):
            epoch, batch = re.search(r"the checkpoint holds epoch (\d+), (?:batch (\d+)|its end);", stopped).groups()
            place = f"batch {batch} of epoch {epoch}" if batch else f"epoch {epoch}"
            wait_for(f"{run} going on", lambda: f"going on after {place}" in self.log(run), 300)  # noqa: B023
            self.resumed.setdefault(fault, []).append(place)


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Clone:
    """The study, with no results: of one commit, which the report names."""
    if reason := missing():
        pytest.skip(reason)
    return Clone.make(tmp_path_factory.mktemp("fresh"), *STUDY)


@pytest.fixture(scope="module")
def here(fresh: Clone, tmp_path_factory: pytest.TempPathFactory) -> Clone:
    """The study, by Snakemake on this machine."""
    clone = fresh.copy(tmp_path_factory.mktemp("here"))
    clone.snakemake()
    return clone


@pytest.fixture(scope="module", params=[False, True], ids=["without accounting", "with accounting"])
def there(fresh: Clone, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[Study]:
    """The same study by `snakemake --profile slurm`, ended after one fault upon another."""
    clone = fresh.copy(tmp_path_factory.mktemp("there"))
    running = Slurm.running(tmp_path_factory.mktemp("slurm"), accounts=request.param)
    with running as slurm, snakemake(clone) as engine:
        study = Study(clone, slurm)
        inject(study)
        assert engine.wait(600) == 0, (clone.folder / SAID).read_text()
        yield study


@contextlib.contextmanager
def snakemake(clone: Clone) -> Iterator[subprocess.Popen]:
    """Snakemake at work on the cluster; killed where the test ends before it."""
    command = [sys.executable, "-m", "snakemake", "--profile", "slurm", *QUICKLY]
    (clone.folder / SAID).parent.mkdir()
    with open(clone.folder / SAID, "w") as said:
        engine = subprocess.Popen(command, cwd=clone.folder, env=clone.environment, stdout=said, stderr=said)
    try:
        yield engine
    finally:
        engine.kill()
        engine.wait()


def inject(study: Study) -> None:
    """All the faults, one after another, while the four runs are trained: two on each node."""
    slurm = study.slurm
    jobs = study.stop_all()
    nodes = {run: slurm.run("squeue", "--noheader", "--job", job, "--format", "%N") for run, job in jobs.items()}
    late = "rule_train_wildcards_late_concat_agm_0"
    (cancelled,) = (run for run in RUNS if run != late and nodes[run] == nodes[late])
    preempted = [run for run in RUNS if nodes[run] != nodes[late]]
    other = nodes[preempted[0]].strip()

    slurm.kill_controller()
    time.sleep(30)  # more than once, Snakemake asks in vain
    slurm.start_controller()
    wait_for("return of the nodes", lambda: slurm.states() == ["mixed", "mixed"])
    assert study.jobs() == jobs

    study.asked.append(study.request(jobs[late]))
    slurm.run("scontrol", "update", f"JobId={jobs[late]}", "TimeLimit=1")
    urgent = ["sbatch", "--partition", "urgent", "--nodelist", other, "--gres", "gpu:2", "--output", "/dev/null"]
    study.hit("preemption", *preempted, by=lambda: slurm.run(*urgent, "--wrap", "true"))
    slurm.run("scontrol", "update", f"NodeName={','.join(NODES)}", "State=DRAIN", "Reason=test")
    study.hit("scancel", cancelled, by=lambda: slurm.run("scancel", jobs[cancelled]))
    study.hit("the time limit", late, by=lambda: None)  # of a minute, and SLURM looks twice a minute

    study.waited += [slurm.state(jobs[run]) for run in preempted]
    slurm.run("scontrol", "update", f"NodeName={','.join(NODES)}", "State=RESUME")
    study.goes_on("preemption", *preempted)
    study.goes_on("scancel", cancelled)
    study.goes_on("the time limit", late)
    study.asked.append(study.request(study.jobs()[late]))


def contents(clone: Clone) -> dict[str, bytes]:
    folders = ("data", "runs", "evaluations", "reports")
    files = (file for name in folders for file in (clone.folder / name).rglob("*") if file.is_file())
    return {str(file.relative_to(clone.folder)): file.read_bytes() for file in files}


def test_results_equal_those_of_a_local_run(here: Clone, there: Study) -> None:
    expected, found = contents(here), contents(there.clone)
    assert set(expected) == set(found)
    assert [name for name in expected if expected[name] != found[name]] == []


@pytest.mark.parametrize(("fault", "runs"), [("preemption", 2), ("scancel", 1), ("the time limit", 1)])
def test_a_run_that_was_hit_goes_on(there: Study, fault: str, runs: int) -> None:
    assert len(there.stopped[fault]) == len(there.resumed[fault]) == runs


def test_jobs_wait_for_nodes_that_are_drained(there: Study) -> None:
    assert there.waited == ["PENDING", "PENDING"]


def test_the_second_attempt_asks_for_more(there: Study) -> None:
    assert there.asked == ["1-00:00:00 32000M", "2-00:00:00 62.50G"]


def test_results_are_versioned_as_after_a_local_run(there: Study) -> None:
    jobs = JOBS - 2  # without the method that reads runs
    assert f"recorded {jobs} of {jobs} jobs" in there.clone.agm("record")
    assert not there.clone.changed()
    assert not there.clone.planned()


def test_logs_of_jobs_that_failed_are_kept(there: Study) -> None:
    logs = [file.read_text() for file in (there.clone.folder / "logs/slurm").glob("rule_*/late_concat_*/*.log")]
    assert len(logs) == 2, "of the jobs that were cancelled and that ran out of time"
    # SLURM sends SIGTERM more than once: the second may come while Python ends, its checkpoint written.
    ended = re.compile(r"returned non-zero exit status 143|died with <Signals.SIGTERM: 15>")
    assert all(ended.search(log) for log in logs)


def test_two_processes_on_two_nodes(here: Clone, there: Study, tmp_path: Path) -> None:
    clone = here.copy(tmp_path)
    clone.edit("params.yaml", f"  epochs: {EPOCHS}\n", "  epochs: 2\n")
    clone.edit("params.yaml", "  processes: 1\n", "  processes: 2\n")
    row = "    train:            {partition: gpu, time: 1440, mem: 32000, gpus: 1, nodes: "
    clone.edit("workflow/profiles/slurm/config.yaml", f"{row}1}}", f"{row}2}}")
    run = Path("runs/dial/late_concat/joint/seed-0")
    clone.agm("train", "late_concat", "joint", "0")
    expected = {file.name: file.read_bytes() for file in (clone.folder / run).iterdir()}

    clone.snakemake("--profile", "slurm", *QUICKLY, "--forcerun", "train", "--", str(run / "run.json"))
    assert {file.name: file.read_bytes() for file in (clone.folder / run).iterdir()} == expected
    said = there.slurm.run("squeue", "--noheader", "--states", "all", "--format", "%k %D %N")
    assert "rule_train_wildcards_late_concat_joint_0 2 one,two" in said
