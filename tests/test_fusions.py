"""Every fusion: AGM on it equal to the slow reference, and its output to a plain computation of its formula."""

import math

import pytest
import torch
from torch import Tensor

from agm.attribution import modality_responses
from agm.models.encoders import Identity, SequenceTransformer
from agm.models.multimodal import Multimodal
from agm.pipeline.config import schema
from agm.pipeline.networks import build_fusion
from by_hand import agm_equals_the_reference, on_model
from networks import CLASSES, FUSIONS, small_batch, small_method, small_model
from plain import attention, both_ways, linear, normal
from test_synchronisation import Refusing, RefusingConstants
from tiny import close

pytestmark = pytest.mark.numerical

PSP = schema.Psp(name="psp", regions=3, attention=4, hidden=3, fused=5, threshold=0.2, dropout=0.2)
CASES = [*((fusion, count) for fusion in FUSIONS for count in (2, 3, 4)), ("psp", 2)]
MORE = [case for case in CASES if case[0] == "psp" or case[1] == 4]
"""What test_agm.py, which has two modalities and three, leaves."""
STEPS = 5


def model_and_batches(fusion: str, count: int) -> tuple[Multimodal, list[tuple[dict[str, Tensor], Tensor]]]:
    """A small model of that fusion, and three batches for it."""
    if fusion == "psp":
        return sequences(PSP, {"sound": (False, 4), "picture": (False, 6)})
    return small_model(fusion, count), [small_batch(count, seed=seed) for seed in range(3)]


def sequences(
    block: schema.Fusion, modalities: dict[str, tuple[bool, int]], padded: bool = False
) -> tuple[Multimodal, list[tuple[dict[str, Tensor], Tensor]]]:
    """A model over sequences, each with a transformer or none and so many numbers a step, and three batches for it."""
    torch.manual_seed(0)
    small = {"dim": 6, "num_heads": 2, "num_layers": 1, "dim_feedforward": 5, "dropout": 0.3}
    encoders = {}
    for name, (transformer, values) in modalities.items():
        if transformer:
            encoders[name] = SequenceTransformer(values, sequence=block.sequential, **small)
        else:
            encoders[name] = Identity(values, block.sequential)
    fusion = build_fusion(block, {name: encoder.dim for name, encoder in encoders.items()}, CLASSES)
    model = Multimodal(encoders, fusion).double()
    return model, [sequence_batch(modalities, seed, padded) for seed in range(3)]


def sequence_batch(
    modalities: dict[str, tuple[bool, int]], seed: int, padded: bool
) -> tuple[dict[str, Tensor], Tensor]:
    """Sequences of `STEPS` steps; if `padded`, of as few as none, which zeros follow."""
    generator = torch.Generator().manual_seed(seed)
    inputs = {}
    for name, (_, values) in modalities.items():
        x = torch.randn(6, STEPS, values, generator=generator, dtype=torch.float64)
        lengths = torch.randint(0, STEPS + 1, (6, 1, 1), generator=generator)
        inputs[name] = x * (torch.arange(STEPS).view(1, STEPS, 1) < lengths) if padded else x
    return inputs, torch.randint(0, CLASSES, (6,), generator=generator)


@pytest.mark.parametrize(("fusion", "count"), MORE)
def test_agm_equals_the_reference(fusion, count):
    agm_equals_the_reference(*model_and_batches(fusion, count), alpha=1.4, bound=None)


@pytest.mark.parametrize("fusion", ["late_concat", "cross_attention"])
@pytest.mark.parametrize("count", [2, 3])
def test_agm_equals_the_reference_on_sequences_with_padding(fusion, count):
    modalities = {name: (number % 2 == 0, 2 + number) for number, name in enumerate("abcd"[:count])}
    agm_equals_the_reference(*sequences(FUSIONS[fusion], modalities, padded=True), alpha=1.4, bound=None)


@pytest.mark.parametrize(("fusion", "count"), MORE)
def test_responses_add_up_to_the_full_output_in_either_mode(fusion, count):
    model, batches = model_and_batches(fusion, count)
    inputs, _ = batches[0]
    for train in (True, False):
        model.train(train)
        torch.manual_seed(1)
        responses = modality_responses(model, inputs)
        torch.manual_seed(1)
        close(responses.sum(dim=0), model(inputs))


@pytest.mark.parametrize(("fusion", "count"), CASES)
def test_gradients_reach_every_weight(fusion, count):
    model, batches = model_and_batches(fusion, count)
    for inputs, labels in batches:
        torch.nn.functional.cross_entropy(model.train()(inputs), labels).backward()
    untouched = {name for name, weight in model.named_parameters() if weight.grad is None or not weight.grad.any()}
    assert not untouched


@pytest.mark.parametrize(("fusion", "count"), MORE)
def test_a_step_waits_for_no_device(fusion, count):
    model, batches = model_and_batches(fusion, count)
    method = small_method("agm", model)
    with Refusing(), RefusingConstants():
        method.backward(on_model(method, model.train()).loss(*batches[0]))


@pytest.mark.parametrize(("fusion", "count"), CASES)
def test_a_fusion_is_what_its_block_says(fusion, count):
    model, batches = model_and_batches(fusion, count)
    block = PSP if fusion == "psp" else FUSIONS[fusion]
    head = model.eval().fusion
    assert (head.additive, head.sequential, head.late) == (block.additive, block.sequential, block.additive)
    features = model.encode(batches[0][0])
    assert {name: h.shape[-1] for name, h in features.items()} == head.dims
    assert all(h.ndim == 2 + block.sequential for h in features.values())
    fused = head.fuse(features)
    assert fused.ndim == 2
    close(head.classify(fused), head(features))
    if not head.additive:
        (classifier,) = head.classifiers
        close(head(features), fused @ classifier.weight.T + classifier.bias)


# --- each formula by a plain computation ------------------------------------------------------------------------


def features_and_fusion(fusion: str, count: int):
    """A fusion in evaluation mode, with weights and biases that are not their initial ones, and features for it."""
    model, batches = model_and_batches(fusion, count)
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for weight in model.fusion.parameters():
            weight += 0.1 * torch.randn(weight.shape, generator=generator, dtype=weight.dtype)
    return model.eval().encode(batches[0][0]), model.fusion


@pytest.mark.parametrize("count", [2, 3, 4])
def test_early(count):
    """BatchNorm before the first MaxOut layer, with the published ε, and behind each."""
    features, fusion = features_and_fusion("early", count)

    def normalised(norm, x, eps):
        return (x - norm.running_mean) / (norm.running_var + eps).sqrt() * norm.weight + norm.bias

    for clip, z in enumerate(fusion.fuse(features)):
        x = normalised(fusion.norm, torch.cat([h[clip] for h in features.values()]), 1e-4)
        for maxout, norm, _ in (fusion.mixer[:3], fusion.mixer[3:]):
            pieces = linear(maxout.linear, x)
            x = normalised(
                norm, torch.stack([max(pieces[2 * i], pieces[2 * i + 1]) for i in range(len(pieces) // 2)]), 1e-5
            )
        close(z, x)


@pytest.mark.parametrize("count", [2, 3, 4])
def test_film(count):
    features, fusion = features_and_fusion("film", count)
    for clip, z in enumerate(fusion.fuse(features)):
        *others, last = (h[clip] for h in features.values())
        both = linear(fusion.modulator, torch.cat(others))
        close(z, torch.stack([both[i] * last[i] + both[len(last) + i] for i in range(len(last))]))


@pytest.mark.parametrize("count", [2, 3, 4])
def test_gated(count):
    features, fusion = features_and_fusion("gated", count)
    for clip, z in enumerate(fusion.fuse(features)):
        gates = linear(fusion.gates, torch.cat([h[clip] for h in features.values()]))
        wanted = torch.zeros(7, dtype=torch.float64)
        for m, h in enumerate(features.values()):
            gate = 1 / (1 + (-gates[7 * m : 7 * m + 7]).exp())
            wanted += gate * torch.tanh(linear(fusion.projections[m], h[clip]))
        close(z, wanted)


@pytest.mark.parametrize("count", [2, 3, 4])
def test_low_rank_is_a_linear_map_of_the_outer_product(count):
    features, fusion = features_and_fusion("low_rank", count)
    tensor = 0.0  # the weights of the outer product: `[1 + D_1, …, 1 + D_M, 6]`
    for rank in range(2):
        factors = [layer.weight[6 * rank : 6 * rank + 6] for layer in fusion.factors]
        letters = "abcd"[:count]
        tensor = tensor + torch.einsum(",".join(f"z{each}" for each in letters) + f"->{letters}z", *factors)
    one = torch.ones(1, dtype=torch.float64)
    for clip, z in enumerate(fusion.fuse(features)):
        wanted = tensor
        for h in features.values():
            wanted = torch.tensordot(torch.cat([one, h[clip]]), wanted, dims=([0], [0]))
        close(z, wanted)


def test_low_rank_keeps_what_is_left_when_a_modality_is_masked():
    """Without the weight of the 1, or with one that starts at 0 as biases do, a product with a masked modality is 0."""
    fusion = build_fusion(FUSIONS["low_rank"], {"a": 3, "b": 4}, 2)
    assert fusion({"a": torch.randn(2, 3), "b": torch.zeros(2, 4)}).std(dim=0).min() > 1e-4


@torch.no_grad()
@pytest.mark.parametrize("count", [2, 3])
def test_cross_attention(count):
    modalities = {name: (False, 3 + number) for number, name in enumerate("abc"[:count])}
    model, [(inputs, _), *_] = sequences(FUSIONS["cross_attention"], modalities, padded=True)
    fusion = model.eval().fusion
    for weight in fusion.parameters():
        weight += 0.1 * torch.randn_like(weight)
    found = fusion.fuse(inputs)
    angles = [[t / 10000 ** (2 * (i // 2) / 4) for i in range(4)] for t in range(STEPS)]
    waves = [[(math.sin, math.cos)[i % 2](row[i]) for i in range(4)] for row in angles]
    places = torch.tensor(waves, dtype=torch.float64)
    for clip in range(len(found)):
        keep = {m: [t == 0 or bool(x[clip, t].any()) for t in range(STEPS)] for m, x in inputs.items()}
        s = {
            m: torch.stack([linear(fusion.projections[m], row) for row in x[clip]]) + places for m, x in inputs.items()
        }
        for layer in fusion.layers:
            for m, stream in layer.streams.items():
                x = normal(stream.own_norm, s[m])
                s[m] = s[m] + attention(stream.own, x, x, keep[m])
            x = {m: normal(stream.cross_norm, s[m]) for m, stream in layer.streams.items()}
            for m, stream in layer.streams.items():
                others = [other for other in x if other != m]
                context = [token for other in others for token in x[other]]
                s[m] = s[m] + attention(stream.others, x[m], context, [k for other in others for k in keep[other]])
                first, _, _, second = stream.feedforward
                inner = [linear(first, row).clamp_min(0) for row in normal(stream.last_norm, s[m])]
                s[m] = s[m] + torch.stack([linear(second, row) for row in inner])
        means = []
        for m in s:
            x = normal(fusion.norms[m], s[m])
            means.append(sum(row for row, kept in zip(x, keep[m], strict=True) if kept) / sum(keep[m]))
        close(found[clip], torch.cat(means), 1e-9)


def positive(row):
    """A row of similarities divided by its sum, what is not above the threshold left out, and divided again."""
    share = [value / max(sum(row), 1e-12) for value in row]
    share = [value if value > PSP.threshold else 0.0 for value in share]
    return [value / max(sum(share), 1e-12) for value in share]


@torch.no_grad()
def test_psp():
    features, fusion = features_and_fusion("psp", 2)
    look, propagate, left_out = fusion.look, fusion.propagate, 0

    def mapped(layers, x):
        return linear(layers[0], x).clamp_min(0)

    for clip, z in enumerate(fusion.fuse(features)):
        sound, seen = [linear(fusion.sound_in, x) for x in features["sound"][clip]], []
        for t in range(STEPS):
            heard = linear(look.sound_part, linear(look.from_sound, sound[t]).clamp_min(0))
            regions = features["picture"][clip, t].view(3, 2)
            inner = [linear(look.region_part, linear(look.from_region, v).clamp_min(0)) + heard for v in regions]
            scores = [math.exp(float(look.score.weight[0] @ x.tanh())) for x in inner]
            attended = sum(score / sum(scores) * v for score, v in zip(scores, regions, strict=True))
            seen.append(linear(fusion.picture_in, attended))
        a, v = both_ways(fusion.sound_lstm, sound), both_ways(fusion.picture_lstm, seen)
        keys = [mapped(propagate.sound_key, x) for x in a]
        beta = [[float(mapped(propagate.picture_key, y) @ key) / 6**0.5 for key in keys] for y in v]
        to_picture = [positive(row) for row in beta]
        to_sound = [positive(column) for column in zip(*beta, strict=True)]
        left_out += sum(
            share == 0 < value
            for row, kept in zip(beta, to_picture, strict=True)
            for value, share in zip(row, kept, strict=True)
        )
        total = 0.0
        for t in range(STEPS):
            both = []
            for own, other, share, value, out in (
                (a, v, to_sound, propagate.picture_value, propagate.sound_out),
                (v, a, to_picture, propagate.sound_value, propagate.picture_out),
            ):
                x = own[t] + sum(share[t][k] * mapped(value, other[k]) for k in range(STEPS))
                both.append(normal(propagate.norm, [mapped(out, x)])[0])
            total = total + linear(fusion.last, sum(both) / 2).clamp_min(0)
        close(z, total / STEPS)
    assert left_out, "the threshold was never reached"


# --- padding ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fusion", ["late_concat", "cross_attention"])
def test_padding_changes_nothing(fusion):
    modalities = {"a": (True, 3), "b": (False, 4), "c": (True, 2)}
    model, [(inputs, _), *_] = sequences(FUSIONS[fusion], modalities, padded=True)
    longer = {name: torch.nn.functional.pad(x, (0, 0, 0, 4)) for name, x in inputs.items()}
    close(model.eval()(longer), model(inputs))
    changed = {name: x.clone() for name, x in inputs.items()}
    changed["b"][:, -1] += 1.0
    assert (model(changed) - model(inputs)).abs().max() > 1e-6
