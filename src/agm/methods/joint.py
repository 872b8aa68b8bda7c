"""Plain joint training: the cross-entropy of the full output, what every method is compared with."""

from typing import Literal

from agm.config import schema
from agm.methods.method import Method


class Joint(Method):
    """loss = CE(f)."""

    data_parallel = True

    class Config(schema.MethodBlock, extra="forbid"):
        name: Literal["joint"]
