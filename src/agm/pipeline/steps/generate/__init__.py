"""Step `generate`: demo data made from code, as raw files."""
