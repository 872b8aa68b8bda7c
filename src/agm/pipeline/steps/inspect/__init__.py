"""Seeing the data: what the clips look like, how they are spread over the splits, and what leaks between these."""
