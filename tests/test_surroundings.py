"""Surroundings that are not good: streams, variables, locales, folders, git and DVC as people leave them.

Each does no harm, or is refused with what is wrong and what to do.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import yaml

from agm.pipeline import cli, config
from agm.pipeline.dag import fingerprints
from agm.pipeline.dag.engines import exclusive, keys, repository
from agm.pipeline.dag.graph import Graph
from agm.pipeline.errors import AgmError, of_system
from agm.pipeline.io.files import read_json
from agm.pipeline.runtime import progress, terminal, variables
from clone import ROOT, Clone
from forked import Forked
from small_shards import write_shards
from test_train import PARAMS

TOOLS = Path(sys.executable).parent
ANNOTATIONS = "data/dial/annotations/clips.json"
TINY = ["study=demo", "dial.clips=12", "num_parts=1"]
# Each would be imported in the place of a library.
SHADOWS = ("yaml.py", "torch.py", "json.py", "numpy.py")


def shell(command: str, folder: Path = ROOT, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a shell's command in which $AGM is `agm`."""
    return subprocess.run(
        ["bash", "-c", command],
        cwd=folder,
        env={**os.environ, "AGM": str(TOOLS / "agm"), "PYTHONPATH": str(ROOT / "src"), **environment},
        capture_output=True,
        encoding="utf-8",
    )


def in_a_child(work: Callable[[], object]) -> None:
    """Do `work` in a process of its own; it must not raise."""
    if (child := os.fork()) == 0:
        status = 1
        with suppress(BaseException):
            work()
            status = 0
        os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


# --- streams ---


CLOSED = "<&- >&- 2>&-"


@pytest.mark.parametrize("closed", ["2>&-", CLOSED])
def test_closed_streams(project: Graph, closed: str) -> None:
    done = shell(f"$AGM annotations nothing {closed}; echo $?; $AGM code {closed}; echo $?", Path.cwd())
    assert (done.stdout, done.stderr) == ("1\n0\n", ""), "the first one is an error, which nobody hears of"
    written = list(fingerprints.FOLDER.rglob("*.json"))
    assert written and all(map(read_json, written)), "no file got what is meant for a stream"


def test_a_pipe_that_nobody_reads() -> None:
    done = shell("$AGM datasets | true; echo ${PIPESTATUS[0]}")
    assert (done.stdout, done.stderr) == ("0\n", "")


def test_a_log_that_nobody_reads_does_not_end_the_work() -> None:
    imports = "import time; from agm.pipeline.runtime.progress import say"
    program = f"{imports}; say('a'); time.sleep(.5); say('b'); say('c'); print('done')"
    done = shell(f'{sys.executable} -c "{program}" 2> >(head -1 >/dev/null)')
    assert (done.returncode, done.stdout) == (0, "done\n")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[31mred\x1b[0m", r"\x1b[31mred\x1b[0m"),
        ("over\rwritten\b", r"over\rwritten\x08"),
        ("\x9b2J", r"\x9b2J"),
        ("abc\u202efdp.exe", r"abc\u202efdp.exe"),
        ("a\udcffb", r"a\udcffb"),
        ("a line\n\tα – 名前 é", "a line\n\tα – 名前 é"),
    ],
)
def test_signs_that_act_on_a_terminal_are_shown(text: str, shown: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert terminal.harmless(text) == shown
    progress.say(text)
    progress.show(text)
    assert list(progress.track([1], 1, text)) == [1]
    out, err = capsys.readouterr()
    assert out == f"{shown}\n"
    assert err.startswith(f"{shown}\n{shown}: 1/1 in ")


def test_signs_in_an_error_are_shown(project: Graph, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["train", "late_sum", "\x1b[2J", "0"]) == 1
    assert r"no such job: train late_sum \x1b[2J 0" in capsys.readouterr().err


# --- variables and locales ---


@pytest.mark.parametrize(
    "setting",
    [
        *("AGM_DEVICE=meta", "AGM_DEVICE=nonsense", "AGM_DEVICE=,", "AGM_DEVICE=cpu:x", "AGM_DEVICE=cuda:0,mps"),
        *("AGM_WORKERS=abc", "AGM_WORKERS=0", "AGM_WORKERS=-1", "AGM_WORKERS=1.5", "AGM_WORKERS=²"),
        *("AGM_STORE_GB=x", "AGM_STORE_GB=nan", "AGM_STORE_GB=-1", "AGM_LEASES=/no/such/folder"),
    ],
)
def test_a_wrong_variable_is_refused_before_any_work(
    setting: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    name, value = setting.split("=")
    monkeypatch.setenv(name, value)
    assert cli.main(["datasets"]) == 1
    out, err = capsys.readouterr()
    assert not out
    assert err.startswith(f"error: {name} ") and f"where: {setting}\n  fix:   " in err


def test_variables_that_are_right(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name, value in [("DEVICE", "cpu, cuda:1"), ("WORKERS", "12"), ("STORE_GB", ".5"), ("LEASES", str(tmp_path))]:
        monkeypatch.setenv(f"AGM_{name}", value)
    found = (variables.devices(), variables.workers(), variables.store_bytes(), variables.leases())
    assert found == (["cpu", "cuda:1"], 12, 5e8, tmp_path)
    for name in ("DEVICE", "WORKERS", "STORE_GB", "LEASES"):
        monkeypatch.setenv(f"AGM_{name}", "")
    found = (variables.devices(), variables.workers(), variables.store_bytes(), variables.leases())
    assert found == ([], None, 2e10, Path("/tmp"))


def test_a_locale_that_is_not_utf_8(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "params", tmp_path / "params")
    ascii_only = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    # And without streams: the command that imports most bears that too.
    compose = f"$AGM compose study=spoken_digits dataset.root=/tmp/ünï {CLOSED}"
    done = shell(f"{compose} && $AGM datasets spoken_digits", tmp_path, **ascii_only)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert r"where: /tmp/\xfcn\xef" in done.stderr, "what the terminal cannot show is spelled out"
    params = yaml.safe_load((tmp_path / "params.yaml").read_text(encoding="utf-8"))
    assert params["dataset"]["root"] == "/tmp/ünï"


@pytest.mark.parametrize("name", ["x" * 90, "absent"])
def test_a_temporary_folder_of_a_long_name_or_none(tmp_path: Path, name: str) -> None:
    folder = tmp_path / name
    if name != "absent":
        folder.mkdir()
    program = "from agm.pipeline.runtime.parallel import parallel_map; print(*parallel_map(abs, range(20), 'work'))"
    done = shell(f'{sys.executable} -c "{program}"', TMPDIR=str(folder), AGM_WORKERS="2")
    assert done.stdout == f"{' '.join(map(str, range(20)))}\n", done.stderr


# --- the folder ---


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Graph:
    """A folder with shards and params.yaml, as the earlier steps would leave it."""
    monkeypatch.chdir(tmp_path)
    write_shards(Path("data/tiny"))
    Path("params.yaml").write_text(yaml.safe_dump(PARAMS))
    return Graph(config.load())


@pytest.fixture(scope="module")
def made(forked: Forked, tmp_path_factory: pytest.TempPathFactory) -> Clone:
    """A checkout in which Snakemake made the annotations, although modules of libraries' names lie in its root.

    By commands that import all they need, as a user's do.
    """
    clone = Clone.make(tmp_path_factory.mktemp("made"), *TINY, forked=forked)
    for name in SHADOWS:
        (clone.folder / name).write_text("raise SystemExit('not the library')")
    cold = Clone(clone.folder)
    cold.run(str(TOOLS / "snakemake"), "--cores", "2", ANNOTATIONS, AGM_WORKERS="2")
    return clone


@pytest.fixture
def clone(made: Clone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Clone:
    """A copy of it, and in it."""
    monkeypatch.chdir(tmp_path)
    return made.copy(tmp_path)


def test_modules_of_libraries_names_are_not_imported(made: Clone) -> None:
    assert (made.folder / ANNOTATIONS).exists()
    assert "recorded 2 of " in Clone(made.folder).run(str(TOOLS / "agm"), "record")


@pytest.mark.heavy
def test_processes_of_a_run_do_not_import_them_either(project: Graph) -> None:
    content = yaml.safe_load(Path("params.yaml").read_text())
    content["trainer"] |= {"processes": 2, "epochs": 1}
    Path("params.yaml").write_text(yaml.safe_dump(content))
    for name in SHADOWS:
        Path(name).write_text("raise SystemExit('not the library')")
    done = shell("$AGM concept late_sum audio 0", Path.cwd(), AGM_DEVICE="cpu")
    assert done.returncode == 0, done.stderr


def test_without_git(clone: Clone) -> None:
    shutil.rmtree(".git")
    for name in SHADOWS:
        Path(name).unlink()
    with pytest.raises(AgmError, match="git cannot be used here") as error:
        repository.check(Graph(config.load()))
    assert error.value.fix.startswith("`git init`, or `dvc config --local core.no_scm true`")
    # Snakemake does without.
    in_a_child(lambda: exclusive.hold(Graph(config.load())))
    clone.dvc("config", "--local", "core.no_scm", "true")
    assert "recorded 2 of " in clone.agm("record")


def test_a_damaged_lock_file_of_dvc(clone: Clone) -> None:
    for content in (b"", b"schema: '2.0'\nstages:\n  li", 512 * b"\0"):
        Path("dvc.lock").write_bytes(content)
        with pytest.raises(AgmError, match="records results is damaged") as error:
            repository.check(Graph(config.load()))
        assert error.value.where == Path("dvc.lock")
        assert "`git checkout dvc.lock`" in error.value.fix


def test_a_list_of_processes_that_a_full_disk_cut_short(clone: Clone) -> None:
    Path(".dvc/tmp").mkdir(exist_ok=True)
    for content in ("", '{"write": {"/x', "\0\0\0\0"):
        Path(".dvc/tmp/rwlock").write_text(content)
        Path(".dvc/tmp/lock").write_text("")
        repository.check(Graph(config.load()))
        assert json.loads(Path(".dvc/tmp/rwlock").read_text()) == {"write": {}, "read": {}}


def test_results_behind_a_link(clone: Clone, tmp_path_factory: pytest.TempPathFactory, capsys) -> None:
    scratch = tmp_path_factory.mktemp("scratch") / "data"
    shutil.move("data", scratch)
    Path("data").symlink_to(scratch)
    with pytest.raises(AgmError, match="'data' is a link out of this folder, and DVC refuses") as error:
        repository.check(Graph(config.load()))
    assert error.value.where == f"data -> {scratch}"
    # `agm code` is DVC's first stage: hours before it would refuse what it was to record.
    assert cli.main(["code"]) == 1
    assert "'data' is a link" in capsys.readouterr().err
    clone.agm("annotations", "clips", "--force")  # Snakemake's commands follow it
    assert "data" not in clone.run("git", "status", "--short"), "git ignores the link as it does the folder"


def test_a_link_within_the_project_is_no_matter(project: Graph) -> None:
    shutil.move("data", "elsewhere")
    Path("data").symlink_to("elsewhere")
    repository.check_links(project)


def test_snakemakes_linter_finds_nothing(made: Clone) -> None:
    said = made.snakemake("--lint")
    assert "your workflow is in a good condition" in said


# --- a folder of several users ---

root_only = pytest.mark.skipif(os.geteuid() != 0, reason="only root can be another user")
FIRST, SECOND = 1234, 65534


@pytest.fixture
def shared(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A project of the first user, in which all may write."""
    folder = Path(tempfile.mkdtemp(dir="/tmp"))
    monkeypatch.chdir(folder)
    write_shards(Path("data/tiny"))
    Path("params.yaml").write_text(yaml.safe_dump(PARAMS))
    keys.refresh(Graph(config.load()))
    give(folder, 0o777)
    yield folder
    shutil.rmtree(folder)


def give(folder: Path, mode: int) -> None:
    """Give all below a folder to the first user, with that mode for folders."""
    for path in (folder, *folder.rglob("*")):
        os.chown(path, FIRST, FIRST)
        path.chmod(mode if path.is_dir() else mode & 0o666)


def as_second(work: Callable[[], object]) -> None:
    """Do `work` as the second user; it must not raise."""

    def become_and_work() -> None:
        os.setgroups([])
        os.setgid(SECOND)
        os.setuid(SECOND)
        work()

    in_a_child(become_and_work)


@root_only
def test_keys_of_another_user(shared: Path) -> None:
    """Only the owner of a file may set its time: the second user replaces it."""
    graph = Graph(config.load())
    before = {path: path.read_text() for path in map(keys.path, graph.jobs)}
    as_second(lambda: keys.refresh(graph))
    for path, text in before.items():
        assert path.read_text() != text, "what must run has a new key"


@root_only
def test_the_lock_of_another_user(shared: Path) -> None:
    from agm.pipeline.runtime.lock import alone

    before = os.umask(0o077)
    try:
        with alone("list"):
            pass
    finally:
        os.umask(before)
    os.chown(".cache/locks/list.lock", FIRST, FIRST)
    os.chmod(".cache/locks", 0o755)

    def take() -> None:
        with alone("list"):
            pass

    as_second(take)


@root_only
def test_a_folder_of_another_user_that_is_not_shared(shared: Path) -> None:
    give(shared, 0o755)

    def refuse() -> None:
        with pytest.raises(PermissionError) as error:
            keys.refresh(Graph(config.load()))
        said = str(of_system(error.value))
        assert f"belongs to the user {FIRST}, who shares this project by `chmod -R g+w .`" in said

    as_second(refuse)
