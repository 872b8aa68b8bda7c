"""The report's tables about the data: clips that were used, clips that show nothing, and clips in quarantine."""

from agm.pipeline.io.tables import QUARANTINE, SPLITS
from agm.pipeline.steps.report.collect import Study
from agm.pipeline.steps.report.table import Cell, Table
from agm.pipeline.steps.report.text import NOTHING


def clips(study: Study) -> Table:
    """Clips that were used, per class and split."""
    splits = [study.shards["splits"][name] for name in SPLITS]
    totals = [Cell(f"{split['rows']:,}") for split in splits]
    rows = [(Cell("all"), *totals)]
    for label in study.shards["classes"]:
        counts = [Cell(f"{split['labels'].get(label, 0):,}") for split in splits]
        rows.append((Cell(label), *counts))
    return Table("Clips used", ("class", *SPLITS), tuple(rows))


def texts(study: Study, most: int) -> Table | None:
    """The texts of the contact sheet, at most `most` characters of each; None without texts."""
    rows = []
    for text in study.inspection["texts"]:
        person, network = _cut(text["person"], most), _cut(text["network"], most)
        rows.append((Cell(text["clip_id"]), Cell(text["modality"]), Cell(person), Cell(network)))
    if not rows:
        return None
    columns = ("clip", "modality", "a person reads", "where that differs, the network gets")
    return Table("Texts of the contact sheet", columns, tuple(rows), words=frozenset({1, 2, 3}))


def _cut(text: str | None, most: int) -> str:
    if text is None:
        return NOTHING
    return text if len(text) <= most else f"{text[:most]} …"


def duplicates(study: Study) -> Table:
    """How many clips of one split look the same as a clip of an earlier one: in every modality, and in each."""
    pairs = study.inspection["duplicates"]
    rows = []
    for pair in pairs:
        fields = [Cell(f"{pair['split']}, as in {pair['in']}")]
        for counts in pair["clips"].values():
            note = f"{counts['identical']:,} identical" if counts["alike"] else ""
            fields.append(Cell(f"{counts['alike']:,}", note))
        rows.append(tuple(fields))
    # The first entry of a pair is about all modalities together.
    _, *modalities = pairs[0]["clips"]
    return Table("Clips that look the same", ("clips of", "every modality", *modalities), tuple(rows))


def flaws(study: Study) -> Table:
    """How many clips have files, and tensors, that show nothing, by modality; no rows where no clip has any."""
    rows = []
    for modality, by_flaw in study.inspection["flaws"].items():
        for flaw, clips in by_flaw.items():
            rows.append(
                (Cell(modality), Cell(f"{flaw} file"), Cell(f"{clips['kept']:,}"), Cell(f"{clips['quarantined']:,}"))
            )
    for modality, blank in study.inspection["blank"].items():
        if blank:
            rows.append((Cell(modality), Cell("blank tensor"), Cell(f"{blank:,}"), Cell(NOTHING)))
    return Table(
        "Clips that show nothing", ("modality", "what", "kept", "quarantined"), tuple(rows), words=frozenset({1})
    )


def reasons(study: Study, most: int) -> Table:
    """The most frequent reasons for quarantine, with the number of clips."""
    counted = (
        study.quarantine.group_by("step", "modality", "reason")
        .len("clips")
        # Equal counts in the order of the words, so that equal inputs give equal bytes.
        .sort("clips", "step", "modality", "reason", descending=[True, False, False, False])
        .head(most)
    )
    rows = []
    for step, modality, reason, clips in counted.iter_rows():
        rows.append((Cell(reason), Cell(step), Cell(modality or NOTHING), Cell(f"{clips:,}")))
    return Table("Reasons", ("reason", "step", "modality", "clips"), tuple(rows), words=frozenset({1, 2}))


def quarantined(study: Study, most: int) -> Table:
    """The first clips in quarantine."""
    rows = []
    for values in study.quarantine.select(*QUARANTINE).head(most).iter_rows():
        rows.append(tuple(Cell(value or NOTHING) for value in values))
    columns = ("clip", "split", "modality", "step", "reason", "file")
    return Table("Clips put aside", columns, tuple(rows), words=frozenset(range(1, 6)))
