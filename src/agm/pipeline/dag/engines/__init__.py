"""Snakemake and DVC on one set of files: keys (when Snakemake re-runs), exclusive (one at a time), record and sync
(crossing over); local and slurm say what Snakemake's jobs ask for."""
