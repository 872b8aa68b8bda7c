"""MBSD: against the loss written out clip by clip and pair by pair."""

import copy
from itertools import combinations

import pytest
import torch

from agm.methods.mbsd import distance
from by_hand import gradients, plain_step, step_of
from networks import small_batch, small_method, small_model
from own_outputs import own_outputs
from tiny import close

pytestmark = pytest.mark.numerical

CASES = [(fusion, count) for fusion in ("late_sum", "late_concat", "early") for count in (2, 3, 4)]


def written_out(model, inputs, labels):
    """The loss clip by clip and its gradients, of a copy; and how often each of the two was the stronger."""
    model = copy.deepcopy(model).train()
    model.zero_grad()
    torch.manual_seed(0)
    whole, own = own_outputs(model, inputs)
    batch, classes = whole.shape
    loss, stronger = torch.zeros((), dtype=torch.float64), set()
    for out in (whole, *own.values()):
        for i, label in enumerate(labels.tolist()):
            loss = loss + (out[i].exp().sum().log() - out[i][label]) / batch
    pairs = list(combinations(own, 2))
    for one, other in pairs:
        for i, label in enumerate(labels.tolist()):
            p = {name: own[name][i].softmax(0) for name in (one, other)}
            if all(shares.argmax().item() != label for shares in p.values()):
                continue
            strong, weak = sorted(p, key=lambda name: -p[name][label].item())
            weight = p[strong][label].item() - p[weak][label].item()
            values = p if len(own) > 2 else {name: own[name][i] for name in p}
            square = sum((values[strong][c] - values[weak][c]) ** 2 for c in range(classes)) / classes
            divergence = sum(p[weak][c] * (p[weak][c].log() - p[strong][c].log()) for c in range(classes))
            loss = loss + weight * (square + divergence) / batch / len(pairs)
            stronger.add(strong)
    loss.backward()
    return loss.detach(), gradients(model), stronger


@pytest.mark.parametrize(("fusion", "count"), CASES)
def test_loss_and_gradients_equal_the_ones_written_out(fusion, count):
    model = small_model(fusion, count)
    method = small_method("mbsd", model)
    stronger = set()
    for seed in range(3):
        inputs, labels = small_batch(count, seed=seed, batch=12)
        loss, wanted, seen = written_out(model, inputs, labels)
        stronger |= seen
        close(step_of(method, model, inputs, labels), loss)
        found = gradients(model)
        assert found.keys() == wanted.keys()
        for name, gradient in found.items():
            close(gradient, wanted[name])
    assert len(stronger) > 1


def test_the_distance_vanishes_where_the_modalities_agree_and_is_positive_elsewhere():
    """Published: p_w (log p_w − p_s), which is not zero for equal outputs and can be below it."""
    torch.manual_seed(0)
    labels = torch.arange(4)
    logits = 3 * torch.eye(4, dtype=torch.float64) + torch.randn(4, 4, dtype=torch.float64) / 4
    close(distance(torch.stack([logits, logits]), labels, of_shares=True), torch.zeros((), dtype=torch.float64))
    for _ in range(20):
        pair = torch.stack([logits, 2 * torch.randn(4, 4, dtype=torch.float64)])
        assert distance(pair, labels, of_shares=True) > 0
        close(distance(pair, labels, of_shares=True), distance(pair.flip(0), labels, of_shares=True))


def test_clips_that_both_get_wrong_do_not_count():
    logits = torch.tensor([[[0.0, 2.0, 1.0]], [[0.0, 1.0, 4.0]]], dtype=torch.float64)
    assert distance(logits, torch.tensor([0]), of_shares=False) == 0
    assert distance(logits, torch.tensor([1]), of_shares=False) > 0


def test_no_gradient_flows_through_the_weight():
    logits = torch.tensor([[[2.0, 0.0]], [[0.5, 0.0]]], dtype=torch.float64, requires_grad=True)
    distance(logits, torch.tensor([0]), of_shares=False).backward()
    weight = logits.detach().softmax(dim=2)[:, 0, 0]
    weight = weight[0] - weight[1]
    twin = logits.detach().clone().requires_grad_()
    p = twin.softmax(dim=2)
    inner = ((twin[0] - twin[1]) ** 2).mean() + (p[1] * (p[1].log() - p[0].log())).sum()
    (weight * inner).backward()
    close(logits.grad, twin.grad)


def test_a_single_modality_has_no_pair():
    model = small_model("late_concat", 1)
    inputs, labels = small_batch(1)
    loss, plain = plain_step(model, inputs, labels)
    close(step_of(small_method("mbsd", model), model, inputs, labels), 2 * loss)
    for name, gradient in gradients(model).items():
        close(gradient, 2 * plain[name])


def test_there_is_no_state_and_one_pass_of_the_encoders():
    model = small_model("late_sum", 3)
    method = small_method("mbsd", model)
    assert not method.state_dict() and not list(method.parameters())
    calls = []
    for encoder in model.encoders.values():
        encoder.register_forward_hook(lambda *_: calls.append(1))
    step_of(method, model, *small_batch(3))
    assert len(calls) == 3


def test_the_loss_is_float32_under_autocast():
    model = small_model("late_sum", 2, dtype=torch.float32)
    inputs, labels = small_batch(2, dtype=torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert small_method("mbsd", model.train()).loss(inputs, labels).dtype == torch.float32
