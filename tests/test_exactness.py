"""What must run after a change, and what is not done again: the table of CONTRIBUTING, change by change."""

import csv
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from agm.pipeline import cli, config
from agm.pipeline.config.compose import compose
from agm.pipeline.dag import code, provenance
from agm.pipeline.dag.graph import Graph
from agm.pipeline.io.files import read_json
from agm.pipeline.io.source import Source
from agm.pipeline.steps.evaluate import forward
from agm.pipeline.steps.extract import step as extract_step
from agm.pipeline.steps.ingest import raw
from clone import ROOT
from forked import one_at_a_time
from media import tone, write_image, write_wav
from pipeline import TINY

pytestmark = pytest.mark.usefixtures("without_fsync")

STUDY = (*TINY, "study=spoken_digits", "trainer.batch_size=4", "features.audio.seconds=0.2", "method=[joint,agm,umt]")
CLIPS = 24
STEPS_OF_RUNS = ("train", "concept", "evaluate", "evaluate_concept")
STUDY_OF_ONE = (*TINY, "study=spoken_digits", "trainer.batch_size=4", "method=[joint]", "dataset.root=raw")
RUNS = {"train", "train_after_runs", "concept"}
SCORES = {"evaluate", "evaluate_after_runs", "evaluate_concept"}
SPLITS = ("train", "train", "val", "test")
NOTHING: set[str] = set()


def write_clips(root: Path, numbers: range) -> None:
    """A picture and a sound for each number, even ones bright and high."""
    root.mkdir(exist_ok=True)
    for number in numbers:
        noise = np.random.default_rng(number)
        pixels = noise.integers(0, 128, (28, 28)) + 100 * (number % 2)
        write_image(root / f"{number}.png", pixels.astype(np.uint8))
        sound = tone(400 + 1000 * (number % 2), 0.2, 8000) + 0.1 * noise.normal(size=1600)
        write_wav(root / f"{number}.wav", sound, 8000)


def write_table(root: Path, numbers: range, labels: dict[int, str] | None = None) -> None:
    rows = [
        (
            f"clip{number}",
            SPLITS[number % 4],
            (labels or {}).get(number, "ab"[number % 2]),
            f"{number}.png",
            f"{number}.wav",
        )
        for number in numbers
    ]
    with open(root / "manifest.csv", "w", newline="") as file:
        csv.writer(file).writerows([("clip_id", "split", "label", "image", "audio"), *rows])


def copy_of_finished(shared: Path, folder: Path) -> Path:
    """A copy of a finished study of one's own data, with the data in it; `shared` keeps what the first caller made."""
    made, unfinished = shared / "finished", shared / "unfinished"
    with one_at_a_time(shared):
        if not made.exists():
            make_study(unfinished)
            unfinished.rename(made)
    return shutil.copytree(made, folder, dirs_exist_ok=True)


def make_study(folder: Path) -> None:
    folder.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("AGM_WORKERS", "1")
        # 2 of each label and 6 of each split.
        write_clips(Path("raw"), range(CLIPS))
        write_table(Path("raw"), range(CLIPS))
        compose([*STUDY, "dataset.root=raw"], groups=ROOT / "params")
        run_outdated()


@pytest.fixture(scope="module")
def whole(of_all_workers: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a finished study."""
    return copy_of_finished(of_all_workers, tmp_path_factory.mktemp("study"))


@pytest.fixture
def study(whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of that folder, and in it."""
    shutil.copytree(whole, tmp_path / "copy")
    monkeypatch.chdir(tmp_path / "copy")
    monkeypatch.setenv("AGM_WORKERS", "1")
    code.forget()
    return tmp_path / "copy"


def outdated() -> set[str]:
    """The kinds of jobs that are out of date themselves, and not only by what they follow from."""
    graph = Graph(config.load())
    list(raw.check(graph.params))
    jobs = [job for job in graph.jobs if provenance.outdated(job, graph.params)]
    return {f"{job.step}_after_runs" if job.after_runs else job.step for job in jobs}


def run_outdated(*only: str) -> list[str]:
    """Run what is out of date, as an engine does, all of it or the steps `only`; the commands that did run."""
    graph = Graph(config.load())
    list(raw.check(graph.params))
    ran = []
    for job in graph.jobs:
        if (not only or job.step in only) and provenance.outdated(job, graph.params):
            assert cli.main(job.command.split()[1:]) == 0, job.command
            ran.append(job.command)
    return ran


def steps(commands: list[str]) -> set[str]:
    return {command.split()[1].replace("-", "_") for command in commands}


def set_parameters(*changes: str) -> Callable[[pytest.MonkeyPatch], None]:
    """Compose the same study with other values."""
    return lambda patch: compose([*STUDY, "dataset.root=raw", *changes], groups=ROOT / "params")


def edit_code(name: str) -> Callable[[pytest.MonkeyPatch], None]:
    """Another fingerprint of it."""
    found = code.fingerprint
    return lambda patch: patch.setattr(code, "fingerprint", lambda each: "edited" if each == name else found(each))


def move_root(patch: pytest.MonkeyPatch) -> None:
    shutil.copytree("raw", "elsewhere", copy_function=shutil.copy)  # with other times
    set_parameters("dataset.root=elsewhere")(patch)


def touch(patch: pytest.MonkeyPatch) -> None:
    for path in [*Path("raw").iterdir(), *Path("data").rglob("*.*"), *Path("runs").rglob("*.*")]:
        os.utime(path, (1, 1))


TABLE = [
    ("a default is spelled out", set_parameters("methods.agm.coalitions=exact"), NOTHING),
    ("the seed of the split", set_parameters("dataset.split.seed=1"), {"list", "ingest"}),
    ("features of one modality", set_parameters("features.image.size=24"), {"extract"}),
    ("rows of a shard", set_parameters("shards.max_rows_per_file=5"), {"shard"}),
    ("the encoder of one modality", set_parameters("encoders.image.channels=[8,8]"), RUNS),
    ("a parameter of one method", set_parameters("methods.agm.alpha=3.0"), {"train"}),
    ("a parameter of a method that reads runs", set_parameters("methods.umt.weight=3.0"), {"train_after_runs"}),
    ("the trainer", set_parameters("trainer.batch_size=5"), RUNS),
    ("the ridge regression", set_parameters("evaluation.ridge_alpha=7.0"), {"evaluate", "evaluate_after_runs"}),
    ("the confidence", set_parameters("evaluation.confidence=0.9"), {"evaluate", "evaluate_after_runs", "report"}),
    ("the batches of the evaluation", set_parameters("evaluation.batch_size=5"), SCORES),
    ("one more seed", set_parameters("study.seeds=[0,1]"), RUNS | SCORES | {"report"}),
    ("the name of the study", set_parameters("study.name=other"), {"report"}),
    ("the source of a step", edit_code("shard"), {"shard"}),
    ("the source of a method", edit_code("methods/agm"), {"train", "evaluate"}),
]


@pytest.fixture
def unchanged(whole: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """In the folder of the study itself, for those who change its parameters and nothing else in it."""
    monkeypatch.chdir(whole)
    monkeypatch.setenv("AGM_WORKERS", "1")
    code.forget()
    params = Path("params.yaml").read_bytes()
    yield
    Path("params.yaml").write_bytes(params)


@pytest.mark.parametrize(("change", "steps"), [row[1:] for row in TABLE], ids=[row[0] for row in TABLE])
def test_what_a_change_makes_out_of_date(
    unchanged: None, change: Callable[[pytest.MonkeyPatch], None], steps: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    change(monkeypatch)
    assert outdated() == steps


@pytest.mark.parametrize("change", [touch, move_root])
def test_times_and_places_of_files_mean_nothing(
    study: Path, change: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert outdated() == NOTHING
    change(monkeypatch)
    assert outdated() == NOTHING


# --- what is not done again ---


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The files that extraction decodes, one by one."""
    seen: list[str] = []
    tensor = extract_step._tensor

    def counted(source: Source, *rest: object) -> np.ndarray | str:
        seen.append(Path(source.path).name)
        return tensor(source, *rest)

    monkeypatch.setattr(extract_step, "_tensor", counted)
    return seen


@pytest.fixture
def forward_passes(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The splits on which a network is asked."""
    seen: list[str] = []
    predict = forward.predict

    def counted(model: object, shards: object, split: str, *rest: object) -> object:
        seen.append(split)
        return predict(model, shards, split, *rest)

    monkeypatch.setattr(forward, "predict", counted)
    return seen


def results() -> dict[str, bytes]:
    """What a study is about, less where the raw files lie and when they were changed."""
    files = [path for name in ("runs", "evaluations", "reports") for path in Path(name).rglob("*.*")]
    return {str(path): path.read_bytes() for path in [*files, *Path("data").glob("*/shards/*")]}


def test_one_label_is_mended(study: Path, decoded: list[str]) -> None:
    write_table(Path("raw"), range(CLIPS), {3: "a"})
    assert outdated() == {"annotations"}
    ran = run_outdated()
    assert decoded == [], "every clip has its tensors"
    assert steps(ran) == {"annotations", "list", "ingest", "extract", "shard", "inspect", "report", *STEPS_OF_RUNS}
    assert outdated() == NOTHING


def test_a_clip_is_replaced_and_others_are_added(study: Path, decoded: list[str]) -> None:
    pixels = np.arange(28 * 28, dtype=np.uint8).reshape(28, 28)
    write_image(Path("raw/5.png"), pixels)
    assert outdated() == {"list"}
    run_outdated("list", "ingest", "extract")
    assert decoded == ["5.png"]
    decoded.clear()
    write_clips(Path("raw"), range(CLIPS, CLIPS + 4))
    write_table(Path("raw"), range(CLIPS + 4))
    run_outdated()
    assert sorted(decoded) == sorted(f"{n}.{kind}" for n in range(CLIPS, CLIPS + 4) for kind in ("png", "wav"))
    kept = results()
    again("data", "runs", "evaluations", "reports")
    assert results() == kept, "as from nothing"


def test_a_clip_is_deleted(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("raw/5.png").unlink()
    assert outdated() == {"list"}
    assert cli.main(["list"]) == 1
    assert "image: file not found: 5.png" in capsys.readouterr().err


def test_what_it_was_before_is_no_change(study: Path) -> None:
    """A file that was away, or another one, and is back: also where the listing was made anew meanwhile."""
    shutil.copy2("raw/5.png", "kept.png")
    Path("raw/5.png").unlink()
    assert outdated() == {"list"}
    shutil.copy2("kept.png", "raw/5.png")
    assert outdated() == NOTHING

    write_image(Path("raw/5.png"), np.zeros((28, 28), np.uint8))
    run_outdated("list")
    follows = outdated()
    assert "list" not in follows
    shutil.copy2("raw/5.png", "other.png")
    shutil.copy2("kept.png", "raw/5.png")
    assert outdated() == {"list"} | follows
    Path("data/spoken_digits/raw.json").write_text("")
    shutil.copy2("other.png", "raw/5.png")
    assert outdated() == follows


def test_the_same_content_at_another_time(study: Path) -> None:
    os.utime("raw/5.png", (1, 1))
    content = Path("raw/7.png").read_bytes()
    Path("raw/7.png").unlink()
    Path("raw/7.png").write_bytes(content)
    index = Path("data/spoken_digits/raw.json").read_bytes()
    assert outdated() == NOTHING
    assert Path("data/spoken_digits/raw.json").read_bytes() == index
    # What is listed anew for another reason still knows them.
    write_table(Path("raw"), range(CLIPS), {3: "a"})
    listed = Path("data/spoken_digits/listing.parquet").read_bytes()
    assert run_outdated("annotations", "list") == ["agm annotations clips", "agm list"]
    assert Path("data/spoken_digits/listing.parquet").read_bytes() == listed


def test_other_content_of_the_same_size(study: Path) -> None:
    content = bytearray(Path("raw/5.wav").read_bytes())
    content[-1] ^= 1
    Path("raw/5.wav").write_bytes(content)
    assert outdated() == {"list"}
    # And back again, at a new time: what was made of it has to be made of this one.
    run_outdated("list")
    assert "list" not in outdated()
    content[-1] ^= 1
    Path("raw/5.wav").write_bytes(content)
    assert "list" in outdated()


def test_a_file_that_changes_after_it_was_listed_is_refused(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_image(Path("raw/5.png"), np.zeros((28, 28), np.uint8))
    assert cli.main(["extract", "image", "0", "--force"]) == 1
    assert "changed since they were listed: 1, the first is 5.png" in capsys.readouterr().err


def test_raw_files_that_are_not_there_at_all_are_not_missed(study: Path) -> None:
    """As in a colleague's clone, which has the results only."""
    shutil.move("raw", "away")
    (said,) = raw.check(config.load())
    assert "not checked" in said and "not one of 48" in said
    shutil.copytree("away", "raw")


def test_slow_storage_is_trusted(study: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_image(Path("raw/5.png"), np.zeros((28, 28), np.uint8))
    monkeypatch.setenv("AGM_TRUST_RAW", "1")
    assert list(raw.check(config.load())) == ["raw files are not checked: AGM_TRUST_RAW is set"]
    monkeypatch.setenv("AGM_TRUST_RAW", "0")
    assert outdated() == {"list"}


def test_a_modality_less(study: Path, decoded: list[str]) -> None:
    compose(["~dataset.modalities.audio", "~features.audio", "~encoders.audio", *STUDY_OF_ONE], groups=ROOT / "params")
    ran = run_outdated("annotations", "list", "ingest", "extract", "shard", *STEPS_OF_RUNS)
    assert decoded == []
    assert not steps(ran) & {"concept", "evaluate_concept"}, "the picture's concept is what it was"
    assert {"train", "evaluate", "shard"} <= steps(ran)


def test_scores_by_another_ridge_regression(
    study: Path, forward_passes: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    scores = {path: read_json(path) for path in Path("evaluations").rglob("evaluation.json")}
    set_parameters("evaluation.ridge_alpha=7.0")(monkeypatch)
    ran = run_outdated()
    assert steps(ran) == {"evaluate", "report"} and forward_passes == []
    changed = {path for path, before in scores.items() if read_json(path) != before}
    assert len(changed) == 3 and all("concepts" not in path.parts for path in changed)
    kept = results()
    again("evaluations")
    assert forward_passes and results() == kept, "as from nothing"


def test_back_to_what_was(
    study: Path, decoded: list[str], forward_passes: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = results()
    set_parameters("features.image.size=24")(monkeypatch)
    run_outdated("extract", "shard", *STEPS_OF_RUNS)
    assert results() != kept and len(decoded) == CLIPS
    decoded.clear()
    forward_passes.clear()
    set_parameters()(monkeypatch)
    run_outdated()
    assert results() == kept and decoded == [] and forward_passes == []


def test_the_same_again_wakes_nobody(study: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A step that is made anew and comes out the same."""
    edit_code("shard")(monkeypatch)
    assert run_outdated() == ["agm shard"]


def again(*folders: str) -> None:
    """What is in the folders of results, made from nothing."""
    for name in folders:
        shutil.rmtree(name)
        shutil.rmtree(Path("records", name))
    shutil.rmtree(".cache")
    run_outdated()
