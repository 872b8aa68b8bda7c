"""The runner: one DAG from raw media to the report, for Snakemake and DVC."""
