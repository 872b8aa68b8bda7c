"""Pretrained networks that turn clips into sequences of vectors, float32 [steps, size], and are not trained.

Clips are decoded in the worker processes; the network runs in this one, on the device, over the clips of a batch that
are of one shape. So it never sees padding: what is beyond a clip's last step is zeros in the result alone. On a CPU it
runs on one thread, for the values would differ with their number; parts run side by side.
"""

from collections import defaultdict
from functools import partial

import numpy as np
import torch
from torch import nn

from agm.pipeline.errors import AgmError
from agm.pipeline.io.tensors import Feature
from agm.pipeline.runtime.device import prepare_device
from agm.pipeline.steps.extract.pretrained import Finish
from agm.pipeline.steps.extract.sequence import filled


def sequences(network: nn.Module, longest: np.ndarray, key: str) -> tuple[Feature, Finish]:
    """What `network`, [B, …] → [B, steps, size], makes of clips, and the function that runs it on a batch of them.

    Args:
        longest: an input of the greatest length there can be.
        key: the parameters' name, for errors.

    Raises:
        AgmError: when the network cannot read `longest`.
    """
    device = prepare_device(threads=1)
    run = partial(_vectors, network.to(device).eval(), device)
    try:
        [example] = run([longest])
    except (RuntimeError, IndexError, ValueError, TypeError, AssertionError, AttributeError) as error:
        raise AgmError(
            f"The pretrained network cannot read inputs of shape {list(longest.shape)}: {error}",
            where=key,
            fix="choose the frames, seconds or words that it was made for, or another network",
        ) from None
    return Feature("sequence", "float32", example.shape), partial(_filled, run, len(example))


def _filled(run: Finish, steps: int, clips: list[np.ndarray]) -> list[np.ndarray]:
    return [filled(each, steps) for each in run(clips)]


@torch.inference_mode()
def _vectors(network: nn.Module, device: torch.device, clips: list[np.ndarray]) -> list[np.ndarray]:
    """The network's vectors of every clip; clips of one shape are run together."""
    alike = defaultdict(list)
    for number, clip in enumerate(clips):
        alike[clip.shape].append(number)
    found: dict[int, np.ndarray] = {}
    for numbers in alike.values():
        batch = torch.from_numpy(np.stack([clips[number] for number in numbers])).to(device)
        found |= zip(numbers, network(batch).float().cpu().numpy(), strict=True)
    return [found[number] for number in range(len(clips))]
