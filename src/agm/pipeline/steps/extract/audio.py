"""Turn sound into a log spectrogram or log mel spectrogram, float32 [1, bins, time]."""

import math
from collections.abc import Callable, Iterator
from fractions import Fraction
from functools import cache
from itertools import chain, pairwise
from pathlib import Path

import numpy as np
import torch
from av.audio.frame import AudioFrame
from av.container import InputContainer
from av.stream import Stream
from torch import Tensor

from agm.pipeline.config.schema import AudioFeatures
from agm.pipeline.io import limits
from agm.pipeline.io.media import Unusable, decoded, opened, origin, packets, samples
from agm.pipeline.io.source import Source
from agm.pipeline.io.tensors import Feature
from agm.pipeline.steps.extract import torchaudio_ops

# Sound is decoded this far beyond the kept length, so that the resampling filter sees what follows.
MARGIN_SECONDS = 1.0
# Seconds by which sound may differ from its stated time: nobody notices, and containers round times.
LIP_SYNC = 0.04
# One in FEW frames, or FEWEST in all, may begin elsewhere than where the frame before it ended.
FEW, FEWEST = 20, 3

Mono = tuple[np.ndarray, int]
Placed = tuple[int, AudioFrame]


class NoClock(Exception):
    """The times that a file states for its sound cannot be right."""


def feature(settings: AudioFeatures) -> Feature:
    """The form of what `load` returns."""
    bins = settings.n_mels if settings.representation == "mel" else settings.n_fft // 2 + 1
    time = _windows(_length(settings), settings)
    if settings.as_sequence:
        return Feature("sequence", "float32", (time, bins))
    return Feature("audio", "float32", (1, bins, time))


def load(source: Source, settings: AudioFeatures) -> np.ndarray:
    """Decode, mix down to one channel, resample, bring to `seconds`, and take log(spectrogram + log_floor).

    Windows are centred, the sound being mirrored at its ends.

    Raises:
        Unusable: when there is less sound than one window.
    """
    wave = resampled(source, settings.seconds, settings.sample_rate)
    if len(wave) < settings.n_fft:
        raise Unusable(
            f"the sound is too short: {len(wave)} samples at {settings.sample_rate} Hz, and {settings.n_fft} are needed"
        )
    spectrum = _spectrum(settings)(fitted(wave, _length(settings), settings.fit))
    logarithm = torch.log(spectrum + settings.log_floor)
    if not settings.as_sequence:
        return logarithm[None].numpy()
    # In a sequence, windows of added silence are padding, which is zeros.
    if settings.fit == "pad":
        logarithm[:, _windows(len(wave), settings) :] = 0
    return logarithm.T.numpy()


def _windows(samples: int, settings: AudioFeatures) -> int:
    """The number of windows of the spectrogram."""
    return 1 + samples // settings.hop_length


def _length(settings: AudioFeatures) -> int:
    """The number of samples after resampling and fitting."""
    return round(settings.seconds * settings.sample_rate)


def mono(source: Source, seconds: float) -> tuple[np.ndarray, int]:
    """The first `seconds` of the clip's sound, the mean of its channels: float32 [samples], and the sample rate.

    Every sample lies at its stated time, counted from the beginning of the file as for pictures. Where the file has no
    sample for a time, there is silence.

    Raises:
        Unusable: when there is no sound, or the clip is too long.
    """
    try:
        return _mono(source, seconds, _placed)
    except NoClock:
        return _mono(source, seconds, _one_after_another)


def _mono(source: Source, seconds: float, place: Callable[..., Iterator[Placed]]) -> Mono:
    start = source.start or 0.0
    end = min(start + seconds, source.end or math.inf)
    pieces: list[tuple[int, np.ndarray]] = []
    rate = last = 0
    with opened(Path(source.path), source.stream, "audio") as (container, stream):
        frames = decoded(container, stream)
        for first, frame in place(frames, float(stream.time_base), float(origin(container))):
            # The rate is the decoder's: a header may state half of it.
            rate = rate or frame.sample_rate
            if frame.sample_rate != rate:
                raise Unusable(f"the sound changes its sample rate from {rate} to {frame.sample_rate} Hz")
            last = first + frame.samples
            # Frames before the clip are not kept: it may begin hours into the file.
            if last > start * rate:
                mean = samples(frame).mean(axis=0).astype(np.float32)
                pieces.append((first, mean))
            if last >= end * rate:
                break
        if source.end is None:
            _check_length(container, stream, last / rate - start if rate else 0.0)
    if not rate:
        raise Unusable("no sound can be decoded")
    wave = _cut(pieces, round(start * rate), min(round(end * rate), last))
    if not len(wave):
        raise Unusable(f"the sound ends after {last / rate:g} s, before the clip begins ({start:g} s)")
    return wave, rate


def _placed(frames: Iterator[AudioFrame], unit: float, began: float) -> Iterator[Placed]:
    """Yield each frame and the place of its first sample. The frames' times are in units of `unit` seconds, and the
    file `began` at that second.

    A frame follows the one before it, unless its time differs and the time of the next frame agrees with it.

    Raises:
        NoClock: when more than a few times differ.
    """
    place = differing = 0
    timed = ((frame, None if frame.pts is None else frame.pts * unit - began) for frame in frames)
    followed = pairwise(chain(timed, [(None, None)]))
    for number, ((frame, time), (_, next_time)) in enumerate(followed, start=1):
        rate = frame.sample_rate
        if time is not None and abs(time - place / rate) > LIP_SYNC:
            differing += 1
            if differing > FEWEST and differing * FEW > number:
                raise NoClock
            # One time alone may be wrong: the next one decides. Without a next one, only the first frame is believed.
            agrees = number == 1
            if next_time is not None:
                agrees = abs(next_time - time - frame.samples / rate) <= LIP_SYNC
            if agrees:
                place = round(time * rate)
        yield place, frame
        place += frame.samples


def _one_after_another(frames: Iterator[AudioFrame], unit: float, began: float) -> Iterator[Placed]:
    """Yield each frame and the place of its first sample, whatever the stated times."""
    place = 0
    for frame in frames:
        yield place, frame
        place += frame.samples


def _cut(pieces: list[tuple[int, np.ndarray]], first: int, last: int) -> np.ndarray:
    """The samples from `first` to `last` of pieces that begin at different places, with silence between them."""
    wave = np.zeros(max(0, last - first), np.float32)
    for place, sound in pieces:
        # A piece may begin before `first`, and end behind `last`.
        sound = sound[max(0, first - place) :]
        target = wave[max(0, place - first) :]
        target[: len(sound)] = sound[: len(target)]
    return wave


def _check_length(container: InputContainer, stream: Stream, decoded: float) -> None:
    """Refuse a clip that is too long after the decoded part, whatever its header states."""
    seconds = decoded
    for packet in packets(container, stream):
        limits.check("seconds", seconds, "the clip lasts {} s or more")
        seconds += float((packet.duration or 0) * packet.time_base)
    limits.check("seconds", seconds, "the clip lasts {} s")


def resampled(source: Source, seconds: float, wanted: int) -> Tensor:
    """The first `seconds` of the clip's sound and a little more, float32 [samples], at the sample rate `wanted`.

    Raises:
        Unusable: when there is no sound.
    """
    torch.set_num_threads(1)
    wave, rate = mono(source, seconds + MARGIN_SECONDS)
    # The filter grows with the terms of the ratio. Odd rates (44,101 Hz) are met within one part in a million.
    ratio = Fraction(wanted, rate).limit_denominator(1000)
    return torchaudio_ops.resample(torch.from_numpy(wave), ratio.denominator, ratio.numerator)


def fitted(wave: Tensor, length: int, fit: str) -> Tensor:
    """Bring [samples] to `length`: repeat ("tile") or pad with silence at the end, or cut the end."""
    if fit == "tile":
        wave = wave.repeat(math.ceil(length / len(wave)))
    return torch.nn.functional.pad(wave, (0, max(0, length - len(wave))))[:length]


@cache
def _spectrum(settings: AudioFeatures) -> Callable[[Tensor], Tensor]:
    """The transform from [samples] to [bins, time]."""
    n_fft, hop_length, power = settings.n_fft, settings.hop_length, float(settings.power)
    if settings.representation == "mel":
        return torchaudio_ops.mel_spectrogram(settings.sample_rate, n_fft, hop_length, power, settings.n_mels)
    return torchaudio_ops.spectrogram(n_fft, hop_length, power)
