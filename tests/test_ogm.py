"""OGM and OGM-GE: against the rule worked out clip by clip, and what published copies got wrong."""

import copy
import math

import pytest
import torch

from agm.attribution import evaluating
from agm.methods.ogm import coefficients, ratios
from agm.methods.ogm_ge import spreads
from by_hand import (
    after_pass,
    gradients,
    mean_ratios,
    on_model,
    own_logits,
    own_scores,
    plain_step,
    step_of,
)
from networks import FUSIONS, small_batch, small_method, small_model
from tiny import close

pytestmark = pytest.mark.numerical

CASES = [*((fusion, 2) for fusion in FUSIONS), ("late_sum", 3), ("late_concat", 3), ("early", 3)]
DOUBLE = torch.float64


def wanted_coefficients(model, inputs, labels, alpha):
    after, features = after_pass(model, inputs)
    score = own_scores(own_logits(after, inputs, features), labels)
    return {name: 1 - math.tanh(alpha * max(0, r)) if r > 1 else 1.0 for name, r in mean_ratios(score).items()}


@pytest.mark.parametrize(("fusion", "count"), CASES)
def test_a_step_scales_every_encoder_weight_by_the_coefficient_worked_out_by_hand(fusion, count):
    model = small_model(fusion, count)
    method = small_method("ogm", model, alpha=0.6)
    modulated = set()
    for step in range(3):
        inputs, labels = small_batch(count, seed=step)
        wanted_loss, wanted = plain_step(model, inputs, labels)
        k = wanted_coefficients(model, inputs, labels, alpha=0.6)
        close(step_of(method, model, inputs, labels), wanted_loss)
        found = gradients(model)
        assert found.keys() == wanted.keys()
        for name, gradient in found.items():
            part, owner = name.split(".")[:2]
            close(gradient, wanted[name] * (k[owner] if part == "encoders" else 1))
        close({name: method.diagnostics[f"coefficient_{name}"].item() for name in k}, k)
        modulated |= {name for name, value in k.items() if value < 1}
    assert modulated


def test_weights_that_are_no_convolutions_are_modulated_too():
    """The released code takes four-dimensional weights only: a transformer would be left alone."""
    model = small_model("late_sum", 3)
    method = small_method("ogm", model, alpha=0.6)
    inputs, labels = small_batch(3)
    with torch.no_grad():  # the text alone is right for sure, so that it is text that is modulated
        labels = model.eval().encoders["text"](inputs["text"]).matmul(model.fusion.heads["text"].weight.T).argmax(1)
        model.fusion.heads["text"].weight *= 20
    _, plain = plain_step(model, inputs, labels)
    step_of(method, model, inputs, labels)
    k = method.diagnostics["coefficient_text"]
    assert k < 0.9
    for name, gradient in gradients(model).items():
        if name.startswith("encoders.text."):
            close(gradient, k * plain[name])


@pytest.mark.parametrize("name", ["ogm", "ogm_ge"])
@pytest.mark.parametrize("fusion", ["late_sum", "late_concat"])
@pytest.mark.parametrize("count", [2, 3])
def test_late_fusion_is_modulated_whatever_the_encoders_are_called(name, fusion, count):
    """A published copy looks for names that late fusion does not have, and changes nothing."""
    model = small_model(fusion, count)
    assert not any("audio_net" in each or "visual" in each for each, _ in model.named_parameters())
    inputs, labels = small_batch(count)
    _, plain = plain_step(model, inputs, labels)
    method = small_method(name, model, alpha=0.6)
    step_of(method, model, inputs, labels)
    changed = {each for each, gradient in gradients(model).items() if not torch.allclose(gradient, plain[each])}
    slowed = [each for each in model.modalities if method.diagnostics[f"coefficient_{each}"] < 1]
    assert slowed
    assert {each for each in plain if each.split(".")[1] in slowed and plain[each].abs().max() > 1e-8} <= changed


def test_with_more_than_two_modalities_every_ratio_is_an_average():
    """A published copy divides outside the loop: the last ratio is an average, the others are sums."""
    found = ratios(torch.tensor([4.0, 2.0, 1.0], dtype=DOUBLE))
    close(found.tolist(), [(4 / 2 + 4 / 1) / 2, (2 / 4 + 2 / 1) / 2, (1 / 4 + 1 / 2) / 2])
    close(ratios(torch.tensor([3.0, 2.0], dtype=DOUBLE)).tolist(), [3 / 2, 2 / 3])
    assert ratios(torch.tensor([3.0])).tolist() == [1]
    for count in range(2, 7):
        assert ratios(torch.full((count,), 0.3, dtype=DOUBLE)).tolist() == [1] * count


def test_the_coefficient_jumps_where_the_ratio_passes_one():
    ratio = torch.tensor([0.2, 1.0, 1.0 + 1e-9, 2.0], dtype=DOUBLE)
    wanted = [1.0, 1.0, 1 - math.tanh(0.3), 1 - math.tanh(0.6)]
    close(coefficients(ratio, alpha=0.3).tolist(), wanted, 1e-8)
    assert coefficients(ratio, alpha=0.0).tolist() == [1, 1, 1, 1]


@pytest.mark.parametrize("name", ["ogm", "ogm_ge"])
def test_outside_the_window_training_is_plain_and_the_last_coefficient_does_not_persist(name):
    model = small_model("late_concat", 2)
    method = small_method(name, model, alpha=0.8, window={"first": 1, "last": 1})
    inputs, labels = small_batch(2)
    for epoch, modulated in ((0, False), (1, True), (2, False)):
        method.start_epoch(epoch)
        loss, plain = plain_step(model, inputs, labels)
        close(step_of(method, model, inputs, labels), loss, 0)
        equal = all(torch.equal(gradient, plain[each]) for each, gradient in gradients(model).items())
        assert equal != modulated
        assert bool(method.diagnostics) == modulated


def test_alpha_zero_is_plain_training():
    model = small_model("early", 3)
    inputs, labels = small_batch(3)
    _, plain = plain_step(model, inputs, labels)
    step_of(small_method("ogm", model, alpha=0.0), model, inputs, labels)
    for name, gradient in gradients(model).items():
        assert torch.equal(gradient, plain[name])


@pytest.mark.parametrize(("fusion", "count"), [("late_sum", 2), ("early", 3)])
def test_the_noise_has_each_tensors_spread_and_comes_where_nothing_is_scaled_too(fusion, count):
    model = small_model(fusion, count)
    inputs, labels = small_batch(count)
    _, plain = plain_step(model, inputs, labels)
    k = wanted_coefficients(model, inputs, labels, alpha=0.6)
    assert 1.0 in k.values()
    method = small_method("ogm_ge", model, alpha=0.6)
    draws = {name: [] for name in plain if name.startswith("encoders.")}
    before = copy.deepcopy(model.state_dict())
    for seed in range(80):
        model.load_state_dict(before)
        model.train().zero_grad()
        torch.manual_seed(0)
        loss = on_model(method, model).loss(inputs, labels)
        torch.manual_seed(1000 + seed)
        method.backward(loss)
        found = gradients(model)
        for name, drawn in draws.items():
            drawn.append(found[name] - k[name.split(".")[1]] * plain[name])
        for name in plain.keys() - draws.keys():
            close(found[name], plain[name])
    for name, drawn in draws.items():
        values = plain[name].flatten().tolist()
        mean = sum(values) / len(values)
        spread = math.sqrt(sum((value - mean) ** 2 for value in values) / (len(values) - 1)) + 1e-8
        noise = torch.stack(drawn)
        error = 5 / math.sqrt(noise.numel())
        assert noise.mean().abs() < spread * error, name
        assert noise.std() == pytest.approx(spread, rel=error), name
        if noise[0].numel() > 1:  # a draw for every entry, not one for the tensor
            assert (noise[0] - noise[0].mean()).abs().max() > 0


def test_a_tensor_of_one_entry_has_no_spread():
    (alone, other) = spreads([torch.tensor([3.0]), torch.tensor([1.0, 2.0])])
    assert alone == pytest.approx(1e-8)
    assert other == pytest.approx(0.5**0.5)


def test_noise_repeats_from_the_same_generator_state():
    model = small_model("late_concat", 2)
    inputs, labels = small_batch(2)
    found = []
    for _ in range(2):
        other = copy.deepcopy(model)
        step_of(small_method("ogm_ge", other), other, inputs, labels)
        found.append(gradients(other))
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])


@pytest.mark.parametrize("name", ["ogm", "ogm_ge"])
def test_there_is_no_state_to_lose_and_the_model_is_only_read(name):
    model = small_model("early", 2)
    method = small_method(name, model)
    assert not method.state_dict() and not list(method.parameters())
    inputs, labels = small_batch(2)
    with evaluating(model):
        before = copy.deepcopy(model.state_dict())
        on_model(method, model).loss(inputs, labels)
        assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_a_single_modality_is_plain_training():
    model = small_model("late_sum", 1)
    inputs, labels = small_batch(1)
    _, plain = plain_step(model, inputs, labels)
    step_of(small_method("ogm", model), model, inputs, labels)
    assert all(torch.equal(gradient, plain[each]) for each, gradient in gradients(model).items())


def test_one_encoding_serves_the_loss_and_the_scores():
    model = small_model("late_concat", 3)
    calls = []
    for encoder in model.encoders.values():
        encoder.register_forward_hook(lambda *_: calls.append(1))
    small_method("ogm", model.train()).loss(*small_batch(3))
    assert len(calls) == 3


def test_scores_are_float64_under_autocast():
    model = small_model("late_concat", 2, dtype=torch.float32)
    method = small_method("ogm", model)
    inputs, labels = small_batch(2, dtype=torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = on_model(method, model.train()).loss(inputs, labels)
    method.backward(loss)
    assert method.diagnostics["score_audio"].dtype == DOUBLE
    assert all(gradient.isfinite().all() for gradient in gradients(model).values())
