"""The methods: each is a small object that the one training loop drives (`agm.methods.method.Method`)."""

from agm.config import schema
from agm.methods.agm import Agm
from agm.methods.method import Method

METHODS: dict[type[schema.Block], type[Method]] = {schema.Joint: Method, schema.Agm: Agm}


def build_method(config: schema.Method, modalities: list[str]) -> Method:
    """The method that `config` describes, for a model over `modalities`."""
    return METHODS[type(config)](config, modalities)


__all__ = ["Method", "build_method"]
