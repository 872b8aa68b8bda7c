"""Sequences that another program made: from .npy files, damaged ones among them, to a trained network."""

import json
import pickle
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
import yaml

from agm.pipeline import cli, config
from agm.pipeline.config.schema import SequenceFeatures
from agm.pipeline.errors import AgmError
from agm.pipeline.io.media import Unusable
from agm.pipeline.io.source import Source
from agm.pipeline.io.tensors import Feature
from agm.pipeline.networks import Preparation, build_encoder
from agm.pipeline.steps.extract import sequence
from agm.pipeline.steps.ingest.probe import Media, probe
from agm.pipeline.steps.shard.statistics import Moments
from agm.pipeline.steps.shard.stream import Shards
from whole import whole

pytestmark = pytest.mark.numerical

RANDOM = np.random.default_rng(0)


def saved(path: Path, array: np.ndarray) -> Path:
    np.save(path, array)
    return path


def settings(steps: int, *shape: int) -> SequenceFeatures:
    return SequenceFeatures(kind="sequence", steps=steps, shape=list(shape))


# --- files ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["<f4", ">f8", "f2", "i1", "<u8"])
@pytest.mark.parametrize("length", [1, 3, 4, 9])
def test_arrays_are_cut_or_filled_up(tmp_path, dtype, length):
    array = RANDOM.integers(1, 100, (length, 2, 3)).astype(dtype)
    path = saved(tmp_path / "a.npy", np.asfortranarray(array) if length % 2 else array)
    assert probe(Source(path), "sequence") == Media()
    found = sequence.load(Source(path), settings(4, 2, 3))
    described = sequence.feature(settings(4, 2, 3))
    assert (found.dtype, found.shape) == (np.dtype(described.dtype), described.shape) == (np.float32, (4, 2, 3))
    np.testing.assert_array_equal(found[:length], array[:4].astype(np.float32))
    assert not found[length:].any()


def broken(folder: Path) -> dict[str, tuple[Path, str]]:
    """One file for every way in which an array is unusable, and the reason."""
    good = saved(folder / "good.npy", np.ones((4, 3))).read_bytes()
    header = "the array is truncated, damaged or made of Python objects: "
    contents = {
        "empty": (b"", "the file is empty"),
        "pickle": (pickle.dumps([1, 2]), "not an array in NumPy's .npy format"),
        "text": (b"1 2 3\n", "not an array in NumPy's .npy format"),
        "truncated": (good[:-5], header),
        "cut": (good[:30], header),
        "flipped": (good[:40] + b"\x00\xff" * 5 + good[50:], header),
        "huge": (good.replace(b"(4, 3), }           ", b"(999999999999, 3), }"), header),
    }
    files = {}
    for name, (content, reason) in contents.items():
        files[name] = folder / f"{name}.npy", reason
        files[name][0].write_bytes(content)
    arrays = {
        "objects": (np.array([{"a": 1}, None], object), header),
        "words": (np.array(["a", "b"]), "the array holds <U1, not integers"),
        "complex": (np.ones((2, 3), complex), "the array holds complex128, not integers"),
        "no steps": (np.ones((0, 3)), "the array is empty: its shape is [0, 3]"),
        "no channels": (np.ones((2, 0)), "the array is empty: its shape is [2, 0]"),
        "scalar": (np.float32(3), "the array is empty: its shape is []"),
    }
    for name, (array, reason) in arrays.items():
        files[name] = saved(folder / f"{name}.npy", array), reason
    np.savez(folder / "archive.npz", np.ones((2, 3)))
    return files | {"archive": (folder / "archive.npz", "not an array in NumPy's .npy format")}


def test_unusable_files_and_their_reasons(tmp_path):
    for name, (path, reason) in broken(tmp_path).items():
        with pytest.raises(Unusable) as error:
            probe(Source(path), "sequence")
        assert str(error.value).startswith(reason), name
        if name != "empty":  # which the probe alone looks at
            with pytest.raises(Unusable) as error:
                sequence.load(Source(path), settings(4, 3))
            assert str(error.value).startswith(reason), name


def test_what_only_reading_shows(tmp_path):
    for name, array, reason in [
        ("shape", np.ones((4, 2)), "each step of the array has the shape [2], and [3] is expected"),
        ("flat", np.ones(4), "each step of the array has the shape [], and [3] is expected"),
        ("nan", np.where(np.arange(12).reshape(4, 3) == 7, np.nan, 1.0), "a number that is not finite"),
        ("infinite", np.full((4, 3), -np.inf), "or too large for float32, in step 0"),
        ("large", np.where(np.arange(12).reshape(4, 3) == 7, 1e300, 1.0), "or too large for float32, in step 2"),
    ]:
        path = saved(tmp_path / f"{name}.npy", array)
        assert probe(Source(path), "sequence") == Media()
        with pytest.raises(Unusable) as error:
            sequence.load(Source(path), settings(4, 3))
        assert reason in str(error.value)
    beyond = saved(tmp_path / "beyond.npy", np.concatenate([np.ones((4, 3)), np.full((1, 3), np.nan)]))
    assert sequence.load(Source(beyond), settings(4, 3)).all()  # what is cut off does no harm


# --- statistics and normalisation -------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(3,), (2, 2, 3)])
def test_statistics_are_of_the_last_axis_and_of_steps_that_are_there(shape):
    lengths = [5, 1, 0, 3]
    clips = RANDOM.normal(3.0, 2.0, (4, 5, *shape)).astype(np.float32)
    for clip, length in zip(clips, lengths, strict=True):
        clip[length:] = 0
    moments = Moments(Feature("sequence", "float32", (5, *shape)))
    for clip in clips:
        moments.add(clip)
    steps = [clip[t] for clip, length in zip(clips, lengths, strict=True) for t in range(length)]
    values = np.stack(steps).astype(np.float64).reshape(-1, 3)
    np.testing.assert_allclose(moments.mean, values.mean(axis=0), rtol=1e-9)
    np.testing.assert_allclose(moments.std, values.std(axis=0), rtol=1e-9)


def test_statistics_of_nothing_but_padding():
    moments = Moments(Feature("sequence", "float32", (2, 3)))
    moments.add(np.zeros((2, 3), np.float32))
    assert (moments.mean, moments.std) == ((0.0,) * 3, (0.0,) * 3)


@pytest.mark.parametrize("shape", [(3,), (2, 2, 3)])
def test_normalisation_leaves_padding_at_zero(shape):
    feature = Feature("sequence", "float32", (4, *shape), (1.0, 2.0, 3.0), (2.0, 0.5, 0.0))
    prepare = Preparation({"a": feature}, ["a"])
    x = RANDOM.normal(size=(5, 4, *shape)).astype(np.float32)
    x[0, 2:] = x[1] = 0
    x[2, 0, ..., 1] = 0  # a zero among other numbers is a number
    found = prepare({"a": torch.from_numpy(x)})["a"].numpy()
    # The third channel is constant in training: there is no scale to divide by.
    wanted = (x - np.array([1, 2, 3], np.float32)) / np.array([2, 0.5, 1], np.float32)
    wanted[0, 2:] = wanted[1] = 0
    np.testing.assert_allclose(found, wanted, rtol=1e-6)


LATE = config.schema.LateConcat(name="late_concat")

# --- a study ----------------------------------------------------------------------------------------------------

PARAMS = whole(
    {
        "study": {
            "name": "tiny",
            "fusions": ["psp", "cross_attention", "late_concat"],
            "methods": ["agm"],
            "modalities": ["sound", "picture"],
            "seeds": [0],
        },
        "dataset": {
            "name": "tiny",
            "adapter": "manifest",
            "root": "raw",
            "annotations": {"clips": "raw/manifest.csv"},
            "modalities": {name: {"kind": "sequence", "column": name} for name in ("sound", "picture")},
        },
        "num_parts": 2,
        "features": {"sound": {"steps": 4, "shape": [5]}, "picture": {"steps": 4, "shape": [2, 3]}},
        "shards": {},
        "encoders": {
            "sound": {"name": "sequence_transformer", "dim": 4, "num_heads": 2, "num_layers": 1, "dim_feedforward": 4},
            "picture": {"name": "identity", "dim": 6},
        },
        "fusions": {
            "psp": {"name": "psp", "regions": 2, "attention": 4, "hidden": 3},
            "cross_attention": {
                "name": "cross_attention",
                "dim": 4,
                "num_heads": 2,
                "num_layers": 1,
                "dim_feedforward": 4,
            },
            "late_concat": {"name": "late_concat"},
        },
        "methods": {"agm": {"name": "agm"}},
        "trainer": {"epochs": 1, "batch_size": 8},
        "evaluation": {"permutations": 2},
    }
)


def changed(**blocks: dict) -> dict:
    content = json.loads(json.dumps(PARAMS))
    for key, block in blocks.items():
        content[key] |= block
    return content


def test_from_files_to_a_trained_network(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AGM_WORKERS", "1")
    Path("params.yaml").write_text(yaml.safe_dump(PARAMS))
    raw = tmp_path / "raw"
    raw.mkdir()
    rows = ["clip_id,split,label,sound,picture"]
    for number in range(40):
        split = ("train", "train", "val", "test")[number % 4]
        length = 1 + number % 6
        saved(raw / f"s{number}.npy", RANDOM.normal(number % 2, 1, (length, 5)))
        saved(raw / f"p{number}.npy", RANDOM.normal(size=(length, 2, 3)).astype(np.float32))
        rows.append(f"c{number},{split},{number % 2},s{number}.npy,p{number}.npy")
    (raw / "manifest.csv").write_text("\n".join(rows) + "\n")
    (raw / "s4.npy").write_bytes(b"damaged")
    saved(raw / "p5.npy", np.full((3, 2, 3), np.nan))
    saved(raw / "p6.npy", np.ones((3, 7)))
    parts = [["extract", name, part] for name in ("sound", "picture") for part in "01"]
    for command in (["annotations", "clips"], ["list"], ["ingest"], *parts):
        assert cli.main(command) == 0
    assert cli.main(["shard"]) == 0
    quarantine = pl.read_parquet("data/tiny/quarantine.parquet").sort("clip_id")
    assert quarantine["clip_id"].to_list() == ["c4", "c5", "c6"]
    assert quarantine["step"].to_list() == ["ingest", "extract", "extract"]
    shards = Shards.open(Path("data/tiny"))
    assert shards.features["picture"].shape == (4, 2, 3)
    assert len(shards.features["picture"].mean) == 3 and len(shards.features["sound"].std) == 5
    for fusion in PARAMS["study"]["fusions"]:
        assert cli.main(["train", fusion, "agm", "0"]) == 0
    for modality in ("sound", "picture"):
        assert cli.main(["concept", "psp", modality, "0"]) == 0
        assert cli.main(["evaluate-concept", "psp", modality, "0"]) == 0
    assert cli.main(["evaluate", "psp", "agm", "0"]) == 0
    # Without BatchNorm a single clip is a batch like any other.
    Path("params.yaml").write_text(yaml.safe_dump(changed(trainer={"batch_size": 1})))
    assert cli.main(["train", "cross_attention", "agm", "0"]) == 0
    history = pl.read_parquet("runs/tiny/cross_attention/agm/seed-0/history.parquet")
    assert history["train_loss"].is_finite().all()


@pytest.mark.parametrize(
    ("blocks", "said"),
    [
        (
            {"encoders": {"sound": {"name": "conv"}}},
            "encoders.sound: 'conv' reads video or audio or image, and 'sound'",
        ),
        ({"encoders": {"sound": {"name": "transformer"}}}, "use 'sequence_transformer' or 'identity'"),
        ({"encoders": {"picture": {"name": "identity", "dim": 3}}}, "encoders.picture.dim: expected 6, the numbers in"),
        ({"encoders": {"picture": {"name": "identity"}}}, "encoders.picture.dim: it is missing"),
        (
            {"encoders": {"sound": {"name": "sequence_transformer", "dim": 5, "num_heads": 2}}},
            "encoders.sound: expected num_heads to divide dim, found num_heads 2 and dim 5",
        ),
        ({"fusions": {"psp": {"name": "psp", "regions": 4}}}, "fusions.psp: expected regions to divide the feature of"),
        ({"features": {"sound": {"steps": 3, "shape": [5]}}}, "fusions.psp: expected two sequences of equally many"),
        ({"features": {"sound": {"steps": 3, "shape": []}}}, "features.sound.shape: "),
        ({"fusions": {"cross_attention": {"name": "cross_attention", "dim": 6}}}, "fusions.cross_attention: expected"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(blocks, said):
    config.check(changed(), "test")
    with pytest.raises(AgmError) as error:
        config.check(changed(**blocks), "test")
    assert said in str(error.value)


@pytest.mark.parametrize("fusion", ["psp", "film", "cross_attention"])
def test_a_fusion_refuses_too_few_modalities(fusion):
    content = changed(fusions={"film": {"name": "film"}}, study={"modalities": ["sound"], "fusions": [fusion]})
    for block in (content["dataset"]["modalities"], content["features"], content["encoders"]):
        del block["picture"]
    with pytest.raises(AgmError, match=rf"fusions\.{fusion}: expected (exactly two|two) modalities"):
        config.check(content, "test")


def test_psp_refuses_three_modalities_by_name():
    content = changed(study={"modalities": ["sound", "picture", "text"]})
    content["dataset"]["modalities"]["text"] = {"kind": "text", "column": "text"}
    content["features"]["text"], content["encoders"]["text"] = {}, {"name": "transformer"}
    with pytest.raises(AgmError, match=r"fusions\.psp: expected exactly two modalities, found "):
        config.check(content, "test")


def test_the_identity_encoder_refuses_other_data():
    with pytest.raises(AgmError, match=r"has 12 numbers, and the encoder `identity` was told 6") as error:
        build_encoder(config.schema.IdentityEncoder(name="identity", dim=6), Feature("sequence", "float32", (4, 3, 4)))
    assert "encoders.<modality>.dim=12" in str(error.value)
