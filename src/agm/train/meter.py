"""Averages over an epoch, kept on the device until the epoch is over."""

import torch
from torch import Tensor


class Meter:
    """Weighted means of named scalars, and their smallest and largest values."""

    def __init__(self) -> None:
        self.weights: dict[str, int] = {}
        self.sums: dict[str, Tensor] = {}
        self.lowest: dict[str, Tensor] = {}
        self.highest: dict[str, Tensor] = {}

    def add(self, values: dict[str, Tensor], weight: int) -> None:
        """Take in the scalars of one batch of `weight` clips."""
        for name, value in values.items():
            value = value.detach().double()
            self.weights[name] = self.weights.get(name, 0) + weight
            self.sums[name] = self.sums.get(name, 0) + value * weight
            self.lowest[name] = torch.minimum(self.lowest.get(name, value), value)
            self.highest[name] = torch.maximum(self.highest.get(name, value), value)

    def summary(self, ranges: tuple[str, ...] = ()) -> dict[str, float]:
        """Means by name; for `<prefix>_<rest>` with a prefix in `ranges` also `<prefix>_min_<rest>` and max."""
        row = {name: float(total) / self.weights[name] for name, total in self.sums.items()}
        for name in self.sums:
            prefix, _, rest = name.partition("_")
            if prefix in ranges:
                row[f"{prefix}_min_{rest}"] = float(self.lowest[name])
                row[f"{prefix}_max_{rest}"] = float(self.highest[name])
        return row
