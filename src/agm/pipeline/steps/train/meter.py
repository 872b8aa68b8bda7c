"""Averages over an epoch, kept on the device until the epoch is over."""

import torch
from torch import Tensor

from agm import distributed


class Meter:
    """Weighted means of named scalars, and their smallest and largest values.

    Attributes:
        weights: by name, how many clips there were.
    """

    def __init__(self) -> None:
        self.weights: dict[str, int] = {}
        self.sums: dict[str, Tensor] = {}
        self.lowest: dict[str, Tensor] = {}
        self.highest: dict[str, Tensor] = {}

    def add(self, values: dict[str, Tensor], weight: int) -> None:
        """Take in the scalars of one batch of `weight` clips."""
        for name, value in values.items():
            value = value.detach().double()
            self._add(name, value, value * weight, weight)

    def add_counts(self, counts: dict[str, Tensor], weight: int) -> None:
        """Take in how many of the `weight` clips of one batch have some property.

        Counts are whole numbers, so their share of all clips is the same however the clips lie in batches.
        """
        for name, count in counts.items():
            count = count.double()
            self._add(name, count / weight, count, weight)

    def _add(self, name: str, value: Tensor, total: Tensor, weight: int) -> None:
        self.weights[name] = self.weights.get(name, 0) + weight
        self.sums[name] = self.sums.get(name, 0) + total
        self.lowest[name] = torch.minimum(self.lowest.get(name, value), value)
        self.highest[name] = torch.maximum(self.highest.get(name, value), value)

    def summary(self, ranges: tuple[str, ...] = ()) -> dict[str, float]:
        """Means by name, over all processes; for `<prefix>_<rest>` with a prefix in `ranges` also
        `<prefix>_min_<rest>` and max, which are the same in each."""
        row = {}
        # A process without clips has no names; the first one always has some.
        for name in distributed.broadcast_names(list(self.sums)):
            total = torch.as_tensor(self.sums.get(name, 0.0), dtype=torch.float64).cpu()
            weight = distributed.summed(torch.tensor(self.weights.get(name, 0), dtype=torch.float64))
            row[name] = float(distributed.summed(total)) / float(weight)
        for name in self.sums:
            prefix, _, rest = name.partition("_")
            if prefix in ranges:
                row[f"{prefix}_min_{rest}"] = float(self.lowest[name])
                row[f"{prefix}_max_{rest}"] = float(self.highest[name])
        return row

    def state(self) -> dict[str, Tensor]:
        """What an interrupted epoch needs to go on, beside `weights`."""
        parts = {"sums": self.sums, "lowest": self.lowest, "highest": self.highest}
        state = {}
        for part, values in parts.items():
            state |= {f"{part}.{name}": value for name, value in values.items()}
        return state

    def restore(self, state: dict[str, Tensor], weights: dict[str, int]) -> None:
        """Take up what `state` gave."""
        self.weights = dict(weights)
        for name in weights:  # in their order, which is that of the history's columns
            self.sums[name] = state[f"sums.{name}"]
            self.lowest[name], self.highest[name] = state[f"lowest.{name}"], state[f"highest.{name}"]
