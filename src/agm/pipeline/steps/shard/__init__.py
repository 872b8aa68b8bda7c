"""Step `shard`: write the joined clips of each split once (`step`), and stream them in training (`stream`)."""
