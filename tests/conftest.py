import gc
import os
from collections.abc import Iterator
from pathlib import Path

# One thread: the results repeat, and tests side by side do not fight over the cores. OpenBLAS reads this when NumPy is
# first imported, and with as many threads as cores in each of two workers it waits more than it computes.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import pytest
import torch

from forked import Forked

# They are imported by test files, and assert for them.
pytest.register_assert_rewrite("battery", "tiny")

torch.set_num_threads(1)

# Each search for garbage would go through all that the imports make: a second, again and again.
gc.disable()


def pytest_collection_finish() -> None:
    """From now on objects are searched for garbage, but those of the modules."""
    gc.freeze()
    gc.enable()


IS_WORKER = "PYTEST_XDIST_WORKER" in os.environ
"""Whether this process is one of several of pytest-xdist, which the one that collects the results has started."""
LONGEST = (
    "test_slurm.py",
    "test_faults.py",
    "test_engines.py",
    "test_two_at_once.py",
    "test_calibration.py",
    "test_every_method.py",
    "test_exactness.py",
    "test_report.py",
)
"""Started first, so that none of them is left to run alone at the end."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The files that take longest come first, the others in their order."""
    places = {name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(item.path.name, len(LONGEST)))


@pytest.fixture(scope="module")
def without_fsync() -> Iterator[None]:
    """Files are not waited for until the disk has them: for tests in which no power fails."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: None)
        yield


@pytest.fixture(scope="session")
def of_all_workers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that all workers of pytest-xdist share."""
    folder = tmp_path_factory.getbasetemp()
    return folder.parent if IS_WORKER else folder


@pytest.fixture(scope="session")
def forked(of_all_workers: Path) -> Forked:
    """A server where `agm` and the engines start at once."""
    return Forked(of_all_workers / "forked", owner=os.getppid() if IS_WORKER else os.getpid())
