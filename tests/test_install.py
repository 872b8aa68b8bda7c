"""What a user installs: one lock file, that names no registry and holds what the project asks for."""

import ast
import re
import sys
import tomllib
from importlib.metadata import packages_distributions, version
from pathlib import Path

import yaml
from packaging.requirements import Requirement

import agm
from agm.extras import DISTRIBUTION
from agm.pipeline.steps.report import environment

ROOT = Path(__file__).parent.parent
LOCK = (ROOT / "requirements.lock").read_text()
LOCKED = dict(re.findall(r"^([a-z0-9-]+)==([^ ]+)", LOCK, flags=re.MULTILINE))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def test_the_lock_names_no_registry_and_every_package_has_hashes():
    assert not re.search(r"://|^ *--(index-url|extra-index-url|find-links)", LOCK, flags=re.MULTILINE)
    entries = re.split(r"^(?=[a-z0-9-]+==)", LOCK, flags=re.MULTILINE)[1:]
    assert len(entries) == len(LOCKED)
    assert all("--hash=sha256:" in entry for entry in entries)


def declared(*extras: str) -> list[Requirement]:
    """What the project needs, and what these extras and those that they name need on top."""
    found = [Requirement(line) for line in PROJECT["dependencies"]]
    todo, seen = list(extras), set()
    while todo:
        extra = todo.pop()
        if extra in seen:
            continue
        seen.add(extra)
        for line in PROJECT["optional-dependencies"][extra]:
            requirement = Requirement(line)
            if requirement.name == DISTRIBUTION:
                todo += requirement.extras
            else:
                found.append(requirement)
    return found


def test_the_lock_satisfies_what_the_project_and_its_extras_ask_for():
    for requirement in declared("all", "dev"):
        assert requirement.specifier.contains(LOCKED[requirement.name]), requirement


def test_all_is_every_extra_but_the_one_for_work_on_the_source():
    names = set(PROJECT["optional-dependencies"]) - {"dev"}
    assert {str(each) for each in declared("all")} == {str(each) for each in declared(*names)}


def test_the_library_needs_torch_and_numpy_and_any_newer_version_will_do():
    assert {each.name for each in declared()} == {"torch", "numpy"}
    assert {spec.operator for each in declared() for spec in each.specifier} == {">="}


def test_every_package_that_the_source_imports_is_declared():
    """A package that another one happens to bring may go away with its next version."""
    names = {each.name for each in declared("all")}
    brought = {"pydantic-core"}  # pydantic needs exactly one version of it and shows its classes to users
    owners = packages_distributions()
    for path in (ROOT / "src").rglob("*.py"):
        for module in imported(ast.parse(path.read_text())):
            found = {re.sub(r"[-_.]+", "-", owner).lower() for owner in owners.get(module, ())}
            assert found & (names | brought), f"{path} imports {module}"


def imported(tree: ast.Module) -> set[str]:
    """Names of the packages that a source imports, without Python's own and agm itself."""
    modules = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            modules.add(node.module)
    packages = {module.partition(".")[0] for module in modules}
    return packages - sys.stdlib_module_names - {"agm"}


def test_the_distribution_has_one_name_and_one_version():
    assert PROJECT["name"] == DISTRIBUTION
    assert version(DISTRIBUTION) == agm.__version__


def test_the_report_names_the_versions_of_all_libraries_and_of_no_tool():
    names = {each.name for each in declared("all")}
    found = environment.libraries()
    assert found.keys() == names | {"python", "agm"}
    assert all(found[name] == version(name) for name in names)


def test_no_page_tells_to_install_another_program():
    pages = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")]
    for page in pages:
        assert not re.search(r"(pip|uv) install ([^`\n]* )?[\"']?agm\b(?!-)", page.read_text()), page


def test_the_matched_set_of_torch_is_locked_and_installed():
    for line in (ROOT / "constraints.txt").read_text().splitlines()[1:]:
        name, wanted = line.split("==")
        assert LOCKED[name] == wanted
        assert version(name).split("+")[0] == wanted


def test_conda_users_get_the_lock_file_on_the_same_python():
    dependencies = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    assert "python=3.11" in dependencies
    assert {"pip": ["--requirement requirements.lock"]} in dependencies
