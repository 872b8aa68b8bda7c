"""Greedy: networks with transfer modules stage by stage by hand, and the curation by plain arithmetic."""

import copy
import math

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from agm.methods import Method
from agm.models.encoders import Conv, Encoder, OverFrames, ResNet18, Transformer
from agm.models.multimodal import Multimodal
from agm.pipeline.networks import build_fusion
from by_hand import Clips, begin_epoch, on_model
from networks import CLASSES, FUSIONS, small_batch, small_method, small_model
from plain import linear
from tiny import close

pytestmark = pytest.mark.numerical

CASES = [("late_concat", 2), ("late_sum", 2), ("late_concat", 3), ("late_sum", 3)]
NAMES = ["faces", "words", "sound"]


def model_of(fusion: str, count: int, seed: int = 0, sound: Encoder | None = None) -> Multimodal:
    """Frames of two stages, words of two and, if three, sound of more; without dropout."""
    torch.manual_seed(seed)
    small = {"dim": 6, "num_heads": 2, "num_layers": 2, "dim_feedforward": 8, "dropout": 0.0}
    encoders = {
        "faces": OverFrames(Conv(2, [3, 6])),  # last streams as wide as those of the words
        "words": Transformer(vocabulary=9, words=5, **small),
    }
    if count == 3:
        encoders["sound"] = sound or Conv(1, [2, 4, 7])
    head = build_fusion(FUSIONS[fusion], {name: encoder.dim for name, encoder in encoders.items()}, CLASSES)
    return Multimodal(encoders, head).double()


def batch_of(count: int, seed: int = 0, size: int = 4) -> tuple[dict[str, Tensor], Tensor]:
    """Clips of three frames and of words that end in padding, one of them with nothing else."""
    generator = torch.Generator().manual_seed(seed)
    words = torch.randint(1, 9, (size, 5), generator=generator)
    words[0, 3:], words[1, :] = 0, 0
    inputs = {
        "faces": torch.randn(size, 3, 2, 8, 8, generator=generator, dtype=torch.float64),
        "words": words,
        "sound": torch.randn(size, 1, 33, 17, generator=generator, dtype=torch.float64),
    }
    labels = torch.randint(0, CLASSES, (size,), generator=generator)
    return {name: inputs[name] for name in NAMES[:count]}, labels


def by_hand(
    model: Multimodal, inputs: dict[str, Tensor], averages: dict | None = None, caring: str | None = None
) -> tuple[dict[str, Tensor], dict[tuple[int, str], Tensor]]:
    """Features, and every gate by level, counted from the encoders' ends; of `caring` the averages take their place."""
    size = len(next(iter(inputs.values())))
    found = {}
    frames = [model.encoders["faces"].encoder.stages, inputs["faces"].flatten(0, 1)]
    words = model.encoders["words"]
    empty = inputs["words"] == 0
    empty[:, 0] = False
    sequence = [list(words.layers.layers), words.embedding(inputs["words"]) + words.position]
    if "sound" in inputs:
        if isinstance(model.encoders["sound"], ResNet18):
            network = model.encoders["sound"].network
            x = network.maxpool(network.relu(network.bn1(network.conv1(inputs["sound"]))))
            sound = [network.layer3, network.layer4], network.layer2(network.layer1(x))
        else:
            first, *others = model.encoders["sound"].stages
            sound = others, first(inputs["sound"])
    states = {"faces": frames[1], "words": sequence[1]} | ({"sound": sound[1]} if "sound" in inputs else {})
    for stage, level in ((0, 1), (1, 0)):
        states["faces"] = frames[0][stage](states["faces"])
        states["words"] = sequence[0][stage](states["words"], src_key_padding_mask=empty)
        if "sound" in states:
            states["sound"] = sound[0][stage](states["sound"])
        means = {}
        for name, state in states.items():
            rows = []
            for clip in range(size):
                if name == "words":
                    kept = [state[clip, place] for place in range(5) if not empty[clip, place]]
                    rows.append(sum(kept) / len(kept))
                else:
                    each = len(state) // size
                    rows.append(sum(state[clip * each + k].mean(dim=(1, 2)) for k in range(each)) / each)
            means[name] = torch.stack(rows)
        module = model.exchange.levels[level]
        hidden = torch.cat(list(means.values()), dim=1) @ module.squeeze.weight.T + module.squeeze.bias
        hidden = hidden.clamp_min(0)
        for name, state in states.items():
            gate = 1 / (1 + (-(hidden @ module.excite[name].weight.T) - module.excite[name].bias).exp())
            found[level, name] = gate
            used = averages[level, name].expand_as(gate) if name == caring else gate
            if name == "words":
                states[name] = torch.stack([state[clip] * used[clip] for clip in range(size)])
            else:
                each = len(state) // size
                states[name] = torch.stack([state[row] * used[row // each][:, None, None] for row in range(len(state))])
    features = {"faces": states["faces"].mean(dim=(2, 3)).view(size, 3, -1).mean(dim=1)}
    last = words.layers.norm(states["words"])
    features["words"] = torch.stack([last[clip][~empty[clip]].mean(dim=0) for clip in range(size)])
    if "sound" in states:
        features["sound"] = states["sound"].mean(dim=(2, 3))
    return features, found


def own_logits(model: Multimodal, features: dict[str, Tensor]) -> dict[str, Tensor]:
    """What each stream says, clip by clip."""
    heads = model.fusion.heads
    return {name: torch.stack([linear(heads[name], row) for row in feature]) for name, feature in features.items()}


def mean_logits(model: Multimodal, features: dict[str, Tensor]) -> Tensor:
    own = own_logits(model, features)
    return sum(own.values()) / len(own)


def summed_loss(model: Multimodal, features: dict[str, Tensor], labels: Tensor) -> Tensor:
    return sum(cross_entropy(logits, labels) for logits in own_logits(model, features).values())


def speeds(model: Multimodal) -> tuple[dict[str, float], dict[str, float]]:
    """‖∇θ‖²/‖θ‖² of what makes each modality's gates, and of its encoder and classifier, weight by weight."""

    def ratio(prefixes: list[str]) -> float:
        above = below = 0.0
        for key, weight in model.named_parameters():
            if any(key.startswith(prefix) for prefix in prefixes):
                above += (weight.grad**2).sum().item()
                below += (weight**2).sum().item()
        return above / below

    levels = range(len(model.exchange.levels))
    parts = {
        name: [f"exchange.levels.{k}.{part}." for k in levels for part in ("squeeze", f"excite.{name}")]
        for name in model.encoders
    }
    return (
        {name: ratio(part) for name, part in parts.items()},
        {name: ratio([f"encoders.{name}.", f"fusion.heads.{name}."]) for name in parts},
    )


def weight_of(model: Multimodal, key: str) -> Tensor:
    return dict(model.named_parameters())[key]


def descend(model: Multimodal, rate: float = 0.05) -> None:
    with torch.no_grad():
        for weight in model.parameters():
            weight -= rate * weight.grad


def step(method: Method, model: Multimodal, seed: int, count: int) -> Tensor:
    model.train().zero_grad()
    loss = on_model(method, model).loss(*batch_of(count, seed))
    method.backward(loss)
    return loss.detach()


@pytest.mark.parametrize(("fusion", "count", "resnet"), [(*case, False) for case in CASES] + [("late_sum", 3, True)])
def test_streams_are_gated_by_what_all_of_them_hold(fusion: str, count: int, resnet: bool) -> None:
    model = model_of(fusion, count, sound=ResNet18(1) if resnet else None)
    small_method("greedy", model, stages=4)
    # The ends are aligned; behind the first stages of the longest encoder there is nobody to exchange with.
    assert [list(module.excite) for module in model.exchange.levels] == [NAMES[:count]] * 2
    channels = {"faces": (6, 3), "words": (6, 6), "sound": (512, 256) if resnet else (7, 4)}
    for level, module in enumerate(model.exchange.levels):
        total = sum(channels[name][level] for name in NAMES[:count])
        assert module.squeeze.weight.shape == (2 * total // 4, total)
    inputs, _ = batch_of(count)
    for train in (False, True):
        model.train(train)
        wanted, _ = by_hand(copy.deepcopy(model), inputs)
        close(model(inputs), mean_logits(model, wanted))


@pytest.mark.parametrize(
    ("fusion", "count", "window"),
    [("late_concat", 2, 3), ("late_sum", 2, 1), ("late_concat", 3, 1), ("late_sum", 3, 3)],
)
def test_curation_begins_and_ends_as_the_speeds_say(fusion: str, count: int, window: int) -> None:
    model = model_of(fusion, count)
    method = small_method("greedy", model, alpha=0.02, window=window, warmup=1)
    total = {kind: dict.fromkeys(NAMES[:count], 0.0) for kind in ("bypass", "main")}
    gates: dict[tuple[int, str], list[Tensor]] = {}
    caring, left, seen = None, 0, []
    for number in range(10):
        begin_epoch(method, number // 2, Clips())
        averages = {key: sum(past) / len(past) for key, past in gates.items()}
        inputs, labels = batch_of(count, number)
        plain = copy.deepcopy(model).train()
        features, now = by_hand(plain, inputs, averages, caring if left else None)
        wanted = summed_loss(plain, features, labels)
        close(step(method, model, number, count), wanted.detach())
        wanted.backward()
        for key, weight in plain.named_parameters():
            # Without a gradient are the layers of the gates that an average stands for.
            wanted = torch.zeros_like(weight) if weight.grad is None else weight.grad
            close(weight_of(model, key).grad, wanted, 1e-9)
        for key, gate in now.items():
            gates.setdefault(key, []).append(gate.detach().mean(dim=0))
        curated = caring if left else None
        for name in NAMES[:count]:
            assert bool(method.diagnostics[f"curation_{name}"]) == (name == curated)
        seen.append(curated)
        if left:
            left -= 1
        else:
            for kind, found in zip(total, speeds(model), strict=True):
                for name, value in found.items():
                    total[kind][name] += value
        balance = {name: math.log10(total["bypass"][name] / total["main"][name]) for name in NAMES[:count]}
        for name, value in balance.items():
            assert method.diagnostics[f"balance_{name}"].item() == pytest.approx(value, rel=1e-9)
        if curated is None and number >= 2 and max(balance.values()) - min(balance.values()) > 0.02:
            caring, left = max(balance, key=balance.get), window
        descend(model)
    assert seen[:3] == [None] * 3 and any(seen)
    for level, module in enumerate(model.exchange.levels):
        assert module.passes == 10
        for name in NAMES[:count]:
            close(getattr(module, f"average_{name}"), sum(gates[level, name]) / 10)


def test_a_gate_that_is_an_average_hears_nothing_of_the_others() -> None:
    model = model_of("late_concat", 2)
    method = small_method("greedy", model, warmup=0)
    step(method, model, 0, 2)
    inputs, _ = batch_of(2)
    other = inputs | {"words": torch.randint(1, 9, (4, 5))}
    for caring in ("faces", None):
        model.train()
        model.exchange.averaged = {name: torch.tensor(name == caring) for name in inputs}
        features = [copy.deepcopy(model).encode(each)["faces"] for each in (inputs, other)]
        assert torch.equal(*features) == (caring == "faces")


def test_the_initial_weights_of_encoders_are_left_alone() -> None:
    model = model_of("late_sum", 2)
    before = copy.deepcopy(model.encoders.state_dict())
    found = []
    for draws in (0, 3):
        torch.rand(draws)
        other = copy.deepcopy(model)
        small_method("greedy", other)
        found.append(other.state_dict())
        assert all(torch.equal(found[-1][f"encoders.{key}"], value) for key, value in before.items())
        assert any(key.startswith("exchange.") for key in found[-1])
    assert all(torch.equal(found[0][key], value) for key, value in found[1].items())


def test_evaluation_loads_the_modules_and_runs_them_as_they_are() -> None:
    """Not averaged, even in the middle of a curation, and without a trace in the averages."""
    model = model_of("late_concat", 2)
    method = small_method("greedy", model, alpha=0.0, warmup=0)
    begin_epoch(method, 0, Clips())
    for number in range(3):
        step(method, model, number, 2)
    assert method.left.any()
    state = copy.deepcopy(model.eval().state_dict())
    again = model_of("late_concat", 2, seed=7)
    small_method("greedy", again)
    again.load_state_dict(state)
    inputs, _ = batch_of(2, seed=5)
    found = model(inputs)
    close(found, again.eval()(inputs))
    close(found, mean_logits(model, by_hand(model, inputs)[0]))
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())


@pytest.mark.parametrize("settings", [{"alpha": 100.0, "warmup": 0}, {"alpha": 0.0, "warmup": 9}])
def test_without_a_curation_every_stream_is_trained_by_its_own_loss(settings: dict) -> None:
    model = model_of("late_concat", 2)
    method = small_method("greedy", model, **settings)
    plain = copy.deepcopy(model).train()
    begin_epoch(method, 0, Clips())
    for number in range(3):
        inputs, labels = batch_of(2, number)
        plain.zero_grad()
        summed_loss(plain, plain.encode(inputs), labels).backward()
        step(method, model, number, 2)
        for key, weight in model.named_parameters():
            close(weight.grad, weight_of(plain, key).grad)
        descend(model)
        descend(plain)


@pytest.mark.parametrize(("fusion", "count"), [("late_sum", 1), ("late_concat", 1), ("late_concat", 4)])
def test_every_encoder_can_take_part(fusion: str, count: int) -> None:
    model = small_model(fusion, count)
    method = small_method("greedy", model, alpha=0.0, warmup=0)
    begin_epoch(method, 0, Clips())
    for number in range(2):
        model.zero_grad()
        loss = on_model(method, model).loss(*small_batch(count, seed=number))
        method.backward(loss)
        assert torch.isfinite(loss)
    assert [len(module.excite) for module in model.exchange.levels] == [count] * (count > 1)
