"""Probe every raw file and write the manifest: the usable clips, their splits, and where their streams lie.

    data/<dataset>/manifest.parquet   a row per usable clip: clip_id, split, label (number of its class), label_name,
                                      group, duration (seconds), for each modality where it lies
                                      (`agm.pipeline.io.source`), and, by modality, `flaws`: why a file shows nothing
                                      although it can be decoded (`agm.pipeline.steps.ingest.flaws`), and `texts`:
                                      digests that are equal for equal texts
    data/<dataset>/manifest.json      the classes, clips per split, groups in several splits, flaws of each modality,
                                      other warnings
    data/<dataset>/quarantine-ingest.parquet
                                      a row per clip that goes into quarantine here, with the reason

A clip that cannot be used is quarantined and never stops the run. `dataset.split` assigns the splits that the
annotations leave open. The manifest's rows are in a seeded random order that every later step keeps. Raw files are only
read.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, replace
from functools import partial
from itertools import combinations
from typing import Any

import polars as pl

from agm.pipeline.config import Params
from agm.pipeline.config.schema import Dataset
from agm.pipeline.dag.graph import Graph, Job
from agm.pipeline.errors import AgmError
from agm.pipeline.io.files import checksums, read_index, write_parquet
from agm.pipeline.io.source import STRUCT
from agm.pipeline.io.tables import QUARANTINE, SPLITS
from agm.pipeline.runtime.parallel import parallel_map
from agm.pipeline.runtime.progress import say
from agm.pipeline.steps.ingest.adapters import find
from agm.pipeline.steps.ingest.clip import Clip
from agm.pipeline.steps.ingest.flaws import SAYS
from agm.pipeline.steps.ingest.listing import look, stored
from agm.pipeline.steps.ingest.probe import Media, Rejection, probe_clip
from agm.pipeline.steps.ingest.raw import identities
from agm.pipeline.steps.ingest.split import assign, order

CHUNK = 32


def run(params: Params, job: Job) -> dict[str, Any]:
    """Write the manifest and the quarantined clips.

    Returns:
        The classes, clips per split, number of quarantined clips, checksums, leaks, flaws and warnings.

    Raises:
        AgmError: for files that changed since they were listed, a single class, or a split without clips.
    """
    dataset = params.dataset
    clips, notes = _listed(params, job)
    # Before any file is probed: the splits must not depend on which files can be read.
    splits = assign(clips, dataset.split)
    classes = class_names(clips)
    _check_classes(classes, dataset)
    probes = _probes(clips, dataset)
    manifest = _manifest(clips, splits, probes, classes, dataset)
    quarantined = _quarantined(clips, splits, probes)
    counts = {split: manifest["split"].eq(split).sum() for split in SPLITS}
    _check_splits(counts, splits, quarantined, dataset, notes)
    manifest_target, quarantined_target = job.outputs
    write_parquet(manifest_target, manifest)
    write_parquet(quarantined_target, quarantined)
    leaks = straddling(manifest, dataset)
    flaws = _flaws(probes, dataset)
    warnings = [*notes, *_warnings(manifest, classes), *_flawed(flaws)]
    for line in (*leaks, *warnings):
        say(line)
    say(f"ingest: {len(manifest)} clips can be used, {len(quarantined)} cannot")
    return {
        "classes": classes,
        "clips": counts,
        "quarantined": len(quarantined),
        "sha256": checksums(job.index.parent, [manifest_target.name, quarantined_target.name]),
        "leaks": leaks,
        "flaws": flaws,
        "warnings": warnings,
    }


def class_names(clips: Sequence[Clip]) -> list[str]:
    """The classes in label order: integers by value, names in alphabetical order."""
    names = {clip.label for clip in clips}
    try:
        return sorted(names, key=int)
    except ValueError:
        return sorted(names)


def _listed(params: Params, job: Job) -> tuple[list[Clip], list[str]]:
    """The clips of the annotations with the identities of their files, and the notes of the listing.

    Raises:
        AgmError: for files that have changed: the manifest's record says that it is made from the listed ones.
    """
    dataset = params.dataset
    (index_path,) = job.inputs
    clips_path, listing_path = job.data
    index = read_index(index_path, "agm list")
    clips = stored(clips_path, dataset)
    listed = dict(pl.read_parquet(listing_path).select("path", "identity").iter_rows())
    identity_of = identities(Graph(params), dataset, look(dataset, clips))
    changed = [path for path, identity in identity_of.items() if identity != listed.get(path)]
    if changed:
        raise AgmError(
            f"Raw files have changed since they were listed: {len(changed)}, the first is {changed[0]}",
            where=dataset.root,
            fix="run `snakemake`, or `agm check` and `dvc repro`",
        )
    identified = []
    for clip in clips:
        sources = {}
        for name, source in clip.sources.items():
            sources[name] = replace(source, identity=identity_of.get(source.path))
        identified.append(replace(clip, sources=sources))
    return identified, index["notes"]


def _probes(clips: Sequence[Clip], dataset: Dataset) -> list[dict[str, Media] | Rejection]:
    """The result of probing each clip."""
    kinds = {name: modality.kind for name, modality in dataset.modalities.items()}
    probe = partial(probe_clip, dataset.root, kinds, dataset.limits, dataset.quarantine)
    # The process that died cannot say which of the clip's files it was reading.
    first = next(iter(kinds))
    fatal = Rejection(first, "a decoder crashed on one of the clip's files, or memory ran out")
    return list(parallel_map(probe, clips, "ingest", CHUNK, died=lambda clip: fatal))


def _manifest(
    clips: Sequence[Clip],
    splits: Sequence[str],
    probes: Sequence[dict[str, Media] | Rejection],
    classes: Sequence[str],
    dataset: Dataset,
) -> pl.DataFrame:
    """The usable clips, in their stored order."""
    schema = {"clip_id": pl.String, "split": pl.String, "label": pl.Int64, "label_name": pl.String}
    schema |= {"group": pl.String, "duration": pl.Float64}
    schema |= dict.fromkeys(dataset.modalities, STRUCT)
    schema |= dict.fromkeys(("flaws", "texts"), pl.Struct(dict.fromkeys(dataset.modalities, pl.String)))
    numbers = {name: number for number, name in enumerate(classes)}
    rows = []
    for place in order(len(clips), dataset.split.seed):
        clip, probed = clips[place], probes[place]
        if isinstance(probed, Rejection):
            continue
        # The clip lasts as long as its longest modality; images and texts have no duration.
        durations = [media.duration for media in probed.values() if media.duration is not None]
        duration = max(durations, default=None)
        row = [clip.clip_id, splits[place], numbers[clip.label], clip.label, clip.group, duration]
        for name in dataset.modalities:
            source = replace(clip.sources[name], stream=probed[name].stream)
            row.append(asdict(source))
        row.append({name: media.flaw for name, media in probed.items()})
        row.append({name: media.digest for name, media in probed.items()})
        rows.append(row)
    return pl.DataFrame(rows, schema=schema, orient="row")


def _quarantined(
    clips: Sequence[Clip], splits: Sequence[str], probes: Sequence[dict[str, Media] | Rejection]
) -> pl.DataFrame:
    """The clips that cannot be used, in the order of the annotations."""
    rows = []
    for clip, split, probed in zip(clips, splits, probes, strict=True):
        if not isinstance(probed, Rejection):
            continue
        source = clip.sources.get(probed.modality)
        path = source.path if source else None
        rows.append((clip.clip_id, split, probed.modality, "ingest", probed.reason, path))
    return pl.DataFrame(rows, schema=QUARANTINE, orient="row")


def _flaws(probes: Sequence[dict[str, Media] | Rejection], dataset: Dataset) -> dict[str, dict[str, dict[str, int]]]:
    """Modality → flaw → the number of clips with that flaw that are kept, and that are quarantined."""
    kept, quarantined = Counter(), Counter()
    for probed in probes:
        if isinstance(probed, Rejection):
            quarantined[probed.modality, probed.flaw] += 1
            continue
        for name, media in probed.items():
            kept[name, media.flaw] += 1
    flaws: dict[str, dict[str, dict[str, int]]] = {}
    for name in dataset.modalities:
        for flaw in SAYS:
            counts = {"kept": kept[name, flaw], "quarantined": quarantined[name, flaw]}
            if any(counts.values()):
                flaws.setdefault(name, {})[flaw] = counts
    return flaws


def _flawed(flaws: dict[str, dict[str, dict[str, int]]]) -> list[str]:
    """Warnings of the flaws."""
    warnings = []
    for modality, of_modality in flaws.items():
        for flaw, counts in of_modality.items():
            why = f"{SAYS[flaw]} ({modality})"
            if counts["kept"]:
                kept = count("clip", counts["kept"])
                warnings.append(f"{kept} kept although {why}: '{flaw}' in dataset.quarantine quarantines them")
            if counts["quarantined"]:
                quarantined = count("clip", counts["quarantined"])
                warnings.append(f"{quarantined} quarantined because {why}: see dataset.quarantine")
    return warnings


def _check_classes(classes: Sequence[str], dataset: Dataset) -> None:
    """Refuse data of a single class."""
    if len(classes) < 2:
        raise AgmError(
            f"Every clip has the same label, {classes[0]!r}: there is nothing to tell apart",
            where=", ".join(dataset.annotations.values()),
            fix="check dataset.label and the labels of the annotations",
        )


def _check_splits(
    counts: dict[str, int], splits: Sequence[str], quarantined: pl.DataFrame, dataset: Dataset, notes: Sequence[str]
) -> None:
    """Refuse data without clips to train on, to validate with or to test on."""
    fix = "mend the files, or name other ones in the annotations"
    # Nearly always, the folder of a published data set lies elsewhere.
    if find(dataset.adapter).card is not None:
        fix = f"check dataset.root: `agm datasets {dataset.adapter}` says which folder is expected"
        fix = ". ".join([fix, *notes])
    for split in SPLITS:
        if counts[split]:
            continue
        # The annotations have clips of this split: say why none can be used.
        if split in splits:
            reason, often = Counter(quarantined.filter(split=split)["reason"]).most_common(1)[0]
            raise AgmError(
                f"No clip of the split '{split}' can be used; {often} of {splits.count(split)} because: {reason}",
                where=dataset.root,
                fix=fix,
            )
        raise AgmError(
            f"The split '{split}' has no clips",
            where=", ".join(dataset.annotations.values()),
            fix="add clips or groups, or set a larger share in dataset.split",
        )


def straddling(manifest: pl.DataFrame, dataset: Dataset) -> list[str]:
    """Warnings of leaks: for each pair of splits, the number of groups that are in both."""
    card = find(dataset.adapter).card
    noun = (card and card.group) or dataset.group or "group"
    groups = {split: set(manifest.filter(split=split)["group"].drop_nulls()) for split in SPLITS}
    scheme = f" (split scheme '{card.scheme(dataset)}')" if card else ""
    leaks = []
    for other, split in combinations(SPLITS, 2):
        both = groups[split] & groups[other]
        if both:
            verb = "is" if len(both) == 1 else "are"
            leaks.append(f"{count(noun, len(both))} of {split} {verb} in {other} too{scheme}")
    return leaks


def count(noun: str, number: int) -> str:
    """'1 actor', '91 actors'."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _warnings(manifest: pl.DataFrame, classes: Sequence[str]) -> list[str]:
    """Warnings of classes without clips: later steps accept them, and a person should know them."""
    trained = set(manifest.filter(split="train")["label_name"])
    held_out = set(manifest.filter(pl.col("split") != "train")["label_name"])
    warnings = []
    empty = [name for name in classes if name not in trained | held_out]
    if empty:
        warnings.append(f"No clip of these classes can be used: {', '.join(empty)}")
    unseen = [name for name in classes if name in held_out - trained]
    if unseen:
        warnings.append(f"These classes are in validation or test, but not in training: {', '.join(unseen)}")
    return warnings
