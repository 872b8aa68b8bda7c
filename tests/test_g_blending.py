"""G-Blending: against the formula and the losses worked out by hand, and what published copies got wrong."""

import copy
import math

import pytest
import torch
from torch.nn.functional import cross_entropy

from agm.methods import GBlending
from agm.pipeline.errors import AgmError
from by_hand import gradients, softmax, step_of
from networks import FUSIONS, small_batch, small_method, small_model
from tiny import close

pytestmark = pytest.mark.numerical

CASES = [*((fusion, 2) for fusion in FUSIONS), ("late_sum", 3), ("early", 3)]
LOSSES = {  # train and validation, epoch by epoch
    "audio": ([1.5, 1.0, 0.4], [1.6, 1.2, 1.1]),
    "video": ([1.4, 1.3, 1.2], [1.5, 1.45, 1.35]),
    "text": ([1.7, 0.9, 0.2], [1.5, 1.6, 1.8]),
    "joint": ([1.2, 0.6, 0.1], [1.3, 0.8, 0.7]),
}


def history(train, val):
    return {"train_loss": train, "val_loss": val}


def histories_of(names, losses=LOSSES):
    return {"histories": {name: history(*losses[name]) for name in (*names, "joint")}}


def weights_by_hand(names, losses=LOSSES):
    raw = {}
    for name in (*names, "joint"):
        train, val = losses[name]
        g = val[-1] - val[0]
        o = (val[-1] - train[-1]) - (val[0] - train[0])
        raw[name] = abs(g / o**2)
    return {name: value / sum(raw.values()) for name, value in raw.items()}


@pytest.mark.parametrize(("fusion", "count"), CASES)
def test_a_step_weighs_every_modalitys_loss_and_the_joint_one(fusion, count):
    model = small_model(fusion, count)
    method = small_method("g_blending", model, histories_of(model.modalities))
    w = weights_by_hand(model.modalities)
    assert sum(w.values()) == pytest.approx(1)
    inputs, labels = small_batch(count)
    other = copy.deepcopy(model).train()
    torch.manual_seed(0)
    features = other.encode(inputs)
    loss = w["joint"] * cross_entropy(other.fusion(features), labels)
    for name in model.modalities:
        rows = own_output(method, features, name).tolist()
        picked = [-math.log(softmax(row)[label]) for row, label in zip(rows, labels.tolist(), strict=True)]
        loss = loss + w[name] * sum(picked) / len(picked)
    close(step_of(method, model, inputs, labels), loss.detach())
    found = {name: method.diagnostics[f"weight_{name}"].item() for name in w}
    close(found, w)


@pytest.mark.parametrize("fusion", ["late_sum", "late_concat", "early"])
def test_every_modalitys_loss_reaches_its_encoder_and_its_own_classifier(fusion):
    """Gradients of the weighted losses, each with a backward pass of its own."""
    model = small_model(fusion, 2)
    method = small_method("g_blending", model, histories_of(model.modalities))
    w = weights_by_hand(model.modalities)
    inputs, labels = small_batch(2)
    wanted = {}
    for name in w:
        other = copy.deepcopy(model).train()
        torch.manual_seed(0)
        features = other.encode(inputs)
        logits = other.fusion(features)
        if name != "joint":
            logits = own_output(method, features, name)
        (w[name] * cross_entropy(logits, labels)).backward()
        for key, gradient in gradients(other).items():
            wanted[key] = wanted.get(key, 0) + gradient
    heads = {key: weight.grad.clone() for key, weight in method.named_parameters()}
    method.zero_grad()
    step_of(method, model, inputs, labels)
    assert gradients(model).keys() == wanted.keys()
    for key, gradient in gradients(model).items():
        close(gradient, wanted[key], 1e-9)
    assert len(heads) == 4
    for key, weight in method.named_parameters():
        close(weight.grad, heads[key], 1e-9)


def own_output(method, features, name):
    h = features[name] if features[name].ndim == 2 else features[name].mean(dim=1)
    return h @ method.heads[name].weight.T + method.heads[name].bias


def test_losses_are_means_so_that_the_lengths_of_the_loaders_do_not_matter():
    """A published copy takes the sum of 40 training batches from that of 5 for validation."""
    method = small_method("g_blending", small_model("late_sum", 3), histories_of(["audio", "video", "text"]))
    found = dict(zip([*method.modalities, "joint"], method.shares.tolist(), strict=True))
    close(found, weights_by_hand(method.modalities))
    sums = {name: ([40 * x for x in train], [5 * x for x in val]) for name, (train, val) in LOSSES.items()}
    wrong = weights_by_hand(method.modalities, sums)
    assert max(abs(found[name] - wrong[name]) for name in found) > 0.1


def test_only_first_and_last_epoch_count():
    ends = {name: ([train[0], 9.0, train[-1]], [val[0], 9.0, val[-1]]) for name, (train, val) in LOSSES.items()}
    shares = []
    for losses in (LOSSES, ends):
        histories = histories_of(["audio", "video"], losses)
        shares.append(small_method("g_blending", small_model("late_concat", 2), histories).shares)
    assert torch.equal(*shares)


def test_a_run_that_does_not_overfit_has_a_bounded_weight():
    losses = {**LOSSES, "video": ([1.4, 1.3], [1.5, 1.4])}
    method = small_method("g_blending", small_model("late_sum", 2), histories_of(["audio", "video"], losses))
    assert method.shares.isfinite().all() and method.shares.sum().item() == pytest.approx(1)
    audio = abs((1.1 - 1.6) / ((1.1 - 0.4) - (1.6 - 1.5)) ** 2)
    assert (method.shares[1] / method.shares[0]).item() == pytest.approx(0.1 / 1e-6 / audio)


@pytest.mark.parametrize(
    ("losses", "said"),
    [
        ({"audio": ([1.0], [1.1])}, "'audio' has no two"),
        ({"joint": ([1.0, math.nan], [1.1, 1.0])}, "'joint' has no two"),
        ({name: ([1.0, 0.5], [1.1, 1.1]) for name in LOSSES}, "no run's validation loss has changed"),
    ],
)
def test_histories_that_say_nothing_are_refused(losses, said):
    with pytest.raises(AgmError, match=said):
        small_method("g_blending", small_model("late_sum", 2), histories_of(["audio", "video"], {**LOSSES, **losses}))


def test_weights_survive_an_interruption_and_evaluation_needs_no_past():
    model = small_model("late_concat", 2)
    method = small_method("g_blending", model, histories_of(["audio", "video"]))
    other = small_method("g_blending", model)
    assert other.shares.tolist() == pytest.approx([1 / 3] * 3)
    other.load_state_dict(method.state_dict())
    assert torch.equal(other.shares, method.shares)
    assert GBlending.prerequisites == ("histories",)
    assert method.state_dict().keys() == other.state_dict().keys()
