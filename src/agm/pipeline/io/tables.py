"""What the tables of several steps agree on."""

import polars as pl

SPLITS = ("train", "val", "test")
FEWEST_CLIPS = {"train": 2, "val": 1, "test": 1}
"""Of a split that can be used: BatchNorm has no statistics of a single clip."""
ENOUGH_CLIPS = 10
"""Test clips for each class from which on the competition strength and its interval are to be trusted."""
QUARANTINE = dict.fromkeys(("clip_id", "split", "modality", "step", "reason", "path"), pl.String)
"""A row per clip that was quarantined: by which step, because of which file, and why."""
