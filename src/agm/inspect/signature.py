"""What a clip's tensor is like at a glance: a few numbers per modality, to compare every clip with every other.

The signature is the tensor averaged down to a coarse grid: of a picture 16 × 16 fields, of a video four times 8 × 8, of
sound 16 bands by 16 moments, of a sequence 16 groups of channels by 16 steps. Its own mean and size are taken out, so
that brightness, contrast and loudness do not count; then the mean signature of the data set, so that what all clips
have in common (a blank background, the spectrum of speech) does not either. What is left is scaled to length one: the
product of two signatures is their correlation.

Where there is nothing to see (a black picture, silence, a text of few words) a clip is called blank: it would be like
every other blank clip, which tells nothing. Texts have no signature; they are the same or not.
"""

import hashlib
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d, adaptive_avg_pool3d

from agm.tensors import Feature

BLANK = 0.01
"""Least spread of a signature that is one, as a share of the spread of the data set's values."""
HEARD = 5.0
"""How far below the loudest moment sound is listened to, in the spectrogram's natural logarithms."""
FEW_WORDS = 4
"""A text of so many words or fewer is blank: people say the same short things."""


@dataclass(frozen=True)
class Signatures:
    """One modality of N clips.

    Attributes:
        values: float16 [N, K], each of length one, or zeros.
        digests: uint64 [N]: equal for equal tensors.
        blank: bool [N]: clips whose tensor shows nothing.
    """

    values: np.ndarray
    digests: np.ndarray
    blank: np.ndarray

    def take(self, rows: np.ndarray) -> "Signatures":
        """Those of some clips."""
        return Signatures(self.values[rows], self.digests[rows], self.blank[rows])


class Signer:
    """Gathers the signatures of one modality, batch by batch."""

    def __init__(self, feature: Feature) -> None:
        self._feature = feature
        self._spread = BLANK * float(np.mean(feature.std)) if feature.std else 0.0
        self._values: list[np.ndarray] = []
        self._digests: list[int] = []
        self._blank: list[np.ndarray] = []

    def add(self, batch: Tensor) -> None:
        """Take in the tensors [B, *shape] of some clips."""
        self._digests += [_digest(each) for each in batch.numpy()]
        if self._feature.kind == "text":
            self._values.append(np.empty((len(batch), 0), np.float16))
            self._blank.append((batch.ne(0).sum(dim=1) <= FEW_WORDS).numpy())
            return
        values = glance(batch, self._feature)
        values = values - values.mean(dim=1, keepdim=True)
        # A constant tensor is blank, whatever rounding leaves of it when its mean is taken out.
        constant = batch.flatten(1).amax(dim=1) == batch.flatten(1).amin(dim=1)
        self._blank.append((constant | (values.std(dim=1, correction=0) <= self._spread)).numpy())
        self._values.append(_unit(values.numpy()).astype(np.float16))

    def signatures(self) -> Signatures:
        """All of them, less what they have in common."""
        values, blank = np.concatenate(self._values), np.concatenate(self._blank)
        if (~blank).any():
            values = _unit(values - values[~blank].mean(axis=0, dtype=np.float32)).astype(np.float16)
        values[blank] = 0
        return Signatures(values, np.array(self._digests, np.uint64), blank)


def glance(batch: Tensor, feature: Feature) -> Tensor:
    """The tensors of some clips averaged down to a coarse grid: float32 [B, K]."""
    values = batch.float()
    match feature.kind:
        case "video":
            return adaptive_avg_pool3d(values.mean(dim=2)[:, None], (4, 8, 8)).flatten(1)
        case "sequence":
            # Channels of any scale: without this the largest ones alone would count.
            values = _standardised(values, feature).flatten(2)
            return adaptive_avg_pool2d(values[:, None], (16, 16)).flatten(1)
        case "audio":
            # What is that much below the loudest moment is not heard, and depends on the encoder.
            values = values.maximum(values.amax(dim=(1, 2, 3), keepdim=True) - HEARD)
            return adaptive_avg_pool2d(values.mean(dim=1, keepdim=True), (16, 16)).flatten(1)
        case _:
            return adaptive_avg_pool2d(values.mean(dim=1, keepdim=True), (16, 16)).flatten(1)


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
