"""Read weights of pretrained networks from local files, without running code of them; nothing is downloaded."""

from collections.abc import Callable
from pathlib import Path
from pickle import UnpicklingError

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from agm.pipeline.errors import AgmError


def read(path: Path, key: str) -> dict[str, Tensor]:
    """The weights by name, from a .safetensors file or one that `torch.save` wrote.

    Raises:
        AgmError: when the file, which the parameter `key` names, is missing, damaged or not tensors by name.
    """
    if not path.is_file():
        raise AgmError("There are no pretrained weights", where=path, fix=f"set {key} to a local file")
    try:
        # `weights_only` refuses a pickle that would run code.
        state = load_file(path) if path.suffix == ".safetensors" else torch.load(path, "cpu", weights_only=True)
    except (SafetensorError, UnpicklingError, RuntimeError, EOFError, ValueError, KeyError) as error:
        message = str(error) or type(error).__name__
        raise AgmError(
            f"The pretrained weights cannot be read, or are more than tensors: {message.splitlines()[0]}",
            where=path,
            fix=f"set {key} to a file of weights alone, .safetensors or .pth",
        ) from None
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise AgmError(
            "The pretrained weights are not tensors by name",
            where=path,
            fix="store the network's state_dict() alone in it",
        )
    return state


def rename(state: dict[str, Tensor], name: Callable[[str], str | None]) -> None:
    """Give each of the weights the name that `name` returns, and remove those for which it returns None.

    This changes `state` in place: beside the tensors it holds the versions of the layers, which a new dictionary would
    lose.
    """
    for old in list(state):
        value = state.pop(old)
        new = name(old)
        if new is not None:
            state[new] = value


def fill(network: nn.Module, state: dict[str, Tensor], path: Path, model: str) -> None:
    """Load all of `state`, and nothing else, into `network`.

    Raises:
        AgmError: when it holds the weights of another network than `model`.
    """
    try:
        network.load_state_dict(state)
    except (RuntimeError, ValueError) as error:
        raise AgmError(f"These are not the weights of {model}: {str(error)[:1000]}", where=path) from None
