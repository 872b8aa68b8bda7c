"""Diagnosing and re-learning: against purities counted clip by clip and weights mixed number by number."""

import copy
import math

import numpy as np
import pytest
import torch
from sklearn.cluster import KMeans
from torch.nn.functional import cross_entropy

from agm.methods.method import Batch
from agm.methods.relearning import purity
from agm.pipeline.config import schema
from agm.pipeline.steps.train.loop import Training
from by_hand import Clips, begin_epoch, gradients, on_model, plain_step, step_of
from networks import CLASSES, small_batch, small_method, small_model
from tiny import close

pytestmark = pytest.mark.numerical

CASES = [("late_sum", 2), ("late_concat", 3), ("early", 2), ("early", 3), ("cross_attention", 3)]


def clips(count, **changes):
    """Three training batches of unlike sizes and one for validation."""
    sizes = {"train": [9, 6, 12], "val": [14]} | changes
    return Clips(
        **{
            split: [small_batch(count, seed=10 * len(split) + row, batch=size) for row, size in enumerate(batches)]
            for split, batches in sizes.items()
        }
    )


def moved_on(model, steps=3):
    """Weights that are no longer the initial ones."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.3, momentum=0.9)
    count = len(model.modalities)
    for step in range(steps):
        optimizer.zero_grad()
        model.train()
        torch.manual_seed(step)
        inputs, labels = small_batch(count, seed=step)
        cross_entropy(model(inputs), labels).backward()
        optimizer.step()


def purity_by_hand(rows, labels):
    """Of one modality's features, a list of numbers for each clip."""
    columns = [list(column) for column in zip(*rows, strict=True)]
    for column in columns:
        low, high = min(column), max(column)
        column[:] = [(value - low) / (high - low) if high > low else 0.0 for value in column]
    points = np.array([list(row) for row in zip(*columns, strict=True)])
    clusters = KMeans(n_clusters=CLASSES, n_init=10, random_state=0).fit_predict(points).tolist()
    right = 0
    for cluster in set(clusters):
        there = [label for label, each in zip(labels, clusters, strict=True) if each == cluster]
        right += max(there.count(label) for label in set(there))
    return right / len(labels)


@torch.no_grad()
def purities_by_hand(model, data, split):
    other = copy.deepcopy(model).eval()
    found = {}
    for name, encoder in other.encoders.items():
        rows, labels = [], []
        for inputs, given in data.splits[split]:
            feature = encoder(inputs[name])
            rows += (feature if feature.ndim == 2 else feature.mean(dim=1)).tolist()
            labels += given.tolist()
        found[name] = purity_by_hand(rows, labels)
    return found


def shares_by_hand(model, data, strength):
    train, val = (purities_by_hand(model, data, split) for split in ("train", "val"))
    return {name: math.tanh(strength * abs(train[name] - val[name])) for name in train}


@pytest.mark.parametrize(("fusion", "count"), CASES)
def test_weights_go_back_as_far_as_worked_out_by_hand(fusion, count):
    model, data = small_model(fusion, count), clips(count)
    method = small_method("relearning", model, every=2, strength=2.0)
    first = copy.deepcopy(dict(model.named_parameters()))
    moved_on(model)
    there = copy.deepcopy(dict(model.named_parameters()))
    share = shares_by_hand(model, data, strength=2.0)
    assert len(set(share.values())) > 1 and any(0.05 < a < 0.95 for a in share.values())
    begin_epoch(method, 3, data)
    for name, weight in model.named_parameters():
        part, owner = name.split(".")[:2]
        a = share[owner] if part == "encoders" else 0.0
        close(weight, a * first[name] + (1 - a) * there[name])
    close({name: method.diagnostics[f"share_{name}"].item() for name in share}, share)


def test_only_training_and_validation_clips_are_read_and_both_count():
    """A published copy diagnoses with test clips; here nobody could: `Clips` has no test split to give."""
    model, data = small_model("late_sum", 2), clips(2)
    method = small_method("relearning", model, every=1)
    begin_epoch(method, 2, data)
    assert [split for split, _ in data.read] == ["train"] * 3 + ["val"]
    found = []
    for changes in ({}, {"val": [20]}, {"train": [20]}):
        on_model(method, copy.deepcopy(model))
        begin_epoch(method, 2, clips(2, **changes))
        found.append([method.diagnostics[f"gap_{name}"].item() for name in model.modalities])
    assert found[0] != found[1] != found[2] != found[0]


def test_the_diagnosis_comes_every_so_many_epochs_and_so_often_at_most():
    model, data = small_model("late_concat", 2), clips(2)
    method = small_method("relearning", model, every=3, times=2)
    done = []
    for epoch in range(15):
        before = copy.deepcopy(model.state_dict())
        moved_on(model, steps=1)
        there = copy.deepcopy(model.state_dict())
        assert not all(torch.equal(value, before[name]) for name, value in there.items())
        begin_epoch(method, epoch, data)
        changed = not all(torch.equal(value, there[name]) for name, value in model.state_dict().items())
        assert changed == bool(method.diagnostics)
        done += [epoch] if changed else []
    assert done == [4, 7]
    default = small_method("relearning", model)
    assert (default.strength, default.every, default.times) == (3.0, 20, 3)


def test_steps_are_plain_and_without_strength_so_is_the_rest():
    model, data = small_model("early", 3), clips(3)
    method = small_method("relearning", model, every=1, strength=0.0)
    moved_on(model)
    there = copy.deepcopy(model.state_dict())
    begin_epoch(method, 2, data)
    assert all(torch.equal(value, there[name]) for name, value in model.state_dict().items())
    inputs, labels = small_batch(3)
    loss, plain = plain_step(model, inputs, labels)
    close(step_of(method, model, inputs, labels), loss, 0)
    assert all(torch.equal(gradient, plain[name]) for name, gradient in gradients(model).items())


def test_running_statistics_modes_and_the_state_of_the_optimizer_are_left_alone():
    model, data = small_model("late_sum", 3), clips(3)
    method = small_method("relearning", model, every=1)
    run = Training(model, method, None, schema.Trainer(), seed=0)
    for step in range(2):
        run.train_step(Batch(*small_batch(3, seed=step), []))
    model.train().encoders["audio"].eval()
    modes = [module.training for module in model.modules()]
    buffers, state = copy.deepcopy(dict(model.named_buffers())), copy.deepcopy(run.optimizer.state_dict()["state"])
    weights = [weight.clone() for weight in model.parameters()]
    draws = torch.get_rng_state()
    begin_epoch(method, 2, data)
    assert any(not torch.equal(weight, one) for weight, one in zip(model.parameters(), weights, strict=True))
    assert modes == [module.training for module in model.modules()]
    assert torch.equal(draws, torch.get_rng_state())
    for name, value in model.named_buffers():
        assert torch.equal(value, buffers[name])
    for index, each in run.optimizer.state_dict()["state"].items():
        assert torch.equal(each["momentum_buffer"], state[index]["momentum_buffer"])


def test_a_run_that_goes_on_knows_the_initial_weights():
    data = clips(2)
    ends = []
    for interrupted in (False, True):
        model = small_model("late_concat", 2)
        method = small_method("relearning", model, every=1)
        moved_on(model)
        if interrupted:
            weights, state = model.state_dict(), method.state_dict()
            model = small_model("late_concat", 2)
            method = small_method("relearning", model, every=1)
            model.load_state_dict(weights)
            method.load_state_dict(state)
            assert not list(method.parameters())
        torch.rand(3)
        begin_epoch(method, 2, data)
        ends.append(model.state_dict())
    assert all(torch.equal(value, ends[1][name]) for name, value in ends[0].items())


def test_purity_of_clear_cases():
    corners = torch.tensor([[0.0, 0.0], [0.0, 9.0], [5.0, 0.0], [5.0, 9.0]], dtype=torch.float64)
    labels = torch.arange(4).repeat_interleave(5)
    assert purity(corners[labels], labels, 4) == 1.0
    assert purity(corners[labels], labels.roll(1), 4) == 0.8  # one wrong in each
    # Scaled, or the wide column would hide the other.
    wide = torch.stack([torch.arange(4.0).repeat(5) * 1e-3, torch.linspace(0, 1, 20) * 1e3], dim=1)
    assert purity(wide, torch.arange(4).repeat(5), 4) > 0.5
    constant = torch.cat([corners[labels], torch.full((20, 1), 3.0)], dim=1)
    assert purity(constant, labels, 4) == 1.0
    assert purity(corners[:2], labels[[0, 6]], 4) == 1.0  # fewer clips than classes


def test_a_single_modality_is_diagnosed_too():
    model, data = small_model("late_sum", 1), clips(1)
    method = small_method("relearning", model, every=1)
    begin_epoch(method, 2, data)
    assert method.diagnostics.keys() == {"gap_audio", "share_audio"}
