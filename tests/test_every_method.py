"""What holds of every method in the pipeline: it starts where joint training starts, is trained in pieces as in one,
is evaluated as it was trained, and refused where the library refuses it.

What a method does with a network, whatever its fusion, the battery tells (`test_battery.py`).
"""

import json
import signal
from contextlib import nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
import yaml
from omegaconf import OmegaConf

from agm import methods
from agm.methods.method import Network
from agm.models.encoders import SequenceTransformer, Transformer
from agm.models.multimodal import Multimodal
from agm.pipeline import cli, config
from agm.pipeline.config import schema
from agm.pipeline.config.methods import arguments, check, described, typed
from agm.pipeline.dag.graph import Graph
from agm.pipeline.errors import AgmError, Stopped
from agm.pipeline.networks import build_fusion, build_joint, build_method
from agm.pipeline.steps.train import loop
from agm.pipeline.steps.train import step as train_step
from agm.pipeline.steps.train.watch import Signals
from by_hand import Clips, begin_epoch, gradients
from clone import ROOT
from networks import small_batch
from small_shards import CLASSES, FEATURES, write_shards
from test_train import PARAMS
from whole import with_lists

CPU = torch.device("cpu")
METHODS = list(methods.METHODS)
FUSIONS = {
    "late_concat": {"name": "late_concat"},
    "late_sum": {"name": "late_sum"},
    "early": {"name": "early", "hidden": [16]},
    "film": {"name": "film"},
    "gated": {"name": "gated"},
    "low_rank": {"name": "low_rank"},
    "cross_attention": {"name": "cross_attention", "dim": 8, "num_heads": 2, "num_layers": 1, "dim_feedforward": 8},
}
# Networks of their own: what they put in the place of the fusion starts as it does for nobody else.
OWN_FUSION = {"mla", "amco", "greedy"}


def content(names: list[str], fusions: list[str]) -> dict[str, Any]:
    """A study of some methods and fusions."""
    study = {**PARAMS["study"], "fusions": fusions, "methods": names}
    blocks = {name: {"name": name} for name in names}
    trainer = {**PARAMS["trainer"], "epochs": 2}
    return with_lists({**PARAMS, "study": study, "fusions": FUSIONS, "methods": blocks, "trainer": trainer})


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shards, and the finished runs that methods read."""
    folder = tmp_path_factory.mktemp("every")
    write_shards(folder / "data/tiny")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        Path("params.yaml").write_text(yaml.safe_dump(content(["joint"], ["late_concat"])))
        for modality in PARAMS["study"]["modalities"]:
            assert cli.main(["concept", "late_concat", modality, "0"]) == 0
        assert cli.main(["train", "late_concat", "joint", "0"]) == 0
        Path("params.yaml").write_text(yaml.safe_dump(content(METHODS, ["late_concat"])))
    return folder


@pytest.fixture
def graph(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Graph:
    """The study of all methods, and in its folder."""
    monkeypatch.chdir(folder)
    return Graph(config.load())


def training(graph: Graph, name: str) -> loop.Training:
    return train_step.build_training(graph.params, graph.job("train", "late_concat", name, 0), CPU)


@pytest.mark.parametrize("fusion", FUSIONS)
def test_a_configuration_is_described_as_its_network(fusion: str) -> None:
    """So what the library refuses of a network is what is refused when composing."""
    params = config.check(content(["joint"], [fusion]), "params.yaml")
    found = described(params, params.fusions[fusion])
    network = Network.of(build_joint(params, fusion, FEATURES, len(CLASSES), seed=0))
    assert list(found.modalities) == list(network.modalities)
    assert (found.dims, found.additive) == (network.dims, network.additive)
    assert (found.encoders, found.staged) == (network.encoders, network.staged)


@pytest.mark.parametrize("name", [name for name in METHODS if name != "joint"])
def test_what_a_method_cannot_train_is_refused_when_composing(name: str) -> None:
    params = config.check(content(["joint", name], list(FUSIONS)), "params.yaml")
    expected = []
    for fusion in FUSIONS:
        reason = methods.get(name).refusal(described(params, params.fusions[fusion]), **arguments(params.methods[name]))
        if reason:
            assert len(reason.split()) > 3
            expected.append(f"methods.{name} with fusions.{fusion}: {reason}")
    if not expected:
        check(params, "params.yaml")
        return
    with pytest.raises(AgmError) as error:
        check(params, "params.yaml")
    said = str(error.value)
    assert all(line in said for line in expected)
    assert said.count(" with fusions.") == len(expected)


class Start(NamedTuple):
    """A run's first step: initial weights, first batch, bounds of the clipping, and defaults of the optimizer."""

    weights: dict[str, torch.Tensor]
    batch: loop.Batch
    clipped: set[float]
    defaults: dict[str, Any]


def start(graph: Graph, name: str) -> Start:
    """The first step of the run of a method."""
    run = training(graph, name)
    run.model.train()
    weights = {key: value.clone() for key, value in run.model.state_dict().items()}
    begin_epoch(run.method, 0, run.data)
    batch = next(run.data.batches("train", 0))
    clipped = set()
    clip = loop.clip_gradients
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "clip_gradients", lambda *given: clipped.add(given[2]) or clip(*given))
        assert torch.isfinite(run.train_step(batch))
    return Start(weights, batch, clipped, run.optimizer.defaults)


@pytest.fixture(scope="module")
def joint_start(folder: Path) -> Start:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        return start(Graph(config.load()), "joint")


@pytest.mark.numerical
@pytest.mark.parametrize("name", METHODS)
def test_every_method_starts_from_joint_trainings_weights_batches_and_clipping(
    graph: Graph, joint_start: Start, name: str
) -> None:
    own = start(graph, name)
    assert own.batch.ids == joint_start.batch.ids
    assert all(torch.equal(x, own.batch.inputs[key]) for key, x in joint_start.batch.inputs.items())
    assert own.clipped == joint_start.clipped == {graph.params.trainer.grad_clip}
    assert own.defaults == joint_start.defaults
    for key, weight in joint_start.weights.items():
        if not (name in OWN_FUSION and key.startswith("fusion.")):
            assert torch.equal(own.weights[key], weight), key


@pytest.mark.numerical
@pytest.mark.parametrize("name", [name for name in METHODS if not methods.get(name).prerequisites])
def test_a_batch_of_one_clip_is_a_step_of_every_method(name: str) -> None:
    """Where no network has BatchNorm; others are refused at composing."""
    torch.manual_seed(0)
    size = {"dim": 4, "num_heads": 2, "num_layers": 1, "dim_feedforward": 8}
    encoders = {"text": Transformer(9, 5, **size), "sensor": SequenceTransformer(3, **size)}
    fusion = build_fusion(schema.LateConcat(name="late_concat"), dict.fromkeys(encoders, 4), 4)
    model = Multimodal(encoders, fusion).double()
    method = build_method(schema.MethodBlock(name=name), model, seed=0).double()
    inputs, labels = small_batch(4, batch=3)
    single = [({key: inputs[key][[row]] for key in encoders}, labels[[row]]) for row in range(3)]
    data = Clips(train=single, val=single)
    for epoch in (0, 1, 6):
        begin_epoch(method, epoch, data)
        for batch in data.batches("train", epoch):
            for loss in method.losses(*batch):
                model.zero_grad()
                method.backward(loss)
                assert loss.isfinite()
                assert all(gradient.isfinite().all() for gradient in gradients(model).values())


class StopAfter(Signals):
    """A signal that comes after a number of batches."""

    def __init__(self, run: loop.Training, batches: int | None) -> None:
        super().__init__()
        step, self.left = run.train_step, batches

        def counted(batch: loop.Batch) -> torch.Tensor:
            if self.left is not None:
                self.left -= 1
                self.received = signal.SIGTERM if self.left == 0 else 0
            return step(batch)

        run.train_step = counted


@pytest.mark.numerical
@pytest.mark.parametrize("name", METHODS)
def test_every_method_resumes_and_is_evaluated_as_it_was_trained(graph: Graph, name: str, tmp_path: Path) -> None:
    """Stopped within an epoch, after 3 of its 5 batches, and at its end."""
    ends = []
    for folder, stops in (("whole", [None]), ("interrupted", [3, 2, None])):
        for stop in stops:
            torch.rand(5)  # whatever happens in between must not matter
            run = training(graph, name)
            with nullcontext() if stop is None else pytest.raises(Stopped):
                run.fit(tmp_path / folder, StopAfter(run, stop))
        ends.append(run)
    whole, resumed = ends
    assert resumed.history == whole.history
    for key, value in whole.model.state_dict().items():
        assert torch.equal(value, resumed.model.state_dict()[key]), key
    # A method may be a network of its own: evaluation must build the same one from the weights alone.
    model = whole.model.eval()
    batch = next(whole.data.batches("val"))
    again = build_joint(graph.params, "late_concat", whole.shards.features, len(whole.shards.classes), seed=0)
    build_method(graph.params.methods[name], again, seed=0)
    again.load_state_dict(model.state_dict())
    assert torch.equal(again.eval()(batch.inputs), model(batch.inputs))


def test_every_method_has_a_group_and_a_source() -> None:
    for name in METHODS:
        group = (ROOT / "params/method" / f"{name}.yaml").read_text()
        assert group.startswith(f"# @package methods.{name}\n# ")
        content = OmegaConf.to_container(OmegaConf.create(group), resolve=True)
        wanted = typed(schema.MethodBlock(name=name)).model_dump()
        assert json.loads(json.dumps(content)) == json.loads(json.dumps(wanted))
        about = __import__(f"agm.methods.{name}", fromlist=["x"]).__doc__
        assert name == "joint" or any(str(year) in about for year in range(2010, 2027)), name
