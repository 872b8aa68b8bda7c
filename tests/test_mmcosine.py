"""MMCosine: against cosines worked out clip by clip; a network of its own that keeps names and initial weights."""

import copy
import math

import pytest
import torch
from torch.nn.functional import cross_entropy

from agm.attribution import modality_responses, unimodal_logits
from by_hand import Clips, begin_epoch, gradients, step_of
from networks import CLASSES, FUSIONS, refusal, small_batch, small_method, small_model
from tiny import close

pytestmark = pytest.mark.numerical

CASES = [(fusion, count) for fusion in ("late_sum", "late_concat") for count in (2, 3)]


def weights_by_hand(fusion, dims):
    """Rows of W_m, from the layers of a linear fusion."""
    if hasattr(fusion, "heads"):
        return {name: head.weight.tolist() for name, head in fusion.heads.items()}
    found, start = {}, 0
    for name, dim in dims.items():
        found[name] = [row[start : start + dim] for row in fusion.classifier.weight.tolist()]
        start += dim
    return found


def cosine(x, y):
    product = sum(a * b for a, b in zip(x, y, strict=True))
    return product / math.sqrt(sum(a * a for a in x)) / math.sqrt(sum(b * b for b in y))


def logits_by_hand(features, weights, scale):
    """u_m of every clip, and their sum."""
    own = {
        name: [[scale * cosine(clip, row) for row in weights[name]] for clip in feature.tolist()]
        for name, feature in features.items()
    }
    count = len(next(iter(own.values())))
    whole = [[sum(own[name][i][c] for name in own) for c in range(CLASSES)] for i in range(count)]
    return own, whole


@pytest.mark.parametrize(("fusion", "count"), CASES)
def test_logits_are_cosines_with_the_rows_of_the_weights_times_the_scale(fusion, count):
    model = small_model(fusion, count).eval()
    weights = weights_by_hand(model.fusion, model.fusion.dims)
    small_method("mmcosine", model, scale=7.5)
    inputs, _ = small_batch(count)
    features = model.encode(inputs)
    own, whole = logits_by_hand(features, weights, 7.5)
    close(model(inputs).tolist(), whole)
    close(model.fusion.unimodal(features).tolist(), [own[name] for name in inputs])
    close(unimodal_logits(model, inputs, features).tolist(), [own[name] for name in inputs])
    close(model.fusion.classify(model.fusion.fuse(features)).tolist(), whole)
    assert model.fusion.fuse(features).shape == (6, sum(model.fusion.dims.values()))
    close(modality_responses(model, inputs).sum(dim=0).tolist(), whole)


@pytest.mark.parametrize(("fusion", "count"), CASES)
def test_a_response_is_its_own_cosines_and_a_part_of_what_nothing_at_all_gives(fusion, count):
    """φ_m = u_m(x) − u_m(0) + f(0) / M for any sum of one term for each modality."""
    model = small_model(fusion, count).eval()
    weights = weights_by_hand(model.fusion, model.fusion.dims)
    small_method("mmcosine", model)
    inputs, _ = small_batch(count)
    own, _ = logits_by_hand(model.encode(inputs), weights, 10.0)
    nothing = model.encode({name: torch.zeros_like(x) for name, x in inputs.items()})
    absent, constant = logits_by_hand(nothing, weights, 10.0)
    for name, phi in zip(inputs, modality_responses(model, inputs).tolist(), strict=True):
        for i, row in enumerate(phi):
            wanted = [own[name][i][c] - absent[name][i][c] + constant[i][c] / count for c in range(CLASSES)]
            close(row, wanted)


@pytest.mark.parametrize(("fusion", "count"), CASES)
def test_a_step_descends_the_cross_entropy_of_the_sum_of_cosines(fusion, count):
    model = small_model(fusion, count)
    method = small_method("mmcosine", model)
    plain = copy.deepcopy(model).train()
    inputs, labels = small_batch(count)
    torch.manual_seed(0)
    features = {name: encoder(inputs[name]) for name, encoder in plain.encoders.items()}
    start, total = 0, 0
    for name, h in features.items():
        if fusion == "late_sum":
            weight = plain.fusion.heads[name].weight
        else:
            weight = plain.fusion.classifier.weight[:, start : start + h.shape[1]]
        start += h.shape[1]
        total = total + 10.0 * torch.cosine_similarity(h.unsqueeze(1), weight.unsqueeze(0), dim=2)
    plain.zero_grad()
    wanted = cross_entropy(total, labels)
    wanted.backward()
    close(step_of(method, model, inputs, labels), wanted.detach())
    assert gradients(model).keys() == gradients(plain).keys()
    for name, gradient in gradients(model).items():
        close(gradient, gradients(plain)[name])
    layers = model.fusion.classifiers
    assert all(layer.weight.grad.abs().max() > 0 and layer.bias.grad is None for layer in layers)


@pytest.mark.parametrize("fusion", ["late_sum", "late_concat"])
def test_names_and_initial_weights_are_those_of_the_linear_fusion(fusion):
    linear, model = small_model(fusion, 3), small_model(fusion, 3)
    method = small_method("mmcosine", model)
    assert not method.state_dict() and not list(method.parameters())
    assert len(list(model.parameters())) == len(list(linear.parameters()))
    assert list(model.state_dict()) == list(linear.state_dict())
    for name, value in linear.state_dict().items():
        assert torch.equal(value, model.state_dict()[name])
    fusion = model.fusion
    assert (fusion.late, fusion.additive, fusion.sequential) == (True, True, False)
    assert (fusion.classes, fusion.dims) == (linear.fusion.classes, linear.fusion.dims)
    assert len(fusion.classifiers) == len(linear.fusion.classifiers)
    assert all(bias.abs().max() == 0 and bias.shape == (CLASSES,) for bias in fusion.biases().values())


@pytest.mark.parametrize("fusion", ["late_sum", "late_concat"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_trained_network_is_built_again_from_its_weights(fusion, dtype):
    model = small_model(fusion, 2, dtype=dtype)
    method = small_method("mmcosine", model)
    optimizer = torch.optim.SGD([*model.parameters(), *method.parameters()], lr=0.1)
    inputs, labels = small_batch(2, dtype=dtype)
    begin_epoch(method, 0, Clips(train=[(inputs, labels)]))
    for seed in range(3):
        step_of(method, model, inputs, labels, seed)
        optimizer.step()
    again = small_model(fusion, 2, seed=5, dtype=dtype)
    small_method("mmcosine", again)
    again.load_state_dict(model.state_dict())
    for other in (again, copy.deepcopy(model)):
        assert torch.equal(other.eval()(inputs), model.eval()(inputs))
    # A copy has weights of its own, and only one set of them.
    other = copy.deepcopy(model)
    with torch.no_grad():
        other.fusion.classifiers[0].weight.mul_(-1)
    assert not torch.allclose(other(inputs), model(inputs))
    close(again(inputs), model(inputs))


def test_it_moves_with_the_model():
    model = small_model("late_concat", 2)
    small_method("mmcosine", model)
    inputs, _ = small_batch(2)
    wanted = model.eval()(inputs)
    model.float()
    found = model({name: x.float() for name, x in inputs.items()})
    assert found.dtype == torch.float32
    close(found.double(), wanted, 1e-4)


def test_lengths_do_not_count():
    model = small_model("late_sum", 3)
    small_method("mmcosine", model)
    features = model.eval().encode(small_batch(3)[0])
    before = model.fusion(features)
    longer = {name: (index + 2) * h for index, (name, h) in enumerate(features.items())}
    close(model.fusion(longer), before)
    with torch.no_grad():
        model.fusion.heads["video"].weight.mul_(9.0)
        model.fusion.heads["video"].bias.fill_(3.0)
    close(model.fusion(features), before)
    nothing = {name: torch.zeros_like(h) for name, h in features.items()}
    assert model.fusion(nothing).eq(0).all()


def test_only_additive_fusions_can_be_replaced():
    for fusion in FUSIONS:
        reason = refusal("mmcosine", fusion, {"audio": 3, "video": 4})
        assert (reason is None) == FUSIONS[fusion].additive, fusion
        assert reason is None or "additive" in reason


def test_a_single_modality_trains():
    model = small_model("late_concat", 1)
    assert step_of(small_method("mmcosine", model), model, *small_batch(1)).isfinite()
