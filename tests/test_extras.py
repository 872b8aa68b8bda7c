"""Optional packages: each belongs to an extra, and a feature without its package says which extra brings it."""

import os
import pickle
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest

from agm.extras import DISTRIBUTION, MissingExtra, require
from clone import ROOT, Clone
from forked import Forked


def test_a_module_that_is_installed_is_returned() -> None:
    import json.decoder

    assert require("json.decoder", "pipeline") is json.decoder


@pytest.mark.parametrize("module", ["no_such_package", "no_such_package.inside"])
def test_a_missing_package_names_the_command_that_installs_it(module: str) -> None:
    with pytest.raises(ImportError) as caught:
        require(module, "flow")
    what, where, fix = str(caught.value).splitlines()
    assert what == "The Python module 'no_such_package' is needed here and is not installed"
    assert where == f"  where: {sys.prefix}"
    assert fix == f'  fix:   pip install "{DISTRIBUTION}[flow]"'


def test_a_package_whose_own_import_fails_is_not_called_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "incomplete_package.py").write_text("import no_such_package\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="no_such_package") as caught:
        require("incomplete_package", "flow")
    assert not isinstance(caught.value, MissingExtra)


def test_the_error_crosses_a_process_boundary() -> None:
    error = pickle.loads(pickle.dumps(MissingExtra("cv2", "flow")))
    assert (error.module, error.extra, str(error)) == ("cv2", "flow", str(MissingExtra("cv2", "flow")))


# --- features of the pipeline whose package is not installed ---

OPTIONAL = {
    "cv2": "flow",
    "dvc": "dvc",
    "h5py": "hdf5",
    "snakemake_executor_plugin_slurm": "slurm",
    "tokenizers": "text",
    "transformers": "text",
}
HIDDEN = "import os, sys\nfor name in os.environ['HIDDEN'].split():\n    sys.modules[name] = None\n"
"""Run by Python before anything else: to import one of these packages fails as if it was not installed."""
IMPORT_ALL = """\
import importlib, pkgutil, sys
import agm

for module in pkgutil.walk_packages(agm.__path__, "agm."):
    importlib.import_module(module.name)
print(len([name for name in sys.modules if name.startswith("agm.")]))
"""

HOLD = """\
from agm.pipeline import config
from agm.pipeline.dag.engines import exclusive
from agm.pipeline.dag.graph import Graph

exclusive.hold(Graph(config.load()))
print("started")
"""
"""What the Snakefile does when its jobs start."""


def without(packages: Iterable[str], folder: Path, *command: str, cwd: Path | None = None) -> tuple[int, str]:
    """Run Python with `command` as its arguments where `packages` cannot be imported; the exit status and the output.

    Args:
        folder: where a file for Python's start may be written.
    """
    (folder / "sitecustomize.py").write_text(HIDDEN)
    environment = {**os.environ, "HIDDEN": " ".join(packages), "PYTHONPATH": f"{folder}:{ROOT / 'src'}"}
    done = subprocess.run(
        [sys.executable, *command],
        cwd=cwd,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    return done.returncode, done.stdout


def said(module: str) -> str:
    """The end of what a command says where `module` is missing."""
    return (
        f"error: The Python module '{module}' is needed here and is not installed\n"
        f"  where: {sys.prefix}\n"
        f'  fix:   pip install "{DISTRIBUTION}[{OPTIONAL[module]}]"\n'
    )


def test_every_module_is_imported_without_the_optional_packages(tmp_path: Path) -> None:
    status, printed = without(OPTIONAL, tmp_path, "-c", IMPORT_ALL)
    assert status == 0, printed
    assert int(printed.splitlines()[-1]) > 100


def test_optical_flow(monkeypatch: pytest.MonkeyPatch) -> None:
    from agm.pipeline.steps.extract import flow

    monkeypatch.setitem(sys.modules, "cv2", None)
    flow._method.cache_clear()
    with pytest.raises(MissingExtra, match=r"\[flow\]"):
        flow.dense_inverse_search(np.zeros((16, 16), np.uint8), np.zeros((16, 16), np.uint8))


READ_ALL = """\
import os
from functools import partial
from agm.extras import MissingExtra
from agm.pipeline.config.schema import Limits
from agm.pipeline.io import packed
from agm.pipeline.io.source import Source
from agm.pipeline.runtime.parallel import parallel_map
from agm.pipeline.steps.extract import step

if __name__ == "__main__":
    attempt = partial(step._attempt, load=packed.opened, most=Limits())
    rows = [Source("features.h5", member=f"rows/{number}") for number in range(20)]
    for os.environ["AGM_WORKERS"] in ("1", "2"):
        try:
            list(parallel_map(attempt, rows, "extract"))
        except MissingExtra as error:
            print(error)
"""


def test_a_missing_package_ends_the_step_and_costs_no_clip(tmp_path: Path) -> None:
    """What else goes wrong while a clip is read leaves out that clip."""
    (tmp_path / "features.h5").write_bytes(b"whatever")
    (tmp_path / "sitecustomize.py").write_text(HIDDEN)
    (tmp_path / "read_all.py").write_text(READ_ALL)
    paths = os.pathsep.join([str(tmp_path), str(ROOT / "src")])
    environment = {**os.environ, "HIDDEN": "h5py", "PYTHONPATH": paths}
    # In a process of its own: one that has had workers before starts the next with the environment of then.
    command = [sys.executable, "read_all.py"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.stdout.count("[hdf5]") == 2, f"with one worker and with two: {done.stderr}"


@pytest.mark.parametrize("package", ["tokenizers", "transformers"])
def test_text_by_published_networks(package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tokenizers import Tokenizer, models

    from agm.pipeline.steps.extract import tokens
    from agm.pipeline.steps.extract.pretrained import language

    Tokenizer(models.WordLevel({"[UNK]": 0}, "[UNK]")).save(str(tmp_path / "tokenizer.json"))
    tokens._tokenizer.cache_clear()
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingExtra, match=r"\[text\]"):
        language.network(str(tmp_path), "features.text.frozen")


@pytest.fixture(scope="module")
def clone(forked: Forked, tmp_path_factory: pytest.TempPathFactory) -> Clone:
    return Clone.make(tmp_path_factory.mktemp("clone"), "study=demo", forked=forked)


def test_a_command_shows_what_is_missing_and_how_to_install_it(clone: Clone, tmp_path: Path) -> None:
    (tmp_path / "hidden").mkdir()
    status, printed = without(["dvc"], tmp_path / "hidden", "-m", "agm.pipeline.cli", "record", cwd=clone.folder)
    assert (status, printed) == (1, said("dvc"))


def test_snakemake_starts_without_dvc(clone: Clone, tmp_path: Path) -> None:
    (tmp_path / "hidden").mkdir()
    hidden = OPTIONAL.keys() - {"snakemake_executor_plugin_slurm"}  # Snakemake imports all plugins that lie there
    plan = ("-m", "snakemake", "--dry-run", "--quiet", "rules")
    status, printed = without(hidden, tmp_path / "hidden", *plan, cwd=clone.folder)
    assert status == 0, printed
    status, printed = without(hidden, tmp_path / "hidden", "-c", HOLD, cwd=clone.folder)
    assert (status, printed) == (0, "started\n")
