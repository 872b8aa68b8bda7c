"""What is corrected in Snakemake's SLURM plugin: that it is right, that it is still needed, and for which versions.

The words are those of a real `sacct` and `squeue`. A real cluster is the matter of test_slurm.py.
"""

import asyncio
import inspect
import logging
import os
import tomllib
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import pytest
import snakemake_executor_plugin_slurm as plugin
from packaging.requirements import Requirement

from agm.pipeline.dag import code
from agm.pipeline.dag.engines import slurm_plugin
from agm.pipeline.errors import AgmError
from clone import ROOT

SAID = [
    ("7|RUNNING", {"7": "RUNNING"}),
    ("7|CANCELLED by 0", {"7": "CANCELLED"}),
    ("7_2|COMPLETED\n7_1|FAILED", {"7_1": "FAILED", "7_2": "COMPLETED"}),
    ("7_[1-2,5%1]|CANCELLED by 0", {"7_1": "CANCELLED", "7_2": "CANCELLED", "7_5": "CANCELLED"}),
    ("7_3|RUNNING\n7_[4]|PENDING", {"7_3": "RUNNING", "7_4": "PENDING"}),
]
UPSTREAM = {
    "query_job_status": "18486c01127934cc",
    "query_job_status_sacct": "50995b6ab97b23ce",
    "query_job_status_squeue": "0b0b20d1459f7468",
    "is_query_tool_available": "3d1086849faa2a1d",
    "_status_lookup_ids": "e0218916b7af456e",
    "Executor.check_active_jobs": "830f29e09bc60e8c",
}
"""Checksums of the plugin's own functions that are replaced, and of those that call them."""
LOG = logging.getLogger()
ORIGINAL = plugin.query_job_status


@pytest.fixture(autouse=True)
def _restored(monkeypatch: pytest.MonkeyPatch) -> None:
    """The plugin is as it was after each test."""
    for name in ("query_job_status", "is_query_tool_available"):
        monkeypatch.setattr(plugin, name, getattr(plugin, name))


@pytest.fixture
def sacct(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Put a command in the place of `sacct`, which prints the given lines when it is asked for JobID and State."""

    def prints(lines: str) -> None:
        (tmp_path / "sacct").write_text(f"#!/bin/sh\n[ $2 = --format=JobID,State ] && echo '{lines}'\n")
        (tmp_path / "sacct").chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")

    return prints


# --- the corrections ---


@pytest.mark.parametrize(("printed", "meant"), SAID)
def test_what_slurm_says_of_jobs_is_understood(
    printed: str, meant: dict[str, str], sacct: Callable[[str], None]
) -> None:
    sacct(printed)
    slurm_plugin.correct(accounts=True)
    question = plugin.query_job_status("sacct -X --format=JobIdRaw,State", LOG)
    assert asyncio.run(question)[0] == meant
    failing = plugin.query_job_status("false", LOG)
    assert asyncio.run(failing) == (None, None)


@pytest.mark.parametrize("accounts", [True, False])
def test_sacct_is_asked_only_where_there_are_accounts(accounts: bool, sacct: Callable[[str], None]) -> None:
    sacct("7|RUNNING")
    slurm_plugin.correct(accounts)
    assert plugin.is_query_tool_available("sacct") == accounts


# --- for which versions ---


def test_the_locked_version_is_one_that_is_corrected() -> None:
    slurm_plugin.check_version(version(slurm_plugin.DISTRIBUTION))


@pytest.mark.parametrize("found", ["2.7.1", "2.9.0", "3.0", "2.80.0"])
def test_other_versions_are_refused(found: str) -> None:
    with pytest.raises(AgmError) as error:
        slurm_plugin.check_version(found)
    assert found in error.value.what
    assert error.value.fix == 'pip install "snakemake-executor-plugin-slurm==2.8.*"'


def test_the_project_asks_for_the_versions_that_are_corrected() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    (asked,) = (each for each in map(Requirement, extras["slurm"]) if each.name == slurm_plugin.DISTRIBUTION)
    bounds = {"2.7.9": False, "2.8.0": True, "2.8.99": True, "2.9.0": False, "3.0.0": False}
    assert {each: asked.specifier.contains(each) for each in bounds} == bounds
    for each, allowed in bounds.items():
        assert (".".join(each.split(".")[:2]) in slurm_plugin.CORRECTED) == allowed


# --- whether they are still needed ---

CHANGED = (
    "{name} of Snakemake's SLURM plugin is not the function that agm.pipeline.dag.engines.slurm_plugin corrects. Read "
    "it: take away the corrections that it does not need any more, run tests/test_slurm.py, and write its new checksum "
    "here"
)


@pytest.mark.parametrize("name", UPSTREAM)
def test_the_plugin_is_the_one_that_was_corrected(name: str) -> None:
    function = plugin
    for part in name.split("."):
        function = getattr(function, part)
    source = inspect.getsource(function)
    if source.startswith(" "):  # a method
        source = f"class _:\n{source}"
    assert code.of_source(source)[:16] == UPSTREAM[name], CHANGED.format(name=name)


def test_the_plugin_still_takes_a_cancelled_job_for_another_state(sacct: Callable[[str], None]) -> None:
    sacct("7|CANCELLED by 0\n8_[1-2]|CANCELLED")
    found, _ = asyncio.run(ORIGINAL("sacct -X --format=JobID,State", LOG))
    assert found == {"7": "CANCELLED by 0", "8_[1-2]": "CANCELLED"}, "corrected upstream: take the correction away"


def test_the_plugin_still_asks_for_numbers_by_which_it_does_not_know_tasks() -> None:
    assert "JobIdRaw" in plugin.query_job_status_sacct("run"), "corrected upstream: take the correction away"
    assert plugin._status_lookup_ids("7_2") == ["7_2", "7"]


def test_the_plugin_still_asks_sacct_where_squeue_was_chosen() -> None:
    source = inspect.getsource(plugin.Executor.check_active_jobs)
    assert "Falling back to 'sacct'" in source, "corrected upstream: take the correction away"
