"""LFM: against divergences added up class by class and a Hessian worked out row by row; validation clips only."""

import copy
import math

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from agm.attribution import evaluating
from agm.methods import LFM
from agm.methods.lfm import misalignment, twice_differentiable
from agm.models.encoders import Encoder
from agm.models.multimodal import Multimodal
from agm.pipeline.networks import build_fusion
from by_hand import Clips, after_pass, begin_epoch, gradients, on_model, own_logits, plain_step, softmax, step_of
from networks import CLASSES, FUSIONS, small_batch, small_method, small_model
from tiny import close

pytestmark = pytest.mark.numerical

CASES = [*((fusion, 2) for fusion in FUSIONS), ("late_sum", 3), ("late_concat", 3), ("early", 3)]
DOUBLE = torch.float64


def apart_by_hand(own):
    """A, from u of every clip."""
    names, pairs = list(own), []
    count = len(own[names[0]])
    for i, first in enumerate(names):
        for second in names[i + 1 :]:
            total = 0.0
            for p, q in zip(map(softmax, own[first]), map(softmax, own[second]), strict=True):
                for a, b in zip(p, q, strict=True):
                    m = (a + b) / 2
                    total += (m * math.log(m / a) + m * math.log(m / b)) / 2
            pairs.append(total / count)
    return sum(pairs) / len(pairs)


def whole_loss(model, inputs, labels, alpha, own_of):
    """(1 − α) CE(f) + α A, plainly, from a model in its present mode."""
    features = {name: encoder(inputs[name]) for name, encoder in model.encoders.items()}
    joint = cross_entropy(model.fusion(features), labels)
    p = [u.softmax(dim=1) for u in own_of(model, inputs, features)]
    pairs = [(p[i], p[j]) for i in range(len(p)) for j in range(i + 1, len(p))]
    total = 0
    for a, b in pairs:
        m = (a + b) / 2
        total = total + ((m * (m / a).log()).sum() + (m * (m / b).log()).sum()) / 2 / len(labels)
    return joint, (1 - alpha) * joint + alpha * total / len(pairs)


def parts_of(model, inputs, features):
    """u_m with gradients: the parts of an additive fusion, or the output with the other inputs zero."""
    if model.fusion.additive:
        return list(model.fusion.unimodal(features))
    with evaluating(model):
        absent = {name: model.encoders[name](torch.zeros_like(x)) for name, x in inputs.items()}
        return [model.fusion(absent | {name: features[name]}) for name in features]


@pytest.mark.parametrize(("fusion", "count"), CASES)
def test_a_step_descends_both_losses_worked_out_by_hand(fusion, count):
    model = small_model(fusion, count)
    method = small_method("lfm", model, weight="learned", alpha=0.3)
    for step in range(2):
        inputs, labels = small_batch(count, seed=step)
        after, features = after_pass(model, inputs)
        apart = apart_by_hand(own_logits(after, inputs, features))
        joint, _ = plain_step(model, inputs, labels)
        assert apart > 1e-4
        other = copy.deepcopy(model).train()
        close(step_of(method, model, inputs, labels).item(), 2 * (0.7 * joint.item() + 0.3 * apart))
        other.zero_grad()
        torch.manual_seed(0)
        (2 * whole_loss(other, inputs, labels, 0.3, parts_of)[1]).backward()
        assert gradients(model).keys() == gradients(other).keys()
        for name, gradient in gradients(model).items():
            close(gradient, gradients(other)[name])


class Smooth(Encoder):
    """A small encoder without kinks."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.linear, self.dim, self.channels = nn.Linear(before, after), after, []

    def forward(self, x):
        return self.linear(x).tanh()


def smooth_model(count, fusion="late_sum", dtype=DOUBLE):
    torch.manual_seed(1)
    encoders = {f"m{index}": Smooth(2, 2) for index in range(count)}
    return Multimodal(encoders, build_fusion(FUSIONS[fusion], dict.fromkeys(encoders, 2), CLASSES)).to(dtype)


def smooth_batch(count, batch, seed=0):
    generator = torch.Generator().manual_seed(seed)
    inputs = {f"m{index}": torch.randn(batch, 2, generator=generator, dtype=DOUBLE) for index in range(count)}
    return inputs, torch.randint(0, CLASSES, (batch,), generator=generator)


def slope_at(model, inputs, labels, alpha, which):
    """Gradient of CE (0) or L (1), all weights in one row."""
    losses = whole_loss(model, inputs, labels, alpha, parts_of)
    found = torch.autograd.grad(losses[which], list(model.parameters()))
    return torch.cat([each.flatten() for each in found])


def mean_curvature(model, inputs, labels, alpha):
    """Mean of H v, with every column of H from a difference of gradients."""
    model = copy.deepcopy(model).eval()
    v = slope_at(model, inputs, labels, alpha, 0)
    total, at = torch.zeros_like(v), 0
    for weight in model.parameters():
        for index in range(weight.numel()):
            sides = []
            for step in (1e-5, -1e-5):
                with torch.no_grad():
                    weight.view(-1)[index] += step
                sides.append(slope_at(model, inputs, labels, alpha, 1))
                with torch.no_grad():
                    weight.view(-1)[index] -= step
            total += (sides[0] - sides[1]) / 2e-5 * v[at]
            at += 1
    return total.mean().item()


@pytest.mark.parametrize(("fusion", "count"), [("late_sum", 2), ("late_concat", 3), ("film", 3)])
def test_the_weight_follows_the_mean_of_the_hessian_times_the_gradient(fusion, count):
    model = smooth_model(count, fusion)
    method = small_method("lfm", model, weight="learned", alpha=0.4, rate=0.5, halving=2)
    alpha = 0.4
    for epoch in range(3):
        inputs, labels = smooth_batch(count, batch=11, seed=epoch)
        data = Clips(val=[(inputs, labels), smooth_batch(count, 8, seed=50)], train=[smooth_batch(count, 8, seed=60)])
        begin_epoch(method, epoch, data)
        quarter = {name: x[:2] for name, x in inputs.items()}
        found = mean_curvature(model, quarter, labels[:2], alpha)
        rate = 0.5 if epoch < 2 else 0.25
        assert abs(rate * found) > 1e-5
        alpha = min(0.95, max(0.05, alpha - rate * found))
        close(method.alpha.item(), alpha, 1e-7)
        assert method.diagnostics["weight_alignment"].item() == method.alpha.item()
        assert data.read == [("val", None)]


def test_it_is_fed_by_validation_and_never_by_test_or_training():
    """A published copy gives it the test loader."""

    class Guarded(Clips):
        def batches(self, split, epoch=None):
            assert split == "val", split
            return super().batches(split, epoch)

    model = smooth_model(2)
    here, there = smooth_batch(2, 8, seed=1), smooth_batch(2, 8, seed=2)
    found = []
    for val, others in ((here, there), (here, here), (there, here)):
        method = small_method("lfm", model, weight="learned", alpha=0.4, rate=0.5)
        begin_epoch(method, 0, Guarded(val=[val], train=[others], test=[others]))
        found.append(method.alpha.item())
    assert found[0] == found[1] != found[2]


def test_the_mean_is_over_all_weights_and_not_over_the_first_tensor():
    """A published copy takes the mean over the first tensor, whichever that is: here of the encoder of a modality
    that no logit depends on, whose second derivative is zero."""
    model = smooth_model(2)
    with torch.no_grad():
        model.fusion.heads["m0"].weight.zero_()
    model.fusion.heads["m0"].weight.requires_grad_(False)
    method = small_method("lfm", model, weight="learned", alpha=0.4, rate=0.5)
    begin_epoch(method, 0, Clips(val=[smooth_batch(2, 8)]))
    assert abs(method.alpha.item() - 0.4) > 1e-6


@pytest.mark.parametrize(
    ("fusion", "dtype"),
    [*((fusion, DOUBLE) for fusion in FUSIONS), ("early", torch.float32), ("cross_attention", torch.float32)],
)
def test_every_network_has_a_second_derivative_and_is_left_as_it_was(fusion, dtype):
    """Attention among them, of which the fused kernels have none."""
    model = small_model(fusion, 4, dtype=dtype).train()
    model.encoders["audio"].eval()
    modes = [module.training for module in model.modules()]
    before = copy.deepcopy(model.state_dict())
    method = small_method("lfm", model, weight="learned", rate=0.0, alpha=0.2)
    generator = torch.get_rng_state()
    begin_epoch(method, 0, Clips(val=[small_batch(4, batch=8, dtype=dtype)]))
    assert method.alpha.item() == pytest.approx(0.2)
    assert modes == [module.training for module in model.modules()]
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(weight.grad is None or not weight.grad.any() for weight in model.parameters())
    assert torch.equal(generator, torch.get_rng_state())


def test_an_lstm_has_a_second_derivative_without_cudnn_and_the_setting_comes_back():
    lstm = nn.Sequential(nn.LSTM(2, 3))
    was = torch.backends.cudnn.enabled
    with twice_differentiable(nn.Linear(2, 3)):
        assert torch.backends.cudnn.enabled == was
    with twice_differentiable(lstm):
        assert not torch.backends.cudnn.enabled
        out, _ = lstm[0](torch.randn(4, 1, 2))
        (slope,) = torch.autograd.grad(out.square().sum(), [lstm[0].weight_ih_l0], create_graph=True)
        slope.square().sum().backward()
        assert lstm[0].weight_hh_l0.grad.abs().max() > 0
    assert torch.backends.cudnn.enabled == was


def test_the_labels_come_to_count_as_in_the_authors_runs():
    """The alignment first; and an interrupted run goes on with the weight of its epoch."""
    model = smooth_model(2)
    data = Clips(epochs=22)
    wanted = {0: 0.205, 3: 0.301, 7: 0.437, 14: 0.539, 21: 0.821}
    method = small_method("lfm", model)
    given = []
    for epoch in range(22):
        begin_epoch(method, epoch, data)
        given.append(1 - method.diagnostics["weight_alignment"].item())
        inputs, labels = smooth_batch(2, 6, seed=epoch)
        loss = 2 * whole_loss(model, inputs, labels, 1 - given[-1], parts_of)[1]
        close(on_model(method, model).loss(inputs, labels).item(), loss.item())
    close({epoch: given[epoch] for epoch in wanted}, wanted)
    assert given == sorted(given)
    assert not data.read, "nothing is learned"


def test_the_published_rate_does_not_move_the_weight():
    """Which is why the default is a schedule: .95 after 20 epochs as before them."""
    model = small_model("late_sum", 2)
    method = small_method("lfm", model, weight="learned")
    for epoch in range(20):
        begin_epoch(method, epoch, Clips(val=[small_batch(2, batch=64)]))
    assert method.alpha.item() == pytest.approx(0.95, abs=1e-3)


@pytest.mark.parametrize(("rate", "wanted"), [(1e9, {0.05, 0.95}), (0.0, {0.4})])
def test_the_weight_stays_within_its_bounds(rate, wanted):
    model = smooth_model(2)
    method = small_method("lfm", model, weight="learned", alpha=0.4, rate=rate)
    begin_epoch(method, 0, Clips(val=[smooth_batch(2, 8)]))
    assert any(method.alpha.item() == pytest.approx(value) for value in wanted)


def test_the_divergence_is_nothing_between_equals_and_finite_between_opposites():
    u = torch.randn(1, 5, CLASSES, dtype=DOUBLE)
    close(misalignment(u.expand(3, 5, CLASSES)).item(), 0.0)
    certain = torch.stack([torch.eye(CLASSES) * 2000, 2000 - torch.eye(CLASSES) * 2000]).requires_grad_()
    found = misalignment(certain)
    found.backward()
    assert found.isfinite() and certain.grad.isfinite().all()


def test_the_loss_keeps_its_type_and_a_single_modality_trains():
    model = small_model("late_concat", 1, dtype=torch.float32)
    method = LFM(model)
    inputs, labels = small_batch(1, dtype=torch.float32)
    assert method.alpha.dtype == DOUBLE
    begin_epoch(method, 0, Clips(val=[(inputs, labels)]))
    torch.manual_seed(0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = on_model(method, model.train()).loss(inputs, labels)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(2 * 0.205 * plain_step(model, inputs, labels)[0].item(), rel=0.05)
