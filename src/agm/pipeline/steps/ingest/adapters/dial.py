"""The demo data of `agm generate dial`: its labels.csv is a manifest like any other."""

from agm.pipeline.steps.ingest.adapters import manifest
from agm.pipeline.steps.ingest.clip import Adapter

ADAPTER = Adapter(manifest.clips, made_by="agm generate dial")
