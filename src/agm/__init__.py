"""agm: which modality is starved in joint training, how badly, and does modulation fix it?

The folders follow the DAG: generate → (list →) ingest → extract → shard → train → evaluate → report. Beside them
stands the science that the steps use and that knows nothing of them: models, attribution, methods, metrics.
"""

__version__ = "0.1.0"
