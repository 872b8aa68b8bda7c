"""Tensors survive the way through Parquet, and other files than the expected are refused."""

import json

import hypothesis.extra.numpy as arrays
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agm.pipeline.errors import AgmError
from agm.pipeline.io import tensors
from agm.pipeline.io.tensors import Feature

KINDS = {"uint8": "video", "float32": "audio", "int32": "text"}

batches = st.sampled_from(sorted(KINDS)).flatmap(
    lambda dtype: arrays.arrays(dtype, arrays.array_shapes(min_dims=2, max_dims=5, max_side=5))
)


def of(array: np.ndarray) -> Feature:
    return Feature(KINDS[str(array.dtype)], str(array.dtype), array.shape[1:])


@given(batches)
def test_encoding_and_decoding_gives_the_same_values(array):
    column = tensors.encode(array, of(array))
    np.testing.assert_array_equal(tensors.decode(column, of(array)), array)


@given(batches)
def test_slices_and_chunks_decode_too(array):
    column = tensors.encode(array, of(array))
    np.testing.assert_array_equal(tensors.decode(column[1:], of(array)), array[1:])
    np.testing.assert_array_equal(tensors.decode(pa.chunked_array([column, column[:1]]), of(array)), [*array, array[0]])


def test_encoding_and_decoding_share_memory():
    array = np.arange(24, dtype=np.int32).reshape(2, 3, 4)
    column = tensors.encode(array, of(array))
    assert np.shares_memory(tensors.decode(column, of(array)), array)
    strided = array[:, ::2]
    np.testing.assert_array_equal(tensors.decode(tensors.encode(strided, of(strided)), of(strided)), strided)


@pytest.mark.parametrize("dtype, shape", [("uint8", (2, 3, 4)), ("float32", (5,))])
def test_arrays_of_another_kind_are_not_encoded(dtype, shape):
    with pytest.raises(ValueError, match=r"expected uint8\[5\]"):
        tensors.encode(np.zeros((3, *shape), dtype), Feature("image", "uint8", (5,)))


def test_features_survive_json():
    feature = Feature("video", "uint8", (8, 3, 32, 32), (1.5, 2.0, 0.1), (1.0, 0.0, 3.0))
    assert Feature.from_json(json.loads(json.dumps(feature.to_json()))) == feature
    words = Feature("text", "int32", (16,), vocabulary=12)
    assert Feature.from_json(json.loads(json.dumps(words.to_json()))) == words


@pytest.fixture
def stored(tmp_path):
    feature = Feature("image", "uint8", (3, 70, 70))
    array = np.random.default_rng(0).integers(0, 256, (700, *feature.shape), np.uint8)
    layout = tensors.schema({"clip_id": pa.string()}, {"tensor": feature})
    path = tmp_path / "some.parquet"
    with tensors.writer(path, layout) as file:
        names = pa.array([str(number) for number in range(len(array))])
        file.write_table(pa.table([names, tensors.encode(array, feature)], schema=layout))
    return path, feature, array


def test_a_file_holds_the_bytes_and_nothing_about_them(stored):
    path, feature, array = stored
    assert path.stat().st_size < array.nbytes * 1.01
    column = pq.read_metadata(path).row_group(0).column(1)
    assert column.statistics is None and not column.has_dictionary_page and column.compression == "UNCOMPRESSED"
    tensors.check(pq.read_schema(path), {"tensor": feature}, path, "agm shard")
    np.testing.assert_array_equal(tensors.decode(pq.read_table(path, memory_map=True)["tensor"], feature), array)


def test_equal_tensors_give_equal_bytes(stored, tmp_path):
    path, feature, array = stored
    layout = tensors.schema({"clip_id": pa.string()}, {"tensor": feature})
    with tensors.writer(tmp_path / "again.parquet", layout) as file:
        names = pa.array([str(number) for number in range(len(array))])
        file.write_table(pa.table([names, tensors.encode(array, feature)], schema=layout))
    assert (tmp_path / "again.parquet").read_bytes() == path.read_bytes()


@pytest.mark.parametrize(
    "change, said",
    [
        (lambda each: {**each, "version": 2}, "schema version 2"),
        (lambda each: {**each, "columns": {"tensor": {"dtype": "int8", "shape": [3, 70, 70]}}}, "int8"),
        (lambda each: [], "does not say"),
    ],
)
def test_other_files_are_refused_with_the_command_that_makes_them(stored, change, said):
    path, feature, _ = stored
    layout = pq.read_schema(path)
    changed = json.dumps(change(json.loads(layout.metadata[tensors.METADATA])))
    with pytest.raises(AgmError, match=said) as caught:
        tensors.check(layout.with_metadata({tensors.METADATA: changed}), {"tensor": feature}, path, "agm shard")
    assert "agm shard" in str(caught.value) and str(path) in str(caught.value)


def test_a_foreign_file_is_refused():
    with pytest.raises(AgmError, match="does not say"):
        tensors.check(
            pa.schema([("tensor", pa.binary(5))]), {"tensor": Feature("image", "uint8", (5,))}, "x", "agm shard"
        )
