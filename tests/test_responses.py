"""Centred responses and permuted modalities: what a model uses of each, against truths worked out beforehand."""

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load_file

from agm.metrics.classification import accuracy
from agm.metrics.intervals import bootstrap_share
from agm.metrics.responses import Centre, constant_share
from agm.pipeline import cli, config
from agm.pipeline.dag.graph import Graph, Job
from agm.pipeline.networks import Preparation
from agm.pipeline.steps.evaluate import step as evaluate_step
from agm.pipeline.steps.evaluate.permute import permutations
from agm.pipeline.steps.shard.stream import Shards
from small_shards import write_shards
from test_train import PARAMS
from whole import with_lists

pytestmark = pytest.mark.numerical

# --- centred responses ----------------------------------------------------------------------------------------------


def evidence(seed: int, prior: tuple[float, float]) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Log-likelihoods of two classes in two modalities, `[N, 2]` each, and the labels.

    Each modality is the number −1 or 1 in noise.
    """
    generator = np.random.default_rng(seed)
    labels = (generator.random(20_000) < prior[1]).astype(int)
    found = {}
    for name in ("a", "b"):
        seen = 2 * labels - 1 + generator.normal(size=len(labels))
        found[name] = np.stack([-((seen - place) ** 2) / 2 for place in (-1, 1)], axis=1)
    return found, labels


def shapley(parts: dict[str, np.ndarray], bias: np.ndarray, masked: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """φ of f = Σ_m u_m + b for two modalities, by its definition; `masked` is what each u_m of a zero input is."""
    whole = parts["a"] + parts["b"] + bias
    alone = {"a": parts["a"] + masked["b"] + bias, "b": parts["b"] + masked["a"] + bias}
    return {"a": (whole - alone["b"] + alone["a"]) / 2, "b": (whole - alone["a"] + alone["b"]) / 2}


@pytest.mark.parametrize("prior", [(0.5, 0.5), (0.8, 0.2), (0.2, 0.8)])
@pytest.mark.parametrize("constant", [0.0, 12.0, -12.0])
def test_the_centred_response_is_nearly_as_good_as_the_modality_alone(prior: tuple, constant: float) -> None:
    """The best network there is: f is the logarithm of the classes' probabilities. With equal classes nothing is lost,
    whatever a masked input leaves in φ; with unequal ones little, and much without mean f."""
    masked = {"a": np.array([constant, -constant]), "b": np.zeros(2)}
    bias = np.log(prior)
    parts, _ = evidence(0, prior)
    centre = Centre.of(shapley(parts, bias, masked), sum(parts.values()) + bias)
    parts, labels = evidence(1, prior)
    for name, phi in shapley(parts, bias, masked).items():
        alone = accuracy(parts[name] + bias, labels)
        centred = accuracy(centre.centred(name, phi), labels)
        if prior == (0.5, 0.5):
            assert centred == pytest.approx(alone, abs=0.005)
        else:
            assert alone - 0.03 < centred <= alone
            assert accuracy(phi - centre.responses[name], labels) < centred - 0.05
        if constant:
            assert accuracy(phi, labels) < 0.9 * centred or constant_share(phi) > 0.5


@given(st.integers(0, 1000), st.lists(st.floats(-50, 50), min_size=3, max_size=3))
def test_a_constant_per_class_changes_nothing(seed: int, constant: list[float]) -> None:
    generator = np.random.default_rng(seed)
    phi, output = generator.normal(size=(2, 40, 3))
    plain, moved = (Centre.of({"a": each}, output).centred("a", each) for each in (phi, phi + constant))
    np.testing.assert_allclose(moved, plain, atol=1e-12)


def test_the_share_of_a_constant() -> None:
    generator = np.random.default_rng(0)
    varying = generator.normal(size=(50_000, 4))
    assert constant_share(varying) < 0.001
    assert constant_share(np.tile([1.0, 2.0, 3.0, 4.0], (10, 1))) == pytest.approx(1)
    # Of a clip's own constant nothing is seen in any argmax.
    assert constant_share(varying + generator.normal(size=(50_000, 1)) * 100) < 0.001
    # Spread over classes 2, over clips 1.
    assert constant_share(varying + np.array([2, -2, 2, -2])) == pytest.approx(4 / (4 + 0.75), abs=0.01)
    assert constant_share(np.zeros((5, 3))) == 1


# --- a run's evaluation ---------------------------------------------------------------------------------------------

ATTENTION = {"name": "cross_attention", "dim": 8, "num_heads": 2, "num_layers": 1, "dim_feedforward": 8}


RUNS = [
    ("late_concat", "joint"),
    ("early", "joint"),
    ("cross_attention", "joint"),
    ("late_concat", "greedy"),
]


def study(fusion: str, method: str) -> Graph:
    """The study of one run, as params.yaml has it from now on."""
    content = {
        **PARAMS,
        "fusions": {**PARAMS["fusions"], "cross_attention": ATTENTION},
        "study": {**PARAMS["study"], "fusions": [fusion], "methods": [method], "seeds": [0]},
        "methods": {method: {"name": method}},
        "trainer": {**PARAMS["trainer"], "epochs": 2},
        "evaluation": {**PARAMS["evaluation"], "permutations": 4, "batch_size": 10},
    }
    Path("params.yaml").write_text(yaml.safe_dump(with_lists(content)))
    return Graph(config.load())


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs of every kind of network: additive, mixed, sequential, and with encoders that see each other."""
    folder = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        write_shards(Path("data/tiny"))
        for run in RUNS:
            for job in study(*run).jobs:
                if job.step in ("concept", "train", "evaluate_concept", "evaluate"):
                    assert cli.main(job.command.split()[1:]) == 0
    return folder


@pytest.fixture(params=RUNS, ids="-".join)
def job(request: pytest.FixtureRequest, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Job:
    """The evaluation of one of them."""
    monkeypatch.chdir(folder)
    return study(*request.param).job("evaluate", *request.param, 0)


def network(job: Job) -> torch.nn.Module:
    graph = Graph(config.load())
    trained = graph.job("train", *job.cell)
    return evaluate_step._trained(graph.params, trained, Shards.open(graph.data))


@torch.no_grad()
def test_permuting_raw_inputs_gives_the_same(job: Job) -> None:
    """Every clip through the whole network with the modality of another clip."""
    model, found = network(job), json.loads(job.index.read_text())
    prepare = Preparation(Shards.open(Graph(config.load()).data).features, model.modalities)
    for split, scores in found["splits"].items():
        (batch,) = Shards.open(Graph(config.load()).data).batches(split, 1000)
        clips = len(batch.labels)
        within = scores["permuted_within"]
        assert within == ("split" if job.cell[:2] in (("late_concat", "joint"), ("early", "joint")) else "batch")
        # 24 clips in three batches of at most ten are eight each.
        sizes = [clips] if within == "split" else [8] * 3
        for name in model.modalities:
            shares = []
            orders = [list(permutations(size, 4)) for size in sizes]
            for draw in range(4):
                starts = np.cumsum([0, *sizes[:-1]])
                order = torch.cat([start + orders[n][draw] for n, start in enumerate(starts)])
                inputs = prepare(batch.inputs | {name: batch.inputs[name][order]})
                shares.append((model(inputs).argmax(dim=1) == batch.labels).double().mean().item())
            given = scores["permuted_accuracy"][name]
            assert given["mean"] == pytest.approx(np.mean(shares))
            assert given["deviation"] == pytest.approx(np.std(shares, ddof=1))


def test_the_evaluation_can_be_repeated_from_what_is_stored(job: Job) -> None:
    """Centred accuracies from the stored φ and means; outputs and φ from the stored features and E(0)."""
    found, table = json.loads(job.index.read_text()), pl.read_parquet(job.outputs[0])
    stored = load_file(job.outputs[1])
    names = list(found["centre"]["responses"])
    val = table.filter(split="val")
    for name in names:
        np.testing.assert_allclose(
            found["centre"]["responses"][name], val[f"phi_{name}"].to_numpy().mean(axis=0, dtype=float), atol=1e-6
        )
    for split, scores in found["splits"].items():
        rows = table.filter(split=split)
        labels = rows["label"].to_numpy()
        for name in names:
            phi = rows[f"phi_{name}"].to_numpy()
            centred = phi - np.array(found["centre"]["responses"][name]) + np.array(found["centre"]["output"])
            assert scores["centred_accuracy"][name] == accuracy(centred, labels)
            assert scores["phi_accuracy"][name] == accuracy(phi, labels)
    if found["splits"]["val"]["permuted_within"] == "batch":
        assert not stored
        return
    model = network(job)
    features = {name: torch.from_numpy(stored[f"test.{name}"]) for name in names}
    rows = table.filter(split="test")
    with torch.no_grad():
        np.testing.assert_allclose(model.fusion(features), rows["logits"].to_numpy(), atol=1e-5)
        first, *others = names
        absent = {name: torch.from_numpy(stored[f"absent.{name}"]).expand_as(features[name]) for name in others}
        shards = Shards.open(Graph(config.load()).data)
        (batch,) = shards.batches("test", 1000)
        prepare = Preparation(shards.features, model.modalities)
        inputs = prepare(batch.inputs)
        masked = {name: x if name == first else torch.zeros_like(x) for name, x in inputs.items()}
        np.testing.assert_allclose(model.fusion(features | absent), model(masked), atol=1e-5)


def test_a_history_has_the_centred_accuracy_of_the_epoch_that_was_picked(job: Job) -> None:
    """The curves and the evaluation are the same measure."""
    trained = Graph(config.load()).job("train", *job.cell)
    row = pl.read_parquet(trained.outputs[1]).row(json.loads(trained.index.read_text())["selected_epoch"], named=True)
    val = json.loads(job.index.read_text())["splits"]["val"]
    for name, value in val["centred_accuracy"].items():
        assert row[f"val_centred_{name}"] == value
        assert row[f"val_phi_{name}"] == val["phi_accuracy"][name]


# --- networks that know nothing -------------------------------------------------------------------------------------


@pytest.mark.parametrize("seeds", [1, 3])
@pytest.mark.parametrize("chance", [0.1, 0.5])
def test_intervals_over_clips_hold_the_truth_as_often_as_they_say(seeds: int, chance: float) -> None:
    """Of networks that guess: each answer is right with the same chance."""
    generator = np.random.default_rng(0)
    held = 0
    for draw in range(100):
        found = bootstrap_share(generator.random((seeds, 300)) < chance, 0.95, resamples=300, seed=draw)
        held += found.low <= chance <= found.high
    assert 0.9 <= held / 100 <= 1


def test_seeds_that_differ_widen_the_interval() -> None:
    same = np.tile(np.arange(100) < 50, (3, 1))
    apart = np.stack([np.arange(100) < count for count in (30, 50, 70)])
    narrow, wide = bootstrap_share(same), bootstrap_share(apart)
    assert narrow.mean == wide.mean == 0.5
    assert wide.high - wide.low > 1.2 * (narrow.high - narrow.low)
