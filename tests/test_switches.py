"""The switches of the trainer: bfloat16, channels-last and torch.compile change the speed and the rounding."""

import copy
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import torch
import yaml

from agm.pipeline import config
from agm.pipeline.dag.graph import Graph
from agm.pipeline.steps.train import step as train_step
from small_shards import write_shards
from test_train import PARAMS

CPU = torch.device("cpu")


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Graph:
    monkeypatch.chdir(tmp_path)
    write_shards(Path("data/tiny"))
    Path("params.yaml").write_text(yaml.safe_dump(PARAMS))
    return Graph(config.load())


def trained(project: Graph, method: str, epochs: int = 1, **switches: object):
    trainer = project.params.trainer.model_copy(update={"epochs": epochs, **switches})
    params = project.params.model_copy(update={"trainer": trainer})
    training = train_step.build_training(params, project.job("train", "late_concat", method, 0), CPU)
    with TemporaryDirectory() as folder:
        training.fit(Path(folder))
    return training, training.history


@pytest.mark.parametrize("method", ["joint", "agm"])
def test_channels_last_changes_the_layout_and_the_rounding(project: Graph, method: str) -> None:
    plain, rows = trained(project, method)
    training, found = trained(project, method, channels_last=True)
    weight = training.model.encoders["image"].state_dict()
    assert any(each.ndim == 4 and each.is_contiguous(memory_format=torch.channels_last) for each in weight.values())
    batch = next(training.data.batches("val"))
    assert batch.inputs["image"].is_contiguous(memory_format=torch.channels_last)
    assert found[0]["train_loss"] == pytest.approx(rows[0]["train_loss"], rel=1e-4)
    for name, value in plain.model.state_dict().items():
        torch.testing.assert_close(training.model.state_dict()[name], value, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("method", ["joint", "agm"])
def test_bfloat16_is_for_the_passes_weights_and_coefficients_stay_wide(project: Graph, method: str) -> None:
    _, rows = trained(project, method)
    training, found = trained(project, method, precision="bfloat16")
    seen = []
    training.model.fusion.register_forward_hook(lambda module, given, output: seen.append(output.dtype))
    training.train_step(next(training.data.batches("train", 0)))
    assert torch.bfloat16 in seen
    assert {each.dtype for each in training.model.parameters()} == {torch.float32}
    assert all(value.dtype in (torch.float32, torch.float64) for value in training.method.diagnostics.values())
    assert found[0]["train_loss"] != rows[0]["train_loss"]
    assert found[0]["train_loss"] == pytest.approx(rows[0]["train_loss"], rel=0.1)


@pytest.mark.heavy
def test_compiled_networks_train_alike_and_keep_the_names_of_their_weights(project: Graph) -> None:
    """Without dropout, of which compiled code draws its own."""
    content = {**PARAMS, "encoders": {**PARAMS["encoders"], "text": {**PARAMS["encoders"]["text"], "dropout": 0.0}}}
    Path("params.yaml").write_text(yaml.safe_dump(content))
    graph = Graph(config.load())
    plain, rows = trained(graph, "agm")
    training, found = trained(graph, "agm", compile=True)
    assert training.model.state_dict().keys() == plain.model.state_dict().keys()
    assert found[0]["train_loss"] == pytest.approx(rows[0]["train_loss"], rel=1e-3)


def test_a_switch_leaves_the_start_alone(project: Graph) -> None:
    starts = []
    for switches in ({}, {"channels_last": True}, {"precision": "bfloat16"}):
        trainer = project.params.trainer.model_copy(update=switches)
        params = project.params.model_copy(update={"trainer": trainer})
        job = project.job("train", "late_concat", "agm", 0)
        starts.append(copy.deepcopy(train_step.build_training(params, job, CPU).model.state_dict()))
    for other in starts[1:]:
        assert all(torch.equal(value, other[name]) for name, value in starts[0].items())
