"""The report, by its real command, on studies whose every file is written here in the formats of the earlier steps."""

import base64
import contextlib
import copy
import dataclasses
import functools
import html
import io
import re
import shutil
from collections.abc import Callable, Collection, Container, Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import yaml
from scipy import stats

from agm.pipeline import cli, config
from agm.pipeline.dag import provenance
from agm.pipeline.dag.graph import Graph, Job
from agm.pipeline.io.files import checksums, read_json, write_json
from agm.pipeline.steps.report import data_tables, drawing, environment, figures, results
from agm.pipeline.steps.report.answer import Answer, answer
from agm.pipeline.steps.report.collect import collect
from whole import whole

pytestmark = pytest.mark.usefixtures("without_fsync")

KINDS = {"video": "video", "audio": "audio", "text": "text", "image": "image"}
ALONE = {"video": 0.87, "audio": 0.94, "text": 0.72, "image": 0.6}
PHI = {"video": 0.41, "audio": 0.93, "text": 0.66, "image": 0.55}
"""Accuracy of centred φ."""
PUBLISHED = 0.22
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
    return whole(
        {
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
            "num_parts": 1,
            "features": {name: {} for name in modalities},
            "shards": {},
            "encoders": {name: {"name": "transformer" if name == "text" else "conv"} for name in modalities},
            "fusions": {name: {"name": name} for name in fusions},
            "methods": methods,
            "trainer": {"epochs": EPOCHS},
            "evaluation": {},
        }
    )


class Made:
    """A study on disk, with its numbers still at hand.

    `scores[step, *cell]` is the evaluation that was written, after `adjust` changed it. `failing` has the cells of the
    runs that failed, ("late_concat", "agm", "1") for one.
    """

    def __init__(
        self,
        content: dict[str, Any],
        adjust: Callable[[tuple[str, ...], dict], None] | None = None,
        leaks: tuple[str, ...] = (),
        failing: Container[tuple[str, ...]] = (),
    ) -> None:
        self.content, self.adjust, self.leaks, self.failing = content, adjust, list(leaks), failing
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
                provenance.write(job, provenance.expected(job, self.params), summary)

    def _ingest(self, job: Job) -> dict[str, Any]:
        return {
            "classes": self.classes,
            "clips": {"train": 70, "val": 15, "test": 15},
            "quarantined": 2,
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
        sums = checksums(quarantine.parent, [quarantine.name])
        return {"classes": self.classes, "features": {}, "splits": splits, "quarantined": 3, "sha256": sums}

    def _inspect(self, job: Job) -> dict[str, Any]:
        Path(job.outputs[0]).write_bytes(SHEET)
        counts = {name: {"alike": 0, "identical": 0} for name in ("every", *self.params.study.modalities)}
        pairs = (("val", "train"), ("test", "train"), ("test", "val"))
        return {
            "clips": {},
            "durations": {"edges": [0.5, 1.0, 1.5], "splits": {"train": [60, 10], "val": [15, 0], "test": [9, 6]}},
            "leaks": self.leaks,
            "texts": [{"clip_id": "c0", "modality": "text", "person": "嘿嘿 <b>", "network": "□"}],
            "duplicates": [{"split": later, "in": earlier, "clips": counts} for later, earlier in pairs],
            "flaws": {
                "video": {"blank": {"kept": 2, "quarantined": 0}},
                "audio": {"silent": {"kept": 0, "quarantined": 31}},
            },
            "blank": {"video": 3, "audio": 0},
            "sha256": checksums(job.index.parent, [job.outputs[0].name]),
        }

    def _concept(self, job: Job) -> dict[str, Any]:
        fusion, modality, seed = job.cell
        return self._run(job, {"fusion": fusion, "concept": modality, "seed": int(seed)}, [])

    def _train(self, job: Job) -> dict[str, Any]:
        fusion, method, seed = job.cell
        several = len(self.params.study.modalities) > 1
        names = self.params.study.modalities if several else []
        columns = [f"{part}_{name}" for part in ("val_phi", "val_centred") for name in names]
        if self.params.methods[method].name == "agm":
            parts = ("kappa", "kappa_min", "kappa_max", "score", "ratio")
            columns += [f"{part}_{name}" for name in self.params.study.modalities for part in parts]
        return self._run(job, {"fusion": fusion, "method": method, "seed": int(seed)}, columns)

    def failed(self, cell: tuple[str, ...]) -> dict[str, Any] | None:
        """What is known of a run that failed: of seed 0, in its first epoch."""
        if cell not in self.failing:
            return None
        checkpoint = None if cell[-1] == "0" else f".cache/train/{cell[1]}"
        epoch = 0 if cell[-1] == "0" else 2
        batch = [f"{cell[1]}-{number}" for number in range(32)]
        where = {"epoch": epoch, "step": 3 * epoch + 1, "batch": batch}
        return {"what": "the loss is nan", **where, "checkpoint": checkpoint}

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
            absent = (
                0
                if name.startswith("val_")
                else self.content["methods"][run["method"]].get("window", {}).get("first", 0)
            )
            history[name] = [None] * absent + values[absent:]
        table, failed = pl.DataFrame(history), self.failed(job.cell)
        if failed:
            table = table.head(failed["epoch"]) if failed["epoch"] else pl.DataFrame(schema={"epoch": pl.Int64})
        table.write_parquet(job.index.parent / "history.parquet")
        return {
            "run": {"dataset": "digits", **run},
            "config": {},
            "parameters": 12345,
            "own_network": OWN_NETWORK.get(run.get("method")),
            "epochs": failed["epoch"] if failed else EPOCHS,
            "selected_epoch": -1 if failed and not failed["epoch"] else 2,
            "failed": failed,
            "sha256": checksums(job.index.parent, ["model.safetensors", "history.parquet"]),
            provenance.ABOUT: {
                "environment": {"python": "3.11", "torch": "2.11.0", "device": "cpu", "threads": 1},
                "config": {},
            },
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
                splits[split]["centred_accuracy"] = {name: near(PHI[name]) for name in phis}
                splits[split]["phi_accuracy"] = {name: near(PUBLISHED) for name in phis}
                splits[split]["phi_constant"] = {name: near(0.8) for name in phis}
                splits[split]["permuted_within"] = "split"
        scores = {"run": {}, "selected_epoch": 2, "failed": None, "splits": splits}
        if phis:
            strength = {name: near(1 - PHI[name]) for name in phis}
            scores["competition"] = {
                name: {"d": d, "low": d - 0.05, "high": d + 0.06, "published": d + 0.01, "rank": 4, "alpha": 120.0}
                for name, d in strength.items()
            }
        if self.adjust:
            self.adjust((job.step, *job.cell), scores)
        for each in splits.values():
            if "centred_accuracy" in each and "permuted_accuracy" not in each:
                # What counts for much is missed much.
                means = {name: each["accuracy"] - phi / 2 for name, phi in each["centred_accuracy"].items()}
                each["permuted_accuracy"] = {name: {"mean": mean, "deviation": 0.01} for name, mean in means.items()}
        for name in phis:
            if (job.cell[0], name, job.cell[-1]) in self.failing:
                scores["competition"][name] = {"d": None, "why": "its concept failed"}
        if failed := self.failed(job.cell):
            scores |= {"failed": failed, "splits": {}, **({"competition": {}} if phis else {})}
        self.scores[job.step, *job.cell] = scores
        if not phis:
            self._write_answers(job, scores)
        return scores

    def _write_answers(self, job: Job, scores: dict[str, Any]) -> None:
        """The test clips' labels and what a concept takes them for, as many right as its accuracy says."""
        clips = 0 if scores["failed"] else 15
        right = np.arange(clips) < round(clips * scores["splits"].get("test", {"accuracy": 0})["accuracy"])
        labels = np.arange(clips) % 5
        columns = {"split": ["test"] * clips, "label": labels, "prediction": np.where(right, labels, (labels + 1) % 5)}
        pl.DataFrame(columns, schema_overrides={"split": pl.String}).write_parquet(job.outputs[0])
        scores["sha256"] = checksums(job.index.parent, ["predictions.parquet"])

    def phi(self, method: str, modality: str, fusion: str = "late_concat") -> list[float]:
        """Test accuracy of centred φ by seed, from what was written."""
        tests = self._tests("evaluate", fusion, method)
        return [test["centred_accuracy"][modality] for test in tests]

    def accuracy(self, method: str, fusion: str = "late_concat") -> list[float]:
        """Test accuracy by seed."""
        return [test["accuracy"] for test in self._tests("evaluate", fusion, method)]

    def alone(self, modality: str, fusion: str = "late_concat") -> list[float]:
        """Test accuracy by seed of the network trained on one modality."""
        return [test["accuracy"] for test in self._tests("evaluate_concept", fusion, modality)]

    def _tests(self, step: str, fusion: str, name: str) -> list[dict[str, Any]]:
        """The scores on the test split by seed, without those of runs that failed."""
        splits = [self.scores[step, fusion, name, str(seed)]["splits"] for seed in self.params.study.seeds]
        return [each["test"] for each in splits if each]


def _generator(job: Job) -> np.random.Generator:
    return np.random.default_rng(list(" ".join([job.step, *job.cell]).encode()))


Adjust = Callable[[tuple[str, ...], dict[str, Any]], None]


def shifted(method: str, modality: str, phi: float, accuracy: float = 0.0) -> Adjust:
    """An effect of `method`: centred φ accuracy of `modality`, and accuracy, on every split, moved by so much."""

    def adjust(cell: tuple[str, ...], scores: dict[str, Any]) -> None:
        if cell[0] == "evaluate" and cell[2] == method:
            for split in scores["splits"].values():
                split["centred_accuracy"][modality] += phi
                split["accuracy"] += accuracy

    return adjust


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty project to work in."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


DRAW = (drawing.curves, drawing.dots, drawing.histogram, drawing.log_curves)
NUMBER = re.compile(r"\d+\.\d+(e-\d+)?")


def once(function: Callable[..., Any], alike: Callable[[str], str] = str) -> Callable[..., Any]:
    """A function that answers the same arguments, or those that are `alike`, with its first answer."""
    answers: dict[str, Any] = {}

    @functools.wraps(function)
    def remembered(*given: object, **more: object) -> object:
        key = alike(repr((given, more)))
        if key not in answers:
            answers[key] = function(*given, **more)
        return answers[key]

    return remembered


@pytest.fixture(scope="module", autouse=True)
def quick() -> Iterator[None]:
    """What most of the studies here share is computed once, and panels are not drawn, which takes longest."""
    with pytest.MonkeyPatch.context() as patch:
        for function in (results.mean_interval, results.paired_difference):
            patch.setattr(results, function.__name__, once(function))
        patch.setattr(environment, "libraries", once(environment.libraries))
        for draw in DRAW:
            patch.setattr(figures, draw.__name__, lambda title, *numbers, **more: drawing.Panel(title, "<svg></svg>"))
        yield


@pytest.fixture(scope="module")
def drawings() -> dict[str, Callable[..., drawing.Panel]]:
    """What draws a panel, and those that are alike but for their numbers once: a number that is none is another one."""
    return {draw.__name__: once(draw, functools.partial(NUMBER.sub, "a number")) for draw in DRAW}


@pytest.fixture
def drawn(drawings: dict[str, Callable[..., drawing.Panel]], monkeypatch: pytest.MonkeyPatch) -> None:
    """Draw the panels. Tests that are about figures ask for it."""
    for name, draw in drawings.items():
        monkeypatch.setattr(figures, name, draw)


def report() -> str:
    """Run the command and return the page."""
    assert cli.main(["report", "--force"]) == 0
    return Path("reports/index.html").read_text()


@pytest.fixture(scope="module")
def unreported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Made]:
    """A folder with a study of two methods and three modalities, all of it sound, before its report."""
    folder = tmp_path_factory.mktemp("unreported")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        return folder, Made(parameters())


@pytest.fixture
def made(unreported: tuple[Path, Made], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Made:
    """A copy of that study, and in it."""
    monkeypatch.chdir(shutil.copytree(unreported[0], tmp_path / "study"))
    return copy.deepcopy(unreported[1])


@dataclasses.dataclass(frozen=True)
class Reported:
    """A study with its report, in the folder of both."""

    folder: Path
    made: Made
    page: str
    printed: str


MODALITIES = ("video", "audio", "text")


@pytest.fixture(scope="module")
def reports(
    tmp_path_factory: pytest.TempPathFactory, drawings: dict[str, Callable[..., drawing.Panel]]
) -> Callable[..., Reported]:
    """Make a study and its report with figures, the same one once."""

    @functools.cache
    def reported(failing: frozenset, modalities: tuple[str, ...], adjust: Adjust | None) -> Reported:
        folder, printed = tmp_path_factory.mktemp("reported"), io.StringIO()
        with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(printed):
            patch.chdir(folder)
            for name, draw in drawings.items():
                patch.setattr(figures, name, draw)
            made = Made(parameters(modalities), adjust, failing=failing)
            return Reported(folder, made, report(), printed.getvalue())

    return reported


@pytest.fixture
def reported(reports: Callable[..., Reported], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Reported]:
    """Get the report of a study of two methods, and go to its folder: tests look at it and change nothing."""

    def find(
        failing: Collection[tuple[str, ...]] = (),
        modalities: tuple[str, ...] = MODALITIES,
        adjust: Adjust | None = None,
    ) -> Reported:
        found = reports(frozenset(failing), modalities, adjust)
        monkeypatch.chdir(found.folder)
        return found

    return find


# --- the numbers ----------------------------------------------------------------------------------------------------


def test_results_hold_every_number_of_every_evaluation(reported: Callable[..., Reported]) -> None:
    made = reported().made
    table = pl.read_parquet("reports/results.parquet")
    found = {tuple(row[:-1]): row[-1] for row in table.iter_rows()}
    wanted = {}
    keys = ("accuracy", "macro_f1", "weighted_f1")
    for (step, fusion, name, seed), scores in made.scores.items():
        cell = ("digits", fusion, *((name, None) if step == "evaluate" else (None, name)), int(seed))
        for split, part in scores["splits"].items():
            wanted |= {(*cell, split, key, None, None): part[key] for key in keys}
            for metric in ("centred_accuracy", "phi_accuracy", "phi_constant", "permuted_accuracy"):
                for modality, value in part.get(metric, {}).items():
                    mean = value["mean"] if metric == "permuted_accuracy" else value
                    wanted[*cell, split, metric, modality, None] = mean
            for row in part["classes"]:
                metrics = ("clips", "precision", "recall", "f1")
                wanted |= {(*cell, split, key, None, row["class"]): row[key] for key in metrics}
        for modality, strength in scores.get("competition", {}).items():
            names = {key: f"d_{key}" for key in ("low", "high", "published", "rank")} | {"d": "d", "alpha": "d_penalty"}
            wanted |= {(*cell, "test", name, modality, None): strength[key] for key, name in names.items()}
    assert found == wanted
    assert len(table) == len(wanted)


FEEDING = shifted("agm", "video", 0.1, accuracy=-0.2)
"""agm gives back what video lost, and costs accuracy."""


def test_metrics_are_the_means_over_seeds_and_the_page_shows_them(reported: Callable[..., Reported]) -> None:
    study = reported(adjust=FEEDING)
    made, page = study.made, study.page
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
    # And the page shows intervals and paired tests as SciPy has them.
    phi, base = made.phi("agm", "video"), made.phi("joint", "video")
    half = stats.t.ppf(0.975, 2) * stats.sem(phi)
    assert f"{np.mean(phi):.3f} ± {half:.3f}" in page
    p = stats.ttest_rel(phi, base).pvalue
    assert f"+{np.mean(np.subtract(phi, base)):.3f} to joint, p {p:.3f}" in page.replace("\u00a0", " ")


def test_page_says_when_the_test_split_is_too_small_for_d(
    reported: Callable[..., Reported], made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = "The test split has 15 clips for 5 classes: with fewer than 10 clips for each class d comes out too low"
    with monkeypatch.context() as patch:
        patch.setattr("agm.pipeline.steps.report.page.ENOUGH_CLIPS", 3)
        assert "The test split has" not in report()
    assert said in reported().page


def test_equal_inputs_give_equal_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a study that has a panel of each kind."""
    for draw in DRAW:
        monkeypatch.setattr(figures, draw.__name__, draw)
    Made(parameters(("audio",), {"agm": {"name": "agm"}}, seeds=(0, 1)))
    assert report().count('role="img"') == 10
    names = ("results.parquet", "metrics.json", "report.json", "index.html", "summary.txt")
    first = {name: (Path("reports") / name).read_bytes() for name in names}
    report()
    assert {name: (Path("reports") / name).read_bytes() for name in names} == first


# --- the answer -----------------------------------------------------------------------------------------------------


def verdict() -> str:
    return read_json(Path("reports/report.json"))["answers"]["late_concat"]


def answered(made: Made) -> Answer:
    """What the report of the study would answer."""
    study = collect(made.params)
    return answer(study, results.Results(results.tidy(study), study), "late_concat")


def test_answer_names_the_starved_modality_and_what_modulation_gives_back(reported: Callable[..., Reported]) -> None:
    made = reported(adjust=FEEDING).made
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
            scores["splits"]["test"]["centred_accuracy"]["video"] = 0.41 + (shift if cell[2] == "agm" else 0) + noise

    assert answered(Made(parameters(), adjust)).verdict == f"Video is starved in joint training; {words}."


def test_answer_says_when_nothing_is_starved() -> None:
    def adjust(cell: tuple[str, ...], scores: dict[str, Any]) -> None:
        if cell[0] == "evaluate":
            scores["splits"]["test"]["centred_accuracy"] = {
                name: ALONE[name] - 0.02 for name in ("video", "audio", "text")
            }

    Made(parameters(), adjust)
    page = report()
    assert verdict() == "No modality is starved in joint training."
    assert "no centred φ accuracy lies 0.10 or more below" in page


@pytest.mark.parametrize("values", [(0.95, 0.9, 0.8), (0.85, 0.7, 0.6)])
def test_a_gap_of_just_the_threshold_counts(values: tuple[float, ...]) -> None:
    """Two clips of twenty: as a difference of floats it is .09999999999999998 or .10000000000000009."""
    alone = dict(zip(("video", "audio", "text"), values, strict=True))

    def adjust(cell: tuple[str, ...], scores: dict[str, Any]) -> None:
        test = scores["splits"]["test"]
        if cell[0] == "evaluate":
            test["centred_accuracy"] = {name: round(value - 0.1, 2) for name, value in alone.items()}
        else:
            test["accuracy"] = alone[cell[2]]

    found = answered(Made(parameters(), adjust)).verdict
    assert found.startswith("Video, audio and text are starved in joint training")


@pytest.mark.parametrize("names", [("video", "audio", "text"), ("text", "video", "audio"), ("audio", "text", "video")])
def test_of_equal_gaps_none_is_the_largest_by_rounding(names: tuple[str, ...]) -> None:
    """Three times three clips of ten: .9 − .6, .8 − .5 and .7 − .4 are not the same float. The first one is named."""
    alone = {"video": 0.9, "audio": 0.8, "text": 0.7}

    def adjust(cell: tuple[str, ...], scores: dict[str, Any]) -> None:
        test = scores["splits"]["test"]
        if cell[0] == "evaluate":
            test["centred_accuracy"] = {name: round(value - 0.3, 1) for name, value in alone.items()}
        else:
            test["accuracy"] = alone[cell[2]]

    said = " ".join(answered(Made(parameters(names), adjust)).evidence)
    assert f"In joint, centred φ accuracy of {names[0]} is" in said


def test_measures_of_use_that_disagree_are_told() -> None:
    def adjust(cell: tuple[str, ...], scores: dict[str, Any]) -> None:
        if cell[0] == "evaluate":
            lost = {"video": 0.3, "audio": 0.02, "text": 0.1}
            for each in scores["splits"].values():
                means = {name: each["accuracy"] - amount for name, amount in lost.items()}
                each["permuted_accuracy"] = {name: {"mean": mean, "deviation": 0.0} for name, mean in means.items()}

    Made(parameters(), adjust)
    page = report()
    said = "The two measures of use disagree: by centred φ joint uses video least, by permutation audio."
    assert verdict().endswith(said)
    assert "the accuracy of joint changes by −0.300 with video, −0.020 with audio and −0.100 with text." in page
    assert re.search(
        r"Accuracy with a modality permuted.*\n.*\n +joint +0\.9\d\d.* +0\.6\d\d",
        Path("reports/summary.txt").read_text(),
    )


@pytest.mark.parametrize("seeds", [(0, 1, 2), (4,)])
def test_a_network_that_knows_nothing_is_no_measure(seeds: tuple[int, ...]) -> None:
    """Five classes of three test clips each: alone, text names three or four of fifteen."""

    def adjust(cell: tuple[str, ...], scores: dict[str, Any]) -> None:
        if cell[0] == "evaluate_concept" and cell[2] == "text":
            scores["splits"]["test"]["accuracy"] = 4 / 15 if cell[-1] == "1" else 3 / 15

    made = Made(parameters(seeds=seeds), adjust)
    page = report()
    assert "Not judged, because the network trained on it alone may only know the largest class (0.200): text (0.2" in (
        verdict()
    )
    assert "Video is starved" in verdict() or "Video looks starved" in verdict()
    metrics = read_json(Path("reports/metrics.json"))["late_concat"]["joint"]
    assert set(metrics) == {"accuracy", "starvation", "d_video", "d_audio"}
    gaps = [np.mean(made.alone(name)) - np.mean(made.phi("joint", name)) for name in ("video", "audio")]
    assert metrics["starvation"] == pytest.approx(max(gaps), abs=5.1e-5)
    table = pl.read_parquet("reports/results.parquet").filter(pl.col("metric").str.starts_with("d"))
    assert set(table["modality"]) == {"video", "audio"}
    kept = made.scores["evaluate", "late_concat", "joint", str(seeds[0])]["competition"]["text"]["d"]
    assert kept > 0, "it stays in evaluation.json"
    assert f"{kept:.3f}" not in page
    assert page.count("text alone may only know the largest class") == 2


def test_nothing_is_judged_where_no_network_knows_anything() -> None:
    def adjust(cell: tuple[str, ...], scores: dict[str, Any]) -> None:
        if cell[0] == "evaluate_concept":
            scores["splits"]["test"]["accuracy"] = 0.2

    Made(parameters(("video", "audio")), adjust)
    report()
    assert verdict().startswith("Not judged, because the network trained on it alone may only know the largest class")
    assert set(read_json(Path("reports/metrics.json"))["late_concat"]["joint"]) == {"accuracy"}


def test_answer_does_not_take_few_seeds_for_proof() -> None:
    def adjust(cell: tuple[str, ...], scores: dict[str, Any]) -> None:
        if cell[0] == "evaluate":
            phis = {name: ALONE[name] - 0.1 * int(cell[-1]) for name in ("video", "audio", "text")}
            scores["splits"]["test"]["centred_accuracy"] = phis

    found = answered(Made(parameters(seeds=(0, 1)), adjust)).verdict
    assert found == "No modality is seen to be starved in joint training, but 2 seeds cannot exclude it."


def test_a_single_seed_has_values_without_intervals() -> None:
    made = Made(parameters(seeds=(7,)))
    page = report()
    assert verdict().startswith("Video looks starved in joint training")
    assert "One seed gives no interval and no test" in page
    assert f"<td>{made.phi('joint', 'video')[0]:.3f}<span" in page
    assert "±" not in page


def test_a_loss_of_accuracy_is_told(reported: Callable[..., Reported]) -> None:
    page = reported(adjust=FEEDING).page
    told = re.search(r"agm: centred φ accuracy of video .*; accuracy 0\.9\d\d → 0\.7\d\d \(−0\.[12]\d\d, ", page)
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
def test_page_is_whole_and_needs_nothing_else(shape: str, drawn: None) -> None:
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


def test_page_of_a_sound_study(reported: Callable[..., Reported]) -> None:
    """Data, quarantine, contact sheet, durations, texts, configuration and origin; and what the command prints."""
    study = reported()
    made, page, printed = study.made, study.page, study.printed
    summary = Path("reports/summary.txt").read_text()
    assert "100 clips used, 3 clips quarantined" in page
    assert "the file has &lt;no&gt; sound &amp; no picture" in page
    assert "2 texts are empty" in page
    assert "ridge_alpha: 120.0" in page, "defaults are filled in"
    assert "ridge penalty 120," in page
    assert "not a git checkout" in page
    assert "2.11.0" in page

    assert base64.b64encode(SHEET).decode() in page
    assert 'aria-label="train clips"' in page and 'aria-label="test clips"' in page
    assert "Nothing was found: no clip looks the same" in page
    assert "leaks:" not in page and "leaks:" not in summary
    assert "What shows nothing" in page
    for text in (seen(page), summary):
        assert "runs failed." not in text

    assert "嘿嘿 &lt;b&gt;" in page and "□" in page, "as a person reads it, and as the network gets it"
    assert "where that differs, the network gets" in page

    assert printed == summary
    assert printed.endswith("The report: reports/index.html\n")
    assert re.search(rf"centred φ in joint +{np.mean(made.phi('joint', 'video')):.3f} ± ", printed)


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


def test_what_would_act_on_a_terminal_is_spelled_out_in_the_summary(capsys: pytest.CaptureFixture[str]) -> None:
    Made(parameters(), leaks=("the actor '\x1b[2J\u202e' of test is in train too",))
    report()
    for text in (Path("reports/summary.txt").read_text(), capsys.readouterr().out):
        assert r"the actor '\x1b[2J\u202e' of test" in text
        assert not {"\x1b", "\u202e"} & set(text)


def test_an_inspection_of_other_shards_is_refused(made: Made, capsys: pytest.CaptureFixture[str]) -> None:
    index = Path("data/digits/inspection.json")
    record = read_json("records" / index)
    record["made_from"]["inputs"]["data/digits/shards.json"] = "of other shards"
    write_json("records" / index, record)
    assert "`agm inspect`: data/digits/shards.json has changed" in refused(capsys)


def test_page_counts_what_shows_nothing(made: Made) -> None:
    rows = data_tables.flaws(collect(made.params)).rows
    assert [[cell.text for cell in row] for row in rows] == [
        ["video", "blank file", "2", "0"],
        ["audio", "silent file", "0", "31"],
        ["video", "blank tensor", "3", "–"],
    ]


def test_page_says_that_the_penalty_was_chosen() -> None:
    Made(whole(parameters() | {"evaluation": {"ridge_alpha": None}}))
    assert "ridge penalty chosen by leave-one-out, fitted on validation" in report()


# --- runs that failed ------------------------------------------------------------------------------------------------

JOINT, AGM = ("late_concat", "joint"), ("late_concat", "agm")
FOUR = {"joint": {"name": "joint"}} | {f"agm_{place}": {"name": "agm", "alpha": 0.5 * place} for place in range(4)}


def every_seed(*runs: tuple[str, str]) -> set[tuple[str, ...]]:
    return {(*run, seed) for run in runs for seed in "012"}


FAILING = {
    "one seed of a method": {(*AGM, "1")},
    "a method": every_seed(AGM),
    "one seed of the baseline": {(*JOINT, "0")},
    "no seed of both": {(*JOINT, "0"), (*JOINT, "1"), (*AGM, "2")},
    "the baseline": every_seed(JOINT),
    "one seed of a concept": {("late_concat", "text", "2")},
    "a concept": every_seed(("late_concat", "video")),
    "every concept": every_seed(*(("late_concat", name) for name in ("video", "audio", "text"))),
    "everything": every_seed(JOINT, AGM, *(("late_concat", name) for name in ("video", "audio", "text"))),
}


def seen(page: str) -> str:
    """The text of the page, as a reader sees it."""
    return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", page)).split())


@pytest.mark.parametrize("case", FAILING)
def test_failed_runs_are_shown_and_nothing_breaks(case: str, reported: Callable[..., Reported]) -> None:
    check_failed(reported, case, MODALITIES)


@pytest.mark.parametrize("case", ["one seed of a method", "no seed of both", "the baseline", "a concept", "everything"])
def test_failed_runs_of_one_modality_are_shown(case: str, reported: Callable[..., Reported]) -> None:
    check_failed(reported, case, ("video",))


def check_failed(reported: Callable[..., Reported], case: str, modalities: tuple[str, ...]) -> None:
    failing = {run for run in FAILING[case] if run[1] in ("joint", "agm", *modalities)}
    study = reported(failing, modalities)
    made, page, summary = study.made, study.page, Path("reports/summary.txt").read_text()
    assert not Page(page).open
    assert "nan" not in re.sub("the loss is nan", "", seen(page) + summary).lower().split()
    assert "NaN" not in Path("reports/metrics.json").read_text()
    told = f"{len(failing)} of {3 * (2 + len(modalities))} runs failed."
    for text in (seen(page), summary):
        assert told in text
    commands = {f"agm {'train' if run[1] in ('joint', 'agm') else 'concept'} {' '.join(run)}" for run in failing}
    assert set(read_json(Path("reports/report.json"))["failed"]) == commands
    metrics = read_json(Path("reports/metrics.json"))["late_concat"]
    for method in ("joint", "agm"):
        assert metrics[method].get("failed", 0) == sum(run[1] == method for run in failing)
        assert ("accuracy" in metrics[method]) == bool(made.accuracy(method))
    rows = pl.read_parquet("reports/results.parquet").filter(metric="failed").iter_rows(named=True)
    assert {(row["fusion"], row["method"] or row["concept"], str(row["seed"])) for row in rows} == failing


def test_the_block_on_failed_runs_says_all_that_is_known() -> None:
    Made(parameters(), failing={(*AGM, "1"), ("late_concat", "text", "0")})
    page, summary = report(), Path("reports/summary.txt").read_text()
    (block,) = re.findall(r'<section class="answer" id="failed">.*?</section>', page, re.DOTALL)
    assert page.index(block) < page.index('class="verdict">Video'), "before any result"
    for text in (seen(block), re.sub(" +", " ", summary)):
        row = "late_concat agm 1 the loss is nan 2 7 32 clips: agm-0, agm-1, agm-2, agm-3, …"
        assert f"{row} .cache/train/agm" in text
        assert "late_concat text alone 0 the loss is nan 0 1 32 clips: text-0" in text
        assert "`agm inspect agm-0`. runs/digits/late_concat/agm/seed-1/run.json lists them all" in text
        assert "`agm train late_concat agm 1` goes on from there" in text
    assert "failed" not in seen(page).split("Accuracy Each number")[0].replace(seen(block), "").split("Failed: ")[0]


def test_many_failed_runs_are_folded(reported: Callable[..., Reported]) -> None:
    pages = [reported(FAILING[case]).page for case in ("a method", "everything")]
    assert ["<details open><summary>Which, where" in page for page in pages] == [True, False]


def test_numbers_are_of_the_seeds_that_are_left_and_say_so(reported: Callable[..., Reported]) -> None:
    study = reported(FAILING["one seed of a method"])
    made, page = study.made, seen(study.page).replace("\u00a0", " ").replace("−", "-")
    accuracy, phi = made.accuracy("agm"), made.phi("agm", "video")
    assert len(accuracy) == 2
    half = stats.t.ppf(0.975, 1) * stats.sem(accuracy)
    assert f"{np.mean(accuracy):.3f} ± {half:.3f} (2 of 3)" in page
    base = [made.phi("joint", "video")[seed] for seed in (0, 2)]
    change = f"{np.mean(np.subtract(phi, base)):+.3f} to joint, p {stats.ttest_rel(phi, base).pvalue:.3f} (2 of 3)"
    assert change in page, "paired by the seeds that both have"
    assert f"centred φ accuracy of video {np.mean(base):.3f} → {np.mean(phi):.3f} (" in page
    assert "1 of 3 runs failed" in page, "beside the method's name"
    assert "Failed: agm in 1 of 3 seeds. Their numbers are of the seeds that are left" in page
    summary = Path("reports/summary.txt").read_text()
    assert f"{np.mean(accuracy):.3f} ± {half:.3f} (2 of 3)" in summary and "(n of 3): over the n seeds" in summary


def test_one_pair_is_no_test_and_none_no_difference(reported: Callable[..., Reported]) -> None:
    made = Made(parameters(), shifted("agm", "video", 0.1), failing={(*JOINT, "0"), (*AGM, "2")})
    base, phi = made.phi("joint", "video"), made.phi("agm", "video")
    page = seen(report())
    assert f"{phi[1] - base[0]:+.3f} to joint (1 of 3)" in page
    assert re.search(r"centred φ accuracy of video 0\.\d{3} → 0\.\d{3} \(\+0\.\d{3}, one seed\)", page)
    assert "agm makes no difference to it that 1 seed can show." in page
    assert not re.search("paired p [=<]", page.replace("\u00a0", " ").split("agm: ")[1])
    page = seen(reported(FAILING["no seed of both"]).page)
    assert "to joint" not in page
    assert "agm: not compared, because no seed has both its run and that of joint." in page


def test_a_method_that_failed_in_every_seed_is_shown_as_failed(reported: Callable[..., Reported]) -> None:
    page, summary = reported(FAILING["a method"]).page, Path("reports/summary.txt").read_text()
    assert verdict() == "Video is starved in joint training; agm failed in every seed."
    assert re.search(r"agm +failed +failed +failed +– +– +– +0\n", summary)
    assert re.search(r"centred φ in agm +failed +failed +failed\n", summary)
    assert "agm (0 of 3)" in page, "in the figures"
    assert "agm: " not in page, "no effect of it is told"


def test_a_study_whose_baseline_failed_cannot_say_what_is_starved(reported: Callable[..., Reported]) -> None:
    study = reported(FAILING["the baseline"])
    made, page = study.made, study.page
    assert verdict() == "Every run of joint failed, so the study cannot say which modality is starved."
    assert f"{np.mean(made.accuracy('agm')):.3f} ± " in page
    assert "to joint" not in page


def test_the_gap_is_of_seeds_that_have_both_networks() -> None:
    made = Made(parameters(), failing={(*JOINT, "0"), ("late_concat", "video", "2")})
    page = seen(report())
    alone, base = made.alone("video"), made.phi("joint", "video")
    said = f"centred φ accuracy of video is {base[0]:.3f}, against {alone[1]:.3f} of the network trained on it alone"
    assert said in page
    assert verdict().startswith("Video looks starved"), "one pair proves nothing"
    assert read_json(Path("reports/metrics.json"))["late_concat"]["concepts"] == {"failed": 1}
    found = read_json(Path("reports/metrics.json"))["late_concat"]["joint"]
    assert found["starvation"] == pytest.approx(alone[1] - base[0], abs=5.1e-5)


def test_what_is_not_known_is_not_called_well_fed(drawn: None) -> None:
    def adjust(cell: tuple[str, ...], scores: dict[str, Any]) -> None:
        if cell[0] == "evaluate":
            scores["splits"]["test"]["centred_accuracy"] = {
                name: ALONE[name] - 0.02 for name in ("video", "audio", "text")
            }

    Made(parameters(), adjust, failing=FAILING["a concept"])
    page, summary = report(), Path("reports/summary.txt").read_text()
    assert page.count('failed<span class="note">video alone failed</span>') == 2, "why joint and agm have no d of video"
    assert verdict() == (
        "Of audio and text, none is starved in joint training. Of video nothing can be said: no seed has both joint "
        "and the network trained on it alone, because runs failed."
    )
    assert re.search(r"network alone +failed +0\.", summary)
    assert re.search(r"joint +failed +0\.\d\d\d ± 0\.\d\d\d +0\.", summary), "d of video"
    found = read_json(Path("reports/metrics.json"))["late_concat"]["joint"]
    assert {"accuracy", "d_audio", "d_text"} == set(found), "the largest gap is not known without that of video"


def test_of_many_methods_one_that_failed_is_not_called_the_best() -> None:
    def adjust(cell: tuple[str, ...], scores: dict[str, Any]) -> None:
        if cell[0] == "evaluate" and cell[2] == "agm_3":
            for split in scores["splits"].values():
                split["accuracy"] = 0.999

    methods = FOUR | {"agm_4": {"name": "agm", "alpha": 2.0}}
    Made(parameters(("video", "audio"), methods), adjust)
    assert "agm_3 the highest accuracy" in report()
    Made(parameters(("video", "audio"), methods), adjust, failing={("late_concat", "agm_3", "0")})
    page = report()
    assert "Of 4 methods that failed in no seed, " in page
    assert "agm_3 the highest accuracy" not in page
    assert "0.999 ± 0.000 (2 of 3)" in seen(page)


def test_curves_and_kappa_are_of_runs_that_did_not_fail(
    reported: Callable[..., Reported], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = reported(FAILING["one seed of a method"])
    assert "mean over 3 seeds, without the runs that failed" in found.page
    study = collect(found.made.params)
    left = dataclasses.replace(study, runs=tuple(run for run in study.runs if not run.failed))
    for draw in DRAW:
        # In the place of a panel all that it is drawn from.
        monkeypatch.setattr(figures, draw.__name__, lambda *numbers, **more: (numbers, more))
    assert figures.curve_panels(study, "late_concat") == figures.curve_panels(left, "late_concat")
    assert figures.kappa_panels(study, "late_concat") == figures.kappa_panels(left, "late_concat")


# --- what is refused ------------------------------------------------------------------------------------------------


def refused(capsys: pytest.CaptureFixture[str]) -> str:
    assert cli.main(["report"]) == 1
    assert not Path("reports").exists()
    message = capsys.readouterr().err
    assert message.startswith("error:") and "Traceback" not in message
    return message


def test_runs_of_other_parameters_are_refused_by_name(made: Made, capsys: pytest.CaptureFixture[str]) -> None:
    made.content["methods"]["agm"]["alpha"] = 2.0
    Path("params.yaml").write_text(yaml.safe_dump(made.content, sort_keys=False))
    message = refused(capsys)
    assert "`agm train late_concat agm 1`: methods.agm.alpha was 1.0, now" in message
    assert "joint" not in message
    assert "snakemake" in message


def test_an_evaluation_of_another_run_is_refused(made: Made, capsys: pytest.CaptureFixture[str]) -> None:
    index = Path("runs/digits/late_concat/joint/seed-1/run.json")
    index.write_text(index.read_text().replace('"epochs": 4', '"epochs": 5'))
    message = refused(capsys)
    assert f"`agm evaluate late_concat joint 1`: {index} has changed" in message
    assert "seed-0" not in message


def test_data_of_other_parameters_are_refused(made: Made, capsys: pytest.CaptureFixture[str]) -> None:
    made.content["dataset"]["split"] = {"seed": 1}
    Path("params.yaml").write_text(yaml.safe_dump(made.content, sort_keys=False))
    assert "`agm ingest`: dataset.split.seed was 0, now 1" in refused(capsys)


def test_a_damaged_history_is_refused(made: Made, capsys: pytest.CaptureFixture[str]) -> None:
    path = Path("runs/digits/late_concat/agm/seed-0/history.parquet")
    path.write_bytes(path.read_bytes()[:-10])
    message = refused(capsys)
    assert str(path) in message and "agm train late_concat agm 0" in message


def test_missing_results_are_named_with_the_command_that_makes_them(
    made: Made, capsys: pytest.CaptureFixture[str]
) -> None:
    missing = Path("evaluations/digits/late_concat/concepts/audio/seed-2/evaluation.json")
    missing.unlink()
    assert f"`agm evaluate-concept late_concat audio 2`: {missing} does not exist" in refused(capsys)
