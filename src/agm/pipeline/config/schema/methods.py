"""What all methods' parameters have; the rest is in the constructor of each (`agm.pipeline.config.methods`)."""

from pydantic import ConfigDict

from agm.pipeline.config.schema.base import Block, Name


class MethodBlock(Block):
    """One method's parameters. Their types are in the signature of its class, whose module imports torch:
    `agm.pipeline.config.methods` reads them, this schema only the name."""

    model_config = ConfigDict(extra="allow")

    name: Name
    """The method: the name of its file in src/agm/methods."""
