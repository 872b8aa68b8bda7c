"""Encoders of images, and of what is laid out like one: `[B, C, H, W]`."""

from collections.abc import Generator, Mapping, Sequence
from itertools import pairwise
from typing import cast

from torch import Tensor, nn

from agm.models.encoders.base import Encoder


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

    def __init__(self, in_channels: int, channels: Sequence[int] = (16, 32, 64), sequence: bool = False) -> None:
        super().__init__(sequence)
        stages = nn.ModuleList()
        for before, after in pairwise([in_channels, *channels]):
            convolution = nn.Conv2d(before, after, 3, stride=2, padding=1, bias=False)
            stages.append(nn.Sequential(convolution, nn.BatchNorm2d(after), nn.ReLU()))
        # Registered directly: the name is that of the property below, and of the weights in stored runs.
        self._modules["stages"] = stages
        self.channels = list(channels)
        self.dim = channels[-1]

    @property
    def stages(self) -> nn.ModuleList:
        return cast(nn.ModuleList, self._modules["stages"])


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
        self._stages = [stem, network.layer1, network.layer2, network.layer3, network.layer4]
        self.channels = [64, 64, 128, 256, 512]

    @property
    def stages(self) -> list[nn.Module]:
        return self._stages

    def load_pretrained(self, weights: Mapping[str, Tensor]) -> None:
        """Load torchvision's weights of a ResNet-18, by their names there.

        A first layer of 3 channels is summed for 1; for any other number, as optical flow has, each has the mean of
        the three (Wang et al., 2016). The classifier's weights are left out.

        Raises:
            RuntimeError: when they are those of another network.
        """
        weights = {name: value for name, value in weights.items() if not name.startswith("fc.")}
        channels = self.network.conv1.in_channels
        if channels != 3 and (first := weights.get("conv1.weight")) is not None:
            gray = first.sum(dim=1, keepdim=True)
            weights["conv1.weight"] = gray if channels == 1 else (gray / 3).repeat(1, channels, 1, 1)
        self.network.load_state_dict(weights)


class OverFrames(Encoder):
    """An image encoder applied to every frame, averaged: `[B, frames, C, H, W] → [B, dim]`.

    As a sequence it is every position of every frame, frame by frame, `[B, frames · H · W, dim]`: a sample of one frame
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
