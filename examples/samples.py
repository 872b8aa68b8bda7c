"""Made-up samples for the examples: a sound, an image, and which of three classes both show."""

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

CLASSES = 3


class AudioVideo(Dataset[tuple[dict[str, Tensor], Tensor]]):
    """Samples `({"audio": [1, 16, 16], "video": [3, 32, 32]}, label)`: the class is plain in the sound, faint in the
    image."""

    def __init__(self, count: int, seed: int = 0) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.labels = torch.randint(CLASSES, (count,), generator=generator)
        self.audio = torch.randn(count, 1, 16, 16, generator=generator)
        self.video = torch.randn(count, 3, 32, 32, generator=generator)
        for sample, label in enumerate(self.labels.tolist()):
            self.audio[sample, :, 5 * label : 5 * label + 5] += 1.0
            self.video[sample, label] += 0.3

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[dict[str, Tensor], Tensor]:
        return {"audio": self.audio[index], "video": self.video[index]}, self.labels[index]


def loader(count: int = 48, batch_size: int = 16, seed: int = 0) -> DataLoader[tuple[dict[str, Tensor], Tensor]]:
    """Batches of made-up samples."""
    return DataLoader(AudioVideo(count, seed), batch_size=batch_size, shuffle=True)
