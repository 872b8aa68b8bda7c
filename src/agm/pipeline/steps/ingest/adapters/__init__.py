"""The readers of raw folders: one file per data set or layout; `dataset.adapter` chooses it."""

from collections import Counter
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

from agm.pipeline.config.schema import Dataset
from agm.pipeline.errors import AgmError
from agm.pipeline.io.tables import SPLITS
from agm.pipeline.runtime.progress import say
from agm.pipeline.steps.ingest.cell import look_alikes
from agm.pipeline.steps.ingest.chosen import disjoint, of_classes
from agm.pipeline.steps.ingest.clip import Adapter, Clip
from agm.pipeline.steps.ingest.locate import lies_there


def find(name: str) -> Adapter:
    """The adapter in the file of that name."""
    return import_module(f"agm.pipeline.steps.ingest.adapters.{name}").ADAPTER


def read(dataset: Dataset) -> list[Clip]:
    """The clips of the requested classes, in the order of the annotations.

    Raises:
        AgmError: when the root folder or the annotations do not exist, or for the errors in them, row by row.
    """
    adapter = find(dataset.adapter)
    _check_present(dataset)
    card = adapter.card
    if card is None:
        return adapter.clips(dataset)
    card.check(dataset)
    chosen = of_classes(adapter.clips(dataset), dataset)
    scheme = card.schemes[card.scheme(dataset)]
    return disjoint(chosen) if scheme.disjoint else chosen


def foresee(dataset: Dataset) -> None:
    """Refuse before anything runs what `read` would refuse, as far as that takes no time.

    A missing folder or annotation file is only a warning: it may be copied later, or lie on another machine.

    Raises:
        AgmError: for columns, schemes, labels or annotations that a published data set does not have, and for columns
            that one's own annotation file lacks.
    """
    adapter = find(dataset.adapter)
    if adapter.card is not None:
        adapter.card.check(dataset)
    # A command of the study makes the folder later.
    if adapter.made_by is not None:
        return
    try:
        _check_present(dataset)
    except AgmError as error:
        say(f"warning: {error}")
        return
    if adapter.check_columns is not None:
        adapter.check_columns(dataset)


def _check_present(dataset: Dataset) -> None:
    """Refuse a root folder or annotations that do not exist, and say what lies in their place."""
    if not Path(dataset.root).is_dir():
        made_by = find(dataset.adapter).made_by
        fix = f"run `{made_by}`" if made_by else "agm compose … dataset.root=/its/folder"
        raise AgmError("The folder of the raw data (dataset.root) does not exist", where=dataset.root, fix=fix)
    for key, path in dataset.annotations.items():
        if not Path(path).exists():
            fix = f"agm compose … dataset.annotations.{key}=/its/path. {lies_there(Path(path))}"
            raise AgmError(f"The annotations (dataset.annotations.{key}) are not there", where=path, fix=fix)


def differences(dataset: Dataset, clips: Sequence[Clip]) -> list[str]:
    """Warnings where the number of clips in a split differs from the official one of a published data set."""
    card = find(dataset.adapter).card
    # A choice of some classes has no official counts.
    if card is None or (dataset.classes is not None and len(dataset.classes) != card.classes):
        return []
    # The official counts are those of the first label; another one may leave clips out.
    if card.label(dataset) != next(iter(card.labels)):
        return []
    official = card.schemes[card.scheme(dataset)].counts
    counts = Counter(clip.split for clip in clips)
    warnings = []
    for split in SPLITS:
        if split in official and counts[split] != official[split]:
            warnings.append(
                f"The annotations have {counts[split]:,} clips in {split}; officially there are {official[split]:,}"
            )
    return warnings


def spellings(dataset: Dataset, clips: Sequence[Clip]) -> list[str]:
    """Warnings of classes, and of groups, that look alike but count as different ones."""
    card = find(dataset.adapter).card
    noun = (card and card.group) or dataset.group or "group"
    labels = [clip.label for clip in clips]
    groups = [clip.group for clip in clips if clip.group is not None]
    return look_alikes("label", labels) + look_alikes(noun, groups)
