"""The report, by its real command, on studies whose every file is written here in the formats of the earlier steps."""

import base64
import html
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import yaml
from scipy import stats

from agm import cli, config, provenance
from agm.errors import AgmError
from agm.files import checksums, read_json, write_json
from agm.graph import Graph, Job
from agm.report.collect import collect

KINDS = {"video": "video", "audio": "audio", "text": "text", "image": "image"}
ALONE = {"video": 0.87, "audio": 0.94, "text": 0.72, "image": 0.6}
PHI = {"video": 0.41, "audio": 0.93, "text": 0.66, "image": 0.55}
EPOCHS = 4


# --- a study, file by file ------------------------------------------------------------------------------------------


SHEET = b"\x89PNG a picture"
OWN_NETWORK = {"mla": "one head for all modalities"}


def parameters(
    modalities: tuple[str, ...] = ("video", "audio", "text"),
    methods: dict[str, dict[str, Any]] | None = None,
    fusions: tuple[str, ...] = ("late_concat",),
    seeds: tuple[int, ...] = (0, 1, 2),
) -> dict[str, Any]:
    """The content of a params.yaml."""
    methods = {"joint": {"name": "joint"}, "agm": {"name": "agm", "alpha": 1.0}} if methods is None else methods
    kinds = {name: KINDS[name] for name in modalities}
    return {
        "study": {
            "name": "small",
            "modalities": list(modalities),
            "fusions": list(fusions),
            "methods": list(methods),
            "seeds": list(seeds),
        },
        "dataset": {
            "name": "digits",
            "adapter": "manifest",
            "root": "raw",
            "annotations": {"clips": "raw/clips.csv"},
            "modalities": {name: {"kind": kind, "column": name} for name, kind in kinds.items()},
        },
        "parts": [0],
        "features": {name: {} for name in modalities},
        "shards": {},
        "encoders": {name: {"name": "transformer" if name == "text" else "conv"} for name in modalities},
        "fusions": {name: {"name": name} for name in fusions},
        "methods": methods,
        "trainer": {"epochs": EPOCHS},
        "evaluation": {},
    }


class Made:
    """A study on disk, with its numbers still at hand.

    `scores[step, *cell]` is the evaluation that was written, after `adjust` changed it.
    """

    def __init__(
        self,
        content: dict[str, Any],
        adjust: Callable[[tuple[str, ...], dict], None] | None = None,
        leaks: tuple[str, ...] = (),
    ) -> None:
        self.content, self.adjust, self.leaks = content, adjust, list(leaks)
        self.params = config.check(content, "test")
        self.graph = Graph(self.params)
        self.classes = [f"class {place}" for place in range(5)]
        self.scores: dict[tuple[str, ...], dict[str, Any]] = {}
        Path("params.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
        self.write()

    def write(self) -> None:
        """Every file that the report reads, and an empty one where it only has to be there."""
        for job in self.graph.jobs:
            for path in job.outputs if job.step != "report" else ():
                path.parent.mkdir(parents=True, exist_ok=True)
                path.touch()
            summary = getattr(self, f"_{job.step}", lambda job: None)(job)
            if summary is not None:
                write_json(job.index, {provenance.RECORD: provenance.expected(job, self.content), **summary})

    def _ingest(self, job: Job) -> dict[str, Any]:
        return {
            "classes": self.classes,
            "clips": {"train": 70, "val": 15, "test": 15},
            "rejected": 2,
            "sha256": {},
            "leaks": [],
            "warnings": ["2 texts are empty"],
        }

    def _shard(self, job: Job) -> dict[str, Any]:
        kinds = {
            "clip_id": pl.String,
            "split": pl.String,
            "modality": pl.String,
            "step": pl.String,
            "reason": pl.String,
            "path": pl.String,
        }
        rows = [
            ("c1", "train", "video", "ingest", "the file is empty (0 bytes)", "clips/c1.mp4"),
            ("c2", None, None, "ingest", "the file has <no> sound & no picture", None),
            ("c3", "test", "audio", "extract", "the file is empty (0 bytes)", "clips/c3.mp4"),
        ]
        quarantine = next(path for path in job.outputs if path.suffix == ".parquet")
        pl.DataFrame(rows, schema=kinds, orient="row").write_parquet(quarantine)
        splits = {
            split: {"rows": 5 * each, "labels": dict.fromkeys(self.classes, each), "files": []}
            for split, each in (("train", 14), ("val", 3), ("test", 3))
        }
        return {"classes": self.classes, "features": {}, "splits": splits, "rejected": 3}

    def _inspect(self, job: Job) -> dict[str, Any]:
        Path(job.outputs[0]).write_bytes(SHEET)
        counts = {name: {"alike": 0, "identical": 0} for name in ("every", *self.params.study.modalities)}
        pairs = (("val", "train"), ("test", "train"), ("test", "val"))
        return {
            "clips": {},
            "durations": {"edges": [0.5, 1.0, 1.5], "splits": {"train": [60, 10], "val": [15, 0], "test": [9, 6]}},
            "leaks": self.leaks,
            "duplicates": [{"split": later, "in": earlier, "clips": counts} for later, earlier in pairs],
        }

    def _concept(self, job: Job) -> dict[str, Any]:
        fusion, modality, seed = job.cell
        return self._run(job, {"fusion": fusion, "concept": modality, "seed": int(seed)}, [])

    def _train(self, job: Job) -> dict[str, Any]:
        fusion, method, seed = job.cell
        several = len(self.params.study.modalities) > 1
        columns = [f"val_phi_{name}" for name in self.params.study.modalities if several]
        if self.params.methods[method].name == "agm":
            parts = ("kappa", "kappa_min", "kappa_max", "score", "ratio")
            columns += [f"{part}_{name}" for name in self.params.study.modalities for part in parts]
        return self._run(job, {"fusion": fusion, "method": method, "seed": int(seed)}, columns)

    def _run(self, job: Job, run: dict[str, Any], columns: list[str]) -> dict[str, Any]:
        generator = _generator(job)
        progress = 1 - np.exp(-np.arange(1, EPOCHS + 1) / 2)
        history = {"epoch": np.arange(EPOCHS), "lr": np.full(EPOCHS, 0.01)}
        history |= {name: 2.3 - 2 * progress + 0.1 * generator.random(EPOCHS) for name in ("train_loss", "val_loss")}
        history["val_accuracy"] = 0.9 * progress
        for name in columns:
            size = {"kappa_min": 0.2, "kappa_max": 5.0}.get(name.rsplit("_", 1)[0], 0.6)
            values = (size * (0.5 + generator.random(EPOCHS))).tolist()
            # Before its first epoch of modulation, a history has no κ.
            absent = 0 if "phi" in name else self.content["methods"][run["method"]].get("window", {}).get("first", 0)
            history[name] = [None] * absent + values[absent:]
        pl.DataFrame(history).write_parquet(job.index.parent / "history.parquet")
        return {
            "run": {"dataset": "digits", **run},
            "config": {},
            "parameters": 12345,
            "own_network": OWN_NETWORK.get(run.get("method")),
            "epochs": EPOCHS,
            "selected_epoch": 2,
            "environment": {"python": "3.11", "torch": "2.11.0", "device": "cpu", "threads": 1},
            "sha256": checksums(job.index.parent, ["model.safetensors", "history.parquet"]),
        }

    def _evaluate_concept(self, job: Job) -> dict[str, Any]:
        return self._evaluation(job, ALONE[job.cell[1]], [])

    def _evaluate(self, job: Job) -> dict[str, Any]:
        return self._evaluation(job, 0.95, self.params.study.modalities)

    def _evaluation(self, job: Job, accuracy: float, phis: list[str]) -> dict[str, Any]:
        generator = _generator(job)

        def near(value: float) -> float:
            return float(np.clip(value + generator.normal(0, 0.01), 0, 1))

        splits = {}
        for split in ("val", "test"):
            table = [
                {"class": name, "clips": 3, "precision": near(0.9), "recall": near(0.9), "f1": near(0.9)}
                for name in self.classes
            ]
            f1 = float(np.mean([row["f1"] for row in table]))
            splits[split] = {"clips": 15, "accuracy": near(accuracy), "classes": table}
            splits[split] |= {"macro_f1": f1, "weighted_f1": f1}
            if len(phis) > 1:
                splits[split]["phi_accuracy"] = {name: near(PHI[name]) for name in phis}
        scores = {"run": {}, "selected_epoch": 2, "splits": splits}
        if phis:
            strength = {name: near(1 - PHI[name]) for name in phis}
            scores["competition"] = {
                name: {"d": d, "low": d - 0.05, "high": d + 0.06, "rank": 4, "alpha": 120.0}
                for name, d in strength.items()
            }
        if self.adjust:
            self.adjust((job.step, *job.cell), scores)
        self.scores[job.step, *job.cell] = scores
        return scores

    def phi(self, method: str, modality: str, fusion: str = "late_concat") -> list[float]:
        """Test φ accuracy by seed, from what was written."""
        cells = [(("evaluate", fusion, method, str(seed))) for seed in self.params.study.seeds]
        return [self.scores[cell]["splits"]["test"]["phi_accuracy"][modality] for cell in cells]

    def alone(self, modality: str, fusion: str = "late_concat") -> list[float]:
        """Test accuracy by seed of the network trained on one modality."""
        cells = [("evaluate_concept", fusion, modality, str(seed)) for seed in self.params.study.seeds]
        return [self.scores[cell]["splits"]["test"]["accuracy"] for cell in cells]


def _generator(job: Job) -> np.random.Generator:
    return np.random.default_rng(list(" ".join([job.step, *job.cell]).encode()))


Adjust = Callable[[tuple[str, ...], dict[str, Any]], None]


def shifted(method: str, modality: str, phi: float, accuracy: float = 0.0) -> Adjust:
    """An effect of `method`: its φ accuracy of `modality` and its accuracy, on every split, moved by so much."""

    def adjust(cell: tuple[str, ...], scores: dict[str, Any]) -> None:
        if cell[0] == "evaluate" and cell[2] == method:
            for split in scores["splits"].values():
                split["phi_accuracy"][modality] += phi
                split["accuracy"] += accuracy

    return adjust


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty project to work in."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def report() -> str:
    """Run the command and return the page."""
    assert cli.main(["report"]) == 0
    return Path("reports/index.html").read_text()


# --- the numbers ----------------------------------------------------------------------------------------------------


def test_results_hold_every_number_of_every_evaluation() -> None:
    made = Made(parameters())
    report()
    table = pl.read_parquet("reports/results.parquet")
    found = {tuple(row[:-1]): row[-1] for row in table.iter_rows()}
    wanted = {}
    keys = ("accuracy", "macro_f1", "weighted_f1")
    for (step, fusion, name, seed), scores in made.scores.items():
        cell = ("digits", fusion, *((name, None) if step == "evaluate" else (None, name)), int(seed))
        for split, part in scores["splits"].items():
            wanted |= {(*cell, split, key, None, None): part[key] for key in keys}
            for modality, value in part.get("phi_accuracy", {}).items():
                wanted[*cell, split, "phi_accuracy", modality, None] = value
            for row in part["classes"]:
                metrics = ("clips", "precision", "recall", "f1")
                wanted |= {(*cell, split, key, None, row["class"]): row[key] for key in metrics}
        for modality, strength in scores.get("competition", {}).items():
            names = {"d": "d", "low": "d_low", "high": "d_high", "rank": "d_rank", "alpha": "d_penalty"}
            wanted |= {(*cell, "test", name, modality, None): strength[key] for key, name in names.items()}
    assert found == wanted
    assert len(table) == len(wanted)


def test_metrics_are_the_means_over_seeds() -> None:
    made = Made(parameters(), shifted("agm", "video", 0.1))
    report()
    metrics = read_json(Path("reports/metrics.json"))
    assert list(metrics["late_concat"]) == ["joint", "agm"]
    for method, few in metrics["late_concat"].items():
        scores = [made.scores["evaluate", "late_concat", method, str(seed)] for seed in (0, 1, 2)]
        gaps = [np.mean(made.alone(name)) - np.mean(made.phi(method, name)) for name in ("video", "audio", "text")]
        wanted = {
            "accuracy": np.mean([each["splits"]["test"]["accuracy"] for each in scores]),
            "starvation": max(gaps),
        }
        for name in ("video", "audio", "text"):
            wanted[f"d_{name}"] = np.mean([each["competition"][name]["d"] for each in scores])
        assert few == pytest.approx(wanted, abs=5.1e-5)


def test_page_shows_means_intervals_and_paired_tests_as_scipy_has_them() -> None:
    made = Made(parameters(), shifted("agm", "video", 0.1))
    page = report()
    phi, base = made.phi("agm", "video"), made.phi("joint", "video")
    half = stats.t.ppf(0.975, 2) * stats.sem(phi)
    assert f"{np.mean(phi):.3f} ± {half:.3f}" in page
    p = stats.ttest_rel(phi, base).pvalue
    assert f"+{np.mean(np.subtract(phi, base)):.3f} to joint, p {p:.3f}" in page.replace("\u00a0", " ")


def test_equal_inputs_give_equal_bytes() -> None:
    Made(parameters())
    report()
    names = ("results.parquet", "metrics.json", "report.json", "index.html", "summary.txt")
    first = {name: (Path("reports") / name).read_bytes() for name in names}
    report()
    assert {name: (Path("reports") / name).read_bytes() for name in names} == first


# --- the answer -----------------------------------------------------------------------------------------------------


def verdict() -> str:
    return read_json(Path("reports/report.json"))["answers"]["late_concat"]


def test_answer_names_the_starved_modality_and_what_modulation_gives_back() -> None:
    made = Made(parameters(), shifted("agm", "video", 0.15))
    report()
    gap, left = (np.mean(made.alone("video")) - np.mean(made.phi(method, "video")) for method in ("joint", "agm"))
    share = round(100 * (gap - left) / gap)
    assert verdict() == f"Video is starved in joint training; agm gives it back {share} % of the gap."


@pytest.mark.parametrize(
    ("shift", "words"),
    [
        (0.44, "agm feeds it"),
        (-0.2, "agm starves it further"),
        (0.0, "agm makes no difference to it that 3 seeds can show"),
    ],
)
def test_answer_is_honest_about_modulation(shift: float, words: str) -> None:
    def adjust(cell: tuple[str, ...], scores: dict[str, Any]) -> None:
        if cell[0] == "evaluate":
            # Every seed apart from the next by more than the methods are, so that only a real shift shows.
            noise = 0.02 * (int(cell[-1]) - 1) * (1 if cell[2] == "agm" else -1)
            scores["splits"]["test"]["phi_accuracy"]["video"] = 0.41 + (shift if cell[2] == "agm" else 0) + noise

    Made(parameters(), adjust)
    report()
    assert verdict() == f"Video is starved in joint training; {words}."


def test_answer_says_when_nothing_is_starved() -> None:
    def adjust(cell: tuple[str, ...], scores: dict[str, Any]) -> None:
        if cell[0] == "evaluate":
            scores["splits"]["test"]["phi_accuracy"] = {name: ALONE[name] - 0.02 for name in ("video", "audio", "text")}

    Made(parameters(), adjust)
    page = report()
    assert verdict() == "No modality is starved in joint training."
    assert "no φ accuracy lies 0.10 or more below" in page


def test_answer_does_not_take_few_seeds_for_proof() -> None:
    def adjust(cell: tuple[str, ...], scores: dict[str, Any]) -> None:
        if cell[0] == "evaluate":
            phis = {name: ALONE[name] - 0.1 * int(cell[-1]) for name in ("video", "audio", "text")}
            scores["splits"]["test"]["phi_accuracy"] = phis

    Made(parameters(seeds=(0, 1)), adjust)
    report()
    assert verdict() == "No modality is seen to be starved in joint training, but 2 seeds cannot exclude it."


def test_a_single_seed_has_values_without_intervals() -> None:
    made = Made(parameters(seeds=(7,)))
    page = report()
    assert verdict().startswith("Video looks starved in joint training")
    assert "One seed gives no interval and no test" in page
    assert f"<td>{made.phi('joint', 'video')[0]:.3f}<span" in page
    assert "±" not in page


def test_a_loss_of_accuracy_is_told() -> None:
    Made(parameters(), shifted("agm", "video", 0.1, accuracy=-0.2))
    page = report()
    told = re.search(r"agm: φ accuracy of video .*; accuracy 0\.9\d\d → 0\.7\d\d \(−0\.[12]\d\d, ", page)
    assert told, "the sentence about agm"


# --- the page -------------------------------------------------------------------------------------------------------

VOID = {"meta", "br", "hr", "img", "input", "link", "line", "path", "use", "rect"}


class Page(HTMLParser):
    """Checks nesting, and gathers what matters of the page's elements."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.references: list[str] = []
        self.tags: set[str] = set()
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        for name, value in attrs:
            if name == "id":
                self.ids.append(value or "")
            if name == "src" and (value or "").startswith("data:image/png;base64,"):
                continue
            if name in ("src", "href", "xlink:href", "srcset", "data", "action"):
                self.references.append(value or "")
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag


SHAPES = {
    "one modality, one method, one seed": parameters(("video",), {"joint": {"name": "joint"}}, seeds=(0,)),
    "no joint training": parameters(("video", "audio"), {"agm": {"name": "agm", "window": {"first": 2}}}, seeds=(0, 1)),
    "two fusions": parameters(("video", "audio"), fusions=("late_sum", "early")),
    "four modalities, twelve methods": parameters(
        ("video", "audio", "text", "image"),
        {"joint": {"name": "joint"}} | {f"agm_{place}": {"name": "agm", "alpha": 0.5 * place} for place in range(11)},
        seeds=(0, 1),
    ),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_page_is_whole_and_needs_nothing_else(shape: str) -> None:
    study = SHAPES[shape]["study"]
    Made(SHAPES[shape])
    text = report()
    page = Page(text)
    assert not page.open
    assert len(page.ids) == len(set(page.ids))
    assert "http:" not in text and "https:" not in text and "@import" not in text
    assert not page.tags & {"script", "link", "iframe", "object"}
    assert {reference[1:] for reference in page.references} <= set(page.ids)
    assert all(reference.startswith("#") for reference in page.references)
    named = set(re.findall(r"url\(#([^)]*)\)", text))
    assert named <= set(page.ids)
    for name in (*study["modalities"], *study["methods"], *study["fusions"]):
        assert name in text
    assert ("kappa" in page.ids) == any(name.startswith("agm") for name in study["methods"])


def test_a_method_with_a_network_of_its_own_is_marked() -> None:
    Made(parameters(methods={name: {"name": name} for name in ("joint", "mla")}))
    page = report()
    assert "mla *" in page and "joint *" not in page
    summary = Path("reports/summary.txt").read_text()
    assert "* a network of its own. mla: one head for all modalities" in summary


def test_page_lists_data_quarantine_configuration_and_origin() -> None:
    Made(parameters())
    page = report()
    assert "100 clips used, 3 clips put aside" in page
    assert "the file has &lt;no&gt; sound &amp; no picture" in page
    assert "2 texts are empty" in page
    assert "ridge_alpha: 120.0" in page, "defaults are filled in"
    assert "ridge penalty 120," in page
    assert "not a git checkout" in page
    assert "2.11.0" in page


def test_page_shows_the_contact_sheet_and_durations() -> None:
    Made(parameters())
    page = report()
    assert base64.b64encode(SHEET).decode() in page
    assert 'aria-label="train clips"' in page and 'aria-label="test clips"' in page
    assert "Nothing was found: no clip looks the same" in page
    assert "leaks:" not in page and "leaks:" not in Path("reports/summary.txt").read_text()


def test_a_leaking_split_is_marked_at_every_answer() -> None:
    leak = "91 actors of test are in train too (split scheme 'ogm')"
    Made(parameters(fusions=("late_sum", "early")), leaks=(leak,))
    page, summary = report(), Path("reports/summary.txt").read_text()
    told = f"The split leaks: {leak}. The scores are too high"
    assert summary.count(told) == 2 and html.unescape(page).count(told) == 2
    boxes = re.findall(r'<section class="answer">.*?</section>', page, re.DOTALL)
    assert len(boxes) == 2 and all("The split leaks" in box for box in boxes)
    assert f'<p class="caution">{leak}.</p>' in html.unescape(page), "in the section on the data"
    assert read_json(Path("reports/report.json"))["leaks"] == [leak]


def test_an_inspection_of_other_shards_is_refused() -> None:
    made = Made(parameters())
    index = Path("data/digits/inspection.json")
    record = read_json(index)
    record[provenance.RECORD]["inputs"]["data/digits/shards.json"] = "of other shards"
    write_json(index, record)
    with pytest.raises(AgmError, match=r"`agm inspect`: data/digits/shards\.json has changed"):
        collect(made.params, made.content)


def test_page_says_that_the_penalty_was_chosen() -> None:
    Made(parameters() | {"evaluation": {"ridge_alpha": None}})
    assert "ridge penalty chosen by leave-one-out, fitted on validation" in report()


def test_command_prints_the_tables_and_the_page(capsys: pytest.CaptureFixture[str]) -> None:
    made = Made(parameters())
    report()
    printed = capsys.readouterr().out
    assert printed == Path("reports/summary.txt").read_text()
    assert printed.endswith("The report: reports/index.html\n")
    assert re.search(rf"φ in joint +{np.mean(made.phi('joint', 'video')):.3f} ± ", printed)


# --- what is refused ------------------------------------------------------------------------------------------------


def refused(capsys: pytest.CaptureFixture[str]) -> str:
    assert cli.main(["report"]) == 1
    assert not Path("reports").exists()
    message = capsys.readouterr().err
    assert message.startswith("error:") and "Traceback" not in message
    return message


def test_runs_of_other_parameters_are_refused_by_name(capsys: pytest.CaptureFixture[str]) -> None:
    made = Made(parameters())
    made.content["methods"]["agm"]["alpha"] = 2.0
    Path("params.yaml").write_text(yaml.safe_dump(made.content, sort_keys=False))
    message = refused(capsys)
    assert "`agm train late_concat agm 1`: methods.agm.alpha was 1.0, now" in message
    assert "joint" not in message
    assert "snakemake" in message


def test_an_evaluation_of_another_run_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    Made(parameters())
    index = Path("runs/digits/late_concat/joint/seed-1/run.json")
    index.write_text(index.read_text().replace('"epochs": 4', '"epochs": 5'))
    message = refused(capsys)
    assert f"`agm evaluate late_concat joint 1`: {index} has changed" in message
    assert "seed-0" not in message


def test_data_of_other_parameters_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    made = Made(parameters())
    made.content["dataset"]["split"] = {"seed": 1}
    Path("params.yaml").write_text(yaml.safe_dump(made.content, sort_keys=False))
    assert "`agm ingest`: made with other parameters: dataset.split" in refused(capsys)


def test_a_damaged_history_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    Made(parameters())
    path = Path("runs/digits/late_concat/agm/seed-0/history.parquet")
    path.write_bytes(path.read_bytes()[:-10])
    message = refused(capsys)
    assert str(path) in message and "agm train late_concat agm 0" in message


def test_missing_results_are_named_with_the_command_that_makes_them() -> None:
    made = Made(parameters())
    missing = Path("evaluations/digits/late_concat/concepts/seed-2/audio/evaluation.json")
    missing.unlink()
    with pytest.raises(AgmError, match=f"`agm evaluate-concept late_concat audio 2`: {missing} does not exist"):
        collect(made.params, made.content)
