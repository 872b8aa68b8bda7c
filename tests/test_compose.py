"""params.yaml: composed by `agm compose` and by DVC to the same bytes, and never wrong without being told."""

from pathlib import Path

import pytest
import yaml

from agm import config, methods
from agm.compose import compose
from agm.config import schema
from agm.errors import AgmError
from clone import ROOT, Clone

GROUPS = ROOT / "params"


def composed(folder: Path, *overrides: str) -> bytes:
    target = folder / "params.yaml"
    compose(list(overrides), target, GROUPS)
    return target.read_bytes()


def test_the_committed_file_is_the_composition(tmp_path: Path) -> None:
    assert composed(tmp_path) == (ROOT / "params.yaml").read_bytes(), "`agm compose` writes it anew"


IMAGES = {"demo": "video", "spoken_digits": "image", "av_mnist": "image", "crema_d": "video"}
"""Studies with a modality that either encoder of images can read."""
OWN_FUSIONS = {"table", "ave", "cmu_mosei"}
"""Studies whose methods or encoders go with their own fusion."""
FUSIONS = "fusion=[late_sum,late_concat,early,film,gated,low_rank,cross_attention]"


def variants() -> list[tuple[str, ...]]:
    """Every study, with other encoders and fusions where it can have them."""
    found: list[tuple[str, ...]] = []
    for study in sorted(path.stem for path in (GROUPS / "study").iterdir()):
        fusions = () if study in OWN_FUSIONS else (FUSIONS,)
        encoders = [f"encoder@encoders.{IMAGES[study]}={name}" for name in ("conv", "resnet18") if study in IMAGES]
        found += [(f"study={study}", *fusions, *each) for each in ([(one,) for one in encoders] or [()])]
    return found


@pytest.mark.parametrize("overrides", variants(), ids=" ".join)
def test_the_groups_spell_out_every_parameter(tmp_path: Path, overrides: tuple[str, ...]) -> None:
    """A default that only the source knows would change results without a trace in params.yaml."""
    content = yaml.safe_load(composed(tmp_path, *overrides, "dataset.root=raw"))
    checked = config.check(content, "the groups")
    methods.check(checked, "the groups")
    params = checked.model_dump()
    for section in (params["methods"], params["taught"]):
        for name, block in section.items():
            section[name] = methods.typed(schema.MethodBlock(**block)).model_dump()
    for name in params["features"]:
        del params["features"][name]["kind"]
    assert params == {"dial": None, **content}


@pytest.mark.parametrize(
    "overrides",
    [
        ["methods.agm.alpha=2", "trainer.optimiser.lr=1e-3", "study.seeds=[0,1,2,3,4]"],
        [
            "study=spoken_digits",
            "dataset.root=/somewhere",
            "fusion=[late_sum,early]",
            "encoder@encoders.image=resnet18",
        ],
    ],
)
def test_dvc_composes_the_same_bytes(tmp_path: Path, overrides: list[str]) -> None:
    clone = Clone.make(tmp_path / "clone")
    (clone.folder / "dvc.yaml").write_text(
        yaml.safe_dump({"stages": {"nothing": {"cmd": "true", "params": ["study"]}}})
    )
    clone.commit()
    clone.dvc("exp", "run", *(f"--set-param={each}" for each in overrides))
    by_dvc = (clone.folder / "params.yaml").read_bytes()
    assert by_dvc == composed(tmp_path, *overrides)
    clone.agm("compose", *overrides)
    assert by_dvc == (clone.folder / "params.yaml").read_bytes()


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["methods.agm.alhpa=2"], "methods.agm.alhpa"),
        (["+methods.agm.alhpa=2"], "methods.agm.alhpa: unknown key"),
        (["+nonsense=1"], "nonsense: unknown key"),
        (["trainer.epochs=many"], "trainer.epochs: "),
        (["trainer.epochs='3'"], "trainer.epochs: "),
        (["trainer.epochs=0"], "trainer.epochs: "),
        (["methods.agm.alpha=true"], "methods.agm.alpha: "),
        (["evaluation.outputs=logit"], "evaluation.outputs: "),
        (["study.methods=[joint,ogm]"], "study.methods: 'ogm' is not defined"),
        (["study.seeds=[0,0]"], "study.seeds: an entry is there twice"),
        (["parts=[1,2]"], "parts: expected 0, 1, 2"),
        (
            ["trainer.batch_size=1"],
            "trainer.batch_size: expected 2 or more, found 1: encoders.video, encoders.audio have",
        ),
        (["trainer.batch_size=1", "fusion=[early]"], "encoders.audio, fusions.early have BatchNorm"),
        (["+study.settings.cml.weight=3"], "study.settings.cml.weight is taken by no method"),
        (["+study.settings.agm.alhpa=3"], "study.settings.agm.alhpa is taken by no method"),
        (["+study.settings.nothing.at=3"], "study.settings.nothing.at is taken by no method"),
        (["dial.seed=-1"], "dial.seed: "),
        (["+dataset.modalities.label={kind: text, column: text}"], "'label' is a column of every data set"),
        (["encoder@encoders.text=conv"], "encoders.text: 'conv'"),
        (["~features.audio"], "features: expected one entry for each of"),
        (["study=spoken_digits"], "dataset.root"),
        (["study=nonsense"], "nonsense"),
        (["+methods.umt={name: umt, weight: 1.0}"], "'umt' belongs under taught"),
        (["method=[]"], "study.methods: there is none"),
        (["method=[umt]"], "study.taught: ['umt'] read the run of plain joint training"),
        (["method=[agm,umt]"], "study.taught: ['umt'] read the run of plain joint training"),
        (["method=[joint,mmcosine]", "fusion=[early]"], "methods.mmcosine with fusions.early: its cosines"),
        (
            ["study=ave", "dataset.root=raw", "method=[joint,ogm]"],
            "methods.ogm: it acts on the weights of the encoders",
        ),
        (
            ["study=ave", "dataset.root=raw", "method=[joint,greedy]"],
            "methods.greedy: it acts on the weights of the encoders",
        ),
    ],
)
def test_what_is_wrong_is_named_and_nothing_written(tmp_path: Path, overrides: list[str], said: str) -> None:
    before = composed(tmp_path)
    with pytest.raises(AgmError) as error:
        composed(tmp_path, *overrides)
    assert said in str(error.value)
    assert (tmp_path / "params.yaml").read_bytes() == before
    assert list(tmp_path.iterdir()) == [tmp_path / "params.yaml"]


def test_a_wrong_file_stops_every_command_without_a_traceback(tmp_path: Path) -> None:
    clone = Clone.make(tmp_path, "methods.agm.alpha=1.0")
    clone.edit("params.yaml", "    alpha: 1.0\n", "    alpha: one\n")
    for said in (
        clone.agm("list", fails=True),
        clone.agm("train", "late_concat", "agm", "0", fails=True),
        clone.run("snakemake", "--dry-run", fails=True),
    ):
        assert "methods.agm.alpha: " in said and "found 'one'" in said
        assert "Traceback" not in said and ".py" not in said
