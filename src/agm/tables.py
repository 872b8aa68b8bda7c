"""What the tables of several steps agree on."""

import polars as pl

SPLITS = ("train", "val", "test")
QUARANTINE = dict.fromkeys(("clip_id", "split", "modality", "step", "reason", "path"), pl.String)
"""A row per clip that was left out: by which step, because of which file, and why."""
