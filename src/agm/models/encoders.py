"""Encoders: one modality's normalised input to one feature vector per clip, `[B, …] → [B, dim]`."""

from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from agm.config import schema
from agm.errors import AgmError
from agm.tensors import Feature


class Conv(nn.Module):
    """Stride-2 convolutions with BatchNorm and a global average: `[B, C, H, W] → [B, channels[-1]]`."""

    def __init__(self, in_channels: int, channels: list[int]) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for before, after in zip([in_channels, *channels], channels, strict=False):
            layers += [
                nn.Conv2d(before, after, 3, stride=2, padding=1, bias=False),
                nn.BatchNorm2d(after),
                nn.ReLU(),
            ]
        self.layers = nn.Sequential(*layers)
        self.dim = channels[-1]

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x).mean(dim=(2, 3))


class ResNet18(nn.Module):
    """torchvision's ResNet-18 without its classifier, for any number of channels: `[B, C, H, W] → [B, 512]`."""

    dim = 512

    def __init__(self, in_channels: int) -> None:
        super().__init__()
        import torchvision  # here, because it takes seconds that the other encoders need not wait for

        self.network = torchvision.models.resnet18(weights=None)
        self.network.conv1 = nn.Conv2d(in_channels, 64, 7, stride=2, padding=3, bias=False)
        self.network.fc = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.network(x)

    def load(self, path: Path) -> None:
        """Load torchvision's weights from a safetensors file; a first layer of 3 channels is summed for 1.

        Raises:
            AgmError: when the file is missing or holds another network.
        """
        if not path.exists():
            raise AgmError(
                "There are no pretrained weights",
                where=path,
                fix="set encoders.<modality>.weights to a local file",
            )
        weights = {name: value for name, value in load_file(path).items() if not name.startswith("fc.")}
        if self.network.conv1.in_channels == 1 and "conv1.weight" in weights:
            weights["conv1.weight"] = weights["conv1.weight"].sum(dim=1, keepdim=True)
        try:
            self.network.load_state_dict(weights)
        except RuntimeError as error:
            raise AgmError(f"These are not the weights of a ResNet-18: {error}", where=path) from None


class Transformer(nn.Module):
    """A transformer over word numbers, averaged over the words: `[B, words] → [B, dim]`; 0 is padding.

    The first position is always attended to, so that a text of nothing but padding (a masked modality) has a feature.
    """

    def __init__(self, vocabulary: int, words: int, config: schema.TransformerEncoder) -> None:
        super().__init__()
        self.dim = config.dim
        self.embedding = nn.Embedding(vocabulary, config.dim, padding_idx=0)
        self.position = nn.Parameter(torch.randn(words, config.dim) * 0.02)
        layer = nn.TransformerEncoderLayer(
            config.dim, config.heads, config.feedforward, config.dropout, batch_first=True, norm_first=True
        )
        # Nested tensors would change shapes and take another path in evaluation than in training.
        self.layers = nn.TransformerEncoder(layer, config.layers, nn.LayerNorm(config.dim), enable_nested_tensor=False)

    def forward(self, x: Tensor) -> Tensor:
        padding = x.eq(0)
        padding = torch.cat([torch.zeros_like(padding[:, :1]), padding[:, 1:]], dim=1)
        states = self.layers(self.embedding(x) + self.position, src_key_padding_mask=padding)
        kept = (~padding).to(states.dtype).unsqueeze(-1)
        return (states * kept).sum(dim=1) / kept.sum(dim=1)


class OverFrames(nn.Module):
    """An image encoder applied to every frame, averaged: `[B, frames, C, H, W] → [B, dim]`."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder
        self.dim = encoder.dim

    def forward(self, x: Tensor) -> Tensor:
        return self.encoder(x.flatten(0, 1)).unflatten(0, x.shape[:2]).mean(dim=1)


def build_encoder(config: schema.Encoder, feature: Feature) -> nn.Module:
    """The encoder that `config` describes, for inputs like `feature`, initialised from torch's global generator."""
    if isinstance(config, schema.TransformerEncoder):
        return Transformer(feature.vocabulary, feature.shape[0], config)
    channels = feature.shape[-3]
    if isinstance(config, schema.ConvEncoder):
        encoder = Conv(channels, config.channels)
        initialise(encoder)
    else:
        encoder = ResNet18(channels)
        initialise(encoder)
        if config.weights:
            encoder.load(Path(config.weights))
    return OverFrames(encoder) if feature.kind == "video" else encoder


def initialise(module: nn.Module) -> None:
    """The published experiments' initialisation: Xavier for linear layers, Kaiming for convolutions."""
    for each in module.modules():
        if isinstance(each, nn.Linear):
            nn.init.xavier_normal_(each.weight)
            nn.init.zeros_(each.bias)
        elif isinstance(each, nn.Conv2d):
            nn.init.kaiming_normal_(each.weight, mode="fan_out", nonlinearity="relu")
