"""Choose the clips of published lists: those of the requested classes, and no video in two splits."""

from collections import defaultdict
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
    unknown = [repr(name) for name in dataset.classes if name not in labels]
    if unknown:
        raise AgmError(
            f"dataset.classes: {dataset.name} has no {', '.join(unknown)}",
            where=", ".join(dataset.annotations.values()),
            fix=f"there are: {shorten(', '.join(sorted(labels)), MOST_SHOWN, placeholder=' …')}",
        )
    return [clip for clip in clips if clip.label in dataset.classes]


def disjoint(clips: Sequence[Clip]) -> list[Clip]:
    """The same clips, each video in one split: the test keeps its videos first, then validation, then training.

    The other clips of a video that is in two splits are quarantined (`Clip.left_out`).
    """
    groups: dict[str | None, set[str | None]] = defaultdict(set)
    for clip in clips:
        groups[clip.split].add(clip.group)
    chosen = []
    for clip in clips:
        leak = None
        if clip.split != "test" and clip.group in groups["test"]:
            leak = "its video is in the test split too"
        elif clip.split == "train" and clip.group in groups["val"]:
            leak = "its video is in the validation split too"
        chosen.append(replace(clip, left_out=leak))
    return chosen
