"""The demo data of `agm generate dial`: its labels.csv is a manifest like any other."""

from agm.ingest.adapters import manifest
from agm.ingest.clip import Adapter

ADAPTER = Adapter(manifest.clips, made_by="agm generate dial")
