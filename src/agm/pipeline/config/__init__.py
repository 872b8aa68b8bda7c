"""The configuration: Hydra's groups in `params/` compose `params.yaml`; `load` reads and checks it."""

from agm.pipeline.config.load import PARAMS_FILE, check, load, read, select
from agm.pipeline.config.schema import Params

__all__ = ["PARAMS_FILE", "Params", "check", "load", "read", "select"]
