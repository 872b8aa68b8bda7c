"""Names that keys of the configuration had before: the one table of old and new names, and how to look one up.

An old key is refused with its new name (`found`, `now`), `agm compose --migrate FILE` rewrites it
(`agm.pipeline.config.migrate`), and `python docs/renamed.py` makes docs/renamed.md of the table.

To rename a key, add a row to `RENAMED`. A key may move to another section; a whole section may be renamed too, as may
the file's package in a header of Hydra. Where the new key exists already, mappings and lists are merged.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

ANY = "*"
"""In a row, any one name: of a modality, a fusion or a method."""
HOW = "write the new name; `agm compose --migrate FILE` rewrites an old file"

# The names that lead to a value, from the top of the configuration.
Path = tuple[str, ...]


@dataclass(frozen=True)
class Renamed:
    """A row of the table.

    Attributes:
        old: the dotted key as it was, `*` for any one name.
        new: the dotted key as it is, with as many `*`.
        about: what the parameter is, for the page.
        kinds: below `features`, the kinds of modality for which the row holds; empty for all.
        convert: makes the new value of the old one, and raises ValueError where it cannot; None keeps the value.
    """

    old: str
    new: str
    about: str
    kinds: tuple[str, ...] = ()
    convert: Callable[[Any], Any] | None = None

    def matches(self, path: Path) -> bool:
        """Whether `path` is an old key of this row."""
        names = self.old.split(".")
        if len(names) != len(path):
            return False
        return all(name in (ANY, given) for name, given in zip(names, path, strict=True))

    def target(self, path: Path) -> Path:
        """The new key of `path`, which the row matches."""
        free = iter([given for name, given in zip(self.old.split("."), path, strict=True) if name == ANY])
        return tuple(next(free) if name == ANY else name for name in self.new.split("."))


def _count(parts: Any) -> int:
    """The number of parts, which were a list of their numbers."""
    if not isinstance(parts, list) or not parts or parts != list(range(len(parts))):
        raise ValueError(f"expected a list 0, 1, 2, …, found {parts}")
    return len(parts)


RENAMED = (
    Renamed("dataset.skip", "dataset.quarantine", "flaws that put a clip into quarantine"),
    Renamed("parts", "num_parts", "extraction jobs of each modality: a number, where it was a list", convert=_count),
    Renamed("shards.rows", "shards.max_rows_per_file", "most clips in one shard file, as in `pyarrow.dataset`"),
    Renamed("shards.block", "shards.row_group_size", "clips in one Parquet row group, as in `pyarrow.parquet`"),
    Renamed("features.*.rate", "features.*.sample_rate", "samples per second after resampling", kinds=("audio",)),
    Renamed("features.*.rate", "features.*.fps", "frames per second to sample", kinds=("video", "flow")),
    Renamed("features.*.hop", "features.*.hop_length", "samples between two windows, as in torchaudio", ("audio",)),
    Renamed("features.*.mels", "features.*.n_mels", "mel bands, as in torchaudio", kinds=("audio",)),
    Renamed("features.*.words", "features.*.max_tokens", "tokens kept of every text", kinds=("text",)),
    Renamed("features.*.vocabulary", "features.*.max_vocabulary", "size limit of the vocabulary", kinds=("text",)),
    Renamed("encoders.*.heads", "encoders.*.num_heads", "heads of attention, as in `torch.nn.MultiheadAttention`"),
    Renamed("encoders.*.layers", "encoders.*.num_layers", "layers, as in `torch.nn.TransformerEncoder`"),
    Renamed(
        "encoders.*.feedforward",
        "encoders.*.dim_feedforward",
        "width of the feedforward network, as in `torch.nn.TransformerEncoderLayer`",
    ),
    Renamed("fusions.*.heads", "fusions.*.num_heads", "heads of attention, as in `torch.nn.MultiheadAttention`"),
    Renamed("fusions.*.layers", "fusions.*.num_layers", "layers, as in `torch.nn.TransformerEncoder`"),
    Renamed(
        "fusions.*.feedforward",
        "fusions.*.dim_feedforward",
        "width of the feedforward network, as in `torch.nn.TransformerEncoderLayer`",
    ),
    Renamed("taught", "methods", "methods that read finished runs: one section for all"),
    Renamed("study.taught", "study.methods", "the same in the study's list; `dvc` has the lists of dvc.yaml"),
    Renamed("trainer.optimiser", "trainer.optimizer", "the optimizer and its parameters, as in `torch.optim`"),
    Renamed("trainer.clip", "trainer.grad_clip", "limit of the gradients' norm"),
    Renamed("trainer.select", "trainer.monitor", "the validation metric that picks the epoch whose weights are kept"),
    Renamed("trainer.shuffle_window", "trainer.shuffle_buffer", "size of the shuffle buffer in clips"),
    Renamed(
        "trainer.schedule.step",
        "trainer.schedule.step_size",
        "epochs between two reductions of the learning rate, as in `torch.optim.lr_scheduler.StepLR`",
    ),
)
"""Rows hold for keys as they are after the rows above them."""


def rows_for(path: Path, kinds: Mapping[str, str]) -> list[Renamed]:
    """The rows that say what `path` is called now: several where it depends on a kind that is not known.

    Args:
        kinds: the kind of each modality that is known.
    """
    kind = kinds.get(path[1]) if len(path) > 1 else None
    rows = []
    for row in RENAMED:
        if row.matches(path) and (not row.kinds or kind is None or kind in row.kinds):
            rows.append(row)
    return rows


def now(path: Path, kinds: Mapping[str, str]) -> str | None:
    """What the key `path`, or a section that it is in, is called now, in words; None where it is no old name."""
    for length in range(len(path), 0, -1):
        rows = rows_for(path[:length], kinds)
        if rows:
            rest = path[length:]
            names = [".".join(row.target(path[:length]) + rest) for row in rows]
            return " or ".join(dict.fromkeys(names))
    return None


def found(content: Mapping[str, Any]) -> list[str]:
    """What must be said of the old keys in raw parameters, a line for each."""
    kinds = kinds_in(content)
    lines = []
    for path in keys_of(content):
        # A section that was renamed is named once, not again for each key in it.
        if rows_for(path, kinds):
            lines.append(f"{'.'.join(path)} is now {now(path, kinds)}")
    return lines


def kinds_in(content: Any) -> dict[str, str]:
    """The kinds of the modalities, as far as raw parameters say."""
    try:
        modalities = content["dataset"]["modalities"].items()
        return {name: modality["kind"] for name, modality in modalities}
    except (KeyError, TypeError, AttributeError):
        return {}


def keys_of(content: Any, above: Path = ()) -> Iterator[Path]:
    """Every key of nested mappings, a section before the keys in it."""
    if isinstance(content, Mapping):
        for name, value in content.items():
            path = (*above, str(name))
            yield path
            yield from keys_of(value, path)


def page() -> str:
    """The table for the documentation, in Markdown."""
    lines = ["| old | new | what it is |", "|---|---|---|"]
    for row in RENAMED:
        old = row.old
        new = row.new
        if row.kinds:
            kinds = " or ".join(row.kinds)
            old = old.replace(ANY, f"<{kinds}>")
            new = new.replace(ANY, f"<{kinds}>")
        lines.append(f"| `{old}` | `{new}` | {row.about} |")
    return "\n".join(lines) + "\n"
