"""Compute optical flow by RAFT (Teed & Deng, 2020) in torchvision's implementation, with weights from a local file.

The pictures come from the worker processes (`flow.runs`); the network runs in this process, on the device.
"""

from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torchvision import models

from agm.pipeline.config.schema import FlowFeatures
from agm.pipeline.runtime.device import prepare_device
from agm.pipeline.steps.extract import flow
from agm.pipeline.steps.extract.pretrained import Finish, weights

# The number of pairs of pictures that the network gets at once.
PAIRS = 16


def flows(settings: FlowFeatures, key: str) -> Finish:
    """The function from the pictures of some clips, as `flow.runs` returns them, to their flow in the stored form.

    Raises:
        AgmError: when the weights are missing or others; the parameter `key` names their file.
    """
    network = models.get_model(settings.method, weights=None)
    path = Path(settings.weights)
    weights.fill(network, weights.read(path, key), path, settings.method)
    device = prepare_device(threads=1)
    return partial(_flows, network.to(device).eval(), device, settings)


def _flows(
    network: nn.Module, device: torch.device, settings: FlowFeatures, clips: list[np.ndarray]
) -> list[np.ndarray]:
    return [flow.stored(_fields(network, device, settings.method, runs), settings) for runs in clips]


@torch.inference_mode()
def _fields(network: nn.Module, device: torch.device, method: str, runs: np.ndarray) -> np.ndarray:
    """uint8 [frames, stack + 1, 3, size, size] → the flow between successive pictures, float32 [frames · stack, 2,
    size, size]."""
    pairs = torch.from_numpy(np.stack([runs[:, :-1], runs[:, 1:]])).flatten(1, 2)
    transform = models.get_model_weights(method).DEFAULT.transforms()
    fields = []
    for some in pairs.split(PAIRS, dim=1):
        before, after = transform(*some.to(device))
        # The network returns a list of estimates, each of which refines the one before.
        fields.append(network(before, after)[-1])
    return torch.cat(fields).cpu().numpy()
