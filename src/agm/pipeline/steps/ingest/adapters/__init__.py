"""How each kind of raw folder is read: one file per data set or layout, chosen by `dataset.adapter`."""

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
    """The clips that the data set's annotations name, of the classes asked for, in their order.

    Raises:
        AgmError: when the root folder or the annotations do not exist, or for what is wrong with them, row by row.
    """
    adapter = find(dataset.adapter)
    _check_present(dataset)
    if adapter.card is not None:
        adapter.card.check(dataset)
        chosen = of_classes(adapter.clips(dataset), dataset)
        return disjoint(chosen) if adapter.card.schemes[adapter.card.scheme(dataset)].disjoint else chosen
    return adapter.clips(dataset)


def foresee(dataset: Dataset) -> None:
    """Say before anything runs what `read` would refuse, as far as that takes no time.

    A folder or an annotation file that is not there is only told about: it may be copied later, or be on another
    machine.

    Raises:
        AgmError: for columns, schemes, labels or annotations that a published data set does not have, and for columns
            that one's own annotation file lacks.
    """
    adapter = find(dataset.adapter)
    if adapter.card is not None:
        adapter.card.check(dataset)
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
    """Refuse a root folder or annotations that are not there, and say what lies in their place."""
    if not Path(dataset.root).is_dir():
        made_by = find(dataset.adapter).made_by
        fix = f"run `{made_by}`" if made_by else "agm compose … dataset.root=/its/folder"
        raise AgmError("The folder of the raw data (dataset.root) does not exist", where=dataset.root, fix=fix)
    for key, path in dataset.annotations.items():
        if not Path(path).exists():
            fix = f"agm compose … dataset.annotations.{key}=/its/path. {lies_there(Path(path))}"
            raise AgmError(f"The annotations (dataset.annotations.{key}) are not there", where=path, fix=fix)


def differences(dataset: Dataset, clips: Sequence[Clip]) -> list[str]:
    """How the number of clips in each split differs from the official one of a published data set."""
    card = find(dataset.adapter).card
    if card is None or (dataset.classes is not None and len(dataset.classes) != card.classes):
        return []
    if card.label(dataset) != next(iter(card.labels)):
        return []  # the counts are those of the usual label, and another may leave clips out
    official = card.schemes[card.scheme(dataset)].counts
    found = Counter(clip.split for clip in clips)
    return [
        f"The annotations have {found[split]:,} clips in {split}; officially there are {official[split]:,}"
        for split in SPLITS
        if split in official and found[split] != official[split]
    ]


def spellings(dataset: Dataset, clips: Sequence[Clip]) -> list[str]:
    """Classes, and groups, that look alike and yet count as different ones."""
    card = find(dataset.adapter).card
    group = (card and card.group) or dataset.group or "group"
    groups = [clip.group for clip in clips if clip.group is not None]
    return [*look_alikes("label", [clip.label for clip in clips]), *look_alikes(group, groups)]
