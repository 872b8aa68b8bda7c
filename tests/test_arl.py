"""ARL: against the weights worked out clip by clip, and the epochs in which they act."""

import copy
import math

import pytest
import torch
from torch.nn.functional import cross_entropy

from agm.methods.arl import weights
from by_hand import gradients, on_model, softmax, step_of
from networks import small_batch, small_method, small_model
from own_outputs import own_outputs
from tiny import close

pytestmark = pytest.mark.numerical

CASES = [(fusion, count) for fusion in ("late_sum", "late_concat", "early") for count in (2, 3, 4)]


def shares(values):
    return {name: value / sum(values.values()) for name, value in values.items()}


def worked_out(own, temperature):
    """w_m from the rows of u_m, number by number."""
    rows = {name: u.tolist() for name, u in own.items()}
    entropy = {name: sum(-sum(p * math.log(p) for p in softmax(row)) for row in u) / len(u) for name, u in rows.items()}
    least = 0.3 * 2 / len(rows)
    certainty = shares({name: 1 / max(value, least) for name, value in shares(entropy).items()})
    given = shares({name: sum(abs(value) for row in u for value in row) / len(u) for name, u in rows.items()})
    powers = {}
    for name in rows:
        others = [given[other] for other in rows if other != name]
        powers[name] = math.exp(temperature * certainty[name] * sum(others) / len(others))
    return shares(powers)


def plain(model, inputs, labels, gamma=1.0):
    """The loss, its gradients before any scaling, and u_m, of a copy."""
    model = copy.deepcopy(model).train()
    model.zero_grad()
    torch.manual_seed(0)
    whole, own = own_outputs(model, inputs, whole_bias=True)
    loss = cross_entropy(whole, labels) + gamma * sum(cross_entropy(u, labels) for u in own.values())
    loss.backward()
    return loss.detach(), gradients(model), {name: u.detach() for name, u in own.items()}


@pytest.mark.parametrize(("fusion", "count"), CASES)
def test_a_step_scales_each_encoder_by_the_weight_worked_out_by_hand(fusion, count):
    model = small_model(fusion, count)
    method = small_method("arl", model, gamma=0.7)
    method.start_epoch(5)
    for seed in range(3):
        inputs, labels = small_batch(count, seed=seed)
        loss, wanted, own = plain(model, inputs, labels, gamma=0.7)
        w = worked_out(own, temperature=8.0)
        assert max(w.values()) - min(w.values()) > 0.002
        close(step_of(method, model, inputs, labels), loss)
        found = gradients(model)
        assert found.keys() == wanted.keys()
        for name, gradient in found.items():
            part, owner = name.split(".")[:2]
            close(gradient, wanted[name] * (1 + w[owner] if part == "encoders" else 1))
        close({name: method.diagnostics[f"coefficient_{name}"].item() for name in w}, {n: 1 + v for n, v in w.items()})


def test_a_feature_s_gradient_is_scaled_as_the_published_layer_does():
    """The scaling sits at the encoder's output there: the same for every weight behind it."""
    model = small_model("late_sum", 2)
    method = small_method("arl", model)
    method.start_epoch(5)
    inputs, labels = small_batch(2)
    twin = copy.deepcopy(model).train()
    twin.zero_grad()
    step_of(method, model, inputs, labels)
    scale = {name: method.diagnostics[f"coefficient_{name}"] for name in inputs}
    for name, encoder in twin.encoders.items():
        encoder.register_forward_hook(
            lambda module, given, output, name=name: output.register_hook(lambda g: g * scale[name]) and None
        )
    torch.manual_seed(0)
    whole, own = own_outputs(twin, inputs)
    (cross_entropy(whole, labels) + sum(cross_entropy(u, labels) for u in own.values())).backward()
    for name, gradient in gradients(twin).items():
        close(gradient, gradients(model)[name])


def test_the_certain_and_little_used_modality_learns_faster():
    sure = torch.tensor([[[3.0, 0.0, 0.0]]], dtype=torch.float64)
    unsure = torch.tensor([[[1.2, 1.0, 0.8]]], dtype=torch.float64)
    same_size = torch.cat([sure, unsure])
    assert weights(same_size, 8.0)[0] > 0.5 > weights(same_size, 8.0)[1]
    # As certain as before, and three times as much of the output.
    shifted = torch.cat([sure, sure + 2])
    assert weights(shifted, 8.0)[0] > 0.5
    close(weights(same_size, 0.0), torch.full((2,), 0.5, dtype=torch.float64))


def test_an_entropy_that_vanishes_is_held_at_the_least_share():
    one = torch.tensor([[[500.0, 0.0]], [[1.0, 0.0]]], dtype=torch.float64)
    other = torch.tensor([[[500.0, 0.0]], [[500.0, 0.0]]], dtype=torch.float64)
    assert weights(one, 8.0).isfinite().all()
    close(weights(other, 8.0), torch.full((2,), 0.5, dtype=torch.float64))
    # Shares of the entropy .0 and 1.0 count as .3 and 1.0: certainty 10/13 and 3/13.
    given = torch.tensor([500 / 501, 1 / 501], dtype=torch.float64)
    certainty = torch.tensor([10 / 13, 3 / 13], dtype=torch.float64)
    close(weights(one, 8.0), (8 * certainty * given.flip(0)).softmax(dim=0))


def test_outside_the_window_nothing_is_scaled_and_the_last_weight_does_not_persist():
    model = small_model("late_concat", 2)
    method = small_method("arl", model, window={"first": 1, "last": 1})
    inputs, labels = small_batch(2)
    for epoch, scaled in ((0, False), (1, True), (2, False)):
        method.start_epoch(epoch)
        loss, wanted, _ = plain(model, inputs, labels)
        close(step_of(method, model, inputs, labels), loss)
        equal = all(torch.allclose(gradient, wanted[name], rtol=1e-9) for name, gradient in gradients(model).items())
        assert equal != scaled
        assert bool(method.diagnostics) == scaled


def test_the_first_five_epochs_are_not_scaled():
    model = small_model("late_concat", 2)
    method = small_method("arl", model)
    active = []
    for epoch in range(8):
        method.start_epoch(epoch)
        active.append(method.active)
    assert active == [False] * 5 + [True] * 3


def test_there_is_no_state_and_a_single_modality_trains():
    model = small_model("late_sum", 1)
    method = small_method("arl", model)
    assert not method.state_dict() and not list(method.parameters())
    method.start_epoch(5)
    step_of(method, model, *small_batch(1))
    assert all(gradient.isfinite().all() for gradient in gradients(model).values())


def test_weights_are_float64_under_autocast():
    model = small_model("late_concat", 2, dtype=torch.float32)
    method = small_method("arl", model)
    method.start_epoch(5)
    inputs, labels = small_batch(2, dtype=torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = on_model(method, model.train()).loss(inputs, labels)
    method.backward(loss)
    assert method.diagnostics["coefficient_audio"].dtype == torch.float64
    assert all(gradient.isfinite().all() for gradient in gradients(model).values())
