"""One DAG, stated three times: `agm.pipeline.dag.graph`, Snakemake's rules and DVC's stages hold the same jobs, word
for word."""

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

from agm.methods import METHODS
from agm.pipeline import config
from agm.pipeline.dag import code
from agm.pipeline.dag.engines import keys
from agm.pipeline.dag.fingerprints import FOLDER
from agm.pipeline.dag.graph import MANY, Graph, Job
from agm.pipeline.steps import MODULES
from clone import ROOT, Clone
from forked import Forked

SEVERAL = ["fusion=[late_concat,early]", "num_parts=2", "study.seeds=[3,5]", "trainer.threads=2"]
STUDIES = {
    "two fusions and methods after runs": ["study=demo", "method=[joint,umt,g_blending]", *SEVERAL],
    "own data": ["study=spoken_digits", "dataset.root={root}"],
}


@dataclass
class Study:
    clone: Clone
    graph: Graph


@pytest.fixture(scope="module", params=STUDIES)
def study(request: pytest.FixtureRequest, forked: Forked, tmp_path_factory: pytest.TempPathFactory) -> Study:
    raw = tmp_path_factory.mktemp("raw")
    (raw / "manifest.csv").write_text("clip_id,label,image,audio\n")
    overrides = [each.format(root=raw) for each in STUDIES[request.param]]
    clone = Clone.make(tmp_path_factory.mktemp("clone"), *overrides, forked=forked)
    return Study(clone, Graph(config.load(clone.folder / "params.yaml")))


def paths(names: str | None) -> set[Path]:
    return {Path(name) for name in (names or "").split(", ") if name}


def test_snakemake(study: Study) -> None:
    # Of a rule with a message, Snakemake prints that and nothing else.
    rules = {file: file.read_text() for file in study.clone.folder.glob("workflow/rules/*.smk")}
    for file, text in rules.items():
        file.write_text(re.sub(r"    message:\n.*\n", "", text))
    plan = study.clone.snakemake("--dry-run", "--forceall", "--printshellcmds", "--cores", "64")
    for file, text in rules.items():
        file.write_text(text)
    jobs = {job.command: job for job in study.graph.jobs}
    for block in re.split(r"\n(?=(?:local)?rule \w+:\n)", plan)[1:]:
        said = dict(re.findall(r"^ {4}(\w+): (.*)$", block, re.MULTILINE))
        command = re.search(r"^Shell command: (agm .*) 2> (\S+)$", block, re.MULTILINE)
        if command is None:
            assert "rule all:" in block
            continue
        job = jobs.pop(command[1])
        assert paths(said["input"]) == {keys.path(job), *job.inputs, *job.data}
        assert paths(said["output"]) == {job.index, job.record, *job.outputs}
        assert said["log"] == command[2] == f"logs/{'/'.join((job.step, *job.cell))}.log"
        threads = {"train": study.graph.params.trainer.threads, "concept": study.graph.params.trainer.threads}
        assert int(said.get("threads", 1)) == {"generate": 64, "ingest": 64, "extract": 2, **threads}.get(job.step, 1)
    assert not jobs, "Snakemake does not plan these"


@pytest.mark.parametrize("study", ["two fusions and methods after runs"], indirect=True)
def test_the_plan_of_snakemake_names_every_command(study: Study) -> None:
    """By the messages of the rules, all of which this study has."""
    plan = study.clone.snakemake("--dry-run", "--forceall")
    assert set(re.findall(r"^Job \d+: (agm .*)$", plan, re.MULTILINE)) == {job.command for job in study.graph.jobs}


@pytest.mark.filterwarnings("ignore:_NoneStep:DeprecationWarning")
def test_dvc(study: Study) -> None:
    from dvc.repo import Repo

    with Repo(str(study.clone.folder)) as repo:
        stages = {each.name: each for each in repo.index.stages}
        edges = {(above.name, below.name) for below, above in repo.index.graph.edges}
    jobs: dict[str, list[Job]] = {}
    for job in study.graph.jobs:
        jobs.setdefault(job.stage, []).append(job)
    assert stages.keys() - {"code", "check"} == jobs.keys()
    for name, several in jobs.items():
        found = stages[name]
        many = several[0].step in MANY
        whole = [job.command.rpartition(" ")[0] if many else job.command for job in several]
        assert {found.cmd} == set(whole), "one command for all its jobs"
        outs = {Path(out.def_path) for out in found.outs}
        made = {path for job in several for path in (job.index, job.record, *job.outputs)}
        assert outs == ({path.parents[0 if several[0].step == "extract" else 1] for path in made} if many else made)
        assert all(out.persist for out in found.outs), "DVC deletes nothing"
        asked = {key for params in found.params for key in params.params}
        listed = {"extract": "num_parts"}.get(several[0].step, "study.seeds")  # what the command goes through
        assert asked == {key for job in several for key in job.parameters} | ({listed} if many else set())
        deps = {Path(dep.def_path) for dep in found.deps if dep not in found.params}
        sources = {FOLDER / f"{each}.json" for job in several for each in job.code}
        assert {dep for dep in deps if dep.is_relative_to(FOLDER)} == sources
        used = {path for job in several for path in (*job.inputs, *job.data)}
        for dep in deps - sources:
            assert any(path.is_relative_to(dep) for path in used), f"`{name}` does not read {dep}"
        for path in used:
            assert any(path.is_relative_to(dep) for dep in deps), f"DVC does not know that `{name}` reads {path}"
    wanted = {(above, job.stage) for job in study.graph.jobs for above in makers(study.graph, job)}
    assert {(above, below) for above, below in edges if above not in ("code", "check")} == wanted
    assert {below for above, below in edges if above == "check"} == {"list"}
    assert [metric.def_path for metric in stages["report"].outs if metric.metric] == ["reports/metrics.json"]
    assert sum(bool(out.metric) for each in stages.values() for out in each.outs) == 1


def makers(graph: Graph, job: Job) -> set[str]:
    """Stages of the jobs that make what `job` reads."""
    used = {*job.inputs, *job.data}
    return {each.stage for each in graph.jobs if not used.isdisjoint((each.index, *each.outputs))}


def test_jobs_come_after_what_they_read(study: Study) -> None:
    seen: set[str] = set()
    for job in study.graph.jobs:
        assert makers(study.graph, job) <= seen, job.command
        seen.add(job.stage)


# --- the source that decides a step's output ---

# What carries data, messages and parameters, and decides no result.
CARRIERS = {
    "agm",
    "agm.extras",
    "agm.methods",
    "agm.pipeline.cli",
    "agm.pipeline.steps",
    "agm.pipeline.dag.code",
    "agm.pipeline.errors",
    "agm.pipeline.io.files",
    "agm.pipeline.dag.graph",
    "agm.pipeline.runtime.lease",
    "agm.pipeline.runtime.lock",
    "agm.pipeline.runtime.parallel",
    "agm.pipeline.runtime.progress",
    "agm.pipeline.dag.provenance",
    "agm.pipeline.dag.store",
    "agm.pipeline.dag.unfinished",
    "agm.pipeline.runtime.variables",
}


@cache
def source(module: str) -> Path | None:
    """The file of a module of the package, or None where `module` is a name inside one."""
    path = ROOT / "src" / Path(*module.split("."))
    return next((each for each in (path / "__init__.py", path.with_suffix(".py")) if each.exists()), None)


def executed(tree: ast.AST) -> Iterator[ast.AST]:
    """The nodes of a module, less what is for a type checker only."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            continue
        yield node
        yield from executed(node)


@cache
def imports(module: str) -> frozenset[str]:
    """Modules of the package that `module` imports, at its head or within a function."""
    found = set()
    for node in executed(ast.parse(source(module).read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{module} has a relative import, which this test does not follow"
            names = {alias.name for alias in node.names}
            found |= {node.module, *(f"{node.module}.{name}" for name in names)}
            # A package that finds its modules by name. Methods have fingerprints of their own.
            if "import_module" in names and module != "agm.methods":
                found |= {f"{module}.{each.stem}" for each in source(module).parent.glob("[!_]*.py")}
    # A package is run before its modules.
    found |= {".".join(name.split(".")[:n]) for name in found for n in range(1, name.count(".") + 1)}
    return frozenset(name for name in found if name.split(".")[0] == "agm" and source(name))


def decides(module: str) -> bool:
    """Whether a module can decide a result: not a carrier, and more than a docstring."""
    carrier = module in CARRIERS or module.startswith("agm.pipeline.config")
    return not carrier and len(ast.parse(source(module).read_text()).body) > 1


@pytest.mark.parametrize("step", code.STEPS)
def test_code_lists_what_a_step_imports(step: str) -> None:
    seen, todo = set(), {MODULES[step]}
    while todo:
        module = todo.pop()
        seen.add(module)
        if module not in CARRIERS:
            todo |= imports(module) - seen
    # Each method has a fingerprint of its own, and the jobs that run it name that one.
    own = {f"agm.methods.{name}" for name in METHODS}
    seen -= own
    listed = [ROOT / "src/agm" / each for each in code.STEPS[step]]
    assert all(each.exists() for each in listed)
    missing = {name for name in seen if decides(name) and not any(source(name).is_relative_to(each) for each in listed)}
    assert all(any(source(name).is_relative_to(each) for name in seen) for each in listed), "more than it imports"
    assert not missing, "a change in these would go unseen: add them to agm.pipeline.dag.code.STEPS"
