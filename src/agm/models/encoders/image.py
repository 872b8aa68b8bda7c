"""Encoders of images, and of what is laid out like one: `[B, C, H, W]`."""

from collections.abc import Generator
from pathlib import Path

from torch import Tensor, nn

from agm.models.encoders.base import Encoder, pretrained
from agm.pipeline.errors import AgmError


class OfImages(Encoder):
    """The mean over the positions of the last map, `[B, C, H, W] → [B, C]`; as a sequence the positions themselves,
    row by row, `[B, H · W, C]`."""

    def __init__(self, sequence: bool = False) -> None:
        super().__init__()
        self.sequence = sequence

    def end(self, state: Tensor, padding: Tensor | None) -> Tensor:
        return state.flatten(2).transpose(1, 2) if self.sequence else state.mean(dim=(2, 3))


class Conv(OfImages):
    """Stride-2 convolutions with BatchNorm: `[B, C, H, W] → [B, channels[-1]]`."""

    def __init__(self, in_channels: int, channels: list[int], sequence: bool = False) -> None:
        super().__init__(sequence)
        self.stages = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(before, after, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(after), nn.ReLU()
            )
            for before, after in zip([in_channels, *channels], channels, strict=False)
        )
        self.channels = list(channels)
        self.dim = channels[-1]


class ResNet18(OfImages):
    """torchvision's ResNet-18 without its classifier, for any number of channels: `[B, C, H, W] → [B, 512]`.

    Its stages are the first layers together, then its four groups of blocks.
    """

    dim = 512

    def __init__(self, in_channels: int, sequence: bool = False) -> None:
        super().__init__(sequence)
        import torchvision  # here, because it takes seconds that the other encoders need not wait for

        self.network = network = torchvision.models.resnet18(weights=None)
        network.conv1 = nn.Conv2d(in_channels, 64, 7, stride=2, padding=3, bias=False)
        network.fc = nn.Identity()
        stem = nn.Sequential(network.conv1, network.bn1, network.relu, network.maxpool)
        # A plain list: its modules are registered in the network, under torchvision's names.
        self.stages = [stem, network.layer1, network.layer2, network.layer3, network.layer4]
        self.channels = [64, 64, 128, 256, 512]

    def load(self, path: Path) -> None:
        """Load torchvision's weights from a safetensors file.

        A first layer of 3 channels is summed for 1; for any other number, as optical flow has, each has the mean of
        the three (Wang et al., 2016).

        Raises:
            AgmError: when the file is missing or holds another network.
        """
        weights = {name: value for name, value in pretrained(path, "weights").items() if not name.startswith("fc.")}
        channels = self.network.conv1.in_channels
        if channels != 3 and (first := weights.get("conv1.weight")) is not None:
            gray = first.sum(dim=1, keepdim=True)
            weights["conv1.weight"] = gray if channels == 1 else (gray / 3).repeat(1, channels, 1, 1)
        try:
            self.network.load_state_dict(weights)
        except RuntimeError as error:
            raise AgmError(f"These are not the weights of a ResNet-18: {error}", where=path) from None


class OverFrames(Encoder):
    """An image encoder applied to every frame, averaged: `[B, frames, C, H, W] → [B, dim]`.

    As a sequence it is every position of every frame, frame by frame, `[B, frames · H · W, dim]`: a clip of one frame
    would be a single token else, and there are few frames.
    """

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.encoder = encoder
        self.dim, self.channels, self.sequence = encoder.dim, encoder.channels, encoder.sequence

    @property
    def stages(self) -> list[nn.Module]:
        return list(self.encoder.stages)

    def forward(self, x: Tensor) -> Tensor:
        return self._over_frames(self.encoder(x.flatten(0, 1)), x)

    def run_stages(self, x: Tensor) -> Generator[Tensor, Tensor, Tensor]:
        feature = yield from self.encoder.run_stages(x.flatten(0, 1))
        return self._over_frames(feature, x)

    def _over_frames(self, feature: Tensor, x: Tensor) -> Tensor:
        feature = feature.unflatten(0, x.shape[:2])
        return feature.flatten(1, 2) if self.sequence else feature.mean(dim=1)
