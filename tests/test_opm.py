"""OPM and BML: against the rule worked out clip by clip, and what published copies got wrong."""

import copy
import math

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from agm.methods.ogm import ratios
from agm.methods.opm import dropped, probabilities
from by_hand import after_pass, gradients, mean_ratios, own_logits, own_scores, plain_step, step_of
from networks import FUSIONS, small_batch, small_method, small_model
from tiny import close

pytestmark = pytest.mark.numerical

CASES = [*((fusion, 2) for fusion in FUSIONS), ("late_sum", 3), ("late_concat", 3), ("early", 3)]
DOUBLE = torch.float64


def model_of(fusion, count):
    """A model whose fusion draws nothing, so that what is left out is all that is drawn after the features."""
    model = small_model(fusion, count)
    for module in model.fusion.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        elif isinstance(module, nn.MultiheadAttention):
            module.dropout = 0.0
    return model


def by_hand(model, inputs, labels, base, strength):
    """ρ_m, q_m and θ; the fusion has not yet seen the batch when the scores are taken."""
    after, features = after_pass(model, inputs)
    after.fusion.load_state_dict(model.fusion.state_dict())
    ratio = mean_ratios(own_scores(own_logits(after, inputs, features), labels))
    drop = {}
    for name, r in ratio.items():
        rho = math.tanh(max(0.0, r - 1))
        drop[name] = min(1.0, base * (1 + strength * rho)) if rho > 0 else 0.0
    sizes = {name: features[name].shape[-1] for name in ratio}
    theta = sum(drop[name] * sizes[name] for name in ratio) / sum(sizes.values())
    return ratio, drop, theta


def given_to_fusion(model, run):
    """The features that the fusion saw in training while `run` ran."""
    seen = []
    hook = model.fusion.register_forward_pre_hook(
        lambda module, args: seen.append({name: h.detach() for name, h in args[0].items()}) if module.training else None
    )
    run()
    hook.remove()
    (features,) = seen
    return features


@pytest.mark.parametrize(
    ("name", "fusion", "count"),
    [
        *(("opm", *case) for case in CASES),
        ("bml", "late_concat", 2),
        ("bml", "early", 3),
        ("bml", "cross_attention", 2),
    ],
)
def test_a_step_is_that_of_features_left_out_clip_by_clip(name, fusion, count):
    model = model_of(fusion, count)
    method = small_method(name, model, base=0.6, strength=0.9, share=1.0)
    zeros = 0
    for seed in range(4):
        inputs, labels = small_batch(count, seed=seed, batch=12)
        ratio, drop, theta = by_hand(model, inputs, labels, 0.6, 0.9)
        start = copy.deepcopy(model)
        _, plain = after_pass(model, inputs, seed=0)
        losses = []
        seen = given_to_fusion(model, lambda i=inputs, y=labels: losses.append(step_of(method, model, i, y)))  # noqa: B023
        close({m: method.diagnostics[f"drop_{m}"].item() for m in drop}, drop)
        factors = {m: torch.zeros(len(labels), *[1] * (plain[m].ndim - 1), dtype=DOUBLE) for m in drop}
        for m in drop:
            for i in range(len(labels)):
                left_out = not seen[m][i].any() and plain[m][i].any()
                zeros += left_out
                assert not left_out or drop[m] > 0
                factors[m][i] = 0.0 if left_out else 1 / (1 - theta)
                close(seen[m][i], plain[m][i] * factors[m][i])
        torch.manual_seed(0)
        start.train().zero_grad()
        features = start.encode(inputs)
        wanted_loss = cross_entropy(start.fusion({m: h * factors[m] for m, h in features.items()}), labels)
        wanted_loss.backward()
        close(losses[0], wanted_loss.detach())
        k = dict.fromkeys(ratio, 1.0)
        if name == "bml":
            k = {m: 1 - math.tanh(0.8 * r) if r > 1 else 1.0 for m, r in ratio.items()}
        wanted = gradients(start)
        for each, gradient in gradients(model).items():
            part, owner = each.split(".")[:2]
            close(gradient, wanted[each] * (k[owner] if part == "encoders" else 1))
    assert zeros > 0


def test_features_are_left_out_as_often_as_said_and_in_that_share_of_the_steps():
    features = {"audio": torch.ones(50, 3, dtype=DOUBLE), "video": torch.ones(50, 7, 5, dtype=DOUBLE)}
    drop = torch.tensor([0.0, 0.3], dtype=DOUBLE)
    torch.manual_seed(0)
    kept, steps = [], 0
    for _ in range(400):
        found = dropped(features, drop, share=0.6)
        if found["audio"].eq(1).all():
            assert found["video"].eq(1).all()
            continue
        steps += 1
        close(found["audio"], torch.full((50, 3), 1 / (1 - 0.3 * 5 / 8), dtype=DOUBLE))
        whole = found["video"].flatten(1)
        assert (whole == whole[:, :1]).all(), "a clip's sequence goes as one"
        kept.append(whole[:, 0] > 0)
    assert steps / 400 == pytest.approx(0.6, abs=0.08)
    assert torch.cat(kept).double().mean().item() == pytest.approx(0.7, abs=0.02)


def test_scores_are_not_changed_by_the_ratios_made_of_them():
    """A published copy divides in place, and its q is .573 where the formula gives .492."""
    score = torch.tensor([1.028, 1.542], dtype=DOUBLE)
    before = score.clone()
    found = probabilities(ratios(score), base=0.4, strength=0.5)
    assert torch.equal(score, before)
    assert found.tolist() == pytest.approx([0.0, 0.492], abs=5e-4)
    first = before[0] / before[1]  # what the copy then takes for the first score
    assert 0.4 * (1 + 0.5 * math.tanh(before[1] / first - 1)) == pytest.approx(0.573, abs=5e-4)


@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_no_clip_loses_every_modality(count):
    score = torch.rand(count, dtype=DOUBLE, generator=torch.Generator().manual_seed(count)) + 0.01
    drop = probabilities(ratios(score), base=1.0, strength=9.0)
    assert drop[score.argmin()] == 0
    assert (drop <= 1).all()
    features = {str(index): torch.ones(30, 2, dtype=DOUBLE) for index in range(count)}
    left = torch.stack([h[:, 0] for h in dropped(features, drop, share=1.0).values()])
    assert (left.amax(dim=0) > 0).all() and left.isfinite().all()


@pytest.mark.parametrize("name", ["opm", "bml"])
def test_outside_the_window_training_is_plain_and_nothing_persists(name):
    model = small_model("late_concat", 2)
    method = small_method(name, model, share=1.0, window={"first": 1, "last": 1})
    inputs, labels = small_batch(2)
    for epoch, modulated in ((0, False), (1, True), (2, False)):
        method.start_epoch(epoch)
        _, plain = plain_step(model, inputs, labels)
        step_of(method, model, inputs, labels)
        equal = all(torch.equal(gradient, plain[each]) for each, gradient in gradients(model).items())
        assert equal != modulated
        assert bool(method.diagnostics) == modulated


def test_the_first_six_epochs_are_plain_by_default():
    model = small_model("late_sum", 2)
    for name in ("opm", "bml"):
        method = small_method(name, model)
        active = []
        for epoch in range(8):
            method.start_epoch(epoch)
            active.append(method.active)
        assert active == [False] * 6 + [True] * 2


def test_nothing_left_out_is_plain_training_or_ogm():
    model = model_of("early", 3)
    inputs, labels = small_batch(3)
    _, plain = plain_step(model, inputs, labels)
    other = copy.deepcopy(model)
    step_of(small_method("opm", model, share=0.0), model, inputs, labels)
    for name, gradient in gradients(model).items():
        close(gradient, plain[name])
    model = copy.deepcopy(other)
    step_of(small_method("bml", model, share=0.0, alpha=0.0), model, inputs, labels)
    for name, gradient in gradients(model).items():
        close(gradient, plain[name])
