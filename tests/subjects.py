"""The methods that the battery is run over, and what it must be told of each."""

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from agm import methods
from agm.methods import Method, Window
from agm.methods.method import Network
from agm.models import Model, Multimodal
from agm.models.fusion import Fusion
from tiny import DIM, SIZES, network, seed_draws


def no_copy(first: Method, second: Method) -> None:
    """Nothing to copy."""


@dataclass(frozen=True)
class Case:
    """What cannot be asked of the class.

    Attributes:
        arguments: with which the method acts in the first epochs, of a few steps each.
        neutral: arguments with which it is plain joint training; None where there are none, and `no_neutral` says why.
        neutral_epoch: the epoch in which they make it so.
        no_neutral: why it never is plain joint training.
        terms: whether it reads u_m, which is a term of an additive fusion, and of a black box f with the others masked.
        scaled: whether it multiplies the gradients of a modality's own part by the coefficients that it reports.
        differentiable: arguments with which its loss has the gradients that it leaves.
        not_differentiable: why there are none.
        apart: names of weights whose gradients are no derivative of the loss, by their beginnings.
        in_turn: why the order of the modalities is a part of the method.
        epochs: after which all its state has been of use.
        align_weights: gives a method the weights of another one that has its modalities in another order, where a
            weight has columns in that order.
        align_epoch: gives it the choices that the other one has made for an epoch.
    """

    arguments: Mapping[str, Any] = field(default_factory=dict)
    neutral: Mapping[str, Any] | None = None
    neutral_epoch: int = 0
    no_neutral: str = ""
    terms: bool = False
    scaled: bool = False
    differentiable: Mapping[str, Any] = field(default_factory=dict)
    not_differentiable: str = ""
    apart: tuple[str, ...] = ()
    in_turn: str = ""
    epochs: int = 3
    align_weights: Callable[[Method, Method], None] = no_copy
    align_epoch: Callable[[Method, Method], None] = no_copy


def same_removal(first: Method, second: Method) -> None:
    """CML removes the modalities in an order that it draws by their numbers."""
    second.removed = first.removed  # type: ignore[assignment]


def same_stage(first: Method, second: Method) -> None:
    """ReconBoost trains the modalities in their order."""
    second.modality, second.before = first.modality, first.before  # type: ignore[assignment]


def same_columns(first: Method, second: Method) -> None:
    """The layer that MMTM shares reads the streams in the order of the modalities."""
    for level, other in zip(first.exchange.levels, second.exchange.levels, strict=True):  # type: ignore
        parts = dict(zip(level.excite, level.squeeze.weight.chunk(len(level.excite), dim=1), strict=True))
        with torch.no_grad():
            other.squeeze.weight.copy_(torch.cat([parts[name] for name in other.excite], dim=1))


OWN_NETWORK = "it is a network of its own"
UNIMODAL_LOSSES = "its unimodal losses are there at any strength"
CASES = {
    "agm": Case(neutral={"alpha": 0.0}, differentiable={"alpha": 0.0}),
    "amco": Case({"rate": 0.1, "sigma": 0.3}, no_neutral=OWN_NETWORK),
    "arl": Case({"window": Window()}, {"gamma": 0.0, "window": Window(first=9)}, terms=True, scaled=True),
    "bml": Case(
        {"window": Window(), "share": 1.0},
        {"alpha": 0.0, "share": 0.0},
        terms=True,
        scaled=True,
        differentiable={"strength": 0.0},
    ),
    "cml": Case(
        no_neutral="the losses without a modality are there without a penalty", terms=True, align_epoch=same_removal
    ),
    "g_blending": Case(no_neutral=UNIMODAL_LOSSES),
    "greedy": Case({"warmup": 0, "window": 2, "stages": 1}, no_neutral=OWN_NETWORK, align_weights=same_columns),
    "inforeg": Case({"window": 1}, no_neutral=UNIMODAL_LOSSES, terms=True),
    "joint": Case(neutral={}),
    "lfm": Case({"weight": "learned", "rate": 10.0}, no_neutral="the alignment weighs 0.05 at least", terms=True),
    "mbsd": Case(no_neutral=UNIMODAL_LOSSES, terms=True, not_differentiable="its weights count as constants"),
    "mla": Case(no_neutral=OWN_NETWORK, in_turn="a modality's step is projected away from those before it"),
    "mmcosine": Case(no_neutral=OWN_NETWORK),
    "mmpareto": Case(no_neutral=UNIMODAL_LOSSES, apart=("encoders.",)),
    "modality_valuation": Case({"warmup": 1, "alpha": 3.0}, {"alpha": 0.0}, neutral_epoch=6),
    "mses": Case({"patience": 1}, {}, terms=True, epochs=8),
    "mslr": Case({"coefficients": {"audio": 0.5}}, {"coefficients": None}, terms=True, scaled=True, epochs=8),
    "ogm": Case(neutral={"alpha": 0.0}, terms=True, scaled=True),
    "ogm_ge": Case(neutral={"window": Window(first=9)}, terms=True, scaled=True),
    "opm": Case({"window": Window(), "share": 1.0}, {"share": 0.0}, terms=True, differentiable={"strength": 0.0}),
    "pmr": Case(neutral={"alpha": 0.0}),
    "reconboost": Case({"boost": 1, "rectify": 1}, {}, neutral_epoch=1, align_epoch=same_stage),
    "relearning": Case({"every": 1, "strength": 0.5}, {"strength": 0.0}, neutral_epoch=2),
    "sample_valuation": Case({"warmup": 1}, {"warmup": 9}),
    "umt": Case(neutral={"weight": 0.0}),
}
"""What methods of the library want to be known. A new one may do without."""


@dataclass(frozen=True)
class Subject:
    """A method under test."""

    kind: type[Method]
    case: Case = Case()

    def __str__(self) -> str:
        return self.kind.__name__

    @classmethod
    def named(cls, name: str) -> "Subject":
        """The method of the library of that name."""
        return cls(methods.get(name), CASES.get(name, Case()))

    @property
    def staged(self) -> bool:
        """Whether it wants encoders that are chains of stages."""
        dims = {"audio": DIM, "video": DIM}
        plain = Network(list(dims), dims, True, dict.fromkeys(dims, True), staged=False)
        return self.kind.refusal(plain) is not None

    @property
    def one_size(self) -> bool:
        """Whether it wants features of one size."""
        dims = {"audio": DIM, "video": DIM + 1}
        return self.kind.refusal(Network(list(dims), dims, True, dict.fromkeys(dims, True))) is not None

    @property
    def takes_black_boxes(self) -> bool:
        """Whether it trains a black box that names its encoders."""
        return self.kind.refusal(Network(["audio"], None, False, {"audio": True})) is None

    def network(self, fusion: str | type[Fusion] = "", count: int = 2, **options: Any) -> Multimodal:
        """A network that the method can train."""
        return network(fusion or self.usual_fusion, count, staged=self.staged, **options)

    @property
    def usual_fusion(self) -> str:
        """One that it can train, mixed if possible."""
        return "LateSum" if self.kind.needs_additive else "Gated"

    @property
    def fusions(self) -> list[str]:
        """An additive one, and a mixed one if it can train that."""
        return ["LateSum"] if self.kind.needs_additive else ["LateSum", "Gated"]

    def on(self, model: Model, seed: int = 0, **changes: Any) -> Method:
        """The method on a model, acting from the start."""
        arguments = {**self.case.arguments, **changes}
        for name in self.kind.prerequisites:
            arguments.setdefault(name, PREREQUISITES[name](model))
        coefficients = arguments.get("coefficients")
        if isinstance(coefficients, Mapping):
            arguments["coefficients"] = {name: c for name, c in coefficients.items() if name in model.modalities}
        seed_draws(seed)
        return self.kind(model, **arguments)


def teachers(model: Model) -> dict[str, nn.Module]:
    """Encoders that were trained before."""
    found = {}
    for name, encoder in model.encoders.items():
        found[name] = copy.deepcopy(encoder)
        seed_draws(100 + SIZES[name])
        for weight in found[name].parameters():
            nn.init.normal_(weight, std=0.5)
    return found


def histories(model: Model) -> dict[str, dict[str, list[float]]]:
    """Losses of runs that were made before, all different."""
    found = {}
    for name in (*model.modalities, "joint"):
        fall = 0.1 + SIZES.get(name, 7) / 20
        found[name] = {"train_loss": [1.0, 0.9 - 2 * fall], "val_loss": [1.1, 1.1 - fall]}
    return found


PREREQUISITES: dict[str, Callable[[Model], Any]] = {"teachers": teachers, "histories": histories}
"""What finished runs would give a method, by the name of the argument."""
