"""What holds of every method: it starts where joint training starts, and trains every fusion or says why not."""

import json
import signal
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
import yaml
from omegaconf import OmegaConf

from agm import methods
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
from agm.pipeline.steps.train.checkpoint import Checkpoints
from agm.pipeline.steps.train.watch import Signals, Watch
from by_hand import Clips, begin_epoch, gradients
from clone import ROOT
from networks import small_batch
from small_shards import write_shards
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


def write_params(fusions: list[str]) -> Graph:
    study = {**PARAMS["study"], "fusions": fusions, "methods": METHODS}
    blocks = {name: {"name": name} for name in METHODS}
    content = with_lists({**PARAMS, "study": study, "fusions": FUSIONS, "methods": blocks})
    Path("params.yaml").write_text(yaml.safe_dump(content))
    return Graph(config.load())


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shards, and for every fusion the finished runs that methods read."""
    folder = tmp_path_factory.mktemp("every")
    write_shards(folder / "data/tiny")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for fusion in FUSIONS:
            content = {
                **PARAMS,
                "study": {**PARAMS["study"], "fusions": [fusion], "methods": ["joint"]},
                "fusions": FUSIONS,
                "methods": {"joint": {"name": "joint"}},
                "trainer": {**PARAMS["trainer"], "epochs": 2},
            }
            Path("params.yaml").write_text(yaml.safe_dump(with_lists(content)))
            for modality in PARAMS["study"]["modalities"]:
                assert cli.main(["concept", fusion, modality, "0"]) == 0
            assert cli.main(["train", fusion, "joint", "0"]) == 0
    return folder


@pytest.fixture
def graph(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Graph:
    monkeypatch.chdir(folder)
    return write_params(list(FUSIONS))


def refusal(graph: Graph, name: str, fusion: str) -> str | None:
    params = graph.params
    return methods.get(name).refusal(described(params, params.fusions[fusion]), **arguments(params.methods[name]))


def training(graph: Graph, name: str, fusion: str) -> loop.Training:
    return train_step.build_training(graph.params, graph.job("train", fusion, name, 0), CPU)


@pytest.mark.parametrize("fusion", FUSIONS)
@pytest.mark.parametrize("name", METHODS)
def test_every_pair_trains_or_is_refused_with_the_reason(graph: Graph, name: str, fusion: str, tmp_path: Path) -> None:
    if reason := refusal(graph, name, fusion):
        assert len(reason.split()) > 3
        content = yaml.safe_load(Path("params.yaml").read_text())
        content["study"] |= {"fusions": [fusion], "methods": ["joint", name]}
        content = with_lists(content)
        with pytest.raises(AgmError) as error:
            check(config.check(content, "params.yaml"), "params.yaml")
        assert f".{name} with fusions.{fusion}: {reason}" in str(error.value)
        return
    run = training(graph, name, fusion)
    before = {key: value.clone() for key, value in run.model.state_dict().items()}
    # Epoch 5 too: ReconBoost trains a single modality in the first four.
    rows = [run._epoch(epoch, Checkpoints(tmp_path), Watch(CPU)) for epoch in (0, 1, 5)]
    moved = {key.split(".")[1] for key, value in run.model.state_dict().items() if not torch.equal(value, before[key])}
    assert set(run.model.modalities) <= moved
    assert all(torch.isfinite(torch.tensor(value)) for row in rows for value in row.values())


@pytest.mark.numerical
@pytest.mark.parametrize("name", METHODS)
def test_every_method_starts_from_joint_trainings_weights_batches_and_clipping(
    graph: Graph, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    clipped = []
    clip = loop.clip_gradients
    monkeypatch.setattr(loop, "clip_gradients", lambda *given: clipped.append(given[2]) or clip(*given))
    starts = []
    for each in ("joint", name):
        run = training(graph, each, "late_concat")
        run.model.train()
        weights = {key: value.clone() for key, value in run.model.state_dict().items()}
        begin_epoch(run.method, 0, run.data)
        batch = next(run.data.batches("train", 0))
        clipped.clear()
        assert torch.isfinite(run.train_step(batch))
        starts.append((weights, batch, set(clipped), run.optimizer.defaults))
    (joint, other) = starts
    assert other[1].ids == joint[1].ids
    assert all(torch.equal(x, other[1].inputs[key]) for key, x in joint[1].inputs.items())
    assert other[2] == joint[2] == {graph.params.trainer.grad_clip}
    assert other[3] == joint[3]
    for key, weight in joint[0].items():
        if not (name in OWN_FUSION and key.startswith("fusion.")):
            assert torch.equal(other[0][key], weight), key


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
def test_every_method_resumes_as_if_it_had_not_been_interrupted(graph: Graph, name: str, tmp_path: Path) -> None:
    """After an epoch, and within one: after 3, 6, 7 and 12 of 15 batches."""
    params = graph.params.model_copy(update={"trainer": graph.params.trainer.model_copy(update={"epochs": 3})})
    ends = []
    for folder, stops in (("whole", [None]), ("interrupted", [3, 3, 1, 5, None])):
        for stop in stops:
            torch.rand(5)  # whatever happens in between must not matter
            run = train_step.build_training(params, graph.job("train", "late_concat", name, 0), CPU)
            with nullcontext() if stop is None else pytest.raises(Stopped):
                run.fit(tmp_path / folder, StopAfter(run, stop))
        ends.append(run)
    whole, resumed = ends
    assert resumed.history == whole.history
    for key, value in whole.model.state_dict().items():
        assert torch.equal(value, resumed.model.state_dict()[key]), key


@pytest.mark.numerical
@pytest.mark.parametrize("name", METHODS)
def test_every_trained_method_is_evaluated_as_it_was_trained(graph: Graph, name: str, tmp_path: Path) -> None:
    """A method may be a network of its own: evaluation must build the same one from the weights alone."""
    run = training(graph, name, "late_concat")
    run._epoch(0, Checkpoints(tmp_path), Watch(CPU))
    model = run.model.eval()
    batch = next(run.data.batches("val"))
    again = build_joint(graph.params, "late_concat", run.shards.features, len(run.shards.classes), seed=0)
    build_method(graph.params.methods[name], again, seed=0)
    again.load_state_dict(model.state_dict())
    assert torch.equal(again.eval()(batch.inputs), model(batch.inputs))


def test_every_method_has_a_group_and_a_source(graph: Graph) -> None:
    for name in METHODS:
        group = (ROOT / "params/method" / f"{name}.yaml").read_text()
        assert group.startswith(f"# @package methods.{name}\n# ")
        content = OmegaConf.to_container(OmegaConf.create(group), resolve=True)
        wanted = typed(schema.MethodBlock(name=name)).model_dump()
        assert json.loads(json.dumps(content)) == json.loads(json.dumps(wanted))
        about = __import__(f"agm.methods.{name}", fromlist=["x"]).__doc__
        assert name == "joint" or any(str(year) in about for year in range(2010, 2027)), name
