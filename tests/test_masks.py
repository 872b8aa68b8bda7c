"""What stands in the place of a masked input: numbers, tensors, functions, and what is learned."""

import copy
from collections.abc import Callable
from itertools import combinations
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import agm
from agm.methods import AGM, ModalityValuation
from agm.methods.method import Batch
from agm.methods.sample_valuation import with_copies
from agm.models import OnlyModality
from reference import shapley
from tiny import Data, Whole, close, gradients_of, mean_of_input, network, sgd

pytestmark = pytest.mark.numerical

TOKEN = torch.linspace(-1, 1, 5, dtype=torch.float64)
"""An input of `audio`."""


class Token(nn.Module):
    """A mask that is learned, as a module."""

    def __init__(self) -> None:
        super().__init__()
        self.shift = nn.Parameter(torch.tensor(0.3, dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        return x[:1] * 0 + self.shift


class OneBatch(list[tuple[dict[str, Tensor], Tensor]]):
    """A loader of a single batch."""

    def __init__(self, inputs: dict[str, Tensor], targets: Tensor) -> None:
        super().__init__([(inputs, targets)])
        self.num_samples = len(targets)


MASKS: dict[str, tuple[Any, Callable[[str, Tensor], Tensor]]] = {
    "number": (0.7, lambda name, x: torch.full_like(x, 0.7)),
    "tensor": (
        {"audio": TOKEN},
        lambda name, x: TOKEN.expand_as(x) if name == "audio" else torch.zeros_like(x),
    ),
    "function of the sample": (mean_of_input, lambda name, x: mean_of_input(x)),
    "one for all samples": (
        lambda x: x.mean(dim=0, keepdim=True),
        lambda name, x: x.mean(dim=0, keepdim=True).expand_as(x),
    ),
    "one per modality": (
        {"video": -2, "audio": mean_of_input},
        lambda name, x: {"video": torch.full_like(x, -2), "audio": mean_of_input(x)}.get(name, torch.zeros_like(x)),
    ),
    "module": (Token(), lambda name, x: torch.full_like(x, 0.3)),
    "parameters": (
        nn.ParameterDict({"audio": nn.Parameter(TOKEN.clone())}),
        lambda name, x: TOKEN.expand_as(x) if name == "audio" else torch.zeros_like(x),
    ),
}


def by_hand(
    model: nn.Module, inputs: dict[str, Tensor], masked: Callable[[str, Tensor], Tensor]
) -> dict[frozenset[str], Tensor]:
    """The full pass in training mode and the masked ones in evaluation mode, written out."""
    names = list(inputs)
    torch.manual_seed(0)
    outputs = {frozenset(names): model.train()(inputs)}
    model.eval()
    for size in range(1, len(names)):
        for kept in combinations(names, size):
            given = {name: x if name in kept else masked(name, x) for name, x in inputs.items()}
            outputs[frozenset(kept)] = model(given)
    model.train()
    return outputs


@pytest.mark.parametrize("kind", MASKS)
@pytest.mark.parametrize("count", [2, 3])
@pytest.mark.parametrize("form", ["fast", "black box"])
def test_responses_equal_the_masked_passes_written_out(kind: str, count: int, form: str) -> None:
    mask, masked = MASKS[kind]
    plain = network("Early", count, norm=True)
    inputs, _, _ = Data(plain).batch()
    wanted = shapley(by_hand(copy.deepcopy(plain), inputs, masked), plain.modalities)
    if form == "fast":
        model: agm.models.Model = agm.Multimodal(dict(plain.encoders), plain.fusion, mask=copy.deepcopy(mask))
    else:
        model = agm.BlackBox(Whole(plain), plain.modalities, mask=copy.deepcopy(mask))
    torch.manual_seed(0)
    found = agm.modality_responses(model.train(), inputs)
    close(found, torch.stack(list(wanted.values())))


@pytest.mark.parametrize("kind", MASKS)
def test_copies_of_samples_have_the_mask(kind: str) -> None:
    mask, masked = MASKS[kind]
    model = network("Gated", 2, mask=mask)
    inputs, targets, _ = Data(model).batch()
    grown = with_copies(model, Batch(inputs, targets), [2, 0], {"audio": [False, True], "video": [True, False]})
    alone = {name: masked(name, x[[2, 0]]) for name, x in inputs.items()}
    close(grown.inputs["audio"][4:], torch.stack([alone["audio"][0], inputs["audio"][0]]))
    close(grown.inputs["video"][4:], torch.stack([inputs["video"][2], alone["video"][1]]))


@pytest.mark.parametrize("mask", [Token(), nn.Parameter(torch.tensor(0.3, dtype=torch.float64))], ids=["module", "one"])
def test_a_learned_mask_is_trained_stored_and_moved_with_the_model(mask: Any) -> None:
    model = network("Gated", 2, mask=copy.deepcopy(mask))
    (name,) = [name for name, _ in model.named_parameters() if name.startswith("mask")]
    before = model.get_parameter(name).item()
    assert name in model.state_dict()
    method, data = AGM(model), Data(model)
    data.start(method)
    inputs, targets, _ = data.batch()
    with pytest.raises(ValueError, match=f"the optimizer lacks model.{name}"):
        parts = [*model.encoders.parameters(), *model.fusion.parameters()]
        method.step(inputs, targets, torch.optim.SGD(parts, lr=0.1))
    optimizer = sgd(method)
    for _ in range(2):  # in the first step of AGM all coefficients need not differ
        method.step(inputs, targets, optimizer)
    assert model.get_parameter(name).item() != before
    assert name in gradients_of(method)


def test_a_mask_of_another_shape_is_refused() -> None:
    model = network(mask=lambda x: x.mean(dim=0))
    inputs, _, _ = Data(model).batch()
    with pytest.raises(ValueError, match=r"the mask of audio has the shape \[5\], expected \[4, 5\], or \[1, 5\]"):
        agm.modality_responses(model, inputs)


def test_one_modality_alone_has_the_mask_of_the_whole() -> None:
    model = network("Gated", 2, mask=0.7)
    inputs, _, _ = Data(model).batch()
    only = OnlyModality(model, "audio")
    close(only(inputs), model(inputs | {"video": torch.full_like(inputs["video"], 0.7)}))
    close(only.masked("video", inputs["video"]), torch.full_like(inputs["video"][:1], 0.7))
    (audio, video) = agm.modality_responses(only.eval(), inputs)
    assert audio.abs().sum() > 0
    # f of either coalition without audio is the same: what video adds to the others is nothing, and alone f(masks).
    close(video, only({"audio": torch.full_like(inputs["audio"], 0.7), "video": inputs["video"]}) / 2)


def test_what_a_weightedis_given_besides_the_modalities_is_never_masked() -> None:
    """Such as a mask of padding."""

    class Weighted(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.whole = Whole(network("Gated", 2))

        def forward(self, inputs: dict[str, Tensor]) -> Tensor:
            return self.whole({name: inputs[name] for name in ("audio", "video")}) * inputs["weight"].unsqueeze(1)

    weighted = Weighted()
    inputs, targets, _ = Data(network("Gated", 2)).batch()
    weight = torch.arange(1.0, 5.0, dtype=torch.float64)
    box = agm.BlackBox(weighted, ["audio", "video"]).eval()
    plain = agm.BlackBox(weighted.whole, ["audio", "video"]).eval()
    found = agm.modality_responses(box, inputs | {"weight": weight})
    close(found, agm.modality_responses(plain, inputs) * weight.view(1, -1, 1))
    method = ModalityValuation(box, warmup=0, alpha=5.0)
    inputs = inputs | {"weight": weight}
    method.start_epoch(0, train=OneBatch(inputs, targets))
    assert method.step(inputs, targets, sgd(method)).isfinite()
