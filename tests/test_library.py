"""What the library refuses, and says: arguments, models, loss functions."""

import copy
import re

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import agm
from agm import distributed
from agm.methods import AGM, MSLR, OGM, UMT, GBlending, InfoReg, Joint, Window
from agm.models import BlackBox, Multimodal, encoders
from subjects import histories
from tiny import Data, Whole, close, first_step, network, sgd


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"first": -1}, "Window: first: expected a number ≥ 0, found -1"),
        ({"last": -1}, "Window: last: expected a number ≥ 0, found -1"),
        ({"first": 1.5}, "Window: first: expected int, found 1.5"),
        ({"first": 5, "last": 4}, "Window: last: expected an epoch from first=5 on, found 4"),
    ],
)
def test_a_window_that_cannot_be_is_refused(values: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        Window(**values)


def test_a_window_is_both_of_its_ends() -> None:
    assert [epoch for epoch in range(9) if epoch in Window(first=2, last=4)] == [2, 3, 4]
    assert 10**6 in Window()


@pytest.mark.parametrize(
    ("method", "values", "message"),
    [
        (MSLR, {"coefficients": {"audio": 0.0}}, "MSLR: coefficients: audio: expected a number > 0, found 0.0"),
        (InfoReg, {"beta": {"audio": 1.0, "video": -1}}, "InfoReg: beta: video: expected a number ≥ 0, found -1"),
        (InfoReg, {"beta": "much"}, "InfoReg: beta: expected a number, found 'much'"),
        (AGM, {"coalitions": "some"}, "AGM: coalitions: expected one of ['exact', 'shared'], found 'some'"),
        (AGM, {"alpha": True}, "AGM: alpha: expected a number, found True"),
        (AGM, {"window": (0, 3)}, "AGM: window: expected Window, found (0, 3)"),
        (MSLR, {"coefficients": {"smell": 1.0}}, "MSLR cannot train this model: coefficients names ['smell']"),
        (UMT, {"teachers": {"audio": nn.Linear(5, 4)}}, "UMT cannot train this model: teachers: expected one for each"),
        (
            GBlending,
            {"histories": {"audio": {}}},
            "GBlending cannot train this model: histories: expected one",
        ),
    ],
)
def test_an_argument_that_cannot_be_is_refused(method: type, values: dict, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        method(network(), **values)


def test_more_histories_than_are_needed_do_no_harm() -> None:
    GBlending(network(), histories=histories(network(count=3)))


def test_a_student_without_teachers_is_told_what_is_missing() -> None:
    model = network()
    method = UMT(model)
    inputs, targets, _ = Data(model).batch()
    with pytest.raises(RuntimeError, match=r"UMT\(model, teachers="):
        method.step(inputs, targets, sgd(method))


def test_a_fusion_that_is_none_is_refused() -> None:
    with pytest.raises(TypeError, match=r"expected an agm\.fusion\.Fusion, found Linear: subclass it, or use"):
        Multimodal({"audio": nn.Linear(2, 2)}, nn.Linear(2, 2))  # type: ignore[arg-type]
    fusion = agm.fusion.LateSum({"audio": 4, "video": 4}, 3)
    with pytest.raises(ValueError, match=r"expected an encoder for each of \['audio', 'video'\], found \['audio'\]"):
        Multimodal({"audio": nn.Linear(5, 4)}, fusion)


@pytest.mark.parametrize("loss_fn", [functional.mse_loss, lambda outputs, targets: (outputs - targets).square()])
@pytest.mark.parametrize("method", [Joint, AGM])
def test_a_loss_that_is_not_one_number_a_sample_is_refused(method: type, loss_fn: distributed.LossFunction) -> None:
    """In sum over several processes its weight would be another one."""
    model = network()
    inputs, _, _ = Data(model).batch()
    made = method(model, loss_fn=loss_fn)
    with pytest.raises(ValueError, match=r"loss_fn gives the shape .*expected a loss for each sample, \[4\]"):
        made.step(inputs, torch.zeros(4, 3, dtype=torch.float64), sgd(made))


@pytest.mark.numerical
def test_a_copy_of_a_black_box_has_its_own_encoders() -> None:
    """Averages of weights, as in training with an exponential moving average, copy the whole model."""
    model = network()
    box = BlackBox(Whole(model), model.modalities, encoders=dict(model.encoders))
    method = OGM(box, alpha=0.5)
    other = copy.deepcopy(method)
    assert other.model.encoders["audio"] is not box.encoders["audio"]
    close(first_step(other, Data(model)), first_step(method, Data(model)), 0)
    assert other.model.encoders["audio"] is other.model.fusion.network.parts["audio"]


@pytest.mark.parametrize(
    ("output", "wrap"),
    [
        ("logits", lambda z: {"logits": z}),
        (0, lambda z: (z, None)),
        (lambda returned: returned[1]["z"], lambda z: (None, {"z": z})),
    ],
)
def test_a_black_box_finds_its_outputs(output: object, wrap: object) -> None:
    class Wrapped(Whole):
        def forward(self, inputs: dict[str, Tensor]) -> Tensor:
            return wrap(super().forward(inputs))  # type: ignore[operator]

    model = network()
    inputs, _, _ = Data(model).batch()
    close(BlackBox(Wrapped(model), model.modalities, output=output)(inputs), model(inputs), 0)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"say where its logits are, BlackBox\(…, output=…\)"):
        BlackBox(Wrapped(model), model.modalities)(inputs)


def test_encoders_of_no_modality_are_refused() -> None:
    model = network()
    with pytest.raises(ValueError, match=r"encoders names \['smell'\]"):
        BlackBox(Whole(model), model.modalities, encoders={"smell": nn.Linear(1, 1)})


@pytest.mark.numerical
def test_a_global_batch_norm_is_a_plain_one_in_a_single_process() -> None:
    model = network("Early", norm=True, dropout=0.0)
    other = copy.deepcopy(model)
    distributed.convert_batch_norm(other)
    data = Data(model)
    close(first_step(Joint(other), data), first_step(Joint(model), data), 0)
    close(other.state_dict(), model.state_dict(), 0)


def test_the_objective_is_no_part_of_a_methods_state() -> None:
    method = AGM(network())
    before = set(method.state_dict())
    method.objective = distributed.Objective(method)
    assert set(method.state_dict()) == before
    assert len(method.weights()) == len({id(weight) for weight in method.weights()})


def test_the_weights_of_every_encoder_are_found_by_name() -> None:
    """As tools do that freeze or adapt some of them."""
    sizes = {"dim": 8, "num_heads": 2, "num_layers": 1, "dim_feedforward": 8}
    chosen = [
        encoders.Conv(1, [2, 3]),
        encoders.OverFrames(encoders.Conv(1, [2, 3])),
        encoders.ResNet18(3),
        encoders.SequenceTransformer(3, **sizes),
        encoders.Transformer(9, 5, **sizes),
    ]
    for encoder in chosen:
        for name, weight in encoder.named_parameters():
            assert encoder.get_parameter(name) is weight
