"""CML: against the loss written out clip by clip, the order of removal, and what a published copy leaves out."""

import copy
from itertools import pairwise

import pytest
import torch

from agm.methods.cml import rise
from by_hand import gradients, on_model, plain_step, step_of
from networks import NAMES, small_batch, small_method, small_model
from tiny import close

pytestmark = pytest.mark.numerical

CASES = [(fusion, count) for fusion in ("late_sum", "late_concat", "early") for count in (2, 3, 4)]


def outputs_without(model, inputs, removed):
    """f_0 … f_{M−1} in the pass of this step, the way the docstring writes them."""
    features = {name: encoder(inputs[name]) for name, encoder in model.encoders.items()}
    whole = model.fusion(features)
    outputs = [whole]
    for j in range(1, len(removed)):
        gone = removed[:j]
        if hasattr(model.fusion, "heads"):
            out = sum(features[name] @ head.weight.T for name, head in model.fusion.heads.items() if name not in gone)
            out = out + sum(head.bias for head in model.fusion.heads.values())
        elif model.fusion.additive:
            kept = torch.cat([h * (name not in gone) for name, h in features.items()], dim=1)
            out = kept @ model.fusion.classifier.weight.T + model.fusion.classifier.bias
        else:
            modes = {module: module.training for module in model.modules()}
            model.eval()
            zeros = {name: model.encoders[name](torch.zeros_like(inputs[name])) for name in gone}
            out = model.fusion({name: zeros.get(name, h) for name, h in features.items()})
            for module, mode in modes.items():
                module.training = mode
        outputs.append(out)
    return outputs


def written_out(model, inputs, labels, removed, penalty):
    """The loss clip by clip, and its gradients, of a copy; how many clips the second sum counts."""
    model = copy.deepcopy(model).train()
    model.zero_grad()
    torch.manual_seed(0)
    outputs = outputs_without(model, inputs, removed)
    batch, loss, counted = len(labels), torch.zeros((), dtype=torch.float64), 0
    for out in outputs:
        for i, label in enumerate(labels.tolist()):
            loss = loss + (out[i].exp().sum().log() - out[i][label]) / batch / len(outputs)
    for before, after in pairwise(outputs):
        for i, label in enumerate(labels.tolist()):
            gap = after[i].softmax(0).max() - before[i].softmax(0).max()
            if gap > 0 and before[i].argmax().item() == label:
                loss = loss + penalty * gap
                counted += 1
    loss.backward()
    return loss.detach(), gradients(model), counted


@pytest.mark.parametrize(("fusion", "count"), CASES)
def test_loss_and_gradients_equal_the_ones_written_out(fusion, count):
    model = small_model(fusion, count)
    method = small_method("cml", model, penalty=0.7)
    counted = 0
    for epoch in range(8):
        method.start_epoch(epoch)
        inputs, labels = small_batch(count, seed=epoch, batch=16)
        if epoch > 3:  # all right, so that every rise counts
            torch.manual_seed(0)
            labels = copy.deepcopy(model).train()(inputs).argmax(dim=1)
        loss, wanted, rises = written_out(model, inputs, labels, method.order(epoch), penalty=0.7)
        counted += rises
        close(step_of(method, model, inputs, labels), loss)
        found = gradients(model)
        assert found.keys() == wanted.keys()
        for name, gradient in found.items():
            close(gradient, wanted[name])
    assert counted


def test_one_clips_rise_is_not_made_up_for_by_anothers_fall():
    """A published copy cuts the sum over the batch off at zero, not the difference of each clip."""
    before = torch.tensor([[2.0, 0.0], [9.0, 0.0]], dtype=torch.float64)
    after = torch.tensor([[3.0, 0.0], [0.1, 0.0]], dtype=torch.float64)
    labels = torch.tensor([0, 0])
    confidence = [logits.softmax(dim=1)[:, 0] for logits in (before, after)]
    assert (confidence[1] - confidence[0]).sum() < 0
    close(rise(torch.stack([before, after]), labels), confidence[1][0] - confidence[0][0])


def test_only_a_right_answers_confidence_counts():
    """A published copy works out which clips are right and does not use it."""
    before = torch.tensor([[2.0, 0.0], [2.0, 0.0]], dtype=torch.float64)
    after = torch.tensor([[3.0, 0.0], [3.0, 0.0]], dtype=torch.float64)
    gap = after.softmax(dim=1)[0, 0] - before.softmax(dim=1)[0, 0]
    for labels, right in (([0, 0], 2), ([0, 1], 1), ([1, 1], 0)):
        close(rise(torch.stack([before, after]), torch.tensor(labels)), right * gap)
    # Right with the modality and wrong, but surer, without it: still a rise.
    assert rise(torch.stack([before, -after]), torch.tensor([0, 0])) > 0


def test_every_epoch_has_an_order_of_its_own_that_repeats():
    model = small_model("late_sum", 3)
    method = small_method("cml", model)
    orders = [method.order(epoch) for epoch in range(60)]
    assert all(sorted(order) == sorted(NAMES[:3]) for order in orders)
    assert len({tuple(order) for order in orders}) == 6
    torch.rand(3)
    again = small_method("cml", model)
    assert [again.order(epoch) for epoch in range(60)] == orders
    state = torch.get_rng_state()
    again.start_epoch(7)
    assert again.removed == orders[7]
    assert torch.equal(torch.get_rng_state(), state)
    assert list(method.state_dict()) == ["seed"]


def test_the_bias_is_kept_whole_when_modalities_are_removed():
    """Else what is left would lack a part of the bias for each modality that is gone."""
    for fusion in ("late_sum", "late_concat"):
        model = small_model(fusion, 3)
        method = small_method("cml", model)
        with torch.no_grad():
            for layer in model.fusion.classifiers:
                layer.weight.zero_()
                layer.bias.copy_(torch.arange(4.0) + 1)
        inputs, _ = small_batch(3)
        features = model.eval().encode(inputs)
        whole = model.fusion(features)
        close(method._without(inputs, features, whole), whole.expand(2, -1, -1))


def test_the_running_statistics_see_one_pass():
    model = small_model("early", 3)
    method = small_method("cml", model)
    plain = copy.deepcopy(model)
    inputs, labels = small_batch(3)
    step_of(method, model, inputs, labels)
    torch.manual_seed(0)
    plain.train()(inputs)
    for value, other in zip(model.buffers(), plain.buffers(), strict=True):
        close(value, other)


def test_a_single_modality_is_plain_training():
    for fusion in ("late_concat", "early"):
        model = small_model(fusion, 1)
        inputs, labels = small_batch(1)
        loss, plain = plain_step(model, inputs, labels)
        close(step_of(small_method("cml", model), model, inputs, labels), loss)
        for name, gradient in gradients(model).items():
            close(gradient, plain[name])


def test_the_loss_is_float32_under_autocast():
    model = small_model("early", 2, dtype=torch.float32)
    method = small_method("cml", model)
    inputs, labels = small_batch(2, dtype=torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert on_model(method, model.train()).loss(inputs, labels).dtype == torch.float32
