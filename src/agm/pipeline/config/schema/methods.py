"""What all methods' parameters have; the rest is in each method's own file."""

from typing import Annotated

from pydantic import ConfigDict, Field

from agm.pipeline.config.schema.base import Block, Name


class MethodBlock(Block):
    """One method's parameters. Their types are in the method's own file, `agm/methods/<name>.py`, which imports torch:
    `agm.methods.check` reads them, this schema only the name."""

    model_config = ConfigDict(extra="allow")

    name: Name
    """The method's file below src/agm/methods."""


class Window(Block):
    first: Annotated[int, Field(ge=0)] = 0
    """First epoch of modulation."""
    last: Annotated[int, Field(ge=0)] | None = None
    """Last epoch of modulation; null modulates to the end."""

    def holds(self, epoch: int) -> bool:
        """Whether `epoch` is within."""
        return self.first <= epoch and (self.last is None or epoch <= self.last)
