"""`snakemake --profile slurm` submits what it should: read from the submissions themselves, by a stand-in for SLURM.

The stand-in `sbatch` writes down its arguments and does the job's work by making its files, so that the next
submissions follow; `squeue` calls every job completed. A real cluster is another test's matter.
"""

import json
import re
from collections import defaultdict
from pathlib import Path

import pytest

from clone import Clone

SBATCH = """\
#!/usr/bin/env python3
import json, os, re, sys
from pathlib import Path
from agm import config
from stand_in import make
from agm.graph import Graph

command = next(word for word in sys.argv if word.startswith("--wrap="))
step, cell = re.search(r"--target-jobs '?(\\w+):(\\S*?)'? ", command).groups()
wildcards = dict(each.split("=") for each in cell.split(",") if each)
order = ("set", "fusion", "modality", "part", "method", "seed")
make(Graph(config.load()).job(step, *(wildcards[name] for name in order if name in wildcards)))
Path(os.environ["SUBMISSIONS"], f"{os.getpid()}.json").write_text(json.dumps([step, *sys.argv[1:]]))
print(os.getpid())
"""
STAND_IN = """\
from agm import config, provenance
from agm.files import replacing, write_json
from agm.graph import Graph

def make(job):
    for output in job.outputs:
        with replacing(output) as temporary:
            temporary.write_text("made") if output.suffix else temporary.mkdir()
    write_json(job.index, {"made_from": provenance.expected(job, config.read())})

if __name__ == "__main__":
    for job in Graph(config.load()).jobs:
        make(job)
"""
SQUEUE = 'for file in "$SUBMISSIONS"/*.json; do echo "$(basename "$file" .json)|COMPLETED"; done'
OTHERS = {
    "squeue": f"#!/bin/sh\n{SQUEUE}\n",
    "scontrol": "#!/bin/sh\necho 'MinJobAge               = 300 sec'\n",
    "sacct": "#!/bin/sh\necho 'Slurm accounting storage is disabled' >&2\nexit 1\n",
    "sinfo": "#!/bin/sh\n",
}


@pytest.fixture(scope="module")
def submissions(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[list[str]]]:
    """The arguments of every `sbatch`, by rule."""
    folder = tmp_path_factory.mktemp("submissions")
    clone = Clone.make(tmp_path_factory.mktemp("clone"), "parts=[0]", "study.seeds=[0]", "trainer.threads=6")
    tools = tmp_path_factory.mktemp("tools")
    for name, script in {"sbatch": SBATCH, **OTHERS}.items():
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


def test_one_submission_for_each_job(submissions: dict[str, list[list[str]]]) -> None:
    numbers = {step: len(each) for step, each in submissions.items()}
    assert numbers == {
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


@pytest.mark.parametrize(
    ("rule", "partition", "minutes", "megabytes", "cpus", "gpus"),
    [
        ("generate", "cpu", 60, 4000, 8, 0),
        ("ingest", "cpu", 240, 8000, 8, 0),
        ("extract", "cpu", 240, 8000, 2, 0),
        ("shard", "cpu", 240, 16000, 1, 0),
        ("inspect", "cpu", 240, 8000, 1, 0),
        ("train", "gpu", 1440, 32000, 6, 1),
        ("concept", "gpu", 1440, 32000, 6, 1),
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
        assert re.search(r"-p (\S+)", line)[1] == partition
        assert re.search(r"-t (\S+)", line)[1] == str(minutes)
        assert re.search(r"--mem (\S+)", line)[1] == str(megabytes)
        assert re.search(r"--cpus-per-task=(\S+)", line)[1] == str(cpus), "not limited by the cores of this machine"
        assert re.findall(r"--gpus=(\S+)", line) == ([str(gpus)] if gpus else [])


def test_logs_of_the_cluster_lie_with_the_others(submissions: dict[str, list[list[str]]]) -> None:
    for arguments in (each for rule in submissions.values() for each in rule):
        assert "/logs/slurm/rule_" in arguments[arguments.index("--output") + 1]
        assert Path(arguments[arguments.index("-D") + 1]).is_dir()
