"""Inspection of the data: what the clips look like, how the splits divide them, and which leaks there are."""
