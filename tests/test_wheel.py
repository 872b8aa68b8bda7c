"""The wheel in an environment that has torch, numpy and what they need themselves, and nothing else."""

import email
import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import Distribution, distribution, packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement

import agm
from agm.extras import DISTRIBUTION
from clone import ROOT
from test_install import declared

SOURCE = ("pyproject.toml", "README.md", "LICENSE", "src")
"""What a wheel is built from."""

ONE_AGM_STEP = """\
import agm
import torch

encoders = {"audio": torch.nn.Linear(4, 3), "video": torch.nn.Linear(5, 2)}
model = agm.Multimodal(encoders, agm.fusion.LateConcat({"audio": 3, "video": 2}, classes=2))
method = agm.methods.AGM(model, alpha=1.0)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
inputs = {"audio": torch.randn(6, 4), "video": torch.randn(6, 5)}
labels = torch.tensor([0, 1, 0, 1, 0, 1])
before = [weight.clone() for weight in model.parameters()]
for _ in range(2):
    assert method.step(inputs, labels, optimizer).isfinite()
assert all(not torch.equal(old, new) for old, new in zip(before, model.parameters()))
assert agm.modality_responses(model, inputs).shape == (2, 6, 2)
try:
    agm.metrics.competition_strength(torch.randn(9, 5), torch.randn(9, 2), torch.randn(9, 5), torch.randn(9, 2))
except ImportError as error:
    print(error)
"""


@dataclass(frozen=True)
class Installed:
    """The wheel, and the environment in which it is installed."""

    wheel: Path
    folder: Path

    def python(self, program: str) -> str:
        """Run a program there; returns what it printed."""
        return self.run("python", "-c", program)

    def run(self, command: str, *arguments: str, status: int = 0) -> str:
        """Run a command of the environment, in its folder; returns what it printed on both streams."""
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
        done = subprocess.run(
            [self.folder / "bin" / command, *arguments],
            cwd=self.folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert done.returncode == status, done.stdout
        return done.stdout


def needed(*names: str) -> dict[str, Distribution]:
    """The installed distributions of these names, and all that they need."""
    found: dict[str, Distribution] = {}
    seen: set[tuple[str, str]] = set()
    todo = [Requirement(name) for name in names]
    while todo:
        requirement = todo.pop()
        name = re.sub(r"[-_.]+", "-", requirement.name).lower()
        found[name] = distribution(name)
        for extra in {"", *requirement.extras}:
            if (name, extra) in seen:
                continue
            seen.add((name, extra))
            for need in map(Requirement, found[name].requires or []):
                if need.marker is None or need.marker.evaluate({"extra": extra}):
                    todo.append(need)
    return found


def top(installed: Distribution) -> Iterator[Path]:
    """The files and folders of a distribution that lie directly in the folder of packages."""
    names = {file.parts[0] for file in installed.files or []}
    for name in sorted(names - {"..", "__pycache__"}):
        yield Path(str(installed.locate_file(name)))


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    source = tmp_path_factory.mktemp("source")
    for name in SOURCE:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, source / name)
    built = tmp_path_factory.mktemp("built")
    uv = [sys.executable, "-m", "uv", "--quiet", "--offline"]
    build = [*uv, "build", "--wheel", "--no-build-isolation", "--python", sys.executable, "--out-dir", str(built)]
    subprocess.run(build, cwd=source, check=True)
    (wheel,) = built.glob("*.whl")

    folder = tmp_path_factory.mktemp("environment")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    (packages,) = folder.glob("lib/python3*/site-packages")
    for each in needed("torch", "numpy").values():
        for path in top(each):
            # As links, because torch and what it needs are gigabytes; two distributions may share a folder.
            if not (packages / path.name).exists():
                (packages / path.name).symlink_to(path)
    install = [*uv, "pip", "install", "--no-deps", "--python", str(folder / "bin/python"), str(wheel)]
    subprocess.run(install, check=True)
    return Installed(wheel, folder)


def test_the_wheel_is_the_whole_package_and_nothing_else(installed: Installed) -> None:
    wanted = {
        str(path.relative_to(ROOT / "src"))
        for path in (ROOT / "src/agm").rglob("*")
        if path.suffix in (".py", ".j2", ".css", ".typed")
    }
    assert "agm/py.typed" in wanted
    names = zipfile.ZipFile(installed.wheel).namelist()
    assert {name for name in names if ".dist-info/" not in name} == wanted


def test_the_wheel_needs_torch_and_numpy_only(installed: Installed) -> None:
    file = zipfile.ZipFile(installed.wheel)
    (name,) = (each for each in file.namelist() if each.endswith(".dist-info/METADATA"))
    about = email.message_from_bytes(file.read(name))
    assert (about["Name"], about["Version"]) == (DISTRIBUTION, agm.__version__)
    needs = [line for line in about.get_all("Requires-Dist") if "extra ==" not in line]
    assert {Requirement(line).name for line in needs} == {"torch", "numpy"}


def test_the_environment_has_no_package_of_the_runner(installed: Installed) -> None:
    """Else the tests below would say nothing."""
    there = needed("torch", "numpy")
    optional = {each.name for each in declared("all")} - there.keys()
    assert {"scikit-learn", "scipy", "pyarrow", "polars", "pydantic", "snakemake", "dvc", "torchaudio"} <= optional
    owners = packages_distributions()
    modules = [name for name, several in owners.items() if {each.lower() for each in several} & optional]
    assert len(modules) >= len(optional)
    found = installed.python(
        "from importlib.util import find_spec\n"
        f"print([name for name in {modules} if find_spec(name) is not None])\n"
        "import torch, numpy\n"
        "print(torch.ones(2).sum().item())"
    )
    assert found == "[]\n2.0\n"


def test_the_library_is_imported_and_brings_nothing_heavy_with_it(installed: Installed) -> None:
    heavy = ("torch", "pyarrow", "polars", "pydantic", "hydra", "snakemake", "dvc", "sklearn", "scipy")
    found = installed.python(
        "import sys, agm\n"
        "print(agm.__version__, agm.__file__)\n"
        f"print([name for name in {heavy} if name in sys.modules])"
    )
    about, loaded = found.splitlines()
    assert about.startswith(f"{agm.__version__} {installed.folder}")
    assert loaded == "[]"


def test_the_command_says_which_extra_brings_the_runner(installed: Installed) -> None:
    assert installed.run("agm", "--version") == f"agm {agm.__version__}\n"
    said = installed.run("agm", "compose", "study=demo", status=1)
    assert f'fix:   pip install "{DISTRIBUTION}[pipeline]"' in said
    assert "Traceback" not in said


def test_one_step_of_agm(installed: Installed) -> None:
    if not ONE_AGM_STEP:
        pytest.skip("the library's public interface is not there yet")
    installed.python(ONE_AGM_STEP)
