"""All that this project takes from torchaudio: resampling, spectrograms, and networks of speech.

No other module imports torchaudio, and this one uses its public functions only. 2.11 is its last release, so whoever
replaces it one day has one module to write anew.
"""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor, nn
from torchaudio import functional, models, transforms

SPEECH_RATE = 16_000
"""Samples per second that all networks of speech read."""


def resample(wave: Tensor, before: int, after: int) -> Tensor:
    """Bring [samples] from `before` samples per second to `after`, by a windowed sinc filter."""
    return functional.resample(wave, before, after)


def spectrogram(n_fft: int, hop: int, power: float) -> nn.Module:
    """A transform from [samples] to [bins, time]. Windows are centred, and the sound is mirrored at its ends."""
    return transforms.Spectrogram(n_fft=n_fft, hop_length=hop, power=power)


def mel_spectrogram(rate: int, n_fft: int, hop: int, power: float, mels: int) -> nn.Module:
    """The same with frequencies in `mels` bands, for sound of `rate` samples per second."""
    return transforms.MelSpectrogram(rate, n_fft=n_fft, hop_length=hop, power=power, n_mels=mels)


@dataclass(frozen=True)
class SpeechNetwork:
    """A network of one of torchaudio's pipelines, without the layer for letters that some of them have.

    Attributes:
        build: makes the network, with random weights: [B, samples] → ([B, steps, size], None).
        normalise: whether it was trained on sounds of mean 0 and variance 1.
    """

    build: Callable[[], nn.Module]
    normalise: bool


_BASE = SpeechNetwork(models.wav2vec2_base, normalise=False)
_LARGE = SpeechNetwork(models.wav2vec2_large, normalise=False)
_LARGE_LV60K = SpeechNetwork(models.wav2vec2_large_lv60k, normalise=True)
_HUBERT_LARGE = SpeechNetwork(models.hubert_large, normalise=True)
_HUBERT_XLARGE = SpeechNetwork(models.hubert_xlarge, normalise=True)
_WAVLM_BASE = SpeechNetwork(models.wavlm_base, normalise=False)

SPEECH = {
    "HUBERT_ASR_LARGE": _HUBERT_LARGE,
    "HUBERT_ASR_XLARGE": _HUBERT_XLARGE,
    "HUBERT_BASE": SpeechNetwork(models.hubert_base, normalise=False),
    "HUBERT_LARGE": _HUBERT_LARGE,
    "HUBERT_XLARGE": _HUBERT_XLARGE,
    "MMS_FA": _LARGE_LV60K,
    "VOXPOPULI_ASR_BASE_10K_DE": _BASE,
    "VOXPOPULI_ASR_BASE_10K_EN": _BASE,
    "VOXPOPULI_ASR_BASE_10K_ES": _BASE,
    "VOXPOPULI_ASR_BASE_10K_FR": _BASE,
    "VOXPOPULI_ASR_BASE_10K_IT": _BASE,
    "WAV2VEC2_ASR_BASE_100H": _BASE,
    "WAV2VEC2_ASR_BASE_10M": _BASE,
    "WAV2VEC2_ASR_BASE_960H": _BASE,
    "WAV2VEC2_ASR_LARGE_100H": _LARGE,
    "WAV2VEC2_ASR_LARGE_10M": _LARGE,
    "WAV2VEC2_ASR_LARGE_960H": _LARGE,
    "WAV2VEC2_ASR_LARGE_LV60K_100H": _LARGE_LV60K,
    "WAV2VEC2_ASR_LARGE_LV60K_10M": _LARGE_LV60K,
    "WAV2VEC2_ASR_LARGE_LV60K_960H": _LARGE_LV60K,
    "WAV2VEC2_BASE": _BASE,
    "WAV2VEC2_LARGE": _LARGE,
    "WAV2VEC2_LARGE_LV60K": _LARGE_LV60K,
    "WAV2VEC2_XLSR53": _LARGE_LV60K,
    "WAV2VEC2_XLSR_1B": SpeechNetwork(models.wav2vec2_xlsr_1b, normalise=True),
    "WAV2VEC2_XLSR_2B": SpeechNetwork(models.wav2vec2_xlsr_2b, normalise=True),
    "WAV2VEC2_XLSR_300M": SpeechNetwork(models.wav2vec2_xlsr_300m, normalise=True),
    "WAVLM_BASE": _WAVLM_BASE,
    "WAVLM_BASE_PLUS": _WAVLM_BASE,
    "WAVLM_LARGE": SpeechNetwork(models.wavlm_large, normalise=True),
}
"""The networks by the names of torchaudio's pipelines (`torchaudio.pipelines`), which download weights when asked for a
network."""
