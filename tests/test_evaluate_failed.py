"""Runs that diverge: their evaluation ends well and says so, and what is left of the study is reported.

Everything is real but the moment: which runs meet a loss that is not finite is decided here.
"""

import shutil
from pathlib import Path

import polars as pl
import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from agm.pipeline import cli, config
from agm.pipeline.dag import provenance
from agm.pipeline.dag.graph import Graph
from agm.pipeline.io.files import checksums, read_json, write_json
from agm.pipeline.io.tables import QUARANTINE
from agm.pipeline.steps.train.loop import Training
from small_shards import CLASSES, ROWS, write_shards
from test_train import PARAMS

STUDY = {"fusions": ["late_sum"], "seeds": [0, 1, 2]}
CLIPS = {**ROWS, "test": 200}
"""Enough to see that each network alone knows more than the largest class: others are not compared with."""
AGM_1, AUDIO_2 = "agm train late_sum agm 1", "agm concept late_sum audio 2"


def content(**study: object) -> dict[str, object]:
    """Parameters of a study that trains in a moment."""
    trainer = {**PARAMS["trainer"], "epochs": 2}
    return {**PARAMS, "study": {**PARAMS["study"], **STUDY, **study}, "trainer": trainer}


def write_data(graph: Graph, clips: dict[str, int]) -> None:
    """What the steps before training leave, as far as the report reads it."""
    write_shards(graph.data, rows=clips)
    write_json(graph.data / "manifest.json", {"classes": CLASSES, "clips": clips, "quarantined": 0, "warnings": []})
    pl.DataFrame(schema=dict.fromkeys(QUARANTINE, pl.String)).write_parquet(graph.data / "quarantine.parquet")
    shards = graph.data / "shards.json"
    write_json(shards, read_json(shards) | {"sha256": checksums(graph.data, ["quarantine.parquet"])})
    inspect = graph.job("inspect")
    for path in inspect.outputs:
        path.write_bytes(b"")
    pairs = [{"split": "test", "in": "train", "clips": {"every": {"alike": 0, "identical": 0}}}]
    found = {"durations": None, "leaks": [], "texts": [], "duplicates": pairs, "flaws": {}, "blank": {}}
    found |= {"sha256": checksums(graph.data, [path.name for path in inspect.outputs])}
    provenance.write(inspect, provenance.expected(inspect, graph.params), found)


def run_study(folder: Path, failing: set[str], clips: dict[str, int] = CLIPS, **study: object) -> Graph:
    """Every command of the study, in `folder`; the runs of the commands `failing` diverge in their second epoch."""
    step = Training.train_step

    def train_step(training: Training, batch: object) -> torch.Tensor:
        loss = step(training, batch)
        return loss * torch.nan if training.label in failing and training.history else loss

    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(Training, "train_step", train_step)
        Path("params.yaml").write_text(yaml.safe_dump(content(**study)))
        graph = Graph(config.load())
        write_data(graph, clips)
        for job in graph.jobs:
            if job.step in ("concept", "train", "evaluate_concept", "evaluate", "report"):
                assert cli.main(job.command.split()[1:]) == 0, job.command
        return graph


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Graph]:
    """One run of a method failed, and one concept of another seed."""
    folder = tmp_path_factory.mktemp("study")
    return folder, run_study(folder, {AGM_1, AUDIO_2})


def test_a_run_that_failed_is_not_scored(study, monkeypatch, capsys):
    folder, graph = study
    monkeypatch.chdir(folder)
    for run, evaluation in (
        (graph.job("train", "late_sum", "agm", 1), graph.job("evaluate", "late_sum", "agm", 1)),
        (graph.job("concept", "late_sum", "audio", 2), graph.job("evaluate_concept", "late_sum", "audio", 2)),
    ):
        capsys.readouterr()
        assert cli.main([*evaluation.command.split()[1:], "--force"]) == 0
        said = f"{evaluation.command}: not scored, because the run failed: the loss is nan\n"
        assert capsys.readouterr().err == said
        scores, record = read_json(evaluation.index), read_json(run.index)
        assert scores["failed"] == record["failed"]
        assert (scores["failed"]["epoch"], scores["selected_epoch"]) == (1, 0), (
            "the weights of a good epoch, not scored"
        )
        assert scores["splits"] == {} and not scores.get("competition")
        sound = graph.job(evaluation.step, *evaluation.cell[:2], 0)
        empty, usual = (pl.read_parquet(job.outputs[0]) for job in (evaluation, sound))
        assert empty.height == 0 < usual.height
        assert empty.schema == usual.schema


def test_without_a_concept_only_its_competition_is_missing(study, monkeypatch):
    folder, graph = study
    monkeypatch.chdir(folder)
    for method in ("joint", "agm"):
        scores = read_json(graph.job("evaluate", "late_sum", method, 2).index)
        assert scores["failed"] is None
        assert scores["competition"]["audio"] == {"d": None, "why": f"`{AUDIO_2}` failed: the loss is nan"}
        assert scores["competition"]["image"]["d"] > 0
        assert set(scores["splits"]["test"]["phi_accuracy"]) == {"image", "audio", "text"}


def test_what_is_left_is_reported(study, monkeypatch):
    folder, graph = study
    monkeypatch.chdir(folder)
    summary, page = Path("reports/summary.txt").read_text(), Path("reports/index.html").read_text()
    assert read_json(Path("reports/report.json"))["failed"] == [AGM_1, AUDIO_2]
    record = read_json(graph.job("train", "late_sum", "agm", 1).index)["failed"]
    for text in (summary, page):
        assert "2 of 15 runs failed." in text
        assert f"16 clips: {', '.join(record['batch'][:4])}, …" in text
        assert record["checkpoint"] in text
    metrics = read_json(Path("reports/metrics.json"))["late_sum"]
    assert metrics["agm"]["failed"] == 1 and "failed" not in metrics["joint"] and metrics["concepts"] == {"failed": 1}
    scores = [read_json(graph.job("evaluate", "late_sum", "agm", seed).index) for seed in (0, 2)]
    mean = sum(each["splits"]["test"]["accuracy"] for each in scores) / 2
    assert metrics["agm"]["accuracy"] == pytest.approx(mean, abs=5.1e-5)
    assert f"{mean:.3f} ± " in summary
    assert metrics["agm"]["d_audio"] == pytest.approx(scores[0]["competition"]["audio"]["d"], abs=5.1e-5)


@pytest.mark.parametrize(
    ("clips", "why"),
    [
        ({**ROWS, "val": 1, "test": 200}, "too few clips: d needs 2 of val, at least"),
        ({**ROWS, "test": 2}, "too few clips: d needs 3 of test, at least"),
    ],
)
def test_a_split_of_too_few_clips_has_no_d(tmp_path, monkeypatch, clips, why):
    graph = run_study(tmp_path, set(), clips, seeds=[0])
    monkeypatch.chdir(tmp_path)
    strengths = read_json(graph.job("evaluate", "late_sum", "joint", 0).index)["competition"]
    assert strengths == {name: {"d": None, "why": why} for name in ("image", "audio", "text")}
    page, summary = Path("reports/index.html").read_text(), Path("reports/summary.txt").read_text()
    assert page.count(f'–<span class="note">{why}</span>') == 6, "of two methods and three modalities"
    assert "failed" not in summary
    assert not [name for name in read_json(Path("reports/metrics.json"))["late_sum"]["joint"] if name.startswith("d_")]
    assert pl.read_parquet("reports/results.parquet").filter(pl.col("metric").str.starts_with("d")).is_empty()


def test_a_study_of_which_everything_failed_still_ends_in_a_report(tmp_path, monkeypatch):
    failing = {f"agm train late_sum {name} 0" for name in ("joint", "agm")}
    failing |= {f"agm concept late_sum {name} 0" for name in ("image", "audio", "text")}
    run_study(tmp_path, failing, seeds=[0])
    monkeypatch.chdir(tmp_path)
    report = read_json(Path("reports/report.json"))
    assert set(report["failed"]) == failing
    assert report["answers"]["late_sum"].startswith("Every run of joint failed")
    assert read_json(Path("reports/metrics.json"))["late_sum"] == {
        "joint": {"failed": 1},
        "agm": {"failed": 1},
        "concepts": {"failed": 3},
    }


def test_a_network_that_answers_a_clip_with_infinity_failed(study, tmp_path, monkeypatch):
    folder, graph = study
    monkeypatch.chdir(shutil.copytree(folder, tmp_path / "study"))
    run, evaluation = (graph.job(step, "late_sum", "image", 1) for step in ("concept", "evaluate_concept"))
    weights = load_file(run.outputs[0])
    bias = next(name for name in weights if name.endswith("bias") and len(weights[name]) == len(CLASSES))
    weights[bias][0] = torch.inf
    save_file(weights, run.outputs[0])
    sums = checksums(run.index.parent, [path.name for path in run.outputs])
    record = provenance.recorded(run)
    about = {provenance.ABOUT: {name: record[name] for name in ("config", "environment")}}
    provenance.write(run, record["made_from"], read_json(run.index) | {"sha256": sums} | about)
    assert cli.main(evaluation.command.split()[1:]) == 0
    failed = read_json(evaluation.index)["failed"]
    assert failed["what"] == "an output on the val split is not finite"
    assert len(failed["batch"]) == ROWS["val"]
    assert cli.main(["evaluate", "late_sum", "agm", "1"]) == 0
    assert cli.main(["evaluate", "late_sum", "joint", "1"]) == 0
    assert cli.main(["report"]) == 0
    assert "agm concept late_sum image 1" in read_json(Path("reports/report.json"))["failed"]
