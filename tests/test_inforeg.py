"""InfoReg: against scores, traces and growth worked out in plain numbers over several epochs."""

import copy
import math

import pytest
import torch
from torch.nn.functional import cross_entropy

from agm.methods import InfoReg
from agm.methods.inforeg import growth
from by_hand import after_pass, gradients, on_model, own_logits, own_scores, step_of
from networks import refusal, small_batch, small_method, small_model
from tiny import close

pytestmark = pytest.mark.numerical

CASES = [("late_sum", 3), ("late_concat", 2), ("early", 2), ("film", 3)]
SETTINGS = {"beta": 0.7, "threshold": -0.3, "window": 2}


def summed_loss(model, inputs, labels, seed=0):
    """CE(f) + Σ CE(u_m), every term written out, of a copy in training mode; and its gradients."""
    other = copy.deepcopy(model).train()
    other.zero_grad()
    torch.manual_seed(seed)
    features = {name: encoder(inputs[name]) for name, encoder in other.encoders.items()}
    loss = cross_entropy(other.fusion(features), labels)
    start, zeros = 0, {}
    if not other.fusion.additive:
        other.eval()
        zeros = {name: encoder(torch.zeros_like(inputs[name])) for name, encoder in other.encoders.items()}
    for name, h in features.items():
        if hasattr(other.fusion, "heads"):
            u = other.fusion.heads[name](h)
        elif other.fusion.additive:
            layer = other.fusion.classifier
            u = h @ layer.weight[:, start : start + h.shape[1]].T + layer.bias / len(features)
            start += h.shape[1]
        else:
            u = other.fusion({each: h if each == name else zeros[each] for each in features})
        loss = loss + cross_entropy(u, labels)
    loss.backward()
    return loss.item(), gradients(other)


def growth_by_hand(traces, window):
    """Of one modality, from its traces, the oldest first: as the authors' list, which starts with zeros."""
    if not traces:
        return 1.0
    padded = [0.0] * (window + 1) + traces
    now, before = sum(padded[-window:]) / window, sum(padded[-window - 1 : -1]) / window
    return (now - before) / now


class ByHand:
    """The rule over epochs, on Python's numbers."""

    def __init__(self, names, beta, threshold, window):
        self.beta, self.threshold, self.window = beta, threshold, window
        self.traces = {name: [] for name in names}

    def start_epoch(self, model):
        self.start = copy.deepcopy(dict(model.named_parameters()))
        self.now = {name: [] for name in self.traces}

    def step(self, model, inputs, labels):
        """Loss and gradients of one step, and what each modality is held back by."""
        loss, wanted = summed_loss(model, inputs, labels)
        score = own_scores(own_logits(*self._after(model, inputs)), labels)
        for name, trace in self.now.items():
            inner = [value for key, value in wanted.items() if key.startswith(f"encoders.{name}.")]
            trace.append(sum(number**2 for value in inner for number in value.flatten().tolist()))
        leader = max(score, key=score.get)
        others = [value for name, value in score.items() if name != leader]
        factors = dict.fromkeys(score, 0.0)
        if growth_by_hand(self.traces[leader], self.window) > self.threshold:
            gap = score[leader] - sum(others) / len(others)
            factors[leader] = self.beta * math.exp(math.tanh(gap))
        for key, weight in model.named_parameters():
            if key.startswith(f"encoders.{leader}.") and key in wanted:
                wanted[key] = wanted[key] + factors[leader] * (weight.detach() - self.start[key])
        return loss, wanted, factors

    @staticmethod
    def _after(model, inputs):
        other, features = after_pass(model, inputs)
        return other, inputs, features

    def end_epoch(self):
        for name, trace in self.now.items():
            self.traces[name].append(sum(trace) / len(trace))


@pytest.mark.parametrize(("fusion", "count"), CASES)
def test_six_epochs_equal_the_rule_worked_out_by_hand(fusion, count):
    model = small_model(fusion, count)
    method, by_hand = small_method("inforeg", model, **SETTINGS), ByHand(list(model.encoders), **SETTINGS)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.5)
    held = []
    for epoch in range(6):
        method.start_epoch(epoch)
        by_hand.start_epoch(model)
        for step in range(2 + epoch % 2):
            inputs, labels = small_batch(count, seed=10 * epoch + step)
            wanted_loss, wanted, factors = by_hand.step(model, inputs, labels)
            close(step_of(method, model, inputs, labels).item(), wanted_loss)
            found = gradients(model)
            assert found.keys() == wanted.keys()
            for name, gradient in found.items():
                close(gradient, wanted[name], 1e-8)
            close({name: method.diagnostics[f"coefficient_{name}"].item() for name in factors}, factors, 1e-8)
            held.append(any(factors.values()))
            optimizer.step()
        by_hand.end_epoch()
    assert all(held[:2]) and not all(held) and any(held[5:])


@pytest.mark.parametrize("leader", ["audio", "video", "text"])
def test_whichever_modality_leads_is_held_back_by_its_own_strength_and_nobody_else(leader):
    """The released code tests the same condition twice, so that the video never is."""
    model = small_model("late_sum", 3)
    beta = {"audio": 0.95, "video": 0.1, "text": 0.4}
    method = small_method("inforeg", model, beta=beta)
    inputs, _ = small_batch(3)
    method.start_epoch(0)
    with torch.no_grad():
        # The labels are what the leader says as it is trained, dropout included.
        model.fusion.heads[leader].weight.mul_(200)
        torch.manual_seed(0)
        other = copy.deepcopy(model).train()
        features = {name: encoder(inputs[name]) for name, encoder in other.encoders.items()}
        labels = other.fusion.heads[leader](features[leader]).argmax(dim=1)
        for weight in model.encoders.parameters():
            weight.add_(1e-3)
    step_of(method, model, inputs, labels)
    _, plain = summed_loss(model, inputs, labels)
    factor = {name: method.diagnostics[f"coefficient_{name}"].item() for name in beta}
    score = {name: method.diagnostics[f"score_{name}"].item() for name in beta}
    assert max(score, key=score.get) == leader
    gap = score[leader] - sum(value for name, value in score.items() if name != leader) / 2
    close(factor, {name: beta[name] * math.exp(math.tanh(gap)) if name == leader else 0.0 for name in beta})
    for name, gradient in gradients(model).items():
        extra = factor[leader] * 1e-3 if name.startswith(f"encoders.{leader}.") else 0.0
        close(gradient, plain[name] + extra, 1e-8)


def test_each_modality_is_judged_by_its_own_trace():
    """The released code looks at the audio's for all."""
    model = small_model("late_sum", 2)
    inputs, labels = small_batch(2)
    found = {}
    for growing in ([2.0, 1.0], [1.0, 2.0]):
        method = small_method("inforeg", model, window=1)
        method.traces.copy_(torch.tensor([growing, [1.5, 1.5]]))
        method.start_epoch(2)
        step_of(method, model, inputs, labels)
        leader = max(("audio", "video"), key=lambda name: method.diagnostics[f"score_{name}"])
        found[growing[0] > 1.5] = method.diagnostics[f"coefficient_{leader}"].item() > 0, leader
    assert found[True][0] == (found[True][1] == "audio")
    assert found[False][0] == (found[False][1] == "video")


def test_the_trace_is_that_of_the_gradient_before_it_is_changed():
    model = small_model("late_concat", 2)
    inputs, labels = small_batch(2)
    found = []
    for beta in (0.0, 100.0):
        other = copy.deepcopy(model)
        method = small_method("inforeg", other, beta=beta)
        method.start_epoch(0)
        with torch.no_grad():
            for weight in other.parameters():
                weight.mul_(1.01)
        step_of(method, other, inputs, labels)
        found.append(method.trace_sum.clone())
    close(found[0], found[1])


def test_growth_over_the_same_window_one_epoch_earlier():
    numbers = [5.0, 1.0, 4.0, 2.0, 8.0, 3.0, 9.0]
    for epochs in range(8):
        padded = [0.0] * 4 + numbers[:epochs]
        traces = torch.tensor([[value, value] for value in reversed(padded[-4:])], dtype=torch.float64)
        close(growth(traces).tolist(), [growth_by_hand(numbers[:epochs], 3)] * 2)


@pytest.mark.parametrize(("rate", "last"), [(1.0, 10), (0.9, 10), (1.0052, 10), (1.2, 40)])
def test_the_prime_learning_window_is_always_active_and_ends_when_the_trace_stops_growing(rate, last):
    """Epochs 0 … n with n = 10, whatever the trace; then as long as it grows fast enough."""
    model = small_model("late_sum", 2)
    method = small_method("inforeg", model)
    active = []
    for epoch in range(40):
        if epoch:
            method.trace_sum, method.steps = torch.full_like(method.trace_sum, rate**epoch), torch.tensor(1)
        method.start_epoch(epoch)
        active.append(bool((method.growth > 0.05).all()))
    assert active == [epoch <= last for epoch in range(40)]


def test_with_strength_zero_or_a_threshold_out_of_reach_nothing_is_held_back():
    for settings in ({"beta": 0.0}, {"threshold": 2.0}):
        model = small_model("late_sum", 2)
        method = small_method("inforeg", model, **settings)
        method.start_epoch(0)
        with torch.no_grad():
            for weight in model.parameters():
                weight.mul_(1.01)
        inputs, labels = small_batch(2)
        loss, plain = summed_loss(model, inputs, labels)
        close(step_of(method, model, inputs, labels).item(), loss)
        for name, gradient in gradients(model).items():
            close(gradient, plain[name])


def test_strengths_by_modality_name_each_of_them():
    def reason(beta):
        return refusal("inforeg", "early", {"audio": 3, "video": 4}, beta=beta)

    assert reason(0.3) is None
    assert reason({"video": 0.1, "audio": 0.95}) is None
    assert "'sensor'" in reason({"audio": 0.95, "video": 0.1, "sensor": 1.0})
    assert "'audio', 'video'" in reason({"audio": 0.95})


def test_one_encoding_serves_all_losses():
    model = small_model("late_concat", 3)
    method = small_method("inforeg", model)
    method.start_epoch(0)
    calls = []
    for encoder in model.encoders.values():
        encoder.register_forward_hook(lambda *_: calls.append(1))
    step_of(method, model, *small_batch(3))
    assert len(calls) == 3


def test_a_single_modality_and_bfloat16_passes_train():
    model = small_model("late_sum", 1)
    method = small_method("inforeg", model)
    method.start_epoch(0)
    step_of(method, model, *small_batch(1))
    assert method.diagnostics["coefficient_audio"] == 0
    model = small_model("early", 2, dtype=torch.float32)
    method = InfoReg(model)
    method.start_epoch(0)
    inputs, labels = small_batch(2, dtype=torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = on_model(method, model.train()).loss(inputs, labels)
    method.backward(loss)
    assert method.trace_sum.dtype == torch.float64 and (method.trace_sum > 0).all()
    assert all(gradient.dtype == torch.float32 and gradient.isfinite().all() for gradient in gradients(model).values())
