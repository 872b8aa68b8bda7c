"""Low-rank multimodal fusion: Liu et al., 'Efficient Low-rank Multimodal Fusion with Modality-Specific Factors',
ACL 2018.

    Z = Σ_r ⊙_m W_m^r [1; h_m],        f = W Z + b

Σ_r over the ranks, ⊙_m the product over the modalities, number by number: a linear map of the outer product of all
[1; h_m], whose tensor of weights has at most that rank. The 1 keeps the products of fewer modalities.

Deviation: the paper's Z is the output itself; here a linear classifier follows, as after every other fusion.
"""

from functools import reduce
from operator import mul

from torch import Tensor, nn

from agm.models.encoders import initialise
from agm.models.fusion.base import Features, Mixed


class LowRank(Mixed):
    """The outer product of all features through a low-rank map."""

    def __init__(self, dims: dict[str, int], classes: int, *, rank: int = 4, hidden: int = 512) -> None:
        super().__init__(dims, classes)
        self.rank = rank
        # The column of the 1 is a weight like the others: a bias would start at 0, and so would the product of
        # everything with a masked modality.
        self.factors = nn.ModuleList(nn.Linear(1 + dim, rank * hidden, bias=False) for dim in dims.values())
        self.classifier = nn.Linear(hidden, classes)
        initialise(self)

    def fuse(self, features: Features) -> Tensor:
        parts = [factor(with_one(h)) for factor, h in zip(self.factors, features.values(), strict=True)]
        # Not torch.prod, whose backward pass waits for the device to count zeros.
        return reduce(mul, parts).unflatten(1, (self.rank, -1)).sum(dim=1)


def with_one(feature: Tensor) -> Tensor:
    """[1; h], `[B, D] → [B, 1 + D]`."""
    return nn.functional.pad(feature, (1, 0), value=1.0)
