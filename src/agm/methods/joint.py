"""Plain joint training: the cross-entropy of the full output, what every method is compared with."""

from typing import Literal

from agm.methods.method import Method
from agm.pipeline.config import schema


class Joint(Method):
    """loss = CE(f)."""

    data_parallel = True

    class Config(schema.MethodBlock, extra="forbid"):
        name: Literal["joint"]
