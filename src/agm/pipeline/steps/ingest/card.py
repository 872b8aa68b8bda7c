"""The card of a published data set: what is known about it. `agm datasets NAME` prints it."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from agm.pipeline.config.schema import Dataset
from agm.pipeline.errors import AgmError


@dataclass(frozen=True)
class Scheme:
    """One way to split the data set.

    Attributes:
        about: one or two sentences: whose split it is, what is disjoint, and who should use it.
        counts: the official number of clips of each split that the annotations give; a difference is a warning.
        disjoint: whether clips are quarantined where their group is in another split too: training loses them first,
            the test keeps its own.
    """

    about: str
    counts: Mapping[str, int] = field(default_factory=dict)
    disjoint: bool = False


@dataclass(frozen=True)
class Card:
    """A published data set.

    Attributes:
        title: its full name and what is classified.
        citation: authors, title, venue, year.
        licence: the licence of the data, as its authors state it.
        source: where a person gets it.
        layout: the expected folder, a line for each file or folder.
        columns: each value of `dataset.modalities.<name>.column` → what it is and which kinds can read it.
        annotations: each key of `dataset.annotations` → the official file. It names the scheme where only one reads it.
        schemes: each value of `dataset.split.scheme`; the first is the default, and a careful researcher takes it.
        labels: each value of `dataset.label` → what it is; the first is the default.
        group: the word for a clip's group ("actor"), for messages; None without groups.
        classes: the number of classes to which the official counts belong.
    """

    title: str
    citation: str
    licence: str
    source: str
    layout: str
    columns: Mapping[str, str]
    annotations: Mapping[str, str]
    schemes: Mapping[str, Scheme]
    labels: Mapping[str, str]
    group: str | None
    classes: int

    def scheme(self, dataset: Dataset) -> str:
        """The name of the scheme that `dataset` chooses.

        Raises:
            AgmError: when the data set has no such scheme.
        """
        return _chosen(dataset.split.scheme, self.schemes, "dataset.split.scheme", dataset)

    def label(self, dataset: Dataset) -> str:
        """The name of the label that `dataset` chooses.

        Raises:
            AgmError: when the data set has no such label.
        """
        return _chosen(dataset.label, self.labels, "dataset.label", dataset)

    def annotation(self, dataset: Dataset, key: str) -> str:
        """The path of the annotation file `key`.

        Raises:
            AgmError: when `dataset.annotations` does not name it.
        """
        try:
            return dataset.annotations[key]
        except KeyError:
            raise AgmError(
                f"dataset.annotations lacks {key!r}: {self.annotations[key]}",
                where="params.yaml",
                fix=f"agm compose … +dataset.annotations.{key}=/its/path",
            ) from None

    def check(self, dataset: Dataset) -> None:
        """Refuse a split scheme, a label, columns or annotations that the data set does not have.

        Raises:
            AgmError: naming the first one, and the existing names.
        """
        self.scheme(dataset)
        self.label(dataset)
        for key in dataset.annotations:
            _chosen(key, self.annotations, "dataset.annotations", dataset)
        for name, modality in dataset.modalities.items():
            _chosen(modality.column, self.columns, f"dataset.modalities.{name}.column", dataset)


def _chosen(name: str | None, options: Mapping[str, str | Scheme], key: str, dataset: Dataset) -> str:
    """The name that the parameter `key` has, or the first of the `options` where it has none."""
    if name is None:
        return next(iter(options))
    if name not in options:
        raise AgmError(
            f"{key}: {dataset.name} has no {name!r}",
            where="params.yaml",
            fix=f"there are: {', '.join(options)}; see `agm datasets {dataset.name}`",
        )
    return name
