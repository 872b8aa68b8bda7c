"""AGM as slowly and as literally as can be: 2^M − 1 whole passes over masked raw inputs, an average over orderings.

Shares no code with `agm.attribution` and `agm.methods`: that is its use.
"""

import math
from itertools import combinations, permutations

import torch
from torch import Tensor, nn


def masked_passes(model: nn.Module, inputs: dict[str, Tensor]) -> dict[frozenset[str], Tensor]:
    """f(S) for every S: the full pass in training mode, then the masked ones in evaluation mode."""
    names = list(inputs)
    outputs = {frozenset(names): model.train()(inputs)}
    model.eval()
    for size in range(1, len(names)):
        for kept in combinations(names, size):
            masked = {name: x if name in kept else torch.zeros_like(x) for name, x in inputs.items()}
            outputs[frozenset(kept)] = model(masked)
    model.train()
    return outputs


def shapley(outputs: dict[frozenset[str], Tensor], names: list[str]) -> dict[str, Tensor]:
    """φ_m as the mean over all orderings of what m adds to those before it, with f(∅) = 0."""
    nothing = torch.zeros_like(next(iter(outputs.values())))
    responses = {name: nothing.clone() for name in names}
    orderings = list(permutations(names))
    for ordering in orderings:
        before: frozenset[str] = frozenset()
        for name in ordering:
            gain = outputs[before | {name}] - (outputs[before] if before else nothing)
            responses[name] = responses[name] + gain / len(orderings)
            before = before | {name}
    return responses


class SlowAgm:
    """κ and gradients step by step, in Python numbers where the paper has numbers."""

    def __init__(self, alpha: float, bound: float | None) -> None:
        self.alpha, self.bound = alpha, bound
        self.history: list[dict[str, float]] = []

    def step(self, model: nn.Module, inputs: dict[str, Tensor], labels: Tensor) -> tuple[dict, dict, Tensor]:
        """Gradients are left in the model; returns φ, κ and the loss."""
        names = list(inputs)
        responses = shapley(masked_passes(model, inputs), names)
        score = {
            name: sum(
                -math.log(max(torch.softmax(row, 0)[label].item(), 1e-8))
                for row, label in zip(phi, labels, strict=True)
            )
            / len(labels)
            for name, phi in responses.items()
        }
        earlier = len(self.history) or 1
        mean = {name: sum(past[name] for past in self.history) / earlier for name in names}
        kappa = {}
        for name in names:
            gap = self._ratio(mean, name) - self._ratio(score, name)
            kappa[name] = math.exp(self.alpha * (gap if self.bound is None else min(gap, self.bound)))
        self.history.append(score)
        total = sum(responses.values())
        slope = (torch.softmax(total.detach(), 1) - nn.functional.one_hot(labels, total.shape[1])) / len(labels)
        # dL/dθ = Σ_m κ_m ⟨dL/dφ_m, dφ_m/dθ⟩, and dL/dφ_m is the same for every m.
        sum(kappa[name] * (slope * phi).sum() for name, phi in responses.items()).backward()
        return responses, kappa, nn.functional.cross_entropy(total, labels)

    @staticmethod
    def _ratio(score: dict[str, float], name: str) -> float:
        if len(score) == 2:
            return math.exp(next(value for other, value in score.items() if other != name) - score[name])
        count = len(score)
        return math.exp(count / (count - 1) * (sum(score.values()) / count - score[name]))
