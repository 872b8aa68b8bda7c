"""What a user installs: one lock file, that names no registry and holds what the project asks for."""

import re
import tomllib
from importlib.metadata import version
from pathlib import Path

import yaml
from packaging.requirements import Requirement

ROOT = Path(__file__).parent.parent
LOCK = (ROOT / "requirements.lock").read_text()
LOCKED = dict(re.findall(r"^([a-z0-9-]+)==([^ ]+)", LOCK, flags=re.MULTILINE))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def test_the_lock_names_no_registry_and_every_package_has_hashes():
    assert not re.search(r"://|^ *--(index-url|extra-index-url|find-links)", LOCK, flags=re.MULTILINE)
    entries = re.split(r"^(?=[a-z0-9-]+==)", LOCK, flags=re.MULTILINE)[1:]
    assert len(entries) == len(LOCKED)
    assert all("--hash=sha256:" in entry for entry in entries)


def test_the_lock_satisfies_what_the_project_asks_for():
    for line in [*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["dev"]]:
        requirement = Requirement(line)
        assert requirement.specifier.contains(LOCKED[requirement.name]), line


def test_the_matched_set_of_torch_is_locked_and_installed():
    for line in (ROOT / "constraints.txt").read_text().splitlines()[1:]:
        name, wanted = line.split("==")
        assert LOCKED[name] == wanted
        assert version(name).split("+")[0] == wanted


def test_conda_users_get_the_lock_file_on_the_same_python():
    dependencies = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    assert "python=3.11" in dependencies
    assert {"pip": ["--requirement requirements.lock"]} in dependencies
