"""`snakemake --profile slurm` submits what its table says: read from the submissions, by a stand-in for SLURM.

The stand-in `sbatch` writes down its arguments and does the work of the job, or of all jobs of the array, by making
their files, so that the next submissions follow; `squeue` calls every job completed. A real cluster is the matter of
test_slurm.py.
"""

import json
import re
import sys
from collections import defaultdict
from pathlib import Path

import pytest
import yaml

from agm.pipeline.dag.engines import slurm
from agm.pipeline.errors import AgmError
from clone import ROOT, Clone
from forked import Forked

SBATCH = """\
#!{python} -IS
import base64, json, os, re, sys, zlib
from pathlib import Path

first = next(word for word in sys.argv if word.startswith("--wrap="))
others = re.search(r"--slurm-jobstep-array-execs='?([\\w+/=]+)", first)
packed = json.loads(base64.b64decode(others[1])) if others else {}
known = json.loads(Path(os.environ["SUBMISSIONS"], "jobs").read_text())
for command in [first, *(zlib.decompress(bytes.fromhex(each)).decode() for each in packed.values())]:
    step, cell = re.search(r"--target-jobs '?(\\w+):(\\S*?)'? ", command).groups()
    wildcards = dict(each.split("=") for each in cell.split(",") if each)
    order = ("set", "fusion", "modality", "part", "method", "seed")
    job = known[" ".join([step, *(wildcards[name] for name in order if name in wildcards)])]
    for folder in job["folders"]:
        Path(folder).mkdir(parents=True, exist_ok=True)
    for path, content in job["files"]:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_text(content)
Path(os.environ["SUBMISSIONS"], f"{os.getpid()}.json").write_text(json.dumps([step, *sys.argv[1:]]))
print(os.getpid())
"""
STAND_IN = """\
import json, os
from pathlib import Path
from agm.pipeline import config
from agm.pipeline.dag import provenance
from agm.pipeline.io.files import replacing
from agm.pipeline.dag.graph import Graph
from agm.pipeline.steps.ingest import raw

PARAMS = config.load()

def make(job):
    for output in job.outputs:
        with replacing(output) as temporary:
            temporary.write_text("made") if output.suffix else temporary.mkdir()
    provenance.write(job, provenance.expected(job, PARAMS), {})

list(raw.check(PARAMS))
known = {}
for job in Graph(PARAMS).jobs:
    make(job)
    files = [path for path in (*job.outputs, job.record, job.index) if path.is_file()]
    known[" ".join([job.step, *job.cell])] = {
        "folders": [str(path) for path in job.outputs if path.is_dir()],
        "files": [(str(path), path.read_text()) for path in files],
    }
Path(os.environ["SUBMISSIONS"], "jobs").write_text(json.dumps(known))
"""
"""Makes the files of every job, and tells what is in them: `sbatch` makes them again without importing anything."""
SQUEUE = 'for file in "$SUBMISSIONS"/*.json; do echo "$(basename "$file" .json)|COMPLETED"; done'
OTHERS = {
    "squeue": f"#!/bin/sh\n{SQUEUE}\n",
    "scontrol": "#!/bin/sh\necho 'MinJobAge               = 300 sec'\n",
    "sacct": "#!/bin/sh\necho 'Slurm accounting storage is disabled' >&2\nexit 1\n",
    "sinfo": "#!/bin/sh\n",
    "sacctmgr": "#!/bin/sh\necho team\n",
}
PROFILE = Path("workflow/profiles/slurm/config.yaml")


@pytest.fixture(scope="module")
def submissions(forked: Forked, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[list[str]]]:
    """The arguments of every `sbatch`, by rule."""
    folder = tmp_path_factory.mktemp("submissions")
    study = ["num_parts=1", "study.seeds=[0]", "trainer.threads=6", "trainer.processes=2"]
    clone = Clone.make(tmp_path_factory.mktemp("clone"), *study, forked=forked)
    clone.edit(str(PROFILE), "  account: null\n", "  account: team\n")
    clone.edit(str(PROFILE), "  by_data_set:\n", "  by_data_set:\n    dial:\n      shard: {time: 700}\n")
    tools = tmp_path_factory.mktemp("tools")
    for name, script in {"sbatch": SBATCH.replace("{python}", sys.executable), **OTHERS}.items():
        (tools / name).write_text(script)
        (tools / name).chmod(0o755)
    (tools / "stand_in.py").write_text(STAND_IN)
    path = clone.environment["PATH"].replace(":", f":{tools}:", 1)
    setting = {"PATH": path, "SUBMISSIONS": str(folder), "PYTHONPATH": f"{clone.folder / 'src'}:{tools}"}

    # With everything in place, one piece of the DAG at a time is made again: what runs locally needs real data.
    clone.run("python", str(tools / "stand_in.py"), **setting)
    quickly = ["--latency-wait", "1", "--slurm-init-seconds-before-status-checks", "1"]
    for first, *last in (("generate", "generate"), ("ingest", "inspect", "evaluate")):
        again = ["--forcerun", first, "--until", *last]
        clone.run("snakemake", "--profile", "slurm", *quickly, *again, **setting)
    found = defaultdict(list)
    for file in folder.glob("*.json"):
        step, *arguments = json.loads(file.read_text())
        found[step].append(arguments)
    return found


def tasks(arguments: list[str]) -> int:
    """How many jobs a submission is."""
    array = re.search(r"--array=1-(\d+)", " ".join(arguments))
    return int(array[1]) if array else 1


def test_every_job_is_submitted(submissions: dict[str, list[list[str]]]) -> None:
    assert {step: sum(map(tasks, each)) for step, each in submissions.items()} == {
        "generate": 1,
        "ingest": 1,
        "extract": 3,
        "shard": 1,
        "inspect": 1,
        "train": 2,
        "concept": 3,
        "evaluate": 2,
        "evaluate_concept": 3,
    }, "`list` and `report` run on the login node"


def test_short_jobs_are_submitted_as_arrays(submissions: dict[str, list[list[str]]]) -> None:
    assert [tasks(each) for each in submissions["extract"]] == [3], "all are ready at once"
    assert all(tasks(each) == 1 for step in ("train", "concept") for each in submissions[step])


@pytest.mark.parametrize(
    ("rule", "partition", "minutes", "megabytes", "cpus", "gpus"),
    [
        ("generate", "cpu", 60, 4000, 8, 0),
        ("ingest", "cpu", 240, 8000, 8, 0),
        ("extract", "cpu", 240, 8000, 2, 0),
        ("shard", "cpu", 700, 16000, 1, 0),
        ("inspect", "cpu", 240, 8000, 1, 0),
        ("train", "gpu", 1440, 32000, 12, 2),
        ("concept", "gpu", 1440, 32000, 12, 2),
        ("evaluate", "gpu", 60, 16000, 1, 1),
        ("evaluate_concept", "gpu", 60, 16000, 1, 1),
    ],
)
def test_what_a_rule_asks_for(
    submissions: dict[str, list[list[str]]],
    rule: str,
    partition: str,
    minutes: int,
    megabytes: int,
    cpus: int,
    gpus: int,
) -> None:
    for arguments in submissions[rule]:
        line = " ".join(arguments)
        assert re.search(r"-A (\S+)", line)[1] == "team"
        assert re.search(r"-p (\S+)", line)[1] == partition
        assert re.search(r"-t (\S+)", line)[1] == str(minutes)
        assert re.search(r"--mem (\S+)", line)[1] == str(megabytes)
        assert re.search(r"--cpus-per-task=(\S+)", line)[1] == str(cpus), "not limited by the cores of this machine"
        assert re.findall(r"--gres=gpu:(\S+)", line) == ([str(gpus)] if gpus else [])
        assert "--requeue" in arguments


def test_logs_of_the_cluster_lie_with_the_others(submissions: dict[str, list[list[str]]]) -> None:
    for arguments in (each for rule in submissions.values() for each in rule):
        assert "/logs/slurm/rule_" in arguments[arguments.index("--output") + 1]
        assert Path(arguments[arguments.index("-D") + 1]).is_dir()


MOST = {"gpu": {"time": 100, "mem": 900}}
ROW = {"partition": "gpu", "time": 60, "mem": 400}


@pytest.fixture
def params(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("params.yaml").write_text("dataset: {name: dial}\ntrainer: {processes: 4}\n")


@pytest.mark.usefixtures("params")
def test_each_attempt_asks_for_more_up_to_the_most() -> None:
    asked = slurm.resources({"shard": ROW}, {}, MOST)["shard"]
    assert [eval(asked["runtime"], {"attempt": attempt}) for attempt in (1, 2, 3)] == [60, 100, 100]
    assert [eval(asked["mem_mb"], {"attempt": attempt}) for attempt in (1, 2, 3)] == [400, 800, 900]


@pytest.mark.usefixtures("params")
def test_processes_of_a_run_are_divided_among_nodes() -> None:
    asked = slurm.resources({"train": {**ROW, "gpus": 1, "nodes": 2}, "evaluate": {**ROW, "gpus": 1}}, {}, MOST)
    assert (asked["train"]["nodes"], asked["train"]["tasks"], asked["train"]["gres"]) == (2, 2, "gpu:2")
    assert eval(asked["train"]["cpus_per_task"], {"threads": 24}) == 12
    assert asked["evaluate"]["gres"] == "gpu:1" and "nodes" not in asked["evaluate"]


@pytest.mark.usefixtures("params")
@pytest.mark.parametrize(
    ("table", "by_data_set", "said"),
    [
        ({"trian": ROW}, {}, "table: trian"),
        ({"train": {**ROW, "cpu": 4}}, {}, "table: train"),
        ({"train": ROW}, {"vggsound": {"extrcat": {"time": 9}}}, "vggsound: extrcat"),
        ({"train": {**ROW, "partition": "big"}}, {}, "train: big"),
        ({"train": {**ROW, "nodes": 3}}, {}, "train: 3 nodes"),
    ],
)
def test_a_table_that_is_wrong_is_refused(table: dict, by_data_set: dict, said: str) -> None:
    with pytest.raises(AgmError, match=said):
        slurm.resources(table, by_data_set, MOST)


@pytest.mark.parametrize(
    ("storage", "command"),
    [("accounting_storage/slurmdbd", "sacct"), ("accounting_storage/none", "squeue"), (None, "squeue")],
)
def test_who_tells_how_jobs_do(
    storage: str | None, command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if storage:
        (tmp_path / "scontrol").write_text(f"#!/bin/sh\necho 'AccountingStorageType   = {storage}'\n")
        (tmp_path / "scontrol").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    slurm.keeps_accounts.cache_clear()
    assert slurm.status_command() == command
    slurm.keeps_accounts.cache_clear()


def test_the_profile_corrects_the_plugin_before_anything_else_is_asked_of_it() -> None:
    definitions = yaml.safe_load((ROOT / PROFILE).read_text())["__definitions__"]
    assert definitions[-1] == "slurm.correct_plugin()"


def test_without_the_plugin_snakemake_ends_with_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "snakemake_executor_plugin_slurm", None)
    with pytest.raises(SystemExit, match=r'pip install "agm-multimodal\[slurm\]"'):
        slurm.correct_plugin()
