"""Evaluate: accuracy, mono-modal responses and competition strength of finished runs."""
