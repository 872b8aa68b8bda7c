import pytest
import torch

# One thread: the results repeat, and tests side by side do not fight over the cores.
torch.set_num_threads(1)

LONGEST = ("test_slurm.py", "test_faults.py", "test_engines.py", "test_two_at_once.py", "test_calibration.py")
"""Started first, so that none of them is left to run alone at the end."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The heavy tests of the files that take longest come first, the others in their order."""
    places = {name: place for place, name in enumerate(LONGEST)}

    def place(item: pytest.Item) -> int:
        return places.get(item.path.name, len(LONGEST)) if item.get_closest_marker("heavy") else len(LONGEST)

    items.sort(key=place)
