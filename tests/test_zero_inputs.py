"""Gradients where an input is nothing but zeros: a masked modality, a clip in which no face was found."""

from statistics import median

import pytest
import torch
from torch.nn.functional import cross_entropy
from torch.nn.utils import get_total_norm

from agm.models.multimodal import Inputs, Multimodal
from agm.pipeline.config import schema
from agm.pipeline.io.tensors import Feature
from agm.pipeline.networks import build_encoder, build_fusion

WIDTH = {"dim": 32, "num_heads": 4, "dim_feedforward": 64}
DEEP = {
    "transformer": (
        Feature("text", "int32", (6,), vocabulary=20),
        lambda layers: schema.TransformerEncoder(name="transformer", num_layers=layers, **WIDTH),
    ),
    "sequence_transformer": (
        Feature("sequence", "float32", (6, 5)),
        lambda layers: schema.SequenceTransformerEncoder(name="sequence_transformer", num_layers=layers, **WIDTH),
    ),
    "identity": (
        Feature("sequence", "float32", (6, 8)),
        lambda layers: schema.IdentityEncoder(name="identity", dim=8),
    ),
}
"""Encoders whose depth is a parameter; `identity` because `cross_attention` behind it has one too."""
FLAT = {
    "conv": (
        Feature("audio", "float32", (1, 16, 20)),
        lambda layers: schema.ConvEncoder(name="conv", channels=[8] * 4),
    ),
    "resnet18": (
        Feature("image", "uint8", (1, 32, 32)),
        lambda layers: schema.ResNet18Encoder(name="resnet18"),
    ),
}
FUSIONS = {
    "late_sum": lambda layers: schema.LateSum(name="late_sum"),
    "late_concat": lambda layers: schema.LateConcat(name="late_concat"),
    "early": lambda layers: schema.Early(name="early", hidden=[24, 16]),
    "film": lambda layers: schema.Film(name="film"),
    "gated": lambda layers: schema.Gated(name="gated", hidden=16),
    "low_rank": lambda layers: schema.LowRank(name="low_rank", rank=2, hidden=16),
    "cross_attention": lambda layers: schema.CrossAttention(name="cross_attention", num_layers=layers, **WIDTH),
    "psp": lambda layers: schema.Psp(name="psp", regions=2, hidden=16, attention=8, fused=16),
}
OF_SEQUENCES = ("sequence_transformer", "identity")
PAIRS = [(encoder, fusion) for encoder in DEEP for fusion in FUSIONS if fusion != "psp" or encoder in OF_SEQUENCES]
CLIPS, EMPTY = 8, 2


def network(encoder: str, fusion: str, layers: int) -> tuple[Multimodal, Inputs, torch.Tensor]:
    """Two modalities with the same encoder, and a batch in which some clips of either are nothing but zeros."""
    feature, config = (DEEP | FLAT)[encoder]
    block = FUSIONS[fusion](layers)
    encoders = {name: build_encoder(config(layers), feature, block.sequential) for name in ("one", "other")}
    head = build_fusion(block, {name: each.dim for name, each in encoders.items()}, 4)
    inputs = {name: torch.randn(CLIPS, *feature.shape) for name in encoders}
    if feature.kind == "text":
        inputs = {name: torch.randint(1, 20, (CLIPS, *feature.shape)) for name in encoders}
    for x in inputs.values():
        x[:EMPTY] = 0
    return Multimodal(encoders, head), inputs, torch.randint(0, 4, (CLIPS,))


def gradient_norm(model: Multimodal, inputs: Inputs, labels: torch.Tensor) -> float:
    model.zero_grad()
    cross_entropy(model(inputs), labels).backward()
    return get_total_norm([weight.grad for weight in model.parameters() if weight.grad is not None]).item()


def norms(encoder: str, fusion: str, layers: int, seeds: int = 3) -> tuple[float, float]:
    """The gradient norm of the full pass, and how many times larger that of the worse masked pass is: medians."""
    full, masked = [], []
    for seed in range(seeds):
        torch.manual_seed(seed)
        model, inputs, labels = network(encoder, fusion, layers)
        model.train()
        with torch.no_grad():
            for _ in range(3):  # running statistics of these clips
                model(inputs)
        full.append(gradient_norm(model, inputs, labels))
        model.eval()
        without = [inputs | {name: torch.zeros_like(x)} for name, x in inputs.items()]
        masked.append(max(gradient_norm(model, each, labels) for each in without) / full[-1])
    return median(full), median(masked)


@pytest.mark.parametrize(("encoder", "fusion"), PAIRS)
def test_depth_does_not_multiply_the_gradient_at_a_zero_input(encoder, fusion):
    """AGM descends the masked passes too. Each post-norm layer without a bias multiplied their gradient by 316."""
    full, masked = norms(encoder, fusion, layers=1)
    deeper, deeper_masked = norms(encoder, fusion, layers=8)
    assert deeper_masked < 1000
    assert deeper_masked <= 3 * masked
    # Clips of zeros are in the full pass too, and must not end plain training.
    assert deeper <= 3 * full


@pytest.mark.parametrize("encoder", FLAT)
@pytest.mark.parametrize("fusion", ["late_concat", "early", "cross_attention"])
def test_convolutions_have_bounded_gradients_at_a_zero_input(encoder, fusion):
    full, masked = norms(encoder, fusion, layers=1, seeds=1)
    assert full < 1000
    assert masked < 1000
