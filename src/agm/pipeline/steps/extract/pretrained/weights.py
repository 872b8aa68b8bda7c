"""Weights of pretrained networks, from local files that cannot run code: nothing is ever downloaded."""

from collections.abc import Callable
from pathlib import Path
from pickle import UnpicklingError

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from agm.pipeline.errors import AgmError


def read(path: Path, key: str) -> dict[str, Tensor]:
    """The weights by name, of a .safetensors file or of one that `torch.save` wrote.

    Raises:
        AgmError: when the file, which the parameter `key` names, is missing, damaged or anything but tensors by name.
    """
    if not path.is_file():
        raise AgmError("There are no pretrained weights", where=path, fix=f"set {key} to a local file")
    try:
        # `weights_only`: a pickle that would run code is refused.
        found = load_file(path) if path.suffix == ".safetensors" else torch.load(path, "cpu", weights_only=True)
    except (SafetensorError, UnpicklingError, RuntimeError, EOFError, ValueError, KeyError) as error:
        raise AgmError(
            f"The pretrained weights cannot be read, or are more than tensors: {_first_line(error)}",
            where=path,
            fix=f"set {key} to a file of weights alone, .safetensors or .pth",
        ) from None
    if not isinstance(found, dict) or not all(isinstance(each, Tensor) for each in found.values()):
        raise AgmError(
            "The pretrained weights are not tensors by name",
            where=path,
            fix="store the network's state_dict() alone in it",
        )
    return found


def rename(weights: dict[str, Tensor], name: Callable[[str], str | None]) -> None:
    """Give each of the weights the name that `name` gives, and leave out those to which it gives None.

    In place: beside the tensors `torch.save` keeps the versions of the layers, which a new dictionary would lose.
    """
    for old in list(weights):
        value, new = weights.pop(old), name(old)
        if new is not None:
            weights[new] = value


def fill(network: nn.Module, weights: dict[str, Tensor], path: Path, model: str) -> None:
    """Give `network` its weights, all of them and no others.

    Raises:
        AgmError: when they are those of another network than `model`.
    """
    try:
        network.load_state_dict(weights)
    except (RuntimeError, ValueError) as error:
        raise AgmError(f"These are not the weights of {model}: {str(error)[:1000]}", where=path) from None


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]
