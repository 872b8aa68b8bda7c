"""Names and sizes that the tables of several steps share."""

import polars as pl

SPLITS = ("train", "val", "test")
FEWEST_CLIPS = {"train": 2, "val": 1, "test": 1}
"""The smallest splits that can be used: BatchNorm has no statistics of a single clip."""
ENOUGH_CLIPS = 10
"""Test clips of each class from which on the competition strength and its interval are reliable."""
QUARANTINE = dict.fromkeys(("clip_id", "split", "modality", "step", "reason", "path"), pl.String)
"""A row per quarantined clip: the step that quarantined it, the file, and the reason."""
