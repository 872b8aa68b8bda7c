"""What methods are compared with: the quantities of the papers, worked out clip by clip in plain Python."""

import copy
import math
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from agm.methods import Method
from agm.methods.method import Batch
from agm.models.multimodal import Multimodal
from agm.pipeline.steps.train.clips import Split
from networks import small_method
from reference import SlowAgm
from tiny import close


class Clips:
    """Training and validation batches given as they are; nobody may ask for the test split."""

    def __init__(self, epochs: int = 1, **splits: list[tuple[dict[str, Tensor], Tensor]]) -> None:
        self.epochs, self.splits = epochs, splits
        self.read: list[tuple[str, int | None]] = []

    def clips(self, split: str) -> int:
        return sum(len(labels) for _, labels in self.splits[split])

    def batches(self, split: str, epoch: int | None = None) -> Iterator[Batch]:
        assert split in ("train", "val")
        for inputs, labels in self.splits[split]:
            self.read.append((split, epoch))
            yield Batch(inputs, labels, [str(index) for index in range(len(labels))])


def begin_epoch(method: Method, epoch: int, clips: Clips | None = None) -> None:
    """Begin an epoch of the method's model, in training mode, with the splits of `clips`."""
    if not method.model.training:
        method.model.train()
    if clips is None:
        method.start_epoch(epoch)
    else:
        train, val = Split(clips, "train", epoch), Split(clips, "val")
        method.start_epoch(epoch, train=train, val=val, epochs=getattr(clips, "epochs", 1))


def on_model(method: Method, model: Multimodal) -> Method:
    """The method, applied to another model of the same kind from now on."""
    method.__dict__["model"] = model
    return method


def gradients(model: torch.nn.Module) -> dict[str, Tensor]:
    return {name: weight.grad.clone() for name, weight in model.named_parameters() if weight.grad is not None}


def agm_equals_the_reference(
    fast: Multimodal, batches: list[tuple[dict[str, Tensor], Tensor]], alpha: float, bound: float | None
) -> None:
    """Losses, coefficients, every gradient and every statistic of AGM, step by step."""
    slow = copy.deepcopy(fast)
    method, reference = small_method("agm", fast, alpha=alpha, bound=bound), SlowAgm(alpha, bound)
    for step, (inputs, labels) in enumerate(batches):
        fast.train().zero_grad()
        slow.zero_grad()
        torch.manual_seed(step)
        loss = on_model(method, fast).loss(inputs, labels)
        loss.backward()
        torch.manual_seed(step)
        _, kappa, wanted_loss = reference.step(slow, inputs, labels)
        close(loss, wanted_loss, 1e-12)
        found = {name: method.diagnostics[f"kappa_{name}"].item() for name in kappa}
        assert found == pytest.approx(kappa, rel=1e-10)
        assert step == 0 or any(abs(value - 1) > 1e-3 for value in kappa.values())
        wanted = gradients(slow)
        assert gradients(fast).keys() == wanted.keys()
        for name, gradient in gradients(fast).items():
            close(gradient, wanted[name], 1e-9)
        for value, other in zip(fast.state_dict().values(), slow.state_dict().values(), strict=True):
            close(value, other, 1e-12)


def step_of(method: Method, model: Multimodal, inputs: dict, labels: Tensor, seed: int = 0) -> Tensor:
    """One step without the optimizer; the gradients are left in the weights."""
    model.train().zero_grad()
    method.zero_grad()
    torch.manual_seed(seed)
    loss = on_model(method, model).loss(inputs, labels)
    method.backward(loss)
    return loss.detach()


def plain_step(model: Multimodal, inputs: dict, labels: Tensor, seed: int = 0) -> tuple[Tensor, dict[str, Tensor]]:
    """Loss and gradients of joint training, of a copy."""
    other = copy.deepcopy(model).train()
    other.zero_grad()
    torch.manual_seed(seed)
    loss = cross_entropy(other(inputs), labels)
    loss.backward()
    return loss.detach(), gradients(other)


def after_pass(model: Multimodal, inputs: dict, seed: int = 0) -> tuple[Multimodal, dict[str, Tensor]]:
    """A copy of the model after a training pass, which moves running statistics, and the features of that pass."""
    other = copy.deepcopy(model).train()
    torch.manual_seed(seed)
    features = {name: encoder(inputs[name]).detach() for name, encoder in other.encoders.items()}
    other.fusion(features)
    return other, features


@torch.no_grad()
def own_logits(model: Multimodal, inputs: dict, features: dict[str, Tensor]) -> dict[str, list[list[float]]]:
    """u_m of every clip: W_m h_m and the modality's part of the bias, or the output with the other inputs zero."""
    names = list(model.encoders)
    other = copy.deepcopy(model).eval()
    found = {}
    for name in names:
        if hasattr(other.fusion, "heads"):
            weight, bias = other.fusion.heads[name].weight, other.fusion.heads[name].bias
            u = features[name] @ weight.T + bias
        elif model.fusion.additive:
            start = sum(features[each].shape[1] for each in names[: names.index(name)])
            weight = other.fusion.classifier.weight[:, start : start + features[name].shape[1]]
            u = features[name] @ weight.T + other.fusion.classifier.bias / len(names)
        else:
            masked = {each: other.encoders[each](torch.zeros_like(inputs[each])) for each in names if each != name}
            u = other.fusion({each: features[each] if each == name else masked[each] for each in names})
        found[name] = u.tolist()
    return found


def softmax(logits: list[float]) -> list[float]:
    powers = [math.exp(value) for value in logits]
    return [power / sum(powers) for power in powers]


def own_scores(logits: dict[str, list[list[float]]], labels: Tensor) -> dict[str, float]:
    """s_m = Σ_i softmax(u_m)[i, y_i]."""
    return {
        name: sum(softmax(row)[label] for row, label in zip(rows, labels.tolist(), strict=True))
        for name, rows in logits.items()
    }


def mean_ratios(score: dict[str, float]) -> dict[str, float]:
    """Of every modality the mean of s_m / s_k over the others."""
    found = {}
    for name in score:
        shares = [score[name] / score[other] for other in score if other != name]
        found[name] = sum(shares) / len(shares)
    return found
