"""MLA: against the steps worked out one by one, and what published copies got wrong."""

import copy
import math

import pytest
import torch
from torch.nn.functional import cross_entropy

from agm.attribution import modality_responses
from agm.models.encoders import Conv, Transformer
from agm.models.multimodal import Multimodal
from agm.pipeline.networks import build_fusion
from by_hand import Clips, begin_epoch, on_model, softmax
from networks import CLASSES, FUSIONS, NAMES, WithDropout, refusal, small_batch, small_method
from test_synchronisation import Refusing, RefusingConstants
from tiny import close

pytestmark = pytest.mark.numerical

SIZE = 6


def even_model(count, fusion="late_concat", seed=0):
    """A model whose features are of one size."""
    torch.manual_seed(seed)
    small = {"dim": SIZE, "num_heads": 2, "num_layers": 1, "dim_feedforward": 8, "dropout": 0.2}
    encoders = {
        "audio": WithDropout(Conv(1, [3, SIZE])),
        "video": WithDropout(Conv(2, [SIZE])),
        "text": Transformer(vocabulary=9, words=5, **small),
    }
    chosen = {name: encoders[name] for name in NAMES[:count]}
    return Multimodal(chosen, build_fusion(FUSIONS[fusion], dict.fromkeys(chosen, SIZE), CLASSES)).double()


def train(method, model, batches, lr=0.1):
    """The loop's steps; returns the losses in the order in which they came."""
    optimizer = torch.optim.SGD(model.parameters(), lr, momentum=0.9)
    data = Clips(train=batches)
    begin_epoch(method, 0, data)
    torch.manual_seed(5)
    found = []
    for inputs, labels in batches:
        for loss in on_model(method, model).losses(inputs, labels):
            optimizer.zero_grad()
            method.backward(loss)
            optimizer.step()
            found.append(loss.item())
    return found


def times(matrix, vector):
    return [sum(a * b for a, b in zip(row, vector, strict=True)) for row in matrix]


def taken_in(p, r, alpha):
    """P after a step with mean feature r, number by number."""
    k = times(p, r)
    below = alpha + sum(a * b for a, b in zip(r, k, strict=True))
    p = [[p[i][j] - k[i] * k[j] / below for j in range(SIZE)] for i in range(SIZE)]
    norm = math.sqrt(sum(value * value for row in p for value in row))
    return [[value / norm for value in row] for row in p]


def train_by_hand(model, batches, lr=0.1):
    """The same steps, of a copy: every modality in turn, the head's gradient times P, P from the steps before."""
    model = copy.deepcopy(model).train()
    head = model.fusion.head
    optimizer = torch.optim.SGD(model.parameters(), lr, momentum=0.9)
    p = [[float(i == j) for j in range(SIZE)] for i in range(SIZE)]
    clips, seen = sum(len(labels) for _, labels in batches), 0
    torch.manual_seed(5)
    losses = []
    for inputs, labels in batches:
        for name, encoder in model.encoders.items():
            optimizer.zero_grad()
            feature = encoder(inputs[name])
            loss = cross_entropy(feature @ head.weight.T + head.bias, labels)
            loss.backward()
            rows = [times(p, row) for row in head.weight.grad.tolist()]
            head.weight.grad = torch.tensor(rows, dtype=torch.float64)
            r = [sum(column) / len(column) for column in zip(*feature.tolist(), strict=True)]
            p = taken_in(p, r, 0.1 ** (seen / clips + 1))
            optimizer.step()
            losses.append(loss.item())
        seen += len(labels)
    return model, p, losses


def batches_of(count):
    return [small_batch(count, seed=seed, batch=4 + 2 * seed) for seed in range(3)]


@pytest.mark.parametrize("fusion", ["late_concat", "late_sum"])
@pytest.mark.parametrize("count", [2, 3])
def test_three_batches_train_as_worked_out_by_hand(fusion, count):
    model = even_model(count, fusion)
    method = small_method("mla", model)
    wanted, p, losses = train_by_hand(model, batches_of(count))
    close(train(method, model, batches_of(count)), losses)
    close(method.projection.tolist(), p)
    for (name, value), other in zip(model.state_dict().items(), wanted.state_dict().values(), strict=True):
        close(value, other), name


def test_the_heads_gradient_is_replaced_by_its_projection_and_no_other_is_changed():
    """Published: a weight that is never found by its name, and a projection that is added to the gradient."""
    model = even_model(2)
    method = small_method("mla", model)
    train(method, model, batches_of(2))
    p = method.projection.clone()
    inputs, labels = small_batch(2, seed=9)
    model.eval().zero_grad()
    loss = next(on_model(method, model).losses(inputs, labels))
    wanted = torch.autograd.grad(loss, list(model.parameters()), retain_graph=True, allow_unused=True)
    method.backward(loss)
    changed = []
    for (name, weight), plain in zip(model.named_parameters(), wanted, strict=True):
        if plain is None:
            assert weight.grad is None
        elif not torch.equal(weight.grad, plain):
            changed.append(name)
            close(weight.grad, plain @ p)
            assert (weight.grad - plain - plain @ p).abs().max() > 0.01 * plain.abs().max()
    assert changed == ["fusion.head.weight"]


def test_directions_that_an_earlier_step_used_are_left_out():
    """With a mean of any length the projection leaves a direction out, which a D × D denominator does not."""
    model = even_model(2)
    method = small_method("mla", model)
    r = torch.zeros(SIZE, dtype=torch.float64)
    r[2] = 100.0
    method._take_in(r)
    p = method.projection
    close(p, p.T)
    assert p[2, 2].abs() < 1e-4 * p[0, 0]
    close((p - torch.diag(p.diagonal())).abs().max().item(), 0.0)
    close((p**2).sum().item(), 1.0)


def test_only_the_modality_in_turn_is_trained():
    model = even_model(3)
    method = small_method("mla", model)
    begin_epoch(method, 0, Clips(train=[small_batch(3)]))
    calls = []
    for name, encoder in model.encoders.items():
        encoder.register_forward_hook(lambda *_, name=name: calls.append(name))
    for turn, loss in enumerate(on_model(method, model).losses(*small_batch(3))):
        model.zero_grad()
        method.backward(loss)
        touched = {name.split(".")[1] for name, weight in model.named_parameters() if weight.grad is not None}
        assert touched == {NAMES[turn], "head"}
    assert calls == NAMES[:3]
    assert method.diagnostics.keys() == {f"loss_{name}" for name in NAMES[:3]}


@pytest.mark.parametrize("count", [2, 3])
def test_the_output_weighs_each_clip_by_its_entropies(count):
    model = even_model(count)
    small_method("mla", model)
    model.eval()
    inputs, labels = small_batch(count)
    features = model.encode(inputs)
    weight, bias = model.fusion.head.weight, model.fusion.head.bias
    for row in range(len(labels)):
        logits = [(features[name][row] @ weight.T + bias).tolist() for name in features]
        entropies = [-sum(p * math.log(p) for p in softmax(each)) for each in logits]
        powers = [math.exp(max(entropies) - entropy) for entropy in entropies]
        wanted = [
            sum(power / sum(powers) * each[c] for power, each in zip(powers, logits, strict=True))
            for c in range(CLASSES)
        ]
        close(model(inputs)[row].tolist(), wanted)


def test_a_clips_output_does_not_depend_on_its_batch():
    """The released code takes the entropy over the batch, and one weight for all of it."""
    model = even_model(3)
    small_method("mla", model)
    model.eval()
    inputs, _ = small_batch(3)
    whole = model(inputs)
    for row in range(len(whole)):
        close(model({name: x[row : row + 1] for name, x in inputs.items()}), whole[row : row + 1])
    assert not torch.allclose(whole[0] / whole[0].norm(), whole[1] / whole[1].norm())


def test_the_network_is_late_and_not_additive_and_its_responses_add_up():
    model = even_model(3)
    classes, dims = model.fusion.classes, model.fusion.dims
    small_method("mla", model)
    assert (model.fusion.late, model.fusion.additive, model.fusion.sequential) == (True, False, False)
    assert (model.fusion.classes, model.fusion.dims) == (classes, dims)
    model.eval()
    inputs, _ = small_batch(3)
    fused = model.fusion.fuse(model.encode(inputs))
    assert fused.shape == (6, 3 * SIZE)
    close(model.fusion.classify(fused), model(inputs))
    close(modality_responses(model, inputs).sum(dim=0), model(inputs))


def test_state_survives_an_interruption():
    model = even_model(2)
    method = small_method("mla", model)
    train(method, model, batches_of(2))
    other_model = even_model(2)
    other = small_method("mla", other_model)
    other_model.load_state_dict(model.state_dict())
    other.load_state_dict(method.state_dict())
    for one, network in ((method, model), (other, other_model)):
        train(one, network, batches_of(2))
    for value, same in zip(
        [*model.state_dict().values(), method.projection],
        [*other_model.state_dict().values(), other.projection],
        strict=True,
    ):
        assert torch.equal(value, same)


def test_no_step_makes_the_host_wait():
    """Beside the test of all methods, whose network has features of several sizes."""
    model = even_model(3)
    method = small_method("mla", model)
    train(method, model, batches_of(3))
    with Refusing(), RefusingConstants():
        for loss in on_model(method, model).losses(*small_batch(3)):
            method.backward(loss)


def test_it_is_refused_where_its_head_does_not_fit():
    even, odd = {"audio": 8, "video": 8}, {"audio": 8, "video": 6}
    assert refusal("mla", "late_sum", even) is None
    assert refusal("mla", "late_concat", even) is None
    assert "additive" in refusal("mla", "early", even)
    assert "one size" in refusal("mla", "late_sum", odd)


def test_a_single_modality_trains():
    model = even_model(1)
    method = small_method("mla", model)
    assert all(math.isfinite(loss) for loss in train(method, model, batches_of(1)))
