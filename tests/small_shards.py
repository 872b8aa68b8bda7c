"""Tiny shards with a signal in each modality, in the format of `agm shard`, written directly."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from agm.pipeline.io import tensors
from agm.pipeline.io.files import sha256
from agm.pipeline.io.tensors import Feature

CLASSES = ["one", "two", "three"]
FEATURES = {
    "image": Feature("image", "uint8", (1, 8, 8), (100.0,), (60.0,)),
    "audio": Feature("audio", "float32", (1, 6, 5), (0.0,), (1.0,)),
    "text": Feature("text", "int32", (4,), None, None, 8),
}
ROWS = {"train": 70, "val": 24, "test": 24}


def write_shards(folder: Path, seed: int = 0, rows: dict[str, int] = ROWS) -> None:
    """Write shards.json and shards/ below `folder`."""
    (folder / "shards").mkdir(parents=True)
    schema = tensors.schema({"clip_id": pa.string(), "label": pa.int64()}, FEATURES)
    splits = {}
    for number, (split, count) in enumerate(rows.items()):
        generator = np.random.default_rng([seed, number])
        labels = generator.integers(len(CLASSES), size=count)
        columns = {name: tensors.encode(make(name, labels, generator), each) for name, each in FEATURES.items()}
        ids = [f"{split}{index:03}" for index in range(count)]
        path = folder / "shards" / f"{split}-00000.parquet"
        with tensors.writer(path, schema) as writer:
            writer.write_table(pa.table({"clip_id": ids, "label": labels, **columns}, schema=schema), row_group_size=16)
        assert pq.read_metadata(path).num_rows == count
        file = {"name": path.name, "rows": count, "sha256": sha256(path)}
        counts = {name: int((labels == label).sum()) for label, name in enumerate(CLASSES)}
        splits[split] = {"rows": count, "labels": counts, "files": [file]}
    index = {
        "classes": CLASSES,
        "features": {name: each.to_json() for name, each in FEATURES.items()},
        "splits": splits,
        "quarantined": 0,
    }
    (folder / "shards.json").write_text(json.dumps(index))


def make(name: str, labels: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Inputs that tell the label: clearly in audio, less so in the image and the text."""
    count = len(labels)
    if name == "image":
        x = generator.normal(100, 60, size=(count, 1, 8, 8))
        x[np.arange(count), 0, labels * 2, :] += 80
        return x.clip(0, 255).astype(np.uint8)
    if name == "audio":
        x = generator.normal(size=(count, 1, 6, 5))
        x[np.arange(count), 0, labels * 2, :] += 3
        return x.astype(np.float32)
    x = generator.integers(1, 5, size=(count, 4))
    told = generator.random(count) < 0.8
    x[told, 1] = 5 + labels[told]
    return x.astype(np.int32)
