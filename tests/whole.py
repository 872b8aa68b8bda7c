"""Parameters as `agm compose` writes them, from those that a test is about."""

from typing import Any

from agm.methods import PREREQUISITES
from agm.pipeline.config import schema

BLOCKS = {"study": schema.Study, "dataset": schema.Dataset, "evaluation": schema.Evaluation}
"""Those of which every key must be written."""


def whole(content: dict[str, Any]) -> dict[str, Any]:
    """The content of a params.yaml, with the defaults that it must spell out."""
    blocks = {key: block(**content[key]).model_dump() for key, block in BLOCKS.items()}
    return with_lists({**content, **blocks})


def with_lists(content: dict[str, Any]) -> dict[str, Any]:
    """The same with `dvc`: the methods of the study, those that read finished runs apart."""
    lists: dict[str, list[str]] = {"methods": [], "methods_after_runs": []}
    for name in content["study"]["methods"]:
        block = content["methods"].get(name, {})
        lists["methods_after_runs" if block.get("name") in PREREQUISITES else "methods"].append(name)
    return {**content, "dvc": lists}
