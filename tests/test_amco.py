"""AMCo: against steps worked out class by class; masks in training only, and a dependence that can end."""

import copy
import math

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from agm.attribution import evaluating, modality_responses, unimodal_logits
from by_hand import begin_epoch, gradients, on_model, own_logits, softmax, step_of
from networks import CLASSES, FUSIONS, refusal, small_batch, small_method, small_model
from tiny import close

pytestmark = pytest.mark.numerical

CASES = [(fusion, count) for fusion in ("late_sum", "late_concat") for count in (2, 3)]


def pair(fusion, count, **settings):
    """A network with its method, and the linear fusion as it was."""
    model = small_model(fusion, count)
    before = copy.deepcopy(model)
    return model, small_method("amco", model, **settings), before


def seen_by_the_last_layer(model, run):
    """What stood before A while `run` ran, `[B, C]`."""
    seen = []
    hook = model.fusion.last.register_forward_pre_hook(lambda _, args: seen.append(args[0].detach()))
    run()
    hook.remove()
    (found,) = seen
    return found


def masked_classes(step, epoch, epsilon):
    """N = ⌊p C⌋, with l added up batch by batch."""
    progress = 0.0
    for _ in range(step):
        progress += epoch / 10
    return math.floor(math.sin(math.pi / 2 * min(epsilon, progress) / epsilon) * CLASSES + 1e-12)


def shares_by_hand(own):
    """Each modality's mean share of softmax([u_1 … u_M])."""
    found = dict.fromkeys(own, 0.0)
    count = len(next(iter(own.values())))
    for i in range(count):
        powers = softmax([value for name in own for value in own[name][i]])
        for index, name in enumerate(own):
            found[name] += sum(powers[index * CLASSES : (index + 1) * CLASSES]) / count
    return found


@pytest.mark.parametrize(("fusion", "count"), CASES)
@pytest.mark.parametrize("epoch", [0, 1, 2])
def test_steps_of_an_epoch_are_those_worked_out_by_hand(fusion, count, epoch):
    model, method, linear = pair(fusion, count, sigma=0.34, epsilon=0.5)
    method.start_epoch(epoch)
    dependent, masks = set(), set()
    for step in range(7):
        inputs, labels = small_batch(count, seed=step)
        other, plain = copy.deepcopy(model).train(), copy.deepcopy(linear).train()
        plain.encoders = other.encoders
        losses = []
        seen = seen_by_the_last_layer(model, lambda i=inputs, y=labels: losses.append(step_of(method, model, i, y)))  # noqa: B023
        torch.manual_seed(0)
        features = {name: encoder(inputs[name]) for name, encoder in other.encoders.items()}
        own = own_logits(plain, inputs, {name: h.detach() for name, h in features.items()})
        parts = dict(zip(inputs, other.fusion.before.unimodal(features), strict=True))
        close({name: u.tolist() for name, u in parts.items()}, own)
        wanted = masked_classes(step, epoch, 0.5)
        hidden = [
            c for c in range(CLASSES)
            if dependent and all(
                abs(seen[i, c] - sum(own[name][i][c] for name in own if name not in dependent)) < 1e-9
                for i in range(len(labels))
            )
        ]  # fmt: skip
        assert len(hidden) == (wanted if dependent else 0)
        masks.add(tuple(hidden))
        keep = torch.tensor([float(c not in hidden) for c in range(CLASSES)], dtype=torch.float64)
        left = [u * keep if name in dependent else u for name, u in parts.items()]
        total = sum(left)
        close(seen, total.detach())
        logits = total @ other.fusion.last.weight.T + other.fusion.last.bias
        loss = cross_entropy(logits, labels) + sum(cross_entropy(u, labels) for u in left)
        other.zero_grad()
        loss.backward()
        close(losses[0], loss.detach())
        assert gradients(model).keys() == gradients(other).keys()
        for name, gradient in gradients(model).items():
            close(gradient, gradients(other)[name])
        share = shares_by_hand(own)
        close({name: method.diagnostics[f"share_{name}"].item() for name in share}, share)
        dependent = {name for name, value in share.items() if value > 0.34}
    assert (len(masks) > 1) == (epoch > 0)
    assert epoch == 0 or tuple(range(CLASSES)) in masks


def test_the_masked_classes_are_drawn_evenly_and_alike_for_all_clips():
    _, method, _ = pair("late_sum", 2, epsilon=0.4)
    logits = torch.ones(2, 7, CLASSES, dtype=torch.float64)
    counts = torch.zeros(CLASSES)
    torch.manual_seed(0)
    for _ in range(600):
        method.start_epoch(1)
        method.dependent.copy_(torch.tensor([True, False]))
        method.steps = 1
        mask = method._mask(logits)
        assert mask.shape == (2, 1, CLASSES) and mask[1].all()
        assert (1 - mask[0]).sum() == masked_classes(1, 1, 0.4) == 1
        counts += 1 - mask[0, 0]
    assert (counts / 600 - 1 / CLASSES).abs().max() < 0.08


def leaning(model, name):
    """Parts of which one modality's are certain and the others' are flat."""
    with torch.no_grad():
        for each, head in model.fusion.before.heads.items():
            head.weight.zero_()
            head.bias.copy_(torch.arange(CLASSES) * (9.0 if each == name else 0.0))


def test_a_modality_that_lost_its_dominance_is_masked_no_longer():
    """A published copy keeps it to the end of the epoch, and both end up masked."""
    model, method, _ = pair("late_sum", 2)
    inputs, labels = small_batch(2)
    method.start_epoch(3)
    for name, wanted in (("audio", [True, False]), ("video", [False, True]), ("video", [False, True])):
        leaning(model, name)
        step_of(method, model, inputs, labels)
        assert method.dependent.tolist() == wanted
    method.start_epoch(4)
    assert method.dependent.tolist() == [False, False]


def test_no_more_is_masked_than_there_is():
    """All classes at p = 1, counted by the classes and not by the size of a feature; none in the first epoch."""
    for epoch, wanted in ((0, 0), (1, CLASSES), (30, CLASSES)):
        _, method, _ = pair("late_concat", 2)
        method.start_epoch(epoch)
        method.dependent.fill_(True)
        method.steps = 3
        mask = method._mask(torch.ones(2, 7, CLASSES))
        assert (1 - mask).sum(dim=(1, 2)).tolist() == [wanted] * 2


@pytest.mark.parametrize(("fusion", "count"), CASES)
def test_outside_training_nothing_is_masked_and_the_parts_add_up(fusion, count):
    model, method, linear = pair(fusion, count)
    nn.init.normal_(model.fusion.last.bias)
    method.start_epoch(3)
    method.dependent.fill_(True)
    method.steps = 5
    model.eval()
    inputs, _ = small_batch(count)
    features = model.encode(inputs)
    own = own_logits(linear, inputs, {name: h.detach() for name, h in features.items()})
    weight, bias = model.fusion.last.weight, model.fusion.last.bias
    parts = [torch.tensor(own[name], dtype=torch.float64) @ weight.T + bias / count for name in own]
    for found in (model.fusion.unimodal(features), unimodal_logits(model, inputs, features)):
        close(found, torch.stack(parts))
    close(model(inputs), sum(parts))
    close(model.fusion.classify(model.fusion.fuse(features)), sum(parts))
    close(modality_responses(model, inputs).sum(dim=0), sum(parts))
    for part, (name, rows) in zip(parts, model.fusion.weights().items(), strict=True):
        close(features[name] @ rows.T + model.fusion.biases()[name], part)
    fusion = model.fusion
    assert (fusion.late, fusion.additive, fusion.sequential) == (True, True, False)
    assert (fusion.dims, fusion.classes) == (linear.fusion.dims, CLASSES)
    assert fusion.classifiers == [*fusion.before.classifiers, fusion.last]


def test_the_fusion_inside_starts_from_its_own_weights():
    model, method, linear = pair("late_concat", 3)
    assert not list(method.parameters())
    for name, value in linear.fusion.state_dict().items():
        assert torch.equal(value, model.fusion.before.state_dict()[name])


def test_a_trained_network_is_built_again_from_its_weights_and_goes_on_from_an_epochs_end():
    model, method, _ = pair("late_sum", 2, sigma=0.4)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for epoch in range(2):
        method.start_epoch(epoch)
        for seed in range(3):
            step_of(method, model, *small_batch(2, seed=seed))
            optimizer.step()
    again, same, _ = pair("late_sum", 2, sigma=0.4)
    again.load_state_dict(model.state_dict())
    same.load_state_dict(method.state_dict())
    inputs, labels = small_batch(2, seed=9)
    with evaluating(model), evaluating(again):
        assert torch.equal(again(inputs), model(inputs))
    for network, each in ((model, method), (again, same)):
        begin_epoch(each, 2)
        for seed in range(3):
            step_of(each, network, inputs, labels, seed)
    for name, gradient in gradients(model).items():
        assert torch.equal(gradient, gradients(again)[name])


def test_only_additive_fusions_have_parts_to_mask():
    for fusion in FUSIONS:
        reason = refusal("amco", fusion, {"audio": 3, "video": 4})
        assert (reason is None) == FUSIONS[fusion].additive, fusion
        assert reason is None or "additive" in reason


def test_shares_are_float64_under_autocast_and_a_single_modality_trains():
    model = small_model("late_concat", 1, dtype=torch.float32)
    method = small_method("amco", model)
    inputs, labels = small_batch(1, dtype=torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = on_model(method, model.train()).loss(inputs, labels)
    assert loss.isfinite()
    assert method.diagnostics["share_audio"].dtype == torch.float64
