"""What a clip's tensor is like at a glance: a few numbers per modality, to compare every clip with every other.

The signature is the tensor averaged down to a coarse grid: of a picture 16 × 16 fields in each colour, of a video four
times 8 × 8, of sound 16 bands by 16 moments, of a sequence 16 groups of channels by 16 steps. Its own mean and size are
taken out, so that brightness, loudness and a little contrast do not count, and colours do; then the mean signature of
the data set, so that what all clips have in common (a blank background, the spectrum of speech) does not either. What
is left is scaled to length one: the product of two signatures is their correlation.

Where there is nothing to see (a black picture, silence, a text of few words) a clip is called blank: alone it tells
nothing that it is like another. Two blank clips are the same where their colours or texts are. Texts have no signature;
they are the same or not, by the texts themselves: what a network is given of them is cut off, and has one id for all
unknown words.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d, adaptive_avg_pool3d

from agm.pipeline.io.tensors import Feature

BLANK = 0.01
"""Least spread of a signature that is one, as a share of the spread of the data set's values."""
HEARD = 5.0
"""How far below the loudest moment sound is listened to, in the spectrogram's natural logarithms."""
ROUNDING = 5e-7
"""Spread that float32 gives to equal numbers, as a share of them."""
COLOUR = 0.4
"""Weight of the difference between a picture's channels and their mean: JPEG and videos store colours coarsely. Of
4 million pairs of different emoji 10 are then alike (202 as gray pictures), and of 704 saved anew as JPEG 98.8 %."""
CHANNELS = 4
"""Most groups of channels of an image."""
SAME_LEVEL = 0.05
"""Greatest difference of the levels of two blank clips that are the same, as a share of the spread of the values."""
FEW_WORDS = 4
"""A text of so many words or fewer is blank: people say the same short things."""


@dataclass(frozen=True)
class Signatures:
    """One modality of N clips.

    Attributes:
        values: float16 [N, K], each of length one, or zeros.
        digests: uint64 [N]: equal for equal tensors, of texts for equal texts.
        blank: bool [N]: clips whose tensor shows nothing.
        levels: float32 [N, L]: brightness or value of each channel, which tells blank clips apart; in units of the
            greatest difference of two that are the same. L is 0 where it does not count.
        contrast: float32 [N]: log2 of the size of the signature before it was scaled: black on white is not light gray
            on white.
    """

    values: np.ndarray
    digests: np.ndarray
    blank: np.ndarray
    levels: np.ndarray
    contrast: np.ndarray

    def take(self, rows: np.ndarray) -> "Signatures":
        """Those of some clips."""
        return Signatures(*(each[rows] for each in vars(self).values()))


class Signer:
    """Gathers the signatures of one modality, batch by batch."""

    def __init__(self, feature: Feature, texts: Mapping[str, str] | None = None) -> None:
        """
        Args:
            texts: clip id → what is equal for equal texts, hexadecimal of 64 bits; None for what is no text.
        """
        self._feature = feature
        self._texts = texts
        # What `glance` standardises has a spread of 1.
        self._spread = 1.0 if _mixed(feature) else float(np.mean(feature.std or 0.0))
        self._values: list[np.ndarray] = []
        self._digests: list[int] = []
        self._blank: list[np.ndarray] = []
        self._levels: list[np.ndarray] = []
        self._contrast: list[np.ndarray] = []

    def add(self, clip_ids: Sequence[str], batch: Tensor) -> None:
        """Take in the tensors [B, *shape] of some clips."""
        if self._texts is not None:
            self._add_texts(clip_ids, batch)
            return
        self._digests += [_digest(each) for each in batch.numpy()]
        fields = glance(batch, self._feature)
        levels = fields.mean(dim=2)
        # Of a constant channel rounding leaves a little when its mean is taken out.
        least = BLANK * self._spread + ROUNDING * levels.abs()
        self._blank.append((fields.std(dim=2, correction=0) <= least).all(dim=1).numpy())
        self._levels.append(self._told_apart(levels))
        values = fields.flatten(1)
        values = values - values.mean(dim=1, keepdim=True)
        self._contrast.append(values.norm(dim=1).clamp(min=1e-6).log2().numpy())
        self._values.append(_unit(values.numpy()).astype(np.float16))

    def _add_texts(self, clip_ids: Sequence[str], batch: Tensor) -> None:
        words = batch.flatten(2).any(dim=2) if batch.ndim > 2 else batch.ne(0)
        self._blank.append((words.sum(dim=1) <= FEW_WORDS).numpy())
        self._digests += [int(self._texts[each], 16) for each in clip_ids]
        self._values.append(np.empty((len(batch), 0), np.float16))
        self._levels.append(np.empty((len(batch), 0), np.float32))
        self._contrast.append(np.zeros(len(batch), np.float32))

    def _told_apart(self, levels: Tensor) -> np.ndarray:
        """Levels in units of the greatest difference that does not count; of sound loudness never does."""
        if self._feature.kind == "audio":
            return np.empty((len(levels), 0), np.float32)
        return (levels / max(SAME_LEVEL * self._spread, 1e-6)).numpy()

    def signatures(self) -> Signatures:
        """All of them, less what they have in common."""
        values, blank = np.concatenate(self._values), np.concatenate(self._blank)
        if (~blank).any():
            values = _unit(values - values[~blank].mean(axis=0, dtype=np.float32)).astype(np.float16)
        values[blank] = 0
        levels, contrast = np.concatenate(self._levels), np.concatenate(self._contrast)
        return Signatures(values, np.array(self._digests, np.uint64), blank, levels, contrast)


def glance(batch: Tensor, feature: Feature) -> Tensor:
    """The tensors of some clips averaged down to a coarse grid, each channel alone: float32 [B, channels, K]."""
    values = batch.float()
    match feature.kind:
        case "video":
            values = values.transpose(1, 2)
            if values.shape[1] % 2 == 0:  # neither gray nor in colours: optical flow, across and down in turn
                return adaptive_avg_pool3d(values.unflatten(1, (-1, 2)).mean(dim=1), (4, 8, 8)).flatten(2)
            return _weighted(adaptive_avg_pool3d(values, (4, 8, 8)).flatten(2))
        case "sequence":
            values = _standardised(values, feature).flatten(2)
            return adaptive_avg_pool2d(values[:, None], (16, 16)).flatten(2)
        case "audio":
            # What is that much below the loudest moment is not heard, and depends on the encoder.
            values = values.maximum(values.amax(dim=(1, 2, 3), keepdim=True) - HEARD)
            return adaptive_avg_pool2d(values.mean(dim=1, keepdim=True), (16, 16)).flatten(2)
        case "image" if not _mixed(feature):
            return _weighted(adaptive_avg_pool2d(values, (16, 16)).flatten(2))
        case _:
            mean, scale = (torch.tensor(each)[:, None, None] for each in (feature.mean, feature.scale))
            values = (values - mean) / scale
            if values.shape[1] > CHANNELS:
                values = adaptive_avg_pool3d(values[:, None], (CHANNELS, 16, 16))[:, 0]
            return adaptive_avg_pool2d(values, (16, 16)).flatten(2)


def _weighted(fields: Tensor) -> Tensor:
    """The channels [B, colours, K] of a picture, their mean in full and the colours with less weight."""
    gray = fields.mean(dim=1, keepdim=True)
    return gray + COLOUR * (fields - gray)


def _mixed(feature: Feature) -> bool:
    """Whether the channels may be of any scale, so that without standardising the largest ones alone would count."""
    return feature.kind == "sequence" or (feature.kind == "image" and feature.dtype == "float32")


def _standardised(values: Tensor, feature: Feature) -> Tensor:
    """Each channel, the last axis, at mean 0 and spread 1; padding stays zero."""
    mean, scale = torch.tensor(feature.mean), torch.tensor(feature.scale)
    padding = values.flatten(2).eq(0).all(dim=2).reshape(*values.shape[:2], *[1] * (values.ndim - 2))
    return torch.where(padding, 0.0, (values - mean) / scale)


def _unit(values: np.ndarray) -> np.ndarray:
    length = np.linalg.norm(values.astype(np.float32), axis=1, keepdims=True)
    return values / np.maximum(length, 1e-6)


def _digest(tensor: np.ndarray) -> int:
    return int.from_bytes(hashlib.blake2b(tensor, digest_size=8).digest(), "little")
