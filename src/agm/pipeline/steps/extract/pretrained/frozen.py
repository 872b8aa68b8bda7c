"""Turn clips into sequences of vectors, float32 [steps, size], by pretrained networks that are not trained further.

Worker processes decode the clips; the network runs in this process, on the device, over the clips of a batch that have
one shape. So it never sees padding: only the result has zeros after a clip's last step. On a CPU it runs on one thread,
because the values would differ with the number of threads; parts run side by side instead.
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
    """The form of the outputs of `network`, [B, …] → [B, steps, size], and the function that runs it on clips.

    Args:
        longest: an input of the greatest possible length.
        key: the name of the parameters, for errors.

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
    return [filled(vectors, steps) for vectors in run(clips)]


@torch.inference_mode()
def _vectors(network: nn.Module, device: torch.device, clips: list[np.ndarray]) -> list[np.ndarray]:
    """The network's vectors of every clip; clips of one shape run together."""
    numbers_of: dict[tuple[int, ...], list[int]] = defaultdict(list)
    for number, clip in enumerate(clips):
        numbers_of[clip.shape].append(number)
    vectors_of: dict[int, np.ndarray] = {}
    for numbers in numbers_of.values():
        batch = torch.from_numpy(np.stack([clips[number] for number in numbers])).to(device)
        vectors_of |= zip(numbers, network(batch).float().cpu().numpy(), strict=True)
    return [vectors_of[number] for number in range(len(clips))]
