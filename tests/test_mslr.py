"""MSLR and MSES: against the rules worked out clip by clip, and what published copies got wrong."""

import copy
import math

import pytest
import torch
from torch.nn.functional import cross_entropy

from agm.methods.mslr import validation_scores
from agm.pipeline.steps.train.clips import Split
from by_hand import Clips, begin_epoch, gradients, on_model, own_logits, plain_step, softmax, step_of
from networks import refusal, small_batch, small_method, small_model
from tiny import close

pytestmark = pytest.mark.numerical

CASES = [("late_concat", 2), ("late_sum", 3), ("early", 2), ("early", 3), ("cross_attention", 2)]


def clips(count, sizes=(6, 3, 5)):
    batches = [small_batch(count, seed=50 + index, batch=size) for index, size in enumerate(sizes)]
    return Clips(train=[], val=batches)


def disturb(model, seed, size=0.3):
    """What an epoch of training might have done to the weights."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in model.parameters():
            weight += size * torch.randn(weight.shape, generator=generator, dtype=weight.dtype)


def owner_of(name):
    """Whose the weight of that name is: of an encoder, or of a modality's own classifier; None for what all share."""
    parts = name.split(".")
    if parts[0] == "encoders":
        return parts[1]
    return parts[2] if parts[1] == "heads" else None


def own_state(model, modality):
    """The weights and statistics that are the modality's own."""
    return {name: value for name, value in model.state_dict().items() if owner_of(name) == modality}


def by_hand(model, data):
    """Accuracy and mean cross-entropy of every u_m over the clips of all batches."""
    model = copy.deepcopy(model).eval()
    right, losses = {}, {}
    for inputs, labels in data.splits["val"]:
        features = {name: encoder(inputs[name]).detach() for name, encoder in model.encoders.items()}
        for name, rows in own_logits(model, inputs, features).items():
            for row, label in zip(rows, labels.tolist(), strict=True):
                right.setdefault(name, []).append(row.index(max(row)) == label)
                losses.setdefault(name, []).append(-math.log(softmax(row)[label]))
    mean = {name: sum(each) / len(each) for name, each in right.items()}
    return mean, {name: sum(each) / len(each) for name, each in losses.items()}


@pytest.mark.parametrize(("fusion", "count"), CASES)
def test_figures_are_those_of_each_modality_and_leave_the_model_alone(fusion, count):
    """A published copy counts the audio's accuracy inside the video's branch: both are equal."""
    model = small_model(fusion, count).train()
    disturb(model, seed=5)
    data = clips(count, sizes=(20, 7, 20))
    before = copy.deepcopy(model.state_dict())
    found = validation_scores(model, Split(data, "val"))
    accuracy, loss = by_hand(model, data)
    close(dict(zip(model.modalities, found.accuracy.tolist(), strict=True)), accuracy)
    close(dict(zip(model.modalities, found.loss.tolist(), strict=True)), loss)
    assert len(set(loss.values())) > 1
    assert len(set(accuracy.values())) > 1 or not model.fusion.additive
    assert model.training and model.encoders["audio"].training
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


@pytest.mark.parametrize(("fusion", "count"), [("late_sum", 3), ("late_concat", 2), ("early", 2)])
def test_mslr_scales_gradients_by_the_latest_accuracy_over_the_mean_of_five_before(fusion, count):
    model = small_model(fusion, count)
    given = {"audio": 0.9, "video": 1.1}
    method = small_method("mslr", model, coefficients=given)
    data = clips(count)
    seen, moved = [], set()
    for epoch in range(9):
        disturb(model, epoch, size=0.5)
        ratio = dict.fromkeys(model.modalities, 1.0)
        if epoch > 0:
            now, _ = by_hand(model, data)
            if len(seen) >= 5:
                means = {name: sum(each[name] for each in seen[-5:]) / 5 for name in now}
                ratio = {name: now[name] / means[name] if means[name] else 1.0 for name in now}
            seen.append(now)
        begin_epoch(method, epoch, data)
        inputs, labels = small_batch(count, seed=epoch)
        loss, plain = plain_step(model, inputs, labels)
        close(step_of(method, model, inputs, labels), loss)
        for name, gradient in gradients(model).items():
            owner = owner_of(name)
            close(gradient, plain[name] * (given.get(owner, 1.0) * ratio[owner] if owner else 1))
        moved |= {name for name, value in ratio.items() if value != 1}
    assert moved == set(model.modalities), "a no-op shows nothing"


def test_mslr_begins_with_the_given_coefficients_and_one_is_plain_training():
    model = small_model("early", 2)
    inputs, labels = small_batch(2)
    _, plain = plain_step(model, inputs, labels)
    step_of(small_method("mslr", model), model, inputs, labels)
    for name, gradient in gradients(model).items():
        assert torch.equal(gradient, plain[name])
    method = small_method("mslr", model, coefficients={"video": 0.5})
    begin_epoch(method, 0, Clips(train=[], val=[]))
    close([method.diagnostics[f"coefficient_{name}"].item() for name in ("audio", "video")], [1.0, 0.5])


def test_mslr_refuses_a_modality_that_is_not_there():
    dims = {"audio": 3, "video": 4}
    assert "vidoe" in refusal("mslr", "early", dims, coefficients={"vidoe": 1.2})
    assert refusal("mslr", "early", dims, coefficients={"video": 1}) is None


@pytest.mark.parametrize(("fusion", "count"), [("late_sum", 3), ("late_concat", 2), ("early", 2)])
def test_mses_stops_and_restores_as_the_rule_says(fusion, count):
    model = small_model(fusion, count)
    method = small_method("mses", model, patience=2)
    data = clips(count)
    smoothed, smallest, since, best, stopped = {}, {}, {}, {}, {}
    for epoch in range(24):
        disturb_all_but(model, 80 + epoch, stopped)
        if epoch > 0:
            _, loss = by_hand(model, data)
            for name, value in loss.items():
                if name in stopped:
                    continue
                smoothed[name] = 0.6 * smoothed[name] + 0.4 * value if name in smoothed else value
                if smoothed[name] < smallest.get(name, float("inf")):
                    smallest[name], since[name] = smoothed[name], 0
                    best[name] = copy.deepcopy(own_state(model, name))
                else:
                    since[name] += 1
                    if since[name] == 3:  # more than two
                        stopped[name] = epoch
        begin_epoch(method, epoch, data)
        for name, encoder in model.encoders.items():
            frozen = name in stopped
            assert method.diagnostics[f"coefficient_{name}"].item() == (0.0 if frozen else 1.0)
            own = [weight for key, weight in model.named_parameters() if owner_of(key) == name]
            assert len(own) == len(list(encoder.parameters())) + 2 * (fusion == "late_sum")
            assert all(weight.requires_grad != frozen for weight in own)
            assert all(module.training != frozen for module in encoder.modules())
            if frozen:
                assert all(torch.equal(value, best[name][key]) for key, value in own_state(model, name).items())
    assert len(stopped) == count
    assert len(set(stopped.values())) > 1


def disturb_all_but(model, seed, stopped):
    before = copy.deepcopy([own_state(model, name) for name in stopped])
    disturb(model, seed, size=0.05)
    for weights in before:
        model.load_state_dict(weights, strict=False)


@pytest.mark.parametrize("fusion", ["late_sum", "early"])
def test_a_frozen_encoder_is_not_moved_by_momentum_decay_or_running_statistics(fusion):
    """A published copy multiplies the gradient by 0, and in early fusion nothing at all."""
    model = small_model(fusion, 2)
    method = small_method("mses", model, patience=1)
    optimizer = torch.optim.SGD(model.parameters(), 0.5, momentum=0.9, weight_decay=0.1)

    def train(epoch):
        begin_epoch(method, epoch, clips(2))
        for step in range(2):
            optimizer.zero_grad(set_to_none=True)
            inputs, labels = small_batch(2, seed=step)
            method.backward(on_model(method, model).loss(inputs, labels))
            optimizer.step()

    train(0)
    method.frozen[0] = True
    before = copy.deepcopy(model.state_dict())
    train(1)
    for name, value in model.state_dict().items():
        if owner_of(name) == "audio":
            assert torch.equal(value, before[name])
        elif value.is_floating_point():
            assert not torch.equal(value, before[name])


def test_mses_is_plain_training_until_a_modality_stops():
    model = small_model("late_concat", 2)
    method = small_method("mses", model)
    inputs, labels = small_batch(2)
    for epoch in range(4):
        begin_epoch(method, epoch, clips(2))
        loss, plain = plain_step(model, inputs, labels)
        close(step_of(method, model, inputs, labels), loss, 0)
        assert all(torch.equal(gradient, plain[name]) for name, gradient in gradients(model).items())
    assert not list(method.parameters())


def test_training_goes_on_when_every_encoder_is_frozen():
    model = small_model("late_concat", 2)
    method = small_method("mses", model)
    method.frozen[:] = True
    begin_epoch(method, 0, clips(2))
    inputs, labels = small_batch(2)
    loss = step_of(method, model, inputs, labels)
    assert loss.isfinite() and gradients(model).keys() == {"fusion.classifier.weight", "fusion.classifier.bias"}
    assert cross_entropy(model(inputs), labels).isfinite()


def test_a_stopped_modality_stays_stopped_though_its_loss_falls_again():
    """As it may: the fusion goes on learning to read it."""
    model = small_model("late_concat", 2)
    method = small_method("mses", model, patience=5)
    method.frozen[0] = True
    kept = copy.deepcopy(method.best["audio"].state_dict())
    disturb(model, 0)
    again = small_method("mses", small_model("late_concat", 2), patience=5)
    again.load_state_dict(method.state_dict())
    for each in (method, again):
        begin_epoch(each, 7, clips(2))
        assert each.frozen.tolist() == [True, False]
        assert [each.diagnostics[f"coefficient_{name}"].item() for name in model.modalities] == [0, 1]
        assert all(torch.equal(value, kept[key]) for key, value in each.best["audio"].state_dict().items())
