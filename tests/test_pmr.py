"""PMR: against prototypes and losses worked out clip by clip."""

import copy
import math

import pytest
import torch
from torch.nn.functional import cross_entropy

from by_hand import Clips, begin_epoch, gradients, on_model, plain_step, softmax, step_of
from networks import CLASSES, FUSIONS, small_batch, small_method, small_model
from tiny import close

pytestmark = pytest.mark.numerical

CASES = [*((fusion, 2) for fusion in FUSIONS), ("late_concat", 3), ("early", 3), ("cross_attention", 3)]


def clips(count, batches=5, seed=70):
    train = [small_batch(count, seed=seed + index, batch=8) for index in range(batches)]
    inputs, labels = train[0]
    return Clips(train=[(inputs, labels % 3), *train[1:]], val=[])  # class 3 is not in the first batch


def vector(feature):
    """The feature of a clip, a sequence's mean over time, as numbers."""
    rows = feature.tolist()
    if not isinstance(rows[0], list):
        return rows
    return [sum(column) / len(rows) for column in zip(*rows, strict=True)]


def prototypes_by_hand(model, data, batches, before, beta):
    model = copy.deepcopy(model).eval()
    groups = {name: [[] for _ in range(CLASSES)] for name in model.encoders}
    for inputs, labels in data.splits["train"][:batches]:
        for name, encoder in model.encoders.items():
            for feature, label in zip(encoder(inputs[name]).detach(), labels.tolist(), strict=True):
                groups[name][label].append(vector(feature))
    found = {}
    for name, by_class in groups.items():
        everything = [each for group in by_class for each in group]
        found[name] = []
        for label, group in enumerate(by_class):
            old = mean(everything) if before is None else before[name][label]
            new = mean(group) if group else old
            share = 0 if before is None else beta
            found[name].append([(1 - share) * a + share * b for a, b in zip(new, old, strict=True)])
    return found


def mean(vectors):
    return [sum(column) / len(vectors) for column in zip(*vectors, strict=True)]


def scores_by_hand(model, inputs, labels, prototypes):
    """S_m of the features of a training step."""
    other = copy.deepcopy(model).train()
    torch.manual_seed(0)
    features = {name: encoder(inputs[name]).detach() for name, encoder in other.encoders.items()}
    found = {}
    for name, h in features.items():
        found[name] = 0.0
        for feature, label in zip(h, labels.tolist(), strict=True):
            distances = [math.dist(vector(feature), prototype) for prototype in prototypes[name]]
            found[name] += softmax([-distance for distance in distances])[label]
    return found


def wanted_step(model, inputs, labels, prototypes, helped, alpha):
    """Loss and gradients, the distances written out."""
    other = copy.deepcopy(model).train()
    other.zero_grad()
    torch.manual_seed(0)
    features = other.encode(inputs)
    loss = cross_entropy(other.fusion(features), labels)
    for name in helped:
        h = features[name] if features[name].ndim == 2 else features[name].mean(dim=1)
        columns = [(h - torch.tensor(each, dtype=h.dtype)).square().sum(dim=1).sqrt() for each in prototypes[name]]
        loss = loss + alpha * cross_entropy(-torch.stack(columns, dim=1), labels)
    loss.backward()
    return loss.detach(), gradients(other)


@pytest.mark.parametrize(("fusion", "count"), CASES)
def test_epochs_and_steps_are_those_worked_out_by_hand(fusion, count):
    model = small_model(fusion, count)
    method = small_method("pmr", model, alpha=0.7, beta=0.3, share=0.2)
    data = clips(count)
    prototypes = None
    for epoch in range(4):
        before = copy.deepcopy(model.state_dict())
        begin_epoch(method, epoch, data)
        assert model.training and all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
        # Those of the untrained network leave nothing behind.
        prototypes = prototypes_by_hand(model, data, 1, prototypes, beta=0.3 if epoch > 1 else 0.0)
        for name, wanted in prototypes.items():
            close(method.prototypes(name).tolist(), wanted)
        inputs, labels = small_batch(count, seed=epoch)
        score = scores_by_hand(model, inputs, labels, prototypes)
        helped = [name for name in score if score[name] < max(score.values())]
        assert len(helped) == count - 1
        loss, wanted = wanted_step(model, inputs, labels, prototypes, helped, alpha=0.7)
        close(step_of(method, model, inputs, labels), loss)
        close({name: method.diagnostics[f"score_{name}"].item() for name in score}, score)
        for name, gradient in gradients(model).items():
            close(gradient, wanted[name], 1e-8)
        with torch.no_grad():
            for weight in model.parameters():
                weight -= 0.5 * weight.grad


def test_only_the_best_modality_is_not_helped_and_only_the_share_is_read():
    model = small_model("late_sum", 3)
    method = small_method("pmr", model, share=0.5)
    data = clips(3)
    begin_epoch(method, 2, data)
    assert data.read == [("train", 2)] * 3
    inputs, labels = small_batch(3)
    step_of(method, model, inputs, labels)
    score = {name: method.diagnostics[f"score_{name}"].item() for name in model.modalities}
    weight = {name: method.diagnostics[f"weight_{name}"].item() for name in model.modalities}
    assert weight == {name: 0.0 if value == max(score.values()) else 1.0 for name, value in score.items()}
    assert sum(weight.values()) == 2


def test_where_all_fit_alike_nobody_is_helped():
    model = small_model("late_concat", 2)
    method = small_method("pmr", model)
    method.active = True  # with prototypes of zeros: every class is as near as another
    inputs, labels = small_batch(2)
    loss, _ = plain_step(model, inputs, labels)
    close(step_of(method, model, inputs, labels), loss)


def test_outside_the_window_training_is_plain_and_no_clip_is_read():
    model = small_model("early", 2)
    method = small_method("pmr", model, window={"first": 1, "last": 2})
    inputs, labels = small_batch(2)
    for epoch, active in ((0, False), (1, True), (2, True), (3, False)):
        data = clips(2)
        begin_epoch(method, epoch, data)
        assert bool(data.read) == active
        loss, plain = plain_step(model, inputs, labels)
        assert torch.equal(step_of(method, model, inputs, labels), loss) != active
        assert active or all(torch.equal(gradient, plain[name]) for name, gradient in gradients(model).items())
        assert bool(method.diagnostics) == active


def test_the_first_prototypes_in_a_later_window_are_the_plain_means():
    model = small_model("late_sum", 2)
    method = small_method("pmr", model, window={"first": 1, "last": None}, share=1.0)
    data = clips(2)
    begin_epoch(method, 0, data)
    begin_epoch(method, 1, data)
    wanted = prototypes_by_hand(model, data, 5, None, 0.2)
    close({name: method.prototypes(name).tolist() for name in wanted}, wanted)


def test_an_interruption_between_epochs_changes_nothing():
    model = small_model("late_concat", 2)
    method = small_method("pmr", model)
    begin_epoch(method, 1, clips(2))
    again = small_method("pmr", small_model("late_concat", 2, seed=5))
    again.load_state_dict(method.state_dict())
    inputs, labels = small_batch(2)
    found = []
    for each in (method, again):
        on_model(each, model)
        begin_epoch(each, 2, clips(2, seed=90))
        other = copy.deepcopy(model)
        found.append((step_of(each, other, inputs, labels), gradients(other), each.state_dict()))
    assert torch.equal(found[0][0], found[1][0])
    for first, second in zip(found[0][1:], found[1][1:], strict=True):
        assert all(torch.equal(value, second[key]) for key, value in first.items())
    assert not list(method.parameters())
