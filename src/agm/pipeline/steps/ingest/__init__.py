"""Steps `list` and `ingest`: from raw files and their annotations to a manifest of usable clips."""
