"""Signatures of clips: a few numbers per modality, with which every clip is compared with every other.

The signature is the tensor averaged down to a coarse grid: for a picture 16 × 16 fields in each colour, for a video
four times 8 × 8, for sound 16 bands by 16 moments, for a sequence 16 groups of channels by 16 steps. Its own mean and
size are removed, so that brightness, loudness and a little contrast do not count, and colours do. Then the mean
signature of the data set is removed, so that what all clips share (a blank background, the spectrum of speech) does
not count either. The rest is scaled to length one: the product of two signatures is their correlation.

A clip is called blank where there is nothing to see or hear (a black picture, silence, a text of few words): that it is
like another one then means nothing. Two blank clips are the same where their colours or texts are. Texts have no
signature; they are compared themselves, because the tensor of a text is cut off and has one id for all unknown words.
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
"""Spread of a signature below which the clip is blank, as a share of the spread of the data set's values."""
HEARD = 5.0
"""Sound that is weaker than the loudest moment by more than this, in natural logarithms, does not count."""
ROUNDING = 5e-7
"""Spread that float32 gives to equal numbers, as a share of them."""
COLOUR = 0.4
"""Weight of the difference between a picture's channels and their mean: JPEG and videos store colours coarsely. With
it, 10 of 4 million pairs of different emoji are alike (202 as gray pictures), and 98.8 % of 704 JPEG copies."""
CHANNELS = 4
"""Greatest number of groups of channels of an image."""
SAME_LEVEL = 0.05
"""Greatest difference of the levels of two blank clips that are the same, as a share of the spread of the values."""
FEW_WORDS = 4
"""A text of this number of words or fewer is blank: people say the same short things."""


@dataclass(frozen=True)
class Signatures:
    """One modality of N clips.

    Attributes:
        values: float16 [N, K], each of length one, or zeros.
        digests: uint64 [N]: equal for equal tensors, or for equal texts.
        blank: bool [N]: clips whose tensor shows nothing.
        levels: float32 [N, L]: brightness or value of each channel, which distinguishes blank clips, in units of the
            greatest difference of two that are the same. L is 0 where it does not count.
        contrast: float32 [N]: log2 of the size of the signature before it was scaled: black on white differs from
            light gray on white.
    """

    values: np.ndarray
    digests: np.ndarray
    blank: np.ndarray
    levels: np.ndarray
    contrast: np.ndarray

    def take(self, rows: np.ndarray) -> "Signatures":
        """The signatures of some clips."""
        return Signatures(*(array[rows] for array in vars(self).values()))


class Signer:
    """Gathers the signatures of one modality, batch by batch."""

    def __init__(self, feature: Feature, texts: Mapping[str, str] | None = None) -> None:
        """
        Args:
            texts: clip id → checksum of its text, 64 bits in hexadecimal; None where the modality is no text.
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
        """Add the tensors [B, *shape] of some clips."""
        if self._texts is not None:
            self._add_texts(clip_ids, batch)
            return
        self._digests += [_digest(tensor) for tensor in batch.numpy()]
        fields = glance(batch, self._feature)
        levels = fields.mean(dim=2)
        # Rounding leaves a little spread in a constant channel when its mean is removed.
        least = BLANK * self._spread + ROUNDING * levels.abs()
        self._blank.append((fields.std(dim=2, correction=0) <= least).all(dim=1).numpy())
        self._levels.append(self._in_units(levels))
        values = fields.flatten(1)
        values = values - values.mean(dim=1, keepdim=True)
        self._contrast.append(values.norm(dim=1).clamp(min=1e-6).log2().numpy())
        self._values.append(_unit(values.numpy()).astype(np.float16))

    def _add_texts(self, clip_ids: Sequence[str], batch: Tensor) -> None:
        """Add texts: only their checksums and whether they are blank; the other fields stay empty."""
        # A text is a list of ids, or of vectors; padding is zero in both.
        words = batch.flatten(2).any(dim=2) if batch.ndim > 2 else batch.ne(0)
        self._blank.append((words.sum(dim=1) <= FEW_WORDS).numpy())
        self._digests += [int(self._texts[clip_id], 16) for clip_id in clip_ids]
        self._values.append(np.empty((len(batch), 0), np.float16))
        self._levels.append(np.empty((len(batch), 0), np.float32))
        self._contrast.append(np.zeros(len(batch), np.float32))

    def _in_units(self, levels: Tensor) -> np.ndarray:
        """Levels in units of the greatest difference that does not count; empty for sound."""
        # The loudness of sound never counts.
        if self._feature.kind == "audio":
            return np.empty((len(levels), 0), np.float32)
        return (levels / max(SAME_LEVEL * self._spread, 1e-6)).numpy()

    def signatures(self) -> Signatures:
        """The signatures of all clips, without what the clips have in common."""
        values, blank = np.concatenate(self._values), np.concatenate(self._blank)
        if (~blank).any():
            values = _unit(values - values[~blank].mean(axis=0, dtype=np.float32)).astype(np.float16)
        values[blank] = 0
        levels, contrast = np.concatenate(self._levels), np.concatenate(self._contrast)
        return Signatures(values, np.array(self._digests, np.uint64), blank, levels, contrast)


def glance(batch: Tensor, feature: Feature) -> Tensor:
    """The tensors of some clips averaged down to a coarse grid, per channel: float32 [B, channels, K]."""
    values = batch.float()
    match feature.kind:
        case "video":
            values = values.transpose(1, 2)
            # An even number of channels is optical flow, horizontal and vertical in turn; pictures have 1 or 3.
            if values.shape[1] % 2 == 0:
                flow = values.unflatten(1, (-1, 2)).mean(dim=1)
                return adaptive_avg_pool3d(flow, (4, 8, 8)).flatten(2)
            return _weighted(adaptive_avg_pool3d(values, (4, 8, 8)).flatten(2))
        case "sequence":
            values = _standardised(values, feature).flatten(2)
            return adaptive_avg_pool2d(values[:, None], (16, 16)).flatten(2)
        case "audio":
            # Sound far below the loudest moment cannot be heard, and depends on the encoder of the file.
            values = values.maximum(values.amax(dim=(1, 2, 3), keepdim=True) - HEARD)
            return adaptive_avg_pool2d(values.mean(dim=1, keepdim=True), (16, 16)).flatten(2)
        case "image" if not _mixed(feature):
            return _weighted(adaptive_avg_pool2d(values, (16, 16)).flatten(2))
        case _:
            mean, scale = torch.tensor(feature.mean), torch.tensor(feature.scale)
            values = (values - mean[:, None, None]) / scale[:, None, None]
            # An image of many channels: neighbouring ones are averaged.
            if values.shape[1] > CHANNELS:
                values = adaptive_avg_pool3d(values[:, None], (CHANNELS, 16, 16))[:, 0]
            return adaptive_avg_pool2d(values, (16, 16)).flatten(2)


def _weighted(fields: Tensor) -> Tensor:
    """The channels [B, colours, K] of a picture: their mean in full, their differences to it with less weight."""
    gray = fields.mean(dim=1, keepdim=True)
    return gray + COLOUR * (fields - gray)


def _mixed(feature: Feature) -> bool:
    """Whether the channels may have any scale: without standardising, only the largest ones would count."""
    return feature.kind == "sequence" or (feature.kind == "image" and feature.dtype == "float32")


def _standardised(values: Tensor, feature: Feature) -> Tensor:
    """Each channel, the last axis, at mean 0 and spread 1; padding stays zero."""
    mean, scale = torch.tensor(feature.mean), torch.tensor(feature.scale)
    padding = values.flatten(2).eq(0).all(dim=2).reshape(*values.shape[:2], *[1] * (values.ndim - 2))
    return torch.where(padding, 0.0, (values - mean) / scale)


def _unit(values: np.ndarray) -> np.ndarray:
    """Rows scaled to length one; rows of zeros stay zeros."""
    length = np.linalg.norm(values.astype(np.float32), axis=1, keepdims=True)
    return values / np.maximum(length, 1e-6)


def _digest(tensor: np.ndarray) -> int:
    return int.from_bytes(hashlib.blake2b(tensor, digest_size=8).digest(), "little")
