"""The configuration: Hydra's groups in `params/` compose `params.yaml`; `load` reads and checks it."""

from agm.config.load import PARAMS_FILE, check, load, read, select
from agm.config.schema import Params

__all__ = ["PARAMS_FILE", "Params", "check", "load", "read", "select"]
