"""params.yaml: composed by `agm compose`, edited by `dvc exp run -S`, and never wrong without being told."""

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml

from agm.pipeline import cli, config
from agm.pipeline.config import methods, schema
from agm.pipeline.config.compose import compose
from agm.pipeline.errors import AgmError
from clone import ROOT, Clone
from forked import Forked

GROUPS = ROOT / "params"


def composed(folder: Path, *overrides: str) -> bytes:
    target = folder / "params.yaml"
    compose(list(overrides), target, GROUPS)
    return target.read_bytes()


def test_the_committed_file_is_the_composition(tmp_path: Path) -> None:
    assert composed(tmp_path) == (ROOT / "params.yaml").read_bytes(), "`agm compose` writes it anew"


IMAGES = {
    "demo": "encoder@encoders.video=conv",
    "crema_d": "encoder@encoders.video=resnet18",
    "spoken_digits": "encoder@encoders.image=conv",
    "av_mnist": "encoder@encoders.image=resnet18",
}
"""Studies with a modality that either encoder of images can read, and the one that it is given."""
OWN_FUSIONS = {"table", "ave", "cmu_mosei"}
"""Studies whose methods or encoders go with their own fusion."""
FUSIONS = "fusion=[late_sum,late_concat,early,film,gated,low_rank,cross_attention]"


def variants() -> list[tuple[str, ...]]:
    """Every study, with other encoders and fusions where it can have them."""
    found: list[tuple[str, ...]] = []
    for study in sorted(path.stem for path in (GROUPS / "study").iterdir()):
        fusions = () if study in OWN_FUSIONS else (FUSIONS,)
        encoder = (IMAGES[study],) if study in IMAGES else ()
        found.append((f"study={study}", *fusions, *encoder))
    return found


@pytest.mark.parametrize("overrides", variants(), ids=" ".join)
def test_the_groups_spell_out_every_parameter(tmp_path: Path, overrides: tuple[str, ...]) -> None:
    """A default that only the source knows would change results without a trace in params.yaml."""
    content = yaml.safe_load(composed(tmp_path, *overrides, "dataset.root=raw"))
    checked = config.check(content, "the groups")
    methods.check(checked, "the groups")
    params = checked.model_dump()
    for section in (params["methods"],):
        for name, block in section.items():
            section[name] = methods.typed(schema.MethodBlock(**block)).model_dump()
    for name in params["features"]:
        del params["features"][name]["kind"]
    assert params == {"dial": None, **content}


@pytest.fixture(scope="module")
def clone(forked: Forked, tmp_path_factory: pytest.TempPathFactory) -> Clone:
    return Clone.make(tmp_path_factory.mktemp("clone"), forked=forked)


def test_dvc_edits_single_parameters_of_what_was_composed(clone: Clone) -> None:
    """With its own composition, which is off, DVC would put the default study in the place of this one."""
    composed(clone.folder, "study=spoken_digits", "dataset.root=raw", "fusion=[late_sum,early]", "method=[joint,agm]")
    (clone.folder / "dvc.yaml").write_text(
        yaml.safe_dump({"stages": {"nothing": {"cmd": "true", "params": ["study"]}}})
    )
    clone.commit()
    expected = config.read(clone.folder / "params.yaml")
    changes = ["methods.agm.alpha=2", "features.audio.log_floor=1e-9", "study.seeds=[0,1]"]
    clone.dvc("exp", "run", *(f"--set-param={each}" for each in changes))
    assert expected["methods"]["agm"]["alpha"] != 2
    expected["methods"]["agm"]["alpha"] = 2
    expected["features"]["audio"]["log_floor"] = 1e-9
    expected["study"]["seeds"] = [0, 1]
    assert config.read(clone.folder / "params.yaml") == expected
    assert config.load(clone.folder / "params.yaml").study.name == "spoken_digits"


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["methods.agm.alhpa=2"], "no parameter methods.agm.alhpa (did you mean 'methods.agm.alpha'?)"),
        (["+methods.agm.alhpa=2"], "methods.agm.alhpa: unknown key (did you mean 'alpha'?)"),
        (
            ["+trainer.epohcs=2", "~dataset.quarantine", "+dataset.quarantin=[]"],
            [
                "trainer.epohcs: unknown key (did you mean 'epochs'?)",
                "dataset.quarantin: unknown key (did you mean 'quarantine'?)",
            ],
        ),
        (["+nonsense=1"], "nonsense: unknown key"),
        (["sudy=demo"], "no parameter sudy (did you mean 'study'?)"),
        (["study=kinetic_sounds"], "no study 'kinetic_sounds' (did you mean 'kinetics_sounds'?)"),
        (["method=[joint,agn]"], "no method 'agn' (did you mean 'agm'?)"),
        (["encoder@encoders.vidio=conv"], "no encoder@encoders.vidio (did you mean 'encoder@encoders.video'?)"),
        (["encoder@encoders.video=cnv"], "no encoder 'cnv' (did you mean 'conv'?)"),
        (["demo"], "did you mean study=demo?"),
        (["crema_d"], "did you mean dataset=crema_d or study=crema_d?"),
        (["/data/x"], "given as dataset.root=/data/x"),
        (["nothing"], "'nothing' is not of the form KEY=VALUE"),
        (["~dataset.modalities.text"], "features.text: dataset.modalities has no 'text', only video, audio; without"),
        (["~dataset.modalities.text", "~features.text"], "encoders.text: dataset.modalities has no 'text'"),
        (["encoders.video.name=con"], "encoders.video: there is no 'con' (did you mean 'conv'?)"),
        (
            ["~dataset.quarantine", "~study.settings"],
            ["dataset.quarantine: it is missing", "study.settings: it is missing"],
        ),
        (["dataset.name=../../escape"], "dataset.name: expected a name"),
        (["dataset.name=raw"], "dataset.name: data/raw is the folder of the demo sets"),
        (["+methods.concepts={name: joint}"], "'concepts' is the folder of the mono-modal concepts"),
        (
            ["dataset.limits.seconds=inf", "trainer.epochs=" + "9" * 50],
            [
                "dataset.limits.seconds: .inf is not a finite number",
                "trainer.epochs: 9999999999999999999999999999999999999999 is beyond",
            ],
        ),
        (["trainer.epochs=" + "9" * 5000], "5000 digits"),
        (
            ["trainer.epochs=many", "evaluation.outputs=logit", "num_parts=0", "dial.seed=-1"],
            ["trainer.epochs: ", "evaluation.outputs: ", "num_parts: ", "dial.seed: "],
        ),
        (["trainer.epochs='3'"], "trainer.epochs: "),
        (["study.seeds=[0,0]"], "study.seeds: an entry is there twice"),
        (["trainer.epochs=0"], "trainer.epochs: "),
        (["methods.agm.alpha=true"], "methods.agm.alpha: "),
        (["study.methods=[joint,ogm]"], "study.methods: 'ogm' is not defined"),
        (
            ["trainer.batch_size=1"],
            "trainer.batch_size: expected 2 or more, found 1: encoders.video, encoders.audio have",
        ),
        (["trainer.batch_size=1", "fusion=[early]"], "encoders.audio, fusions.early have BatchNorm"),
        (["+study.settings.cml.weight=3"], "study.settings.cml.weight is taken by no method"),
        (["+study.settings.agm.alhpa=3"], "study.settings.agm.alhpa is taken by no method"),
        (["+study.settings.nothing.at=3"], "study.settings.nothing.at is taken by no method"),
        (["+dataset.modalities.label={kind: text, column: text}"], "'label' is a column of every data set"),
        (["encoder@encoders.text=conv"], "encoders.text: 'conv'"),
        (["~features.audio"], "features: expected one entry for each of"),
        (["study=spoken_digits"], "dataset.root"),
        (["study=nonsense"], "nonsense"),
        (["method=[]"], "study.methods: there is none"),
        (["method=[umt]"], "study.methods: ['umt'] read the run of plain joint training"),
        (["method=[agm,umt]"], "study.methods: ['umt'] read the run of plain joint training"),
        (["method=[joint,mmcosine]", "fusion=[early]"], "methods.mmcosine with fusions.early: its cosines"),
        (
            ["study=ave", "dataset.root=raw", "method=[joint,ogm]"],
            "methods.ogm with fusions.psp: it acts on the weights of the encoders, and those of",
        ),
        (
            ["study=ave", "dataset.root=raw", "method=[joint,greedy]"],
            "methods.greedy with fusions.psp: its classifiers of the streams can only take the place of an additive",
        ),
    ],
)
def test_what_is_wrong_is_named_and_nothing_written(
    tmp_path: Path, overrides: list[str], said: str | list[str]
) -> None:
    before = (ROOT / "params.yaml").read_bytes()
    (tmp_path / "params.yaml").write_bytes(before)
    with pytest.raises(AgmError) as error:
        composed(tmp_path, *overrides)
    for one in [said] if isinstance(said, str) else said:
        assert one in str(error.value)
    assert (tmp_path / "params.yaml").read_bytes() == before
    assert list(tmp_path.iterdir()) == [tmp_path / "params.yaml"]


@pytest.fixture(scope="module")
def committed() -> dict[str, Any]:
    """The content of the committed params.yaml, which takes a while to read."""
    return config.read(ROOT / "params.yaml")


@pytest.mark.parametrize(
    "name", ["x; touch y", "../../escape", "a" * 65, "-x", ".x", "", "X", "a b", "a/b", "ü", "a\n", "a-b"]
)
@pytest.mark.parametrize(
    "place",
    [
        "dataset.name",
        "study.name",
        "study.modalities.0",
        "study.fusions.0",
        "study.methods.0",
        "methods",
        "fusions",
        "dataset.modalities",
        "dataset.annotations",
    ],
)
def test_one_rule_for_every_name(committed: dict[str, Any], name: str, place: str) -> None:
    content = copy.deepcopy(committed)
    *path, last = place.split(".")
    block = content
    for key in path:
        block = block[key]
    if isinstance(block, list):
        block[int(last)] = name
    elif isinstance(block[last], str):
        block[last] = name
    else:  # a mapping, of which a key is a name
        block[last][name] = next(iter(block[last].values()), {"name": "umt"})
    with pytest.raises(AgmError) as error:
        config.check(content, "test")
    assert "expected a name: at most 64 lower case letters" in str(error.value)


def test_a_wrong_file_stops_every_command_without_a_traceback(
    clone: Clone, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    composed(clone.folder, "methods.agm.alpha=1.0")
    clone.edit("params.yaml", "    alpha: 1.0\n", "    alpha: one\n")
    monkeypatch.chdir(clone.folder)
    found = [clone.run("snakemake", "--dry-run", fails=True)]
    for command in ("list", "train late_concat agm 0"):
        capfd.readouterr()
        assert cli.main(command.split()) == 1
        found.append(capfd.readouterr().err)
    for said in found:
        assert "methods.agm.alpha: " in said and "found 'one'" in said
        assert "Traceback" not in said and ".py" not in said


def test_a_folder_that_is_not_there_yet_is_told_about(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    composed(tmp_path, "study=spoken_digits", f"dataset.root={tmp_path / 'later'}")
    assert "warning: The folder of the raw data (dataset.root) does not exist" in capsys.readouterr().err
    composed(tmp_path, "study=spoken_digits", f"dataset.root={tmp_path}")
    assert "warning: The annotations (dataset.annotations.clips) are not there" in capsys.readouterr().err
    (tmp_path / "manifest.csv").write_text("clip_id,label,image,audio\n")
    composed(tmp_path, "study=spoken_digits", f"dataset.root={tmp_path}")
    composed(tmp_path)
    assert "warning" not in capsys.readouterr().err, "a demo set is made by a job"


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["study=spoken_digits", "dataset.group=speaker"], "Row 1 lacks the column 'speaker'"),
        (["study=spoken_digits", "dataset.modalities.audio.column=sound"], "Row 1 lacks the column 'sound'"),
        (["study=crema_d", "dataset.modalities.audio.column=sound"], "crema_d has no 'sound'"),
        (["study=crema_d", "dataset.split.scheme=mine"], "dataset.split.scheme: crema_d has no 'mine'"),
    ],
)
def test_a_wrong_column_is_refused(tmp_path: Path, overrides: list[str], said: str) -> None:
    (tmp_path / "manifest.csv").write_text("clip_id,label,image,audio\n")
    with pytest.raises(AgmError) as error:
        composed(tmp_path, *overrides, f"dataset.root={tmp_path}")
    assert said in str(error.value)
    assert not (tmp_path / "params.yaml").exists()
