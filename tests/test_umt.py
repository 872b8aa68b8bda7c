"""UMT: against the distances written out, with teachers of either kind."""

import copy

import pytest
import torch
from torch.nn.functional import cross_entropy

from agm.methods import UMT
from agm.models.multimodal import Multimodal, OnlyModality
from agm.pipeline.networks import build_fusion
from by_hand import gradients, on_model, plain_step, step_of
from networks import CLASSES, FUSIONS, small_batch, small_method, small_model
from tiny import close

pytestmark = pytest.mark.numerical

CASES = [("late_sum", 2), ("late_concat", 3), ("early", 2), ("early", 3), ("cross_attention", 2)]


def concepts_of(fusion, count):
    """Concepts like those of finished runs: networks of their own for a late fusion, else whole ones around them."""
    whole = {
        name: small_model(fusion, count, seed=20 + i) for i, name in enumerate(small_model(fusion, count).encoders)
    }
    concepts = {name: OnlyModality(model, name) for name, model in whole.items()}
    if whole["audio"].fusion.late:
        for name, model in whole.items():
            encoder = model.encoders[name]
            fusion_alone = build_fusion(FUSIONS[fusion], {name: encoder.dim}, CLASSES)
            concepts[name] = Multimodal({name: encoder}, fusion_alone).double()
    return {name: concept.eval().requires_grad_(False) for name, concept in concepts.items()}


def teachers_of(concepts):
    return {"teachers": {name: concept.encoders[name] for name, concept in concepts.items()}}


@pytest.mark.parametrize(("fusion", "count"), CASES)
def test_a_step_adds_the_mean_squared_distance_to_every_teachers_feature(fusion, count):
    model, concepts = small_model(fusion, count), concepts_of(fusion, count)
    states = copy.deepcopy({name: concept.state_dict() for name, concept in concepts.items()})
    method = small_method("umt", model, teachers_of(concepts), weight=0.3)
    inputs, labels = small_batch(count)
    other = copy.deepcopy(model).train()
    torch.manual_seed(0)
    features = other.encode(inputs)
    loss = cross_entropy(other.fusion(features), labels)
    for name, h in features.items():
        lesson = concepts[name].encoders[name](inputs[name])
        squares = [(a - b) ** 2 for a, b in zip(h.flatten(), lesson.flatten().tolist(), strict=True)]
        distance = torch.stack(squares).sum() / len(squares)
        assert distance > 0
        loss = loss + 0.3 * distance
    loss.backward()
    close(step_of(method, model, inputs, labels), loss.detach())
    wanted = gradients(other)
    assert gradients(model).keys() == wanted.keys()
    for name, gradient in gradients(model).items():
        close(gradient, wanted[name], 1e-9)
    for name, concept in concepts.items():
        assert all(weight.grad is None for weight in concept.parameters())
        assert all(torch.equal(value, states[name][key]) for key, value in concept.state_dict().items())


def test_teachers_are_in_evaluation_mode_and_no_part_of_the_method():
    model, concepts = small_model("late_concat", 2), concepts_of("late_concat", 2)
    for concept in concepts.values():
        concept.train()
    method = small_method("umt", model, teachers_of(concepts)).train()
    assert not list(method.parameters()) and not method.state_dict()
    inputs, labels = small_batch(2)
    on_model(method, model.train()).loss(inputs, labels)
    assert not any(concept.encoders[name].training for name, concept in concepts.items())


def test_a_teacher_that_agrees_and_a_weight_of_zero_add_nothing():
    for weight, same in ((10.0, True), (0.0, False)):
        model = small_model("late_sum", 2).eval()
        concepts = concepts_of("late_sum", 2)
        if same:
            for name, concept in concepts.items():
                concept.encoders[name].load_state_dict(model.encoders[name].state_dict())
        inputs, labels = small_batch(2)
        method = small_method("umt", model, teachers_of(concepts), weight=weight)
        close(on_model(method, model).loss(inputs, labels), cross_entropy(model(inputs), labels))
        if not same:
            _, plain = plain_step(model, inputs, labels)
            step_of(method, model, inputs, labels)
            for name, gradient in gradients(model).items():
                close(gradient, plain[name])


def test_evaluation_builds_it_without_teachers():
    assert UMT.prerequisites == ("teachers",)
    assert small_method("umt", small_model("early", 2)).teachers == {}
