"""Sound to a log spectrogram or log mel spectrogram, float32 [1, bins, time]."""

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

# Sound decoded beyond the length that is kept, so that the resampling filter sees what follows.
MARGIN_SECONDS = 1.0
# Seconds by which sound may be off its stated time: nobody sees it, and containers round times.
LIP_SYNC = 0.04
# One in so many frames, or so few in all, may begin elsewhere than where the one before it ended.
FEW, FEWEST = 20, 3

Mono = tuple[np.ndarray, int]
Placed = tuple[int, AudioFrame]


class NoClock(Exception):
    """The times that a file states for its sound are none."""


def feature(settings: AudioFeatures) -> Feature:
    """What `load` returns."""
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
    found = torch.log(spectrum + settings.log_floor)
    if not settings.as_sequence:
        return found[None].numpy()
    if settings.fit == "pad":
        found[:, _windows(len(wave), settings) :] = 0
    return found.T.numpy()


def _windows(samples: int, settings: AudioFeatures) -> int:
    """Of how many windows the spectrogram is."""
    return 1 + samples // settings.hop_length


def _length(settings: AudioFeatures) -> int:
    """Samples after resampling and fitting."""
    return round(settings.seconds * settings.sample_rate)


def mono(source: Source, seconds: float) -> tuple[np.ndarray, int]:
    """The first `seconds` of the clip's sound, the mean of its channels: float32 [samples], and its samples a second.

    Every sample is where its time says, counted from the beginning of the file as for pictures: where there is none, it
    is silent.

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
            # The decoder knows better than the header, which may give half the rate.
            rate = rate or frame.sample_rate
            if frame.sample_rate != rate:
                raise Unusable(f"the sound changes its sample rate from {rate} to {frame.sample_rate} Hz")
            last = first + frame.samples
            if last > start * rate:  # others are not kept: a piece may begin hours into the file
                pieces.append((first, _mean(frame)))
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
    """Each frame and the place of its first sample. The frames' times are in units of `unit` seconds, and the file
    `began` at that second.

    A frame follows the one before it, unless its time differs and the next frame's agrees with it.

    Raises:
        NoClock: when more than a few differ.
    """
    place = differing = 0
    timed = ((frame, None if frame.pts is None else frame.pts * unit - began) for frame in frames)
    for number, ((frame, time), (_, after)) in enumerate(pairwise(chain(timed, [(None, None)])), 1):
        rate = frame.sample_rate
        if time is not None and abs(time - place / rate) > LIP_SYNC:
            differing += 1
            if differing > FEWEST and differing * FEW > number:
                raise NoClock
            agrees = number == 1 if after is None else abs(after - time - frame.samples / rate) <= LIP_SYNC
            if agrees:
                place = round(time * rate)
        yield place, frame
        place += frame.samples


def _one_after_another(frames: Iterator[AudioFrame], unit: float, began: float) -> Iterator[Placed]:
    place = 0
    for frame in frames:
        yield place, frame
        place += frame.samples


def _cut(pieces: list[tuple[int, np.ndarray]], first: int, last: int) -> np.ndarray:
    """The samples from `first` to `last` of sounds that begin at different places, and silence between."""
    wave = np.zeros(max(0, last - first), np.float32)
    for place, sound in pieces:
        sound = sound[max(0, first - place) :]
        room = wave[max(0, place - first) :]
        room[: len(sound)] = sound[: len(room)]
    return wave


def _check_length(container: InputContainer, stream: Stream, decoded: float) -> None:
    """Refuse a clip that goes on for too long after what was decoded, whatever its header says."""
    seconds = decoded
    for packet in packets(container, stream):
        limits.check("seconds", seconds, "the clip lasts {} s or more")
        seconds += float((packet.duration or 0) * packet.time_base)
    limits.check("seconds", seconds, "the clip lasts {} s")


def _mean(frame: AudioFrame) -> np.ndarray:
    """Mean over the channels, in [-1, 1] whatever the stored type: float32 [samples]."""
    return samples(frame).mean(axis=0).astype(np.float32)


def resampled(source: Source, seconds: float, wanted: int) -> Tensor:
    """The first `seconds` of the clip's sound and a little more, float32 [samples], `wanted` of them a second.

    Raises:
        Unusable: when there is no sound.
    """
    torch.set_num_threads(1)
    wave, rate = mono(source, seconds + MARGIN_SECONDS)
    # The filter grows with the terms of the ratio; odd rates (44,101 Hz) are met within one part in a million.
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
