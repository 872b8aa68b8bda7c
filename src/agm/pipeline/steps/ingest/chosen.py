"""Which clips of published lists are used: those of the classes asked for, and no video in two splits."""

from collections.abc import Sequence
from dataclasses import replace
from textwrap import shorten

from agm.pipeline.config.schema import Dataset
from agm.pipeline.errors import AgmError
from agm.pipeline.steps.ingest.clip import Clip

MOST_SHOWN = 600  # characters


def of_classes(clips: Sequence[Clip], dataset: Dataset) -> list[Clip]:
    """The clips with a label among `dataset.classes`; all of them where that is null.

    Raises:
        AgmError: for classes of which the annotations have no clip.
    """
    if dataset.classes is None:
        return list(clips)
    labels = {clip.label for clip in clips}
    if unknown := [name for name in dataset.classes if name not in labels]:
        raise AgmError(
            f"dataset.classes: {dataset.name} has no {', '.join(map(repr, unknown))}",
            where=", ".join(dataset.annotations.values()),
            fix=f"there are: {shorten(', '.join(sorted(labels)), MOST_SHOWN, placeholder=' …')}",
        )
    return [clip for clip in clips if clip.label in dataset.classes]


def disjoint(clips: Sequence[Clip]) -> list[Clip]:
    """The same clips, every video in one split: the test keeps its videos, then validation; training loses them."""
    groups = {split: {clip.group for clip in clips if clip.split == split} for split in ("val", "test")}
    return [replace(clip, left_out=_leak(clip, groups)) for clip in clips]


def _leak(clip: Clip, groups: dict[str, set[str | None]]) -> str | None:
    if clip.split != "test" and clip.group in groups["test"]:
        return "its video is in the test split too"
    if clip.split == "train" and clip.group in groups["val"]:
        return "its video is in the validation split too"
    return None
