"""MMPareto: against one pass for each loss and arithmetic on plain numbers; never three times the plain gradient."""

import copy
import math

import pytest
import torch
from torch.nn.functional import cross_entropy

from agm.pipeline.steps.train.loop import compile_parts
from by_hand import gradients, on_model, step_of
from networks import small_batch, small_method, small_model
from tiny import close

pytestmark = pytest.mark.numerical

CASES = [(fusion, count) for fusion in ("late_sum", "late_concat", "early") for count in (2, 3)]


def of_one_loss(model, method, inputs, labels, which):
    """Gradients of CE(f) or of Σ CE(u_m) in a pass of its own, zero where there is none."""
    model, method = copy.deepcopy(model).train(), copy.deepcopy(method)
    model.zero_grad()
    torch.manual_seed(0)
    features = {name: encoder(inputs[name]) for name, encoder in model.encoders.items()}
    if which == "joint":
        loss = cross_entropy(model.fusion(features), labels)
    else:
        loss = sum(
            cross_entropy(h @ method.heads[name].weight.T + method.heads[name].bias, labels)
            for name, h in features.items()
        )
    loss.backward()
    named = [*model.named_parameters(), *method.named_parameters()]
    return {name: torch.zeros_like(w) if w.grad is None else w.grad for name, w in named}, loss.item()


def numbers(tensors):
    return [value for tensor in tensors for value in tensor.flatten().tolist()]


def wanted_gradients(joint, own, gamma):
    """The rule, encoder by encoder and number by number; also k of every modality."""
    wanted = {name: joint[name] + own[name] for name in joint}
    weights, cosines = {}, {}
    for modality in sorted({name.split(".")[1] for name in joint if name.startswith("encoders.")}):
        names = [name for name in joint if name.startswith(f"encoders.{modality}.")]
        g, e = numbers(joint[name] for name in names), numbers(own[name] for name in names)
        gg, ee, ge = sum(x * x for x in g), sum(x * x for x in e), sum(x * y for x, y in zip(g, e, strict=True))
        k = 0.5
        if ge <= 0:
            k = min(0.999, max(0.001, (ee - ge) / sum((x - y) ** 2 for x, y in zip(g, e, strict=True))))
        weights[modality], cosines[modality] = k, ge / math.sqrt(gg * ee)
        for name in names:
            mixed = 2 * k * joint[name] + 2 * (1 - k) * own[name]
            there = math.sqrt(sum(x * x for x in mixed.flatten().tolist()))
            plain = math.sqrt(sum(x * x for x in wanted[name].flatten().tolist()))
            longer = plain / there if plain > there > 0 else 1.0
            wanted[name] = gamma * longer * mixed
    return wanted, weights, cosines


def opposed(model, method):
    """Heads that want the opposite of what the network's own output wants, in part."""
    with torch.no_grad():
        for head in method.heads.values():
            head.weight.mul_(0.3)
        for layer, head in zip(model.fusion.classifiers, method.heads.values(), strict=False):
            if layer.weight.shape == head.weight.shape:
                head.weight.sub_(1.5 * layer.weight)


@pytest.mark.parametrize(("fusion", "count"), CASES)
def test_a_step_equals_the_rule_worked_out_by_hand(fusion, count):
    signs = set()
    for seed in range(8):
        model = small_model(fusion, count, seed=seed)
        method = small_method("mmpareto", model)
        if seed % 2:
            opposed(model, method)
        inputs, labels = small_batch(count, seed=seed)
        joint, joint_loss = of_one_loss(model, method, inputs, labels, "joint")
        own, own_loss = of_one_loss(model, method, inputs, labels, "own")
        wanted, weights, cosines = wanted_gradients(joint, own, gamma=1.5)
        method.zero_grad()
        close(step_of(method, model, inputs, labels).item(), joint_loss + own_loss)
        found = gradients(model) | gradients(method)
        assert found.keys() == wanted.keys()
        for name, gradient in found.items():
            close(gradient, wanted[name])
        for name, k in weights.items():
            close(method.diagnostics[f"weight_{name}"].item(), k)
            close(method.diagnostics[f"cosine_{name}"].item(), cosines[name])
        signs |= {cosine > 0 for cosine in cosines.values()}
    assert True in signs


def test_opposed_gradients_are_mixed_to_the_shortest_and_lengthened():
    model = small_model("late_sum", 2)
    method = small_method("mmpareto", model)
    with torch.no_grad():  # the heads are the classifiers turned round: what one wants the other does not
        for name, head in method.heads.items():
            head.weight.copy_(-2 * model.fusion.heads[name].weight)
    inputs, labels = small_batch(2)
    joint, _ = of_one_loss(model, method, inputs, labels, "joint")
    own, _ = of_one_loss(model, method, inputs, labels, "own")
    wanted, weights, cosines = wanted_gradients(joint, own, gamma=1.5)
    assert all(cosine < 0 for cosine in cosines.values())
    assert all(0.001 < k < 0.999 and k != 0.5 for k in weights.values())
    step_of(method, model, inputs, labels)
    for name, gradient in gradients(model).items():
        close(gradient, wanted[name])
        if name.startswith("encoders."):
            plain = (joint[name] + own[name]).norm()
            assert gradient.norm() >= 1.5 * plain * (1 - 1e-9)


def test_the_two_gradients_are_not_the_same_and_the_step_is_no_multiple_of_the_plain_one():
    """A published copy never clears the gradient between the losses, and descends three times the plain gradient."""
    model = small_model("late_concat", 2)
    method = small_method("mmpareto", model)
    inputs, labels = small_batch(2)
    step_of(method, model, inputs, labels)
    assert all(method.diagnostics[f"cosine_{name}"].abs() < 0.999 for name in inputs)
    joint, _ = of_one_loss(model, method, inputs, labels, "joint")
    for modality in inputs:
        names = [name for name in joint if name.startswith(f"encoders.{modality}.")]
        found, plain = (torch.cat([each[name].flatten() for name in names]) for each in (gradients(model), joint))
        assert torch.cosine_similarity(found, plain, dim=0) < 0.999


def test_without_a_share_in_the_output_a_head_still_trains_its_encoder():
    """An encoder whose gradient from one of the losses is zero: no division by zero."""
    model = small_model("late_sum", 2)
    method = small_method("mmpareto", model)
    with torch.no_grad():
        model.fusion.heads["audio"].weight.zero_()
        method.heads["video"].weight.zero_()
    step_of(method, model, *small_batch(2))
    assert all(gradient.isfinite().all() for gradient in gradients(model).values())
    close(
        {name: method.diagnostics[f"weight_{name}"].item() for name in ("audio", "video")},
        {"audio": 0.999, "video": 0.001},
    )
    assert any(gradient.abs().max() > 0 for name, gradient in gradients(model).items() if ".audio." in name)


def test_one_forward_pass_serves_both_losses():
    model = small_model("early", 3)
    method = small_method("mmpareto", model)
    calls = []
    for encoder in model.encoders.values():
        encoder.register_forward_hook(lambda *_: calls.append(1))
    step_of(method, model, *small_batch(3))
    assert len(calls) == 3


def test_the_heads_are_trained_with_the_network_and_survive_an_interruption():
    model = small_model("late_sum", 3)
    method = small_method("mmpareto", model)
    optimizer = torch.optim.SGD([*model.parameters(), *method.parameters()], lr=0.1)
    for seed in range(2):
        optimizer.zero_grad()
        step_of(method, model, *small_batch(3, seed=seed), seed=seed)
        optimizer.step()
    other_model = small_model("late_sum", 3, seed=1)
    other = small_method("mmpareto", other_model)
    assert not torch.equal(other.heads["audio"].weight, method.heads["audio"].weight)
    other_model.load_state_dict(model.state_dict())
    other.load_state_dict(method.state_dict())
    ends = []
    for one, network in ((method, model), (other, other_model)):
        step_of(one, network, *small_batch(3, seed=9))
        ends.append(gradients(network) | gradients(one))
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0])


def test_a_single_modality_trains():
    model = small_model("late_sum", 1)
    step_of(small_method("mmpareto", model), model, *small_batch(1))
    assert all(gradient.isfinite().all() for gradient in gradients(model).values())


def test_bfloat16_passes_leave_gradients_and_weights_wide():
    model = small_model("early", 2, dtype=torch.float32)
    method = small_method("mmpareto", model)
    inputs, labels = small_batch(2, dtype=torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = on_model(method, model.train()).loss(inputs, labels)
    method.backward(loss)
    assert all(gradient.dtype == torch.float32 and gradient.isfinite().all() for gradient in gradients(model).values())
    assert method.diagnostics["weight_audio"].dtype == torch.float32


@pytest.mark.heavy
def test_compiled_parts_are_taken_back_twice_too():
    model = small_model("early", 2, dtype=torch.float32)
    method = small_method("mmpareto", model)
    inputs, labels = small_batch(2, dtype=torch.float32)
    model.eval()  # compiled code draws dropout of its own
    ends = []
    for compiled in (False, True):
        if compiled:
            compile_parts(model)
        model.zero_grad()
        method.backward(on_model(method, model).loss(inputs, labels))
        ends.append(gradients(model))
    for name, gradient in ends[0].items():
        close(ends[1][name], gradient, 1e-4)
