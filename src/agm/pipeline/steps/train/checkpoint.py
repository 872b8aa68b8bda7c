"""What an interrupted run needs to end as if it had not been: safetensors files of plain tensors and numbers.

    epoch-<epochs done>-<sha256>.safetensors                everything, after an epoch
    step-<epochs done>-<batches done>-<sha256>.safetensors  what the epoch under way has changed since it began

The name holds the checksum of the file's bytes: damage is found before anything is read. A method may do at the
beginning of an epoch what it likes; so a run that was stopped within one takes up the state before it, lets the method
begin it again, which ends as it did, and then takes up the step's.
"""

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

from agm import distributed
from agm.pipeline.io.files import replacing, sha256
from agm.pipeline.runtime.progress import say
from agm.pipeline.steps.train.meter import Meter

if TYPE_CHECKING:
    from agm.pipeline.steps.train.loop import Training


class Checkpoints:
    """The checkpoints of one run, in a folder of its own. Of several processes the first one writes."""

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)

    def save_epoch(self, training: "Training") -> None:
        """Write the state after the last epoch done; what was there before is of no use any more."""
        tensors = _state(training) | _under("best", training.best_weights)
        numbers = {
            "history": training.history,
            "best_epoch": training.best_epoch,
        }
        self._write(f"epoch-{len(training.history):05}", tensors, numbers, training.device)

    def save_step(self, training: "Training", batches: int, meter: Meter) -> None:
        """Write the state after some batches of the epoch under way, `meter` included."""
        tensors = _state(training) | _under("meter", _by_rank(meter.state()))
        numbers = {"weights": meter.weights}
        self._write(f"step-{len(training.history):05}-{batches:06}", tensors, numbers, training.device)

    def restore_epoch(self, training: "Training") -> None:
        """Take up the state after the last epoch done; without one, start from the beginning."""
        tensors, numbers = self._newest("epoch-*", training.label)[1:]
        if tensors is None:
            return
        _restore(training, tensors)
        training.history, training.best_epoch = numbers["history"], numbers["best_epoch"]
        training.best_weights = _below("best", tensors)
        _say_once(f"{training.label}: going on after epoch {len(training.history) - 1}")

    def restore_step(self, training: "Training", meter: Meter) -> int:
        """Take up the state within the epoch that has just begun, and `meter`; returns how many batches are done."""
        name, tensors, numbers = self._newest(f"step-{len(training.history):05}-*", training.label)
        if tensors is None:
            return 0
        _restore(training, tensors)
        meter.restore(_of_this_rank(_below("meter", tensors)), numbers["weights"])
        batches = int(name.split("-")[2])
        _say_once(f"{training.label}: going on after batch {batches} of epoch {len(training.history)}")
        return batches

    def _write(self, position: str, tensors: dict[str, Tensor], numbers: dict[str, Any], device: torch.device) -> None:
        # Every process has a random state of its own, so all take part; the rest is the same in each.
        tensors = tensors | _under("random", _random_states(device))
        if distributed.rank() > 0:
            return
        content = save(plain(tensors), metadata={"numbers": json.dumps(numbers)})
        path = self.folder / f"{position}-{hashlib.sha256(content).hexdigest()}.safetensors"
        with replacing(path) as temporary:
            temporary.write_bytes(content)
        # A step goes on from the epoch before it.
        replaced = "*" if position.startswith("epoch") else "step-*"
        for old in self.folder.glob(f"{replaced}.safetensors"):
            if old != path:
                old.unlink()

    def _newest(self, pattern: str, label: str) -> tuple[str, dict[str, Tensor] | None, dict[str, Any]]:
        """The newest file of the pattern that is whole: its name, tensors and numbers."""
        for path in sorted(self.folder.glob(f"{pattern}.safetensors"), reverse=True):
            expected, actual = path.stem.rpartition("-")[2], sha256(path)
            if actual == expected:
                with safe_open(path, framework="pt") as file:
                    names = file.keys()
                    tensors = {name: file.get_tensor(name) for name in names}
                    return path.name, tensors, json.loads(file.metadata()["numbers"])
            say(
                f"{label}: a checkpoint is damaged: its checksum is {actual}, and {expected} was recorded\n"
                f"  where: {path}\n  what happens: `{label}` goes on from the one before, or starts again"
            )
        return "", None, {}


def _say_once(message: str) -> None:
    """Tell the user something, of several processes in the first one only."""
    if distributed.rank() == 0:
        say(message)


def plain(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Copies in plain layout on the CPU: safetensors refuses tensors that share memory, and other layouts."""
    return {name: value.detach().cpu().clone(memory_format=torch.contiguous_format) for name, value in tensors.items()}


def _state(training: "Training") -> dict[str, Tensor]:
    """The state of model, method and optimizer."""
    tensors = {
        **_under("model", training.model.state_dict()),
        **_under("method", training.method.state_dict()),
    }
    for index, state in training.optimizer.state_dict()["state"].items():
        tensors |= _under(f"optimizer.{index}", {key: value for key, value in state.items() if value is not None})
    return tensors


def _restore(training: "Training", tensors: dict[str, Tensor]) -> None:
    training.model.load_state_dict(_below("model", tensors))
    training.method.load_state_dict(_below("method", tensors))
    training.optimizer.load_state_dict(_optimizer_state(training, _below("optimizer", tensors)))
    _set_random_state(_below("random", tensors), training.device)


def _optimizer_state(training: "Training", tensors: dict[str, Tensor]) -> dict[str, Any]:
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        index, key = name.split(".", 1)
        state.setdefault(int(index), {})[key] = value
    return {"state": state, "param_groups": training.optimizer.state_dict()["param_groups"]}


def _random_states(device: torch.device) -> dict[str, Tensor]:
    """The state of torch's generators in every process, by rank."""
    state = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(device)
    return _by_rank(state)


def _set_random_state(states: dict[str, Tensor], device: torch.device) -> None:
    own = _of_this_rank(states)
    torch.set_rng_state(own["cpu"])
    if device.type == "cuda" and "cuda" in own:
        torch.cuda.set_rng_state(own["cuda"], device)


def _by_rank(own: dict[str, Tensor]) -> dict[str, Tensor]:
    """What differs from process to process, of all of them: `<name>.<rank>`."""
    every = {}
    for name, value in own.items():
        for rank, of_rank in enumerate(distributed.gathered(value)):
            every[f"{name}.{rank}"] = of_rank
    return every


def _of_this_rank(every: dict[str, Tensor]) -> dict[str, Tensor]:
    end = f".{distributed.rank()}"
    return {name.removesuffix(end): value for name, value in every.items() if name.endswith(end)}


def _under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {f"{prefix}.{name}": value for name, value in tensors.items()}


def _below(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    start = f"{prefix}."
    return {name.removeprefix(start): value for name, value in tensors.items() if name.startswith(start)}
