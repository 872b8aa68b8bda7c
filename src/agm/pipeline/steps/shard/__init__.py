"""Shards: the joined clips of each split, written once (`step`) and streamed by training (`stream`)."""
