"""Exchange between encoders on the way: multimodal transfer modules (MMTM) after their last stages.

Joze et al., 'MMTM: Multimodal Transfer Module for CNN Fusion', CVPR 2020, as Wu et al. (ICML 2022) use it. With z_m the
mean of stream m over its positions, `[B, C_m]`:

    e = relu(W [z_1 … z_M] + b)        g_m = σ(V_m e + c_m)        stream m ← g_m ⊙ stream m

so that what one stream holds decides which channels of the others go on.
"""

from collections.abc import Generator, Mapping
from typing import cast

import torch
from torch import Tensor, nn

from agm.models.encoders import Encoder, initialise
from agm.models.tokens import mean_of_kept, padding_of


class MMTM(nn.Module):
    """One transfer module: `{m: [B, C_m]} → {m: [B, C_m]}`, means of the streams to gates between 0 and 1.

    It keeps the running average of each gate over samples and training passes.
    """

    passes: Tensor

    def __init__(self, channels: dict[str, int], ratio: int) -> None:
        """`ratio`: how much narrower than the streams together e is, times two."""
        super().__init__()
        width = max(1, 2 * sum(channels.values()) // ratio)
        self.squeeze = nn.Linear(sum(channels.values()), width)
        self.excite = nn.ModuleDict({name: nn.Linear(width, count) for name, count in channels.items()})
        initialise(self)
        self.register_buffer("passes", torch.zeros((), dtype=torch.int64))
        for name, count in channels.items():
            self.register_buffer(f"average_{name}", torch.zeros(count))

    def forward(self, means: dict[str, Tensor], averaged: dict[str, Tensor]) -> dict[str, Tensor]:
        """`averaged`: of each modality, whether its gate is the average over the passes before; a scalar bool."""
        excitation = self.squeeze(torch.cat([means[name] for name in self.excite], dim=1)).relu()
        gates = {name: layer(excitation).sigmoid() for name, layer in self.excite.items()}
        chosen = dict(gates)
        for name, gate in gates.items():
            if name in averaged:
                average = self.get_buffer(f"average_{name}").to(gate.dtype)
                chosen[name] = torch.where(averaged[name], average, gate)
        if self.training:
            self._average(gates)
        return chosen

    @torch.no_grad()
    def _average(self, gates: dict[str, Tensor]) -> None:
        self.passes += 1
        for name, gate in gates.items():
            average = self.get_buffer(f"average_{name}")
            average += (gate.to(average.dtype).mean(dim=0) - average) / self.passes


class Exchange(nn.Module):
    """Transfer modules after the last stages of the encoders; `Multimodal.exchange`.

    The encoders' ends are aligned: the first module here is behind each one's last stage, the next one behind the
    stage before that, among the encoders that have one.

    Attributes:
        averaged: see `MMTM.forward`; empty but where a method asks for it.
    """

    def __init__(self, encoders: Mapping[str, Encoder], stages: int, ratio: int) -> None:
        super().__init__()
        self.levels = nn.ModuleList()
        for level in range(stages):
            channels = {
                name: encoder.channels[-1 - level] for name, encoder in encoders.items() if len(encoder.stages) > level
            }
            if len(channels) > 1:
                self.levels.append(MMTM(channels, ratio))
        self.averaged: dict[str, Tensor] = {}

    def forward(self, encoders: Mapping[str, Encoder], inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        """Prepared inputs to features, as the encoders give them."""
        runs = {name: encoder.run_stages(inputs[name]) for name, encoder in encoders.items()}
        states: dict[str, Tensor] = {}
        for level in reversed(range(max(len(encoder.stages) for encoder in encoders.values()))):
            for name, encoder in encoders.items():
                if len(encoder.stages) > level:
                    # The first stage of a run is begun by `next`, each other by the state to go on with.
                    states[name] = runs[name].send(states[name]) if name in states else next(runs[name])
            if level < len(self.levels):
                states |= self._gated(cast(MMTM, self.levels[level]), states, inputs)
        return {name: _feature(run, states.get(name)) for name, run in runs.items()}

    def _gated(self, module: MMTM, states: dict[str, Tensor], inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        means = {name: _mean(states[name], inputs[name]) for name in module.excite}
        gates = module(means, self.averaged if self.training else {})
        return {name: _scaled(states[name], gate) for name, gate in gates.items()}


def _mean(state: Tensor, x: Tensor) -> Tensor:
    """Mean of a stream over its positions, `[B · frames, C, H, W]` or `[B, T, C]` without the padding in the input
    `[B, T, …]`, to `[B, C]`."""
    if state.ndim == 4:
        return state.mean(dim=(2, 3)).unflatten(0, (len(x), -1)).mean(dim=1)
    return mean_of_kept(state, padding_of(x.reshape(*x.shape[:2], -1)))


def _scaled(state: Tensor, gate: Tensor) -> Tensor:
    if state.ndim == 4:
        return state * gate.repeat_interleave(len(state) // len(gate), dim=0)[:, :, None, None]
    return state * gate[:, None]


def _feature(run: Generator[Tensor, Tensor, Tensor], state: Tensor | None) -> Tensor:
    """The end of a run of stages."""
    try:
        next(run) if state is None else run.send(state)
    except StopIteration as end:
        feature: Tensor = end.value
        return feature
    raise RuntimeError("an encoder has more stages than it says")
