"""Small networks of every kind for the tests: BatchNorm, dropout, attention; every fusion, two to four modalities."""

from collections.abc import Generator

import torch
from torch import Tensor, nn

from agm import methods
from agm.methods import Method
from agm.methods.method import Network
from agm.models.encoders import Conv, Encoder, SequenceTransformer, Transformer
from agm.models.multimodal import Multimodal
from agm.pipeline.config import schema
from agm.pipeline.config.methods import arguments
from agm.pipeline.networks import build_fusion, build_method

CLASSES = 4
FUSIONS = {
    "late_sum": schema.LateSum(name="late_sum"),
    "late_concat": schema.LateConcat(name="late_concat"),
    "early": schema.Early(name="early", hidden=[12, 8]),
    "film": schema.Film(name="film"),
    "gated": schema.Gated(name="gated", hidden=7),
    "low_rank": schema.LowRank(name="low_rank", rank=2, hidden=6),
    "cross_attention": schema.CrossAttention(
        name="cross_attention", dim=4, num_heads=2, num_layers=2, dim_feedforward=5, dropout=0.2
    ),
}
"""Those for any number of modalities: all but `psp`, which reads two sequences (see test_fusions.py)."""
NAMES = ["audio", "video", "text", "sensor"]


class WithDropout(Encoder):
    """An encoder followed by dropout."""

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.encoder, self.dropout = encoder, nn.Dropout(0.4)
        self.dim, self.channels, self.sequence = encoder.dim, encoder.channels, encoder.sequence

    @property
    def stages(self) -> list[nn.Module]:
        return list(self.encoder.stages)

    def forward(self, x: Tensor) -> Tensor:
        return self.dropout(self.encoder(x))

    def run_stages(self, x: Tensor) -> Generator[Tensor, Tensor, Tensor]:
        feature = yield from self.encoder.run_stages(x)
        return self.dropout(feature)


def small_model(fusion: str, count: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Multimodal:
    """A model over the first `count` modalities, with running statistics that are not their initial ones."""
    torch.manual_seed(seed)
    block = FUSIONS[fusion]
    small = {"num_heads": 2, "num_layers": 1, "dim_feedforward": 8, "dropout": 0.2, "sequence": block.sequential}
    encoders = {
        "audio": WithDropout(Conv(1, [3, 5], block.sequential)),
        "video": WithDropout(Conv(2, [4], block.sequential)),
        "text": Transformer(vocabulary=9, words=5, dim=6, **small),
        "sensor": SequenceTransformer(3, dim=4, **small),
    }
    chosen = {name: encoders[name] for name in NAMES[:count]}
    dims = {name: encoder.dim for name, encoder in chosen.items()}
    model = Multimodal(chosen, build_fusion(block, dims, CLASSES)).to(dtype)
    for step in range(3):
        model.train()(small_batch(count, seed=100 + step, dtype=dtype)[0])
    return model


def small_batch(
    count: int, seed: int = 0, batch: int = 6, dtype: torch.dtype = torch.float64
) -> tuple[dict[str, Tensor], Tensor]:
    """Prepared inputs and labels for `small_model`."""
    generator = torch.Generator().manual_seed(seed)
    inputs = {
        "audio": torch.randn(batch, 1, 6, 7, generator=generator, dtype=dtype),
        "video": torch.randn(batch, 2, 5, 5, generator=generator, dtype=dtype) + 0.5,
        "text": torch.randint(0, 9, (batch, 5), generator=generator),
    }
    labels = torch.randint(0, CLASSES, (batch,), generator=generator)
    steps = torch.randint(1, 5, (batch, 1, 1), generator=generator)  # zeros behind these are padding
    sensor = torch.randn(batch, 5, 3, generator=generator, dtype=dtype)
    inputs["sensor"] = sensor * (torch.arange(5).view(1, 5, 1) < steps)
    return {name: inputs[name] for name in NAMES[:count]}, labels


def small_method(
    name: str, model: Multimodal, prerequisites: dict[str, object] | None = None, **settings: object
) -> Method:
    """The method of that name for `model`, with its defaults but for `settings`."""
    block = schema.MethodBlock(name=name, **settings)
    return build_method(block, model, seed=0, **(prerequisites or {})).to(next(model.parameters()).dtype)


def refusal(name: str, fusion: str, dims: dict[str, int], **settings: object) -> str | None:
    """Why the method cannot train a network of that fusion, or None."""
    network = Network(list(dims), dims, FUSIONS[fusion].additive, dict.fromkeys(dims, True))
    values = arguments(schema.MethodBlock(name=name, **settings))
    return methods.get(name).refusal(network, **values)
