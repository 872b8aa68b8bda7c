"""Frozen networks of torchaudio's pipelines: sound to a vector for each 20 ms, [steps, size].

The vectors are the states after the last layer, not the letters that some pipelines make of them. Every sound is read
at its own length: shorter ones are not padded before the network, which would change what it makes of them.
"""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from agm.pipeline.config.schema import AudioFeatures, FrozenSound
from agm.pipeline.errors import AgmError
from agm.pipeline.io.media import Unusable
from agm.pipeline.io.source import Source
from agm.pipeline.steps.extract import audio, torchaudio_ops
from agm.pipeline.steps.extract.pretrained import weights

# Samples that one step of these networks sees.
FEWEST_SAMPLES = 400


class Speech(nn.Module):
    """A network of sound, [B, samples] → [B, steps, size]."""

    def __init__(self, network: nn.Module, normalise: bool) -> None:
        """`normalise`: whether it was trained on sounds of mean 0 and variance 1."""
        super().__init__()
        self.network, self.normalise = network, normalise

    def forward(self, x: Tensor) -> Tensor:
        states, _ = self.network(nn.functional.layer_norm(x, x.shape[1:]) if self.normalise else x)
        return states


def network(settings: FrozenSound, key: str) -> Speech:
    """The network with its weights.

    Raises:
        AgmError: when torchaudio has no such pipeline, or the file is not what it should be.
    """
    known = torchaudio_ops.SPEECH
    if settings.model not in known:
        what = f"torchaudio has no pipeline '{settings.model}' of this kind"
        raise AgmError(what, where=f"{key}.model", fix=f"one of {', '.join(known)}")
    chosen = known[settings.model]
    model = chosen.build()
    path = Path(settings.weights)
    state = weights.read(path, f"{key}.weights")
    weights.rename(state, lambda name: None if name.startswith("aux.") else name)
    weights.fill(model, state, path, settings.model)
    return Speech(model, chosen.normalise)


def load(source: Source, settings: AudioFeatures) -> np.ndarray:
    """The sound, float32 [samples], at the network's rate; cut at `seconds`, or tiled to that length.

    Raises:
        Unusable: when there is less sound than one step.
    """
    rate = torchaudio_ops.SPEECH_RATE
    wave = audio.resampled(source, settings.seconds, rate)
    if len(wave) < FEWEST_SAMPLES:
        raise Unusable(f"the sound is too short: {len(wave)} samples at {rate} Hz, and {FEWEST_SAMPLES} are needed")
    length = round(settings.seconds * rate)
    return (audio.fitted(wave, length, "tile") if settings.fit == "tile" else wave[:length]).numpy()


def longest(settings: AudioFeatures) -> np.ndarray:
    """As much sound as `load` returns at most."""
    return torch.zeros(round(settings.seconds * torchaudio_ops.SPEECH_RATE)).numpy()
