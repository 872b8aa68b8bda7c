"""Training: comparable across methods, repeatable, and the same after an interruption."""

import hashlib
import json
import shutil
from pathlib import Path

import polars as pl
import pytest
import torch
import yaml
from safetensors.torch import load_file

from agm.pipeline import cli, config
from agm.pipeline.config import schema
from agm.pipeline.dag import provenance
from agm.pipeline.dag.graph import Graph
from agm.pipeline.errors import AgmError
from agm.pipeline.io.files import read_json
from agm.pipeline.steps.evaluate import step as evaluate_step
from agm.pipeline.steps.shard.stream import Shards
from agm.pipeline.steps.train import step as train_step
from agm.pipeline.steps.train.checkpoint import Checkpoints
from agm.pipeline.steps.train.loop import Training, clip_gradients, gradient_norm, select_epoch
from by_hand import begin_epoch
from small_shards import write_shards
from whole import whole, with_lists

pytestmark = pytest.mark.numerical

CPU = torch.device("cpu")
PARAMS = whole(
    {
        "study": {
            "name": "tiny",
            "fusions": ["late_concat", "late_sum", "early"],
            "methods": ["joint", "agm"],
            "modalities": ["image", "audio", "text"],
            "seeds": [0, 1],
        },
        "dataset": {
            "name": "tiny",
            "adapter": "manifest",
            "root": "raw",
            "annotations": {"clips": "raw/manifest.csv"},
            "modalities": {name: {"kind": name, "column": name} for name in ("image", "audio", "text")},
        },
        "num_parts": 1,
        "features": {"image": {"size": 8, "channels": 1}, "audio": {}, "text": {"max_tokens": 4}},
        "shards": {},
        "encoders": {
            "image": {"name": "conv", "channels": [4, 8]},
            "audio": {"name": "conv", "channels": [4, 8]},
            "text": {"name": "transformer", "dim": 8, "num_heads": 2, "num_layers": 1, "dim_feedforward": 8},
        },
        "fusions": {
            "late_concat": {"name": "late_concat"},
            "late_sum": {"name": "late_sum"},
            "early": {"name": "early", "hidden": [16]},
        },
        "methods": {"joint": {"name": "joint"}, "agm": {"name": "agm", "alpha": 1.0}},
        "trainer": {
            "epochs": 3,
            "batch_size": 16,
            "shuffle_buffer": 32,
            "optimizer": {"name": "sgd", "lr": 0.05},
            "schedule": {"step_size": 2},
        },
        "evaluation": {"ridge_alpha": 1.0},
    }
)


QUICK = {**PARAMS["trainer"], "epochs": 1}


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A folder with shards and params.yaml, as the earlier steps would leave it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AGM_STORE_GB", "0")  # a run that is asked for again is trained again
    write_shards(Path("data/tiny"))
    Path("params.yaml").write_text(yaml.safe_dump(PARAMS))
    return Graph(config.load())


def done(*arguments):
    """Run a command, in this process: torch takes seconds to import."""
    assert cli.main(list(arguments)) == 0


@pytest.fixture
def refused(capsys):
    """Run a command that must fail, and return what it says."""

    def run(*arguments):
        assert cli.main(list(arguments)) == 1
        return capsys.readouterr().err

    return run


@pytest.mark.parametrize("fusion", ["late_concat", "late_sum", "early"])
def test_every_method_starts_from_the_same_weights_batches_and_first_loss(project, fusion):
    starts = {}
    for method in ("joint", "agm"):
        training = train_step.build_training(project.params, project.job("train", fusion, method, 0), CPU)
        training.model.train()
        begin_epoch(training.method, 0, training.data)
        weights = {name: value.clone() for name, value in training.model.state_dict().items()}
        batch = next(training.data.batches("train", 0))
        starts[method] = weights, batch.inputs, batch.targets, training.train_step(batch)
    (weights, inputs, labels, loss), other = starts.values()
    assert torch.equal(labels, other[2])
    assert all(torch.equal(inputs[name], other[1][name]) for name in inputs)
    assert all(torch.equal(weights[name], other[0][name]) for name in weights)
    torch.testing.assert_close(loss, other[3], rtol=1e-6, atol=1e-6)


def test_an_encoder_starts_alike_alone_and_in_company_and_differs_by_seed(project):
    def encoder(step, *cell):
        return train_step.build_training(project.params, project.job(step, *cell), CPU).model.encoders["image"]

    joint, alone = encoder("train", "late_sum", "joint", 0), encoder("concept", "late_sum", "image", 0)
    other = encoder("train", "late_sum", "joint", 1)
    for weight, same, different in zip(joint.parameters(), alone.parameters(), other.parameters(), strict=True):
        assert torch.equal(weight, same)
        assert weight.ndim < 2 or not torch.equal(weight, different)


def test_alpha_zero_ends_where_joint_training_ends(project):
    content = {**PARAMS, "methods": {"joint": {"name": "joint"}, "agm": {"name": "agm", "alpha": 0.0}}}
    params = config.check(content, "test")
    ends = []
    for method in ("joint", "agm"):
        training = train_step.build_training(params, project.job("train", "late_concat", method, 0), CPU)
        training.fit(Path(method))
        ends.append(training.model.state_dict())
    for name, value in ends[0].items():
        torch.testing.assert_close(value, ends[1][name], rtol=1e-3, atol=1e-4)


def test_the_whole_cell_of_a_study_by_its_commands(project):
    for fusion in ("late_concat", "early"):
        for modality in project.params.study.modalities:
            done("concept", fusion, modality, "0")
            done("evaluate-concept", fusion, modality, "0")
        done("train", fusion, "agm", "0")
        done("evaluate", fusion, "agm", "0")
        run = json.loads(project.job("train", fusion, "agm", 0).index.read_text())
        history = pl.read_parquet(project.job("train", fusion, "agm", 0).outputs[1])
        assert history.height == run["epochs"] == 3
        assert run["selected_epoch"] == select_epoch(history.to_dicts(), "accuracy")
        assert {"kappa_audio", "kappa_min_audio", "kappa_max_audio", "val_phi_text", "score_image"} <= set(
            history.columns
        )
        assert history["lr"].to_list() == pytest.approx([0.05, 0.05, 0.005])
        evaluation = json.loads(project.job("evaluate", fusion, "agm", 0).index.read_text())
        assert set(evaluation["competition"]) == {"image", "audio", "text"}
        table = pl.read_parquet(project.job("evaluate", fusion, "agm", 0).outputs[0])
        for split in ("val", "test"):
            rows = table.filter(pl.col("split") == split)
            logits, labels = rows["logits"].to_numpy(), rows["label"].to_numpy()
            assert evaluation["splits"][split]["accuracy"] == pytest.approx((logits.argmax(1) == labels).mean())
            total = sum(rows[f"phi_{name}"].to_numpy() for name in ("image", "audio", "text"))
            assert total == pytest.approx(logits, abs=1e-4)


def test_a_damaged_checkpoint_is_said_and_not_used(project, capsys):
    job = project.job("train", "late_sum", "joint", 0)
    train_step.build_training(project.params, job, CPU).fit(Path("kept"))
    (path,) = Path("kept").iterdir()
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    training = train_step.build_training(project.params, job, CPU)
    Checkpoints(Path("kept")).restore_epoch(training)
    assert training.history == []
    said = capsys.readouterr().err
    assert str(path) in said
    assert hashlib.sha256(content).hexdigest() in said, "the checksum found"
    assert said.count(path.stem.split("-")[-1]) > 1, "the checksum expected, beside the name"
    assert job.command in said


def test_resuming_from_a_checkpoint_equals_going_on(project, capsys):
    """With AdamW; test_resume.py kills runs with SGD."""
    optimizer = schema.AdamW(name="adamw", lr=0.01)
    trainer = project.params.trainer.model_copy(update={"optimizer": optimizer, "epochs": 2})
    params = project.params.model_copy(update={"trainer": trainer})
    job = project.job("train", "early", "agm", 0)
    whole = train_step.build_training(params, job, CPU)
    whole.fit(Path("whole"))
    half = train_step.build_training(params, job, CPU)
    half.trainer = trainer.model_copy(update={"epochs": 1})
    half.fit(Path("half"))
    torch.rand(7)  # whatever happened in between must not matter
    resumed = train_step.build_training(params, job, CPU)
    capsys.readouterr()
    resumed.fit(Path("half"))
    assert "going on after epoch" in capsys.readouterr().err
    assert resumed.history == whole.history
    for name, value in whole.model.state_dict().items():
        assert torch.equal(value, resumed.model.state_dict()[name])


def test_weights_kept_are_those_of_the_selected_epoch():
    rows = [{"epoch": e, "val_accuracy": a, "val_loss": x} for e, a, x in ((0, 0.5, 1.0), (1, 0.7, 0.9), (2, 0.7, 0.4))]
    assert select_epoch(rows, "accuracy") == 1
    assert select_epoch(rows, "loss") == 2


def test_clipping_follows_the_published_rule(project):
    model = train_step.build_training(project.params, project.job("train", "late_sum", "joint", 0), CPU).model
    for size, clipped in ((0.9, False), (1.1, True)):
        for weight in model.parameters():
            weight.grad = torch.ones_like(weight) * 0.5
        next(iter(model.fusion.heads.values())).weight.grad[0, 0] = -size
        weights = list(model.parameters())
        clip_gradients(model.fusion.classifiers, weights, 1.0, gradient_norm(weights))
        norm = torch.stack([weight.grad.norm() for weight in model.parameters()]).norm()
        assert (norm < 1.0001) == clipped


def diverging(**trainer):
    """Parameters with which training diverges."""
    optimizer = {"name": "sgd", "lr": 1e30}
    Path("params.yaml").write_text(
        yaml.safe_dump({**PARAMS, "trainer": {**PARAMS["trainer"], "optimizer": optimizer, **trainer}})
    )


def test_a_run_that_diverges_ends_with_what_a_person_needs(project, capsys):
    diverging(grad_clip=None)
    job = project.job("train", "late_concat", "joint", 0)
    done(*job.command.split()[1:])
    assert "FAILED: the loss is nan" in capsys.readouterr().err
    run = json.loads(job.index.read_text())
    batches = Shards.open(Path("data/tiny")).batches("train", 16, shuffle=(0, 0), window=32)
    second = list(batches)[1]
    assert run["failed"] == {
        "what": "the loss is nan",
        "epoch": 0,
        "step": 1,
        "batch": second.clip_ids,
        "checkpoint": None,
    }, "the first step is taken from sound weights"
    assert (run["epochs"], run["selected_epoch"]) == (0, -1)
    history = pl.read_parquet(job.outputs[1])
    assert (history.columns, history.height) == (["epoch"], 0)
    weights = load_file(job.outputs[0])
    start = train_step.build_training(project.params, job, CPU).model.state_dict()
    assert weights.keys() == start.keys()
    assert all(torch.equal(value, start[name]) for name, value in weights.items())


def test_what_was_good_is_kept_where_a_later_epoch_diverges(project, monkeypatch):
    whole = project.job("train", "late_concat", "agm", 0)
    done(*whole.command.split()[1:])
    history = pl.read_parquet(whole.outputs[1])
    step = Training.train_step
    third = list(Shards.open(Path("data/tiny")).batches("train", 16, shuffle=(0, 2), window=32))[2].clip_ids

    def bad(part, training, batch):
        loss = step(training, batch)
        if len(training.history) == 2 and batch.ids == third:
            if part == "loss":
                return loss + torch.inf
            training.gradient_norm = training.gradient_norm * torch.nan
        return loss

    for part, said in (("loss", "the loss is inf"), ("gradient", "the gradient is nan")):
        shutil.rmtree("runs")
        shutil.rmtree(".cache")
        monkeypatch.setattr(Training, "train_step", lambda *each, part=part: bad(part, *each))
        done(*whole.command.split()[1:])
        failed = json.loads(whole.index.read_text())["failed"]
        assert (failed["what"], failed["epoch"], failed["step"]) == (said, 2, 2 * 5 + 2)
        assert failed["batch"] == third
        (kept,) = Path(failed["checkpoint"]).glob("*.safetensors")
        assert kept.name.startswith("epoch-00002-")
        assert pl.read_parquet(whole.outputs[1]).equals(history.head(2))
    monkeypatch.setattr(Training, "train_step", step)
    done(*whole.command.split()[1:], "--force")
    assert pl.read_parquet(whole.outputs[1]).equals(history), "the checkpoint that was kept is good"


def test_a_run_whose_prerequisite_failed_fails_too(project):
    study = {**PARAMS["study"], "methods": [*PARAMS["study"]["methods"], "umt"]}
    methods = {**PARAMS["methods"], "umt": {"name": "umt"}}
    content = with_lists({**PARAMS, "study": study, "methods": methods, "trainer": QUICK})
    Path("params.yaml").write_text(yaml.safe_dump(content))
    graph = Graph(config.load())
    for modality in ("image", "audio", "text"):
        done("concept", "late_sum", modality, "0")
    done("train", "late_sum", "joint", "0")
    concept = graph.job("concept", "late_sum", "audio", 0)
    made_from = provenance.recorded(concept)["made_from"]
    provenance.write(concept, made_from, {**read_json(concept.index), "failed": {"what": "the loss is nan"}})
    done("train", "late_sum", "umt", "0")
    failed = json.loads(graph.job("train", "late_sum", "umt", 0).index.read_text())["failed"]
    assert failed["what"] == "its prerequisite run `agm concept late_sum audio 0` failed"


def test_evaluation_refuses_a_run_that_the_parameters_no_longer_describe(project, refused):
    text = yaml.safe_dump({**PARAMS, "trainer": QUICK})
    Path("params.yaml").write_text(text)
    for modality in project.params.study.modalities:
        done("concept", "late_sum", modality, "0")
        done("evaluate-concept", "late_sum", modality, "0")
    done("train", "late_sum", "agm", "0")
    Path("params.yaml").write_text(text.replace("alpha: 1.0", "alpha: 2.0"))
    said = refused("evaluate", "late_sum", "agm", "0")
    assert "methods.agm.alpha was 1.0, now 2.0" in said


def test_evaluation_refuses_damaged_weights(project, refused):
    done("concept", "late_sum", "audio", "0")
    weights = project.job("concept", "late_sum", "audio", 0).outputs[0]
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    said = refused("evaluate-concept", "late_sum", "audio", "0")
    assert "checksum" in said
    assert "agm concept late_sum audio 0" in said


def test_pretrained_weights_come_from_a_local_path(tmp_path):
    import torchvision
    from safetensors.torch import save_file

    from agm.models.encoders import ResNet18
    from agm.pipeline.io.tensors import Feature
    from agm.pipeline.networks import build_encoder

    feature = Feature("video", "uint8", (2, 3, 32, 32), (0.0,) * 3, (1.0,) * 3)
    path = tmp_path / "resnet18.safetensors"
    torch.manual_seed(0)
    source = torchvision.models.resnet18(weights=None)
    save_file(source.state_dict(), path)
    encoder = build_encoder(schema.ResNet18Encoder(name="resnet18", weights=str(path)), feature).eval()
    assert torch.equal(encoder.encoder.network.layer1[0].conv1.weight, source.layer1[0].conv1.weight)
    assert encoder(torch.zeros(2, 2, 3, 32, 32)).shape == (2, 512)
    gray = ResNet18(1)
    gray.load_pretrained(source.state_dict())
    assert torch.equal(gray.network.conv1.weight, source.conv1.weight.sum(1, keepdim=True))
    absent = str(tmp_path / "absent.safetensors")
    with pytest.raises(AgmError, match="no pretrained weights"):
        build_encoder(schema.ResNet18Encoder(name="resnet18", weights=absent), feature)
    save_file({"x": torch.zeros(1)}, path)
    with pytest.raises(AgmError, match="not the weights of a ResNet-18"):
        build_encoder(schema.ResNet18Encoder(name="resnet18", weights=str(path)), feature)


def test_a_study_cell_that_does_not_exist_is_refused_with_those_that_do(project, refused):
    said = refused("train", "late_concat", "ogm", "0")
    assert "late_concat agm 0" in said


def test_the_device_can_be_chosen_and_a_wrong_one_is_refused(project, refused, monkeypatch):
    monkeypatch.setenv("AGM_DEVICE", "cuda:99")
    assert "AGM_DEVICE=cuda:99" in refused("train", "late_sum", "joint", "0")


def test_concept_outputs_are_aligned_with_the_runs_clips(project, tmp_path):
    done("concept", "late_sum", "audio", "0")
    done("evaluate-concept", "late_sum", "audio", "0")
    path = project.job("evaluate_concept", "late_sum", "audio", 0).outputs[0]
    table = pl.read_parquet(path)
    shuffled = tmp_path / "shuffled.parquet"
    table.reverse().write_parquet(shuffled)

    class Clips:
        clip_ids = table.filter(pl.col("split") == "test")["clip_id"].to_list()

    found = evaluate_step._concept_outputs(path, {"test": Clips}, "probabilities")["test"]
    assert found.sum(axis=1) == pytest.approx(1)
    with pytest.raises(AgmError, match="other clips"):
        evaluate_step._concept_outputs(shuffled, {"test": Clips}, "logits")


def test_safetensors_is_all_that_is_written(project):
    done("train", "late_sum", "joint", "0")
    weights = load_file(project.job("train", "late_sum", "joint", 0).outputs[0])
    assert "fusion.heads.audio.weight" in weights
    assert {path.suffix for path in Path("runs").rglob("*.*")} == {".json", ".parquet", ".safetensors"}
