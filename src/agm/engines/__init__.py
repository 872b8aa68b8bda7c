"""Snakemake and DVC on one set of files: keys (when Snakemake re-runs), record and sync (crossing over)."""
