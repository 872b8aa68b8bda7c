"""AGM: equal to the slow reference, and the paper's invariants."""

import copy
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.functional import cross_entropy

import by_hand
from agm.attribution import coalitions, modality_responses, shapley_weights
from agm.methods.agm import coefficients, ratios
from agm.models.multimodal import Multimodal
from agm.pipeline.networks import build_fusion
from by_hand import agm_equals_the_reference, gradients, on_model
from networks import FUSIONS, small_batch, small_method, small_model
from reference import masked_passes, shapley

pytestmark = pytest.mark.numerical

CASES = [(fusion, count) for fusion in FUSIONS for count in (2, 3)]
close = partial(by_hand.close, tolerance=1e-12)


@pytest.mark.parametrize(("fusion", "count"), CASES)
def test_three_steps_equal_the_reference_in_outputs_coefficients_and_every_gradient(fusion, count):
    bound = 0.05 if count == 2 else None
    batches = [small_batch(count, seed=step) for step in range(3)]
    agm_equals_the_reference(small_model(fusion, count), batches, alpha=1.7, bound=bound)


@pytest.mark.parametrize(("fusion", "count"), CASES)
def test_responses_add_up_to_the_full_output_in_either_mode(fusion, count):
    model = small_model(fusion, count)
    inputs, _ = small_batch(count)
    for train in (True, False):
        model.train(train)
        torch.manual_seed(1)
        responses = modality_responses(model, inputs)
        torch.manual_seed(1)
        close(responses.sum(dim=0), model(inputs))


@pytest.mark.parametrize("count", [2, 3])
def test_responses_match_the_papers_written_out_formulas(count):
    model = small_model("early", count).eval()
    inputs, _ = small_batch(count)
    f = {"".join(sorted(name[0] for name in kept)): value for kept, value in masked_passes(model, inputs).items()}
    model.eval()
    f["atv" if count == 3 else "av"] = model(inputs)
    first = modality_responses(model, inputs)[0]
    if count == 2:
        close(first, (f["av"] - f["v"] + f["a"]) / 2)
    else:
        close(first, (f["atv"] - f["tv"] + f["a"]) / 3 + (f["av"] - f["v"] + f["at"] - f["t"]) / 6)


def test_four_modalities_follow_the_same_rule():
    names = ["a", "b", "c", "d"]
    weights = shapley_weights(names)
    assert weights.shape == (4, 15)
    outputs = {}
    values = torch.randn(15, 3, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for subset, value in zip(coalitions(names), values, strict=True):
        outputs[frozenset(subset)] = value
    wanted = shapley(outputs, names)
    found = torch.einsum("ms,sbc->mbc", weights, values)
    for name, phi in zip(names, found, strict=True):
        close(phi, wanted[name])


@pytest.mark.parametrize(("fusion", "count"), [("late_concat", 3), ("early", 2), ("cross_attention", 2)])
def test_masked_passes_leave_running_statistics_and_the_mode_alone(fusion, count):
    model = small_model(fusion, count).train()
    model.encoders["audio"].eval()  # a module that the user froze stays frozen
    modes = [module.training for module in model.modules()]
    plain = copy.deepcopy(model)
    inputs, _ = small_batch(count)
    torch.manual_seed(0)
    modality_responses(model, inputs)
    torch.manual_seed(0)
    plain(inputs)
    assert modes == [module.training for module in model.modules()]
    for value, other in zip(model.buffers(), plain.buffers(), strict=True):
        close(value, other)


def test_outside_the_window_training_is_plain_and_the_coefficient_does_not_linger():
    model = small_model("late_concat", 2)
    method = small_method("agm", model, alpha=2.0, window={"first": 1, "last": 1})
    inputs, labels = small_batch(2)
    for epoch, modulated in ((0, False), (1, True), (2, False)):
        method.start_epoch(epoch)
        other = copy.deepcopy(model).train()
        torch.manual_seed(0)
        on_model(method, other).loss(inputs, labels).backward()
        assert bool(method.diagnostics) == modulated
        if not modulated:
            plain = copy.deepcopy(model).train()
            torch.manual_seed(0)
            cross_entropy(plain(inputs), labels).backward()
            for name, gradient in gradients(other).items():
                close(gradient, gradients(plain)[name])


def test_the_running_mean_counts_the_steps_before_the_window_too():
    model = small_model("late_concat", 2)
    waiting = small_method("agm", model, window={"first": 1, "last": 1})
    always = small_method("agm", model)
    for epoch in range(3):
        for method in (waiting, always):
            method.start_epoch(epoch)
        for step in range(2):
            inputs, labels = small_batch(2, seed=10 * epoch + step)
            for method in (waiting, always):
                torch.manual_seed(0)
                on_model(method, copy.deepcopy(model).train()).loss(inputs, labels)
            if epoch == 1:
                assert torch.equal(waiting.diagnostics["kappa_audio"], always.diagnostics["kappa_audio"])
                assert waiting.diagnostics["kappa_audio"] != 1
        assert torch.equal(waiting.score_sum, always.score_sum) == (epoch < 2), "behind the window nobody reads it"


@pytest.mark.parametrize("fusion", ["late_sum", "late_concat"])
def test_an_additive_head_scales_encoder_gradients_by_kappa(fusion):
    """For encoders without biases, of which E(0) = 0: an E(0) that has weights of its own brings their gradient too."""
    torch.manual_seed(0)
    encoders = {"audio": BiasFree(4, 3), "video": BiasFree(5, 2)}
    head = build_fusion(FUSIONS[fusion], {"audio": 3, "video": 2}, 4)
    model = Multimodal(encoders, head).double()
    plain = copy.deepcopy(model)
    inputs = {"audio": torch.randn(6, 4, dtype=torch.float64), "video": torch.randn(6, 5, dtype=torch.float64)}
    labels = torch.tensor([0, 1, 2, 3, 0, 1])
    method = small_method("agm", model, alpha=1.0)
    method.load_state_dict({"steps": torch.tensor(1), "score_sum": torch.tensor([0.4, 2.0], dtype=torch.float64)})
    on_model(method, model).loss(inputs, labels).backward()
    cross_entropy(plain(inputs), labels).backward()
    kappa = {name: method.diagnostics[f"kappa_{name}"].item() for name in inputs}
    assert abs(kappa["audio"] - kappa["video"]) > 0.1
    wanted = gradients(plain)
    for name, value in kappa.items():
        close(model.encoders[name].weight.grad, value * wanted[f"encoders.{name}.weight"])
    for layer, other in zip(model.fusion.classifiers, plain.fusion.classifiers, strict=True):
        close(layer.bias.grad, sum(kappa.values()) / 2 * other.bias.grad)


class BiasFree(nn.Linear):
    """A linear encoder through the origin."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__(before, after, bias=False)
        self.dim = after


scores_of = st.lists(st.floats(0.0, 18.0), min_size=2, max_size=5).map(lambda x: torch.tensor(x, dtype=torch.float64))


@given(scores_of)
def test_ratios_multiply_to_one_and_favour_the_better_fit(score):
    ratio = ratios(score)
    assert ratio.log().sum().abs() < 1e-8
    assert ratio[score.argmin()] == ratio.max()


@given(scores_of, st.floats(0, 3), st.none() | st.floats(0.1, 10))
def test_coefficients_are_one_where_nothing_changed_and_never_exceed_the_bound(score, alpha, bound):
    reference = ratios(score)
    assert torch.equal(coefficients(reference, reference=reference, alpha=alpha, bound=bound), torch.ones_like(score))
    kappa = coefficients(ratios(score.flip(0)), reference=reference, alpha=alpha, bound=bound)
    assert (kappa >= 0).all()
    if bound is not None:
        assert (kappa <= torch.tensor(alpha * bound, dtype=torch.float64).exp() * (1 + 1e-9)).all()


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1000), st.sampled_from([2, 3]))
def test_the_reference_ratio_is_one_at_the_first_step(seed, count):
    model = small_model("late_concat", count, seed=seed)
    method = small_method("agm", model, alpha=1.3)
    inputs, labels = small_batch(count, seed=seed)
    on_model(method, model.train()).loss(inputs, labels)
    for name in inputs:
        kappa, ratio = method.diagnostics[f"kappa_{name}"], method.diagnostics[f"ratio_{name}"]
        close(kappa, (1.3 * (1 - ratio)).exp())


def test_a_faster_learner_is_slowed_and_a_slower_one_sped_up():
    """The sign that published copies got wrong: against equal past scores, the modality that fits better now loses."""
    now = ratios(torch.tensor([0.5, 2.0], dtype=torch.float64))
    kappa = coefficients(now, reference=torch.ones(2, dtype=torch.float64), alpha=1.0, bound=None)
    assert kappa[0] < 1 < kappa[1]


def test_coefficients_are_float32_or_wider_under_autocast():
    model = small_model("late_concat", 2, dtype=torch.float32)
    method = small_method("agm", model, alpha=1.0)
    inputs, labels = small_batch(2, dtype=torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = on_model(method, model.train()).loss(inputs, labels)
    assert loss.dtype == torch.float32
    assert method.diagnostics["kappa_audio"].dtype == torch.float64
