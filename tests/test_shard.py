"""Shards hold what every modality has, and are streamed in a reproducible order in bounded memory."""

import copy
import hashlib
import json
import random
import shutil
import weakref
from contextlib import suppress
from itertools import chain, pairwise
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agm.pipeline import config
from agm.pipeline.dag.graph import Graph
from agm.pipeline.errors import AgmError
from agm.pipeline.io import files, tensors
from agm.pipeline.io.files import checksums, read_json, sha256, write_json
from agm.pipeline.io.tensors import Feature
from agm.pipeline.steps.shard import step, stream
from agm.pipeline.steps.shard.statistics import Moments
from agm.pipeline.steps.shard.stream import Shards

FEATURES = {
    "video": Feature("video", "uint8", (2, 3, 4, 4)),
    "audio": Feature("audio", "float32", (1, 5, 6)),
    "text": Feature("text", "int32", (4,), vocabulary=7),
}
WORDS = ["a", "b", "c", "d", "e"]
MISSING = {"video": {"c3", "c40"}, "audio": {"c3", "c17"}, "text": set()}
BLOCK, ROWS = 4, 10


COMMITTED = yaml.safe_load((Path(__file__).parents[1] / "params.yaml").read_text())


def parameters(parts: int = 3) -> config.Params:
    content = copy.deepcopy(COMMITTED)
    content["study"] |= {"modalities": list(FEATURES)}
    content |= {"num_parts": parts, "shards": {"max_rows_per_file": ROWS, "row_group_size": BLOCK}}
    content["features"] = {"video": {}, "audio": {}, "text": {}}
    content["encoders"] = {"video": {"name": "conv"}, "audio": {"name": "conv"}, "text": {"name": "transformer"}}
    kinds = {name: {"kind": name, "column": name} for name in FEATURES}
    content["dataset"] |= {"name": "few", "root": "raw", "modalities": kinds, "generated": []}
    return config.check(content, "test")


def make_features(clips: int = 60, missing: dict[str, set[str]] = MISSING) -> dict[str, dict[str, np.ndarray]]:
    """A manifest and its parts below the current folder; returns the tensors by modality and clip."""
    folder, random = Path("data/few"), np.random.default_rng(1)
    names = [f"c{number}" for number in range(clips)]
    splits = random.choice(["train", "train", "train", "val", "test"], clips)
    splits[:3] = ["train", "val", "test"]
    rows = pl.DataFrame({"clip_id": names, "split": splits, "label": random.integers(0, 2, clips)})
    folder.mkdir(parents=True, exist_ok=True)
    rows.write_parquet(folder / "manifest.parquet")
    lost = {"clip_id": "gone", "split": None, "modality": "video", "step": "ingest", "reason": "empty", "path": "x"}
    pl.DataFrame([lost], schema=step.QUARANTINE).write_parquet(folder / "quarantine-ingest.parquet")
    sums = checksums(folder, ["manifest.parquet", "quarantine-ingest.parquet"])
    write_json(folder / "manifest.json", {"classes": ["no", "yes"], "sha256": sums})
    params = parameters()
    made = {}
    for modality, feature in FEATURES.items():
        values = random.uniform(0, 7, (clips, *feature.shape)) * (30 if feature.dtype == "uint8" else 1)
        made[modality] = dict(zip(names, values.astype(feature.dtype), strict=True))
        for part in range(params.num_parts):
            chosen = names[clips * part // params.num_parts : clips * (part + 1) // params.num_parts]
            write_part(params, modality, part, chosen, made[modality], missing[modality])
    return made


def write_part(params, modality, part, names, values, missing, **about) -> None:
    job, feature = Graph(params).job("extract", modality, part), FEATURES[modality]
    kept = [name for name in names if name not in missing]
    layout = tensors.schema({"clip_id": pa.string()}, {"tensor": feature})
    job.index.parent.mkdir(parents=True, exist_ok=True)
    with tensors.writer(job.outputs[0], layout) as file:
        for start in range(0, len(kept), 7):
            some = kept[start : start + 7]
            column = tensors.encode(np.stack([values[name] for name in some]), feature)
            file.write_table(pa.table([pa.array(some), column], schema=layout))
    failed = [
        {"clip_id": name, "split": "train", "modality": modality, "step": "extract", "reason": "empty", "path": "x"}
        for name in names
        if name in missing
    ]
    described = {"kind": feature.kind, "dtype": feature.dtype, "shape": list(feature.shape)}
    described["vocabulary"] = WORDS if modality == "text" else None
    sums = checksums(job.index.parent, [job.outputs[0].name])
    write_json(job.index, {"feature": described | about, "rows": len(kept), "quarantined": failed, "sha256": sums})


def shard() -> dict:
    params = parameters()
    job = Graph(params).job("shard")
    summary = step.run(params, job)
    write_json(job.index, summary)
    return summary


@pytest.fixture(scope="module")
def features(tmp_path_factory):
    """A folder with features, to be left as it is, and their tensors."""
    folder = tmp_path_factory.mktemp("features")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        return folder, make_features()


@pytest.fixture
def made(features, tmp_path, monkeypatch):
    """The tensors of features that lie in the current folder."""
    folder, tensors = features
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tensors


def kept(split: str) -> pl.DataFrame:
    """The clips of `split` that no modality lacks, from the manifest alone."""
    lacking = set().union(*MISSING.values())
    return pl.read_parquet("data/few/manifest.parquet").filter(~pl.col("clip_id").is_in(lacking), split=split)


# --- writing ----------------------------------------------------------------------------------------------------


def test_the_join_drops_exactly_the_clips_that_lack_a_modality(made):
    summary = shard()
    shards = Shards.open(Path("data/few"))
    for split in step.SPLITS:
        expected = kept(split)
        assert shards.rows(split) == summary["splits"][split]["rows"] == len(expected)
        (batch,) = shards.batches(split, 100)
        assert batch.clip_ids == expected["clip_id"].to_list()
        assert batch.labels.tolist() == expected["label"].to_list()
        for name, tensor in batch.inputs.items():
            np.testing.assert_array_equal(tensor.numpy(), [made[name][clip] for clip in batch.clip_ids])
        counts = {"no": int((expected["label"] == 0).sum()), "yes": int((expected["label"] == 1).sum())}
        assert summary["splits"][split]["labels"] == counts


def test_every_lost_clip_is_in_quarantine_with_its_reasons(made):
    assert shard()["quarantined"] == 4
    table = pl.read_parquet("data/few/quarantine.parquet")
    assert table.schema == pl.Schema(step.QUARANTINE)
    found = sorted(table.select("clip_id", "modality", "step").rows())
    assert found == [
        ("c17", "audio", "extract"),
        ("c3", "audio", "extract"),
        ("c3", "video", "extract"),
        ("c40", "video", "extract"),
        ("gone", "video", "ingest"),
    ]


def test_files_and_row_groups_are_of_bounded_size(made):
    summary = shard()
    listed = []
    for split, content in summary["splits"].items():
        for number, file in enumerate(content["files"]):
            path = Path("data/few/shards") / file["name"]
            metadata = pq.read_metadata(path)
            groups = [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]
            last = number == len(content["files"]) - 1
            assert groups == [4, 4, 2] if not last else max(groups) <= BLOCK and sum(groups) <= ROWS
            assert file == {"name": f"{split}-{number:05}.parquet", "rows": sum(groups), "sha256": sha256(path)}
            listed.append(path.name)
            column = metadata.row_group(0).column(2)
            assert column.statistics is None and column.compression == "UNCOMPRESSED" and not column.has_dictionary_page
    assert sorted(listed) == sorted(path.name for path in Path("data/few/shards").iterdir())


def test_statistics_are_those_of_the_training_split(made):
    features = shard()["features"]
    training = kept("train")["clip_id"].to_list()
    for name, axes in (("video", (0, 1, 3, 4)), ("audio", (0, 2, 3))):
        values = np.stack([made[name][clip] for clip in training]).astype(np.float64)
        np.testing.assert_allclose(features[name]["mean"], values.mean(axis=axes), rtol=1e-12)
        np.testing.assert_allclose(features[name]["std"], values.std(axis=axes), rtol=1e-12)
    assert features["text"] == FEATURES["text"].to_json()
    assert Shards.open(Path("data/few")).features["video"] == Feature.from_json(features["video"])


@given(st.lists(st.floats(-1e3, 1e3, width=32), min_size=2, max_size=30), st.floats(-1e6, 1e6, width=32))
def test_moments_are_stable_however_far_from_zero(values, offset):
    array = (np.array(values, np.float32) + np.float32(offset)).reshape(-1, 1, 1)
    moments = Moments(Feature("audio", "float32", (1, 1)))
    for each in array:
        moments.add(each)
    exact = array.astype(np.float64)
    np.testing.assert_allclose(moments.mean, exact.mean(), rtol=1e-12, atol=1e-9)
    np.testing.assert_allclose(moments.std, exact.std(), rtol=1e-6, atol=1e-8)


@given(st.floats(-1e6, 1e6, width=32), st.lists(st.integers(1, 50), min_size=1, max_size=20))
def test_a_constant_channel_has_no_spread(value, lengths):
    """Exactly none, whatever rounding makes of the mean of equal values."""
    moments = Moments(Feature("audio", "float32", (1, 1, 1)))
    for length in lengths:
        moments.add(np.full((1, 1, length), value, np.float32))
    assert moments.std == (0.0,)
    assert Feature("audio", "float32", (1, 1, 1), moments.mean, moments.std).scale == (1.0,)


def test_equal_features_give_equal_bytes(made):
    first = shard()
    contents = {path.name: path.read_bytes() for path in Path("data/few/shards").iterdir()}
    assert shard() == first
    assert contents == {path.name: path.read_bytes() for path in Path("data/few/shards").iterdir()}


def test_a_row_group_at_a_time_is_held(made, monkeypatch):
    largest = []
    decode = tensors.decode
    monkeypatch.setattr(tensors, "decode", lambda *each: largest.append(len(each[0])) or decode(*each))
    shard()
    assert max(largest) == 7


# --- refusing ---------------------------------------------------------------------------------------------------


def refused(match: str) -> str:
    """The error of a `shard` that must fail and leave nothing behind."""
    with pytest.raises(AgmError, match=match) as caught:
        shard()
    assert not [path for path in Path("data/few").iterdir() if "shards" in path.name]
    return str(caught.value)


def test_a_damaged_part_is_refused(made):
    path = Path("data/few/features/audio/part-1.parquet")
    content = bytearray(path.read_bytes())
    content[100] ^= 1
    path.write_bytes(content)
    said = refused("damaged")
    assert "agm extract audio 1" in said and "part-1.parquet" in said


@pytest.mark.parametrize("about", [{"shape": [1, 5, 7]}, {"dtype": "uint8"}])
def test_parts_that_disagree_are_refused(made, about):
    params, values = parameters(), made["audio"]
    write_part(params, "audio", 1, [f"c{number}" for number in range(20, 40)], values, set(), **about)
    assert "agm extract audio 1" in refused("extracted differently")


def test_parts_with_different_vocabularies_are_refused(made):
    names = [f"c{number}" for number in range(20, 40)]
    write_part(parameters(), "text", 1, names, made["text"], set(), vocabulary=["z"])
    refused("extracted differently")


def test_a_part_of_another_schema_version_is_refused(made, monkeypatch):
    monkeypatch.setattr(tensors, "VERSION", 2)
    assert "agm extract video 0" in refused("schema version 1")


def test_parts_in_another_order_are_refused(made):
    names = [f"c{number}" for number in reversed(range(20))]
    write_part(parameters(), "text", 0, names, made["text"], set())
    refused("not in the manifest's order")


def test_a_split_without_clips_is_refused(made):
    rows = pl.read_parquet("data/few/manifest.parquet")
    lacking = set(rows.filter(split="val")["clip_id"])
    make_features(missing=MISSING | {"text": lacking})
    assert ": 0, and 1 are needed" in refused("Too few clips of the split val have all of")


def test_a_single_training_clip_is_refused(made):
    """It trained nothing, and the report ended in a traceback."""
    rows = pl.read_parquet("data/few/manifest.parquet")
    there = set(rows.filter(split="train")["clip_id"])
    only = min(there - set().union(*MISSING.values()))
    make_features(missing=MISSING | {"text": there - {only}})
    refused("Too few clips of the split train have all of .*: 1, and 2 are needed")


# --- streaming --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("shards"))
        make_features()
        shard()
        return Shards.open(Path("data/few").absolute())


def order(shards: Shards, split: str = "train", batch_size: int = 5, **options) -> list[list[str]]:
    return [batch.clip_ids for batch in shards.batches(split, batch_size, **options)]


orders = {"seed": st.integers(0, 2**32 - 1), "epoch": st.integers(0, 1000), "window": st.integers(1, 80)}
sizes = {"batch_size": st.integers(1, 50), "split": st.sampled_from(step.SPLITS)}


@settings(max_examples=40, deadline=None)
@given(**orders, **sizes)
def test_every_clip_comes_once_an_epoch(shards, seed, epoch, window, batch_size, split):
    batches = order(shards, split, batch_size, shuffle=(seed, epoch), window=window)
    flat = list(chain(*batches))
    assert len(flat) == len(set(flat)) == shards.rows(split)
    assert all(len(batch) == batch_size for batch in batches[:-1]) and 0 < len(batches[-1]) <= batch_size
    assert flat == list(chain(*order(shards, split, 7, shuffle=(seed, epoch), window=window)))


@settings(max_examples=40, deadline=None)
@given(**orders, **sizes, skip=st.integers(0, 60), shuffled=st.booleans())
def test_skipping_is_dropping_the_first_batches(shards, seed, epoch, window, batch_size, split, skip, shuffled):
    options = {"shuffle": (seed, epoch) if shuffled else None, "window": window}
    expected = order(shards, split, batch_size, **options)[skip:]
    assert order(shards, split, batch_size, skip=skip, **options) == expected


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(**orders, batch_size=st.integers(1, 50))
def test_a_window_and_a_batch_are_held_at_most(shards, monkeypatch, seed, epoch, window, batch_size):
    read = Shards._read
    alive, carried = [], []

    def reading(self, blocks, names):
        assert all(each() is None for each in alive), "a window is still held while the next one is read"
        batch = read(self, blocks, names)
        assert len(batch.clip_ids) <= max(window, BLOCK)
        alive[:] = [weakref.ref(batch)]
        return batch

    with monkeypatch.context() as patch:
        patch.setattr(Shards, "_read", reading)
        for batch in shards.batches("train", batch_size, shuffle=(seed, epoch), window=window):
            carried.append(len(batch))
    assert max(carried) <= batch_size


def test_the_order_changes_with_seed_and_epoch_alone(shards):
    first = order(shards, shuffle=(0, 0), window=8)
    assert first == order(shards, shuffle=(0, 0), window=8)
    assert first != order(shards, shuffle=(0, 1), window=8) != order(shards, shuffle=(1, 0), window=8)
    assert first != order(shards)


def test_a_split_within_the_window_is_permuted_fully(shards):
    """Over many epochs every clip comes first about equally often, and any two clips are neighbours."""
    rows = shards.rows("val")
    firsts, pairs = set(), set()
    for epoch in range(60 * rows):
        names = order(shards, "val", 100, shuffle=(0, epoch))[0]
        firsts.add(names[0])
        pairs |= set(pairwise(names))
    assert len(firsts) == rows and len(pairs) == rows * (rows - 1)


def test_skipped_windows_are_not_read(shards, monkeypatch):
    read, rows = Shards._read, []
    monkeypatch.setattr(Shards, "_read", lambda *each: rows.append(len((held := read(*each)).clip_ids)) or held)
    whole = order(shards, batch_size=4, shuffle=(3, 1), window=8)
    everything = sum(rows)
    rows.clear()
    assert order(shards, batch_size=4, shuffle=(3, 1), window=8, skip=len(whole) - 1) == whole[-1:]
    assert sum(rows) <= 8 < everything


def test_tensors_are_writable_and_of_the_stored_type(shards):
    batch = next(shards.batches("train", 3, shuffle=(0, 0)))
    kinds = {name: (tensor.dtype, tuple(tensor.shape)) for name, tensor in batch.inputs.items()}
    assert kinds == {
        "video": (torch.uint8, (3, 2, 3, 4, 4)),
        "audio": (torch.float32, (3, 1, 5, 6)),
        "text": (torch.int32, (3, 4)),
    }
    assert batch.labels.dtype == torch.int64
    batch.inputs["audio"] += 1


def test_one_modality_can_be_read_alone(shards):
    all_of, alone = next(shards.batches("val", 3)), next(shards.batches("val", 3, modalities=["audio"]))
    assert list(alone.inputs) == ["audio"] and alone.clip_ids == all_of.clip_ids
    assert torch.equal(alone.inputs["audio"], all_of.inputs["audio"])


# --- by several processes ---------------------------------------------------------------------------------------

# With several processes in one test, a busy machine would miss hypothesis' deadline.
unhurried = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
teams = {"ranks": st.integers(1, 5), "skip": st.integers(0, 20)}


def parts(shards: Shards, ranks: int, split: str, batch_size: int, **options) -> list[list[stream.StoredBatch]]:
    """For each rank the batches that it yields."""
    return [list(shards.batches(split, batch_size, part=(rank, ranks), **options)) for rank in range(ranks)]


def same(one: stream.StoredBatch, other: stream.StoredBatch) -> bool:
    """Whether two batches have the same clips in the same order, bit for bit."""
    values = ({"label": each.labels, **each.inputs} for each in (one, other))
    kinds = [{name: (x.dtype, x.shape, x.numpy().tobytes()) for name, x in each.items()} for each in values]
    return one.clip_ids == other.clip_ids and kinds[0] == kinds[1]


@unhurried
@given(**orders, **sizes, **teams)
def test_the_parts_of_a_batch_make_it_up(shards, seed, epoch, window, batch_size, split, ranks, skip):
    options = {"shuffle": (seed, epoch), "window": window, "skip": skip}
    whole = list(shards.batches(split, batch_size, **options))
    for one, *pieces in zip(whole, *parts(shards, ranks, split, batch_size, **options), strict=True):
        rows = {name: (piece, row) for piece in pieces for row, name in enumerate(piece.clip_ids)}
        assert sum(map(len, pieces)) == len(rows) == len(one)
        for place, name in enumerate(one.clip_ids):
            piece, row = rows[name]
            assert piece.labels[row] == one.labels[place]
            assert all(torch.equal(piece.inputs[each][row], x[place]) for each, x in one.inputs.items())
        for piece in pieces:
            # In the order of the whole batch, and of its types and shapes, also where there is no row.
            assert piece.clip_ids == [name for name in one.clip_ids if rows[name][0] is piece]
            assert (piece.labels.dtype, piece.labels.shape) == (torch.int64, (len(piece),))
            for each, x in one.inputs.items():
                assert (piece.inputs[each].dtype, piece.inputs[each].shape) == (x.dtype, (len(piece), *x.shape[1:]))


@unhurried
@given(**orders, **sizes, **teams, shuffled=st.booleans())
def test_one_process_of_one_is_no_other_than_before(
    shards, seed, epoch, window, batch_size, split, ranks, skip, shuffled
):
    options = {"shuffle": (seed, epoch) if shuffled else None, "window": window, "skip": skip}
    (alone,) = parts(shards, 1, split, batch_size, **options)
    whole = shards.batches(split, batch_size, **options)
    assert all(same(one, other) for one, other in zip(alone, whole, strict=True))


@unhurried
@given(**sizes, ranks=st.integers(1, 5), skip=st.integers(0, 5))
def test_in_stored_order_each_process_fills_batches_from_its_own_row_groups(shards, batch_size, split, ranks, skip):
    stored = {clip: place for place, clip in enumerate(chain(*order(shards, split)))}
    found = []
    for rank in range(ranks):
        batches = list(shards.batches(split, batch_size, part=(rank, ranks)))
        assert all(len(batch) == batch_size for batch in batches[:-1]) and all(map(len, batches))
        clips = [clip for batch in batches for clip in batch.clip_ids]
        assert clips == sorted(clips, key=stored.get)
        later = list(shards.batches(split, batch_size, part=(rank, ranks), skip=skip))
        assert all(same(*both) for both in zip(later, batches[skip:], strict=True))
        found += clips
    assert sorted(found) == sorted(stored)


@unhurried
@given(**orders, ranks=st.integers(1, 5), batch_size=st.integers(1, 50), shuffled=st.booleans())
def test_every_row_group_is_read_by_one_process(shards, monkeypatch, seed, epoch, window, ranks, batch_size, shuffled):
    """And of each window, that at place p by process p % ranks: no process has more than one more than another."""
    read, seen = pq.ParquetFile.read_row_group, []

    def reading(self, group, *more, **options):
        table = read(self, group, *more, **options)
        seen.append(table["clip_id"].to_pylist()[0])
        return table

    def reads(**options) -> list[str]:
        seen.clear()
        for _ in shards.batches("train", batch_size, shuffle=(seed, epoch) if shuffled else None, **options):
            pass
        return list(seen)

    with monkeypatch.context() as patch:
        patch.setattr(pq.ParquetFile, "read_row_group", reading)
        alone = reads(window=window)
        shared = [reads(window=window, part=(rank, ranks)) for rank in range(ranks)]
    assert sorted(chain(*shared)) == sorted(alone) and len(set(alone)) == len(alone)
    whole_split = not shuffled or window >= shards.rows("train")
    if whole_split:
        assert shared == [alone[rank::ranks] for rank in range(ranks)]


# --- damage -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A folder with shards, to be left as it is."""
    folder = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        make_features()
        shard()
    return folder / "data/few"


@unhurried
@given(data=st.data(), bit=st.integers(0, 7), shuffled=st.booleans())
def test_a_flipped_bit_is_found_before_any_clip_of_its_file_comes_out(whole, data, bit, shuffled):
    content = read_json(whole / "shards.json")["splits"]["train"]["files"]
    bad = data.draw(st.sampled_from(content))
    path = whole / "shards" / bad["name"]
    clips, good = set(pl.read_parquet(path, columns=["clip_id"])["clip_id"]), path.read_bytes()
    place = data.draw(st.integers(0, len(good) - 1))
    damaged = good[:place] + bytes([good[place] ^ 1 << bit]) + good[place + 1 :]
    path.write_bytes(damaged)
    came = []
    try:
        with pytest.raises(AgmError) as caught:
            for batch in Shards.open(whole).batches("train", 3, shuffle=(0, 0) if shuffled else None, window=8):
                came += batch.clip_ids
    finally:
        path.write_bytes(good)
    assert not clips & set(came)
    for part in (str(path), bad["sha256"], hashlib.sha256(damaged).hexdigest(), "agm shard"):
        assert part in str(caught.value)


def test_no_damage_of_a_footer_ends_in_a_traceback(whole):
    """pyarrow has many words for it: a text is not UTF-8, integers of less than 8 bits are not implemented."""
    path = whole / "shards/val-00000.parquet"
    good = path.read_bytes()
    footer = int.from_bytes(good[-8:-4], "little") + 8
    chance = random.Random(0)
    try:
        for place in range(len(good) - footer, len(good)):
            damaged = bytearray(good)
            damaged[place] ^= 1 << chance.randrange(8)
            path.write_bytes(damaged)
            # Where the footer can be read all the same, the checksum is compared when clips are read.
            with suppress(AgmError):
                list(stream._blocks(path, ROWS, FEATURES))
    finally:
        path.write_bytes(good)


def test_a_file_is_hashed_once_and_only_where_it_is_read(whole, monkeypatch):
    hashed, sum_of = [], files.sha256
    monkeypatch.setattr(files, "sha256", lambda path: hashed.append(path.name) or sum_of(path))
    opened = Shards.open(whole)
    assert hashed == []
    list(opened.batches("val", 5))
    assert hashed and all(name.startswith("val") for name in hashed)
    for epoch in range(3):
        list(opened.batches("train", 5, shuffle=(0, epoch), window=8))
    assert len(hashed) == len(set(hashed)) == sum(not each.name.startswith("test") for each in whole.glob("shards/*"))


def test_shards_that_are_not_as_the_index_says_are_refused(made):
    shard()
    path, index = Path("data/few/shards/train-00001.parquet"), Path("data/few/shards.json")
    content, whole = read_json(index), path.read_bytes()
    Shards.open(Path("data/few"))
    path.write_bytes(whole[:-9])
    with pytest.raises(AgmError, match=f"damaged.*{sha256(path)}"):
        Shards.open(Path("data/few"))
    path.unlink()
    with pytest.raises(AgmError, match="missing") as caught:
        Shards.open(Path("data/few"))
    assert "agm shard" in str(caught.value)
    path.write_bytes(whole)
    content["splits"]["train"]["files"][1]["rows"] = 9
    write_json(index, content)
    with pytest.raises(AgmError, match="holds 10 clips, and its index says 9"):
        Shards.open(Path("data/few"))
    index.unlink()
    with pytest.raises(AgmError, match="missing"):
        Shards.open(Path("data/few"))


def test_the_summary_is_json(made):
    json.dumps(shard(), allow_nan=False)
    assert Graph(parameters()).job("shard").command == stream.REBUILD
