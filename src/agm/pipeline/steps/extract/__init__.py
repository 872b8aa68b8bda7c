"""Extraction: raw media files become tensors of one fixed shape."""
