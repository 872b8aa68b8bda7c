"""The examples run; and in a loop that is nobody's, AGM does what it does in the pipeline."""

import copy
import importlib
import math
from pathlib import Path
from types import ModuleType

import pytest
import torch
import yaml
from torch import Tensor

import agm
from agm.pipeline import config
from agm.pipeline.dag.graph import Graph
from agm.pipeline.steps.train import step as train_step
from clone import ROOT
from small_shards import write_shards
from test_train import PARAMS
from tiny import close

EXAMPLES = ROOT / "examples"


@pytest.fixture(autouse=True)
def examples(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The folder of the examples is where Python looks first, as for a script that is started there."""
    monkeypatch.syspath_prepend(EXAMPLES)
    monkeypatch.chdir(tmp_path)


def example(name: str) -> ModuleType:
    """An example as a module."""
    return importlib.import_module(name)


def test_every_example_is_run_by_a_test() -> None:
    source = Path(__file__).read_text()
    for path in EXAMPLES.glob("*.py"):
        assert path.stem == "samples" or f'example("{path.stem}")' in source, path.name


def test_a_plain_loop(capsys: pytest.CaptureFixture[str]) -> None:
    history = example("plain_loop").main()
    assert history[-1] < 0.7 * history[0]
    assert "audio alone names the class of" in capsys.readouterr().out


def test_networks_of_others() -> None:
    """A torchvision model, and a Hugging Face model with a dictionary of outputs."""
    pytest.importorskip("transformers")
    losses = example("black_box").main()
    assert all(math.isfinite(loss) for loss in losses)


def test_a_hugging_face_model_is_attributed_as_its_masked_passes_say() -> None:
    """φ by hand, with whole passes of the model itself."""
    model = example("black_box").hugging_face_model().eval()
    torch.manual_seed(0)
    words, pixels = torch.randint(1, 50, (2, 8)), torch.randn(2, 3, 32, 32)
    padding = torch.tensor([[1] * 8, [1] * 5 + [0] * 3])
    inputs = {"input_ids": words, "attention_mask": padding, "pixel_values": pixels}
    with torch.no_grad():
        found = agm.modality_responses(model, inputs)
        network = model.fusion.network

        def logits(words: Tensor, pixels: Tensor) -> Tensor:
            return network(input_ids=words, attention_mask=padding, pixel_values=pixels).logits

        both, text, image = (
            logits(words, pixels),
            logits(words, torch.zeros_like(pixels)),
            logits(torch.zeros_like(words), pixels),
        )
    close(found[0], (both - image + text) / 2, 1e-5)
    close(found[1], (both - text + image) / 2, 1e-5)


@pytest.mark.filterwarnings("ignore")
def test_lightning() -> None:
    pytest.importorskip("lightning")
    assert math.isfinite(example("lightning_loop").main())


@pytest.mark.filterwarnings("ignore")
def test_lightning_makes_the_steps_that_a_plain_loop_makes() -> None:
    pytest.importorskip("lightning")
    samples = example("samples")
    batches = torch.utils.data.DataLoader(samples.AudioVideo(48), batch_size=16)
    torch.manual_seed(0)
    first = example("plain_loop").build_model()
    second = copy.deepcopy(first)
    example("lightning_loop").fit(agm.methods.AGM(first), batches, max_epochs=2)
    method = agm.methods.AGM(second)
    optimizer = torch.optim.SGD(method.weights(), lr=0.05)
    for epoch in range(2):
        method.start_epoch(epoch)
        for inputs, labels in batches:
            method.step(inputs, labels, optimizer)
    close(first.state_dict(), second.state_dict(), 1e-6)


def test_accelerate() -> None:
    pytest.importorskip("accelerate")
    history = example("accelerate_loop").main()
    assert all(math.isfinite(loss) for loss in history)


def test_accelerate_adds_up_the_pieces_of_a_step() -> None:
    pytest.importorskip("accelerate")
    samples = example("samples")
    batches = torch.utils.data.DataLoader(samples.AudioVideo(32), batch_size=16)
    torch.manual_seed(0)
    first = example("plain_loop").build_model()
    second = copy.deepcopy(first)
    example("accelerate_loop").train(agm.methods.AGM(first), batches, epochs=1, lr=0.05, pieces=2)
    method = agm.methods.AGM(second)
    optimizer = torch.optim.SGD(method.weights(), lr=0.05)
    method.start_epoch(0)
    for inputs, labels in batches:
        method.backward(method.loss(inputs, labels) / 2)
    optimizer.step()
    close(first.state_dict(), second.state_dict(), 1e-6)


@pytest.mark.numerical
def test_the_plain_loop_leaves_the_gradients_of_the_pipelines_loop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Same weights, same batches: three steps of either, and every gradient and weight equal."""
    write_shards(Path("data/tiny"))
    Path("params.yaml").write_text(yaml.safe_dump(PARAMS))
    graph = Graph(config.load())
    trainer = graph.params.trainer.model_copy(update={"grad_clip": None})
    params = graph.params.model_copy(update={"trainer": trainer})
    training = train_step.build_training(params, graph.job("train", "late_concat", "agm", 0), torch.device("cpu"))
    whole = copy.deepcopy(training.model)
    model = agm.Multimodal(dict(whole.encoders), whole.fusion)
    batches = []
    for batch, _ in zip(training.data.batches("train", 0), range(3), strict=False):
        batches.append((batch.inputs, batch.targets))
    training.model.train()
    training.method.start_epoch(0)
    torch.manual_seed(1)
    losses = []
    for batch, _ in zip(training.data.batches("train", 0), range(3), strict=False):
        losses.append(training.train_step(batch))
    method = agm.methods.AGM(model, alpha=1.0)
    torch.manual_seed(1)
    defaults = training.optimizer.defaults
    options = {key: defaults[key] for key in ("lr", "momentum", "weight_decay")}
    optimizer = torch.optim.SGD(method.weights(), **options)
    history = example("plain_loop").train(method, optimizer, batches, epochs=1)
    assert history[0] == pytest.approx(torch.stack(losses).mean().item(), rel=1e-6)
    for name, weight in training.model.named_parameters():
        close(model.get_parameter(name).grad, weight.grad, 1e-6)
        close(model.get_parameter(name), weight, 1e-6)


def test_the_examples_import_no_pipeline() -> None:
    for path in EXAMPLES.glob("*.py"):
        assert "agm.pipeline" not in path.read_text()
