"""ReconBoost: against its two losses worked out clip by clip, and which weights move in which phase."""

import copy
import math

import pytest
import torch

from agm.methods.method import Batch
from agm.pipeline.config import schema
from agm.pipeline.steps.train.loop import Training
from by_hand import begin_epoch, on_model, plain_step, softmax
from networks import CLASSES, FUSIONS, refusal, small_batch, small_method, small_model
from tiny import close

pytestmark = pytest.mark.numerical

CASES = [(fusion, count) for fusion in ("late_sum", "late_concat") for count in (2, 3)]


def the_loss(method, model, inputs, labels, seed=0):
    """The loss of one step, with its gradients left in the weights."""
    model.train().zero_grad()
    torch.manual_seed(seed)
    loss = next(on_model(method, model).losses(inputs, labels))
    method.backward(loss)
    return loss.detach()


def pieces(model, count):
    """W_m and b_m of every modality, cut out of the classifier here."""
    found, start = {}, 0
    for name, encoder in model.encoders.items():
        if hasattr(model.fusion, "heads"):
            found[name] = (model.fusion.heads[name].weight, model.fusion.heads[name].bias)
        else:
            layer = model.fusion.classifier
            found[name] = (layer.weight[:, start : start + encoder.dim], layer.bias / count)
            start += encoder.dim
    return found


def own_outputs(model, inputs, modality, seed=0):
    """u of every modality: of the one that is trained as in training, of the others as in evaluation."""
    found = {}
    for name, (weight, bias) in pieces(model, len(inputs)).items():
        torch.manual_seed(seed)
        encoder = model.encoders[name].train() if name == modality else copy.deepcopy(model.encoders[name]).eval()
        found[name] = encoder(inputs[name]) @ weight.T + bias
    return found


def loss_by_hand(outputs, labels, modality, before, weights=(5.0, 1.0, 0.5)):
    """The boosting loss in plain numbers."""
    fit, reconcile, consolidate = weights
    total, far = 0.0, 0.0
    for row, label in enumerate(labels.tolist()):
        u = {name: output[row].tolist() for name, output in outputs.items()}
        joint = [sum(u[name][c] for name in u if name != modality) for c in range(CLASSES)]
        own = softmax(u[modality])
        total += -fit * math.log(own[label]) / CLASSES
        total += reconcile * softmax(joint)[label] * math.log(own[label]) / CLASSES
        if before is not None:
            far += sum((a - b) ** 2 for a, b in zip(own, softmax(u[before]), strict=True)) / CLASSES
    return (total + consolidate * far) / len(labels)


@pytest.mark.parametrize(("fusion", "count"), CASES)
@pytest.mark.parametrize("stage", [0, 1, 2, 4])
def test_the_boosting_loss_is_that_worked_out_by_hand(fusion, count, stage):
    model = small_model(fusion, count)
    names = list(model.encoders)
    modality = names[stage % count]
    before = names[(stage - 1) % count] if stage else None
    method = small_method("reconboost", model)
    method.start_epoch(8 * stage + 3)
    inputs, labels = small_batch(count, seed=stage)
    wanted = loss_by_hand(own_outputs(copy.deepcopy(model), inputs, modality), labels, modality, before)
    close(the_loss(method, model, inputs, labels).item(), wanted)


@pytest.mark.parametrize(("fusion", "count"), CASES)
def test_the_gradient_is_that_of_the_written_out_loss_and_the_others_have_none(fusion, count):
    model = small_model(fusion, count)
    before, modality = list(model.encoders)[:2]
    method = small_method("reconboost", model, boost=1, rectify=1, fit=2.0, reconcile=1.5, consolidate=3.0)
    method.start_epoch(2)
    inputs, labels = small_batch(count)
    other = copy.deepcopy(model)
    outputs = own_outputs(other, inputs, modality)
    own = outputs[modality].softmax(dim=1)
    joint = sum(u for name, u in outputs.items() if name != modality).detach().softmax(dim=1)
    wanted = 0.0
    for row, label in enumerate(labels.tolist()):
        wanted -= (2.0 - 1.5 * joint[row, label]) * own[row, label].log() / CLASSES / len(labels)
        wanted += 3.0 * (own[row] - outputs[before][row].softmax(dim=0).detach()).square().mean() / len(labels)
    other.zero_grad()
    wanted.backward()
    the_loss(method, model, inputs, labels)
    for (name, weight), one in zip(model.named_parameters(), other.parameters(), strict=True):
        assert (weight.grad is None) == (one.grad is None), name
        assert not name.startswith(f"encoders.{modality}.") or weight.grad is not None
        if weight.grad is not None:
            close(weight.grad, one.grad)


def test_the_consolidation_has_a_gradient():
    """In the released code both sides of it are detached: a weight that changes nothing."""
    model = small_model("late_sum", 2)
    inputs, labels = small_batch(2)
    found = []
    for consolidate in (0.0, 1.0):
        method = small_method("reconboost", model, fit=0.0, reconcile=0.0, consolidate=consolidate)
        method.start_epoch(8)
        the_loss(method, model, inputs, labels)
        found.append(sum(weight.grad.abs().sum() for weight in model.encoders["video"].parameters()))
        assert all(weight.grad is None for weight in model.encoders["audio"].parameters())
    assert found[0] == 0 and found[1] > 1e-4
    # Down its own gradient alone the two come closer.
    optimizer = torch.optim.SGD(model.parameters(), lr=0.3)
    losses = []
    for _ in range(30):
        losses.append(the_loss(method, model, inputs, labels))
        optimizer.step()
    assert sum(losses[-5:]) < 0.7 * sum(losses[:5])


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
@pytest.mark.parametrize(("fusion", "count"), CASES)
def test_only_the_stages_modality_moves_while_it_is_boosted(fusion, count, optimizer):
    """Weight decay and momentum from earlier phases would move the others' parts of a classifier that they share."""
    model = small_model(fusion, count)
    block = schema.Sgd(name="sgd", lr=0.05) if optimizer == "sgd" else schema.AdamW(name="adamw", lr=0.05)
    method = small_method("reconboost", model, boost=1, rectify=1)
    run = Training(model, method, None, schema.Trainer(optimizer=block), seed=0)
    names = list(model.encoders)
    for epoch in range(2 * count + 2):
        before = copy.deepcopy(model)
        run.method.start_epoch(epoch)
        model.train()
        for step in range(2):
            run.train_step(Batch(*small_batch(count, seed=2 * epoch + step), []))
        boosted = None if epoch % 2 else names[epoch // 2 % count]
        for name in names:
            trained = boosted in (None, name)
            states = (model.encoders[name].state_dict(), before.encoders[name].state_dict())
            assert all(torch.equal(value, states[1][key]) for key, value in states[0].items()) != trained
            (weight, bias), (weight_before, bias_before) = (pieces(each, count)[name] for each in (model, before))
            assert torch.equal(weight, weight_before) != trained
            own_bias = fusion == "late_sum"
            assert torch.equal(bias, bias_before) != (trained if own_bias else boosted is None)


@pytest.mark.parametrize("count", [2, 3])
def test_stages_take_the_modalities_in_turn(count):
    model = small_model("late_sum", count)
    names = list(model.encoders)
    method = small_method("reconboost", model, boost=2, rectify=3)
    inputs, labels = small_batch(count)
    for epoch in range(5 * count + 5):
        method.start_epoch(epoch)
        the_loss(method, model, inputs, labels)
        trained = [name for name in names if model.fusion.heads[name].weight.grad is not None]
        assert trained == ([names[epoch // 5 % count]] if epoch % 5 < 2 else names)


@pytest.mark.parametrize(("fusion", "count"), CASES)
def test_rectification_is_plain_training_of_everything(fusion, count):
    model = small_model(fusion, count)
    method = small_method("reconboost", model)
    inputs, labels = small_batch(count)
    method.start_epoch(8)
    the_loss(method, model, inputs, labels)
    for epoch in (4, 7, 12, 15):
        method.start_epoch(epoch)
        wanted_loss, wanted = plain_step(model, inputs, labels)
        close(the_loss(method, model, inputs, labels), wanted_loss, 0)
        assert all(torch.equal(weight.grad, wanted[name]) for name, weight in model.named_parameters())


def test_the_others_run_without_gradient_in_evaluation_mode_and_only_the_one_is_trained():
    model = small_model("late_sum", 3)
    method = small_method("reconboost", model)
    method.start_epoch(0)
    seen = {}
    for name, encoder in model.encoders.items():
        encoder.register_forward_hook(
            lambda module, _, h, name=name: seen.setdefault(name, []).append((module.training, h.requires_grad))
        )
    the_loss(method, model, *small_batch(3))
    assert seen == {"audio": [(True, True)], "video": [(False, False)], "text": [(False, False)]}
    assert all(module.training for module in model.modules())


def test_stage_and_phase_are_known_from_the_epoch_alone():
    model = small_model("late_concat", 2)
    method, other = (small_method("reconboost", model) for _ in range(2))
    for epoch in range(10):
        method.start_epoch(epoch)
    other.load_state_dict(method.state_dict())
    begin_epoch(other, 9)
    inputs, labels = small_batch(2)
    close(the_loss(other, model, inputs, labels), the_loss(method, model, inputs, labels), 0)
    assert not method.state_dict()


@pytest.mark.parametrize("fusion", FUSIONS)
def test_it_needs_an_output_that_is_a_sum(fusion):
    found = refusal("reconboost", fusion, {"audio": 3, "video": 3})
    assert (found is None) == (fusion in ("late_sum", "late_concat"))
    assert found is None or "additive" in found


def test_a_single_modality_and_bfloat16_passes_train():
    for epoch in (0, 8):
        model = small_model("late_concat", 1)
        method = small_method("reconboost", model)
        method.start_epoch(epoch)
        assert the_loss(method, model, *small_batch(1)).isfinite()
    model = small_model("late_concat", 2, dtype=torch.float32)
    method = small_method("reconboost", model)
    method.start_epoch(8)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = the_loss(method, model, *small_batch(2, dtype=torch.float32))
    assert loss.dtype == torch.float32 and loss.isfinite()
