"""Steps `list` and `ingest`: turn raw files and their annotations into a manifest of usable clips."""
