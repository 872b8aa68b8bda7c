"""Parameters as `agm compose` writes them, from those that a test is about."""

from typing import Any

from agm.pipeline.config import schema

BLOCKS = {"study": schema.Study, "dataset": schema.Dataset, "evaluation": schema.Evaluation}
"""Those of which every key must be written."""


def whole(content: dict[str, Any]) -> dict[str, Any]:
    """The content of a params.yaml, with the defaults that it must spell out."""
    blocks = {key: block(**content[key]).model_dump() for key, block in BLOCKS.items()}
    return {"taught": {}, **content, **blocks}
