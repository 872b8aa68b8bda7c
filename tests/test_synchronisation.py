"""No method's step makes the host wait for the device: on a GPU that would stall every step."""

import copy
import io
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from agm import methods
from agm.methods import METHODS
from agm.methods.method import Batch
from agm.models.multimodal import Multimodal
from agm.pipeline.config import schema
from agm.pipeline.steps.train.loop import Training
from by_hand import begin_epoch
from networks import CLASSES, refusal, small_batch, small_method, small_model

COUNT = 2
aten = torch.ops.aten
WAITING = {
    aten._local_scalar_dense,
    aten._linalg_check_errors,
    aten._unique2,
    aten.bincount,
    aten.equal,
    aten.is_nonzero,
    aten.masked_select,
    aten.nonzero,
    aten.unique_consecutive,
    aten.unique_dim,
}
INDEXING = {aten.index, aten.index_put, aten.index_put_, aten._index_put_impl_, aten._unsafe_index}


class Refusing(TorchDispatchMode):
    """Refuses what makes the host wait for a GPU: reading a value, a shape that depends on values, and copies from
    one device to another."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        operation = func.overloadpacket
        if operation in WAITING or (operation in INDEXING and any(_is_mask(each) for each in args[1])):
            raise AssertionError(f"{func} in a step: it waits for the device")
        result = func(*args, **(kwargs or {}))
        if operation in {aten._to_copy, aten.copy_}:
            devices = {each.device.type for each in (*args, result) if isinstance(each, Tensor)}
            # A copy to the device that is told not to wait does not.
            waits = args[0].device.type != "cpu" or not (kwargs or {}).get("non_blocking")
            if len(devices) > 1 and waits:
                raise AssertionError(f"{func} in a step: it copies between devices")
        return result


class RefusingConstants(TorchFunctionMode):
    """Refuses torch.tensor(…, device=…), whose copy the other mode does not see."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func in (torch.tensor, torch.as_tensor) and str((kwargs or {}).get("device") or "cpu") != "cpu":
            raise AssertionError(f"{func} in a step: it copies to the device")
        return func(*args, **(kwargs or {}))


def _is_mask(index: Tensor | None) -> bool:
    return index is not None and index.dtype in (torch.bool, torch.uint8)


class FewClips:
    """Data in the place of a run's: two batches to train on and one for validation."""

    epochs = 20

    def __init__(self, device: str) -> None:
        self.device, self.counts = device, {"train": 2, "val": 1}

    def clips(self, split: str) -> int:
        return 12 * self.counts[split]

    def batches(self, split: str, epoch: int | None = None) -> Iterator[Batch]:
        for number in range(self.counts[split]):
            inputs, _ = small_batch(COUNT, seed=number, batch=12, dtype=torch.float32)
            labels = torch.arange(12) % CLASSES
            inputs = {name: x.to(self.device) for name, x in inputs.items()}
            yield Batch(inputs, labels.to(self.device), [f"{split}{12 * number + row}" for row in range(12)])


def finished_runs(name: str, model: Multimodal) -> dict[str, object]:
    """What a method reads of finished runs: encoders like the model's, and losses that fell."""
    teachers = {}
    for modality, encoder in model.encoders.items():
        teachers[modality] = copy.deepcopy(encoder).requires_grad_(False)
    histories = {run: _history(pace) for pace, run in enumerate([*teachers, "joint"], start=2)}
    found = {"teachers": teachers, "histories": histories}
    return {argument: found[argument] for argument in methods.get(name).prerequisites}


def _history(pace: int) -> dict[str, list[float]]:
    train = [2.0 / (1 + epoch / pace) for epoch in range(30)]
    return {"train_loss": train, "val_loss": [1 + loss / 2 for loss in train]}


def training(name: str, device: str) -> Training:
    """A run of the method whose epoch has begun."""
    model = small_model("late_concat", COUNT, dtype=torch.float32).to(device)
    method = small_method(name, model, finished_runs(name, model))
    run = Training(model.to(device), method.to(device), None, schema.Trainer(), seed=0)
    run.data = FewClips(device)
    return run


def steps(run: Training) -> None:
    """Two steps, the second of which must not wait: the first makes what is made once."""
    batch = next(run.data.batches("train", 0))
    run.train_step(batch)
    with Refusing(), RefusingConstants():
        assert run.train_step(batch).shape == ()


def refused(name: str) -> str | None:
    dims = {name: encoder.dim for name, encoder in small_model("late_concat", COUNT).encoders.items()}
    return refusal(name, "late_concat", dims)


@pytest.mark.parametrize("name", METHODS)
def test_no_step_reads_a_value_or_copies_between_devices(name: str) -> None:
    if reason := refused(name):
        pytest.skip(reason)
    run = training(name, "cpu")
    for epoch in (0, 10):
        run.model.train()
        begin_epoch(run.method, epoch, run.data)
        steps(run)
        # Once more without values: whatever was left on the host shows as a copy or cannot be computed at all.
        file = io.BytesIO()
        torch.save(run, file)
        file.seek(0)
        away = torch.load(file, map_location="meta", weights_only=False)
        away.data = FewClips("meta")
        steps(away)


MISTAKES = {
    "item": lambda x: x.sum().item(),
    "float": lambda x: float(x[0]),
    "condition": lambda x: 1 if x.sum() > 0 else 2,
    "mask": lambda x: x[x > 0],
    "assignment": lambda x: x.clone().index_put_((x > 0,), x[0]),
    "nonzero": lambda x: x.nonzero(),
    "equal": lambda x: torch.equal(x, x),
}
SEEN_WITHOUT_VALUES = {
    "tolist": lambda x: x.tolist(),
    "constant": lambda x: torch.tensor([1.0], device=x.device),
    "moved": lambda x: torch.ones(3).to(x.device),
    "copied": lambda x: x.clone().copy_(torch.ones(3)),
    "kept": lambda x: x + torch.ones(3),
}


@pytest.mark.parametrize(
    ("mistake", "device"),
    [(each, device) for each in MISTAKES.values() for device in ("cpu", "meta")]
    + [(each, "meta") for each in SEEN_WITHOUT_VALUES.values()],
    ids=[f"{name}-{device}" for name in MISTAKES for device in ("cpu", "meta")] + list(SEEN_WITHOUT_VALUES),
)
def test_the_search_finds_what_waits(mistake, device: str) -> None:
    x = torch.ones(3, device=device)
    with pytest.raises((AssertionError, NotImplementedError, RuntimeError)), Refusing(), RefusingConstants():
        mistake(x)
    with Refusing(), RefusingConstants():
        torch.where(x > 0, x, 2.0).double().index_select(0, torch.arange(2, device=device)).clamp_min(1)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("name", METHODS)
def test_no_step_waits_for_the_gpu(name: str) -> None:
    if reason := refused(name):
        pytest.skip(reason)
    run = training(name, "cuda")
    for epoch in (0, 10):
        run.model.train()
        begin_epoch(run.method, epoch, run.data)
    batch = next(run.data.batches("train", 0))
    run.train_step(batch)
    torch.cuda.set_sync_debug_mode("error")
    try:
        run.train_step(batch)
    finally:
        torch.cuda.set_sync_debug_mode("default")
