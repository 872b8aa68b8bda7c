"""Sound to a log spectrogram or log mel spectrogram, float32 [1, bins, time]."""

import math
from collections.abc import Callable
from fractions import Fraction
from functools import cache
from pathlib import Path

import numpy as np
import torch
from av.audio.frame import AudioFrame
from torch import Tensor
from torchaudio import functional, transforms

from agm.config.schema import AudioFeatures
from agm.media import Unusable, decoded, opened
from agm.tensors import Feature

# Sound decoded beyond the length that is kept, so that the resampling filter sees what follows.
MARGIN_SECONDS = 1.0


def feature(settings: AudioFeatures) -> Feature:
    """What `load` returns."""
    bins = settings.mels if settings.representation == "mel" else settings.n_fft // 2 + 1
    return Feature("audio", "float32", (1, bins, 1 + _length(settings) // settings.hop))


def load(path: Path, stream: int | None, settings: AudioFeatures) -> np.ndarray:
    """Decode, mix down to one channel, resample, bring to `seconds`, and take log(spectrogram + log_floor).

    Windows are centred, the sound being mirrored at its ends.

    Raises:
        Unusable: when there is less sound than one window.
    """
    torch.set_num_threads(1)
    wave, rate = _mono(path, stream, settings.seconds + MARGIN_SECONDS)
    wave = _resampled(torch.from_numpy(wave), rate, settings.rate)
    if len(wave) < settings.n_fft:
        raise Unusable(
            f"the sound is too short: {len(wave)} samples at {settings.rate} Hz, and {settings.n_fft} are needed"
        )
    spectrum = _spectrum(settings)(_fitted(wave, settings))
    return torch.log(spectrum + settings.log_floor)[None].numpy()


def _length(settings: AudioFeatures) -> int:
    """Samples after resampling and fitting."""
    return round(settings.seconds * settings.rate)


def _mono(path: Path, index: int | None, seconds: float) -> tuple[np.ndarray, int]:
    """The first `seconds` of the sound, the mean of its channels: float32 [samples], and its samples per second."""
    pieces: list[np.ndarray] = []
    rate = count = 0
    with opened(path, index, "audio") as (container, stream):
        for frame in decoded(container, stream):
            # The decoder knows better than the header, which may give half the rate.
            rate = rate or frame.sample_rate
            if frame.sample_rate != rate:
                raise Unusable(f"the sound changes its sample rate from {rate} to {frame.sample_rate} Hz")
            pieces.append(_mean(frame))
            count += len(pieces[-1])
            if count >= seconds * rate:
                break
    if not count:
        raise Unusable("no sound can be decoded")
    return np.concatenate(pieces), rate


def _mean(frame: AudioFrame) -> np.ndarray:
    """Mean over the channels, in [-1, 1] whatever the stored type: float32 [samples]."""
    values = frame.to_ndarray()
    values = values if frame.format.is_planar else values.reshape(-1, len(frame.layout.channels)).T
    mean = values.mean(axis=0, dtype=np.float64)
    if values.dtype.kind in "iu":
        span = 2.0 ** (8 * values.dtype.itemsize - 1)
        mean = mean / span - (values.dtype.kind == "u")
    return mean.astype(np.float32)


def _resampled(wave: Tensor, rate: int, wanted: int) -> Tensor:
    # The filter grows with the terms of the ratio; odd rates (44,101 Hz) are met within one part in a million.
    ratio = Fraction(wanted, rate).limit_denominator(1000)
    return functional.resample(wave, ratio.denominator, ratio.numerator)


def _fitted(wave: Tensor, settings: AudioFeatures) -> Tensor:
    """Bring [samples] to the length of `settings`: repeat or pad with silence at the end, or cut the end."""
    length = _length(settings)
    if settings.fit == "tile":
        wave = wave.repeat(math.ceil(length / len(wave)))
    return torch.nn.functional.pad(wave, (0, max(0, length - len(wave))))[:length]


@cache
def _spectrum(settings: AudioFeatures) -> Callable[[Tensor], Tensor]:
    """The transform from [samples] to [bins, time]."""
    stft = {"n_fft": settings.n_fft, "hop_length": settings.hop, "power": float(settings.power)}
    if settings.representation == "mel":
        return transforms.MelSpectrogram(settings.rate, n_mels=settings.mels, **stft)
    return transforms.Spectrogram(**stft)
