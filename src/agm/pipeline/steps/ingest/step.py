"""Probe every raw file and write the manifest: which clips there are, in which split, and where their streams lie.

    data/<dataset>/manifest.parquet   a row per usable clip: clip_id, split, label (number of its class), label_name,
                                      group, duration (seconds), for each modality where it lies
                                      (`agm.pipeline.io.source`), and, by modality, `flaws`: what a file shows although
                                      it can be decoded (`agm.pipeline.steps.ingest.flaws`), and `texts`: equal for
                                      equal texts
    data/<dataset>/manifest.json      the classes, clips per split, what leaks from split to split, flaws of each
                                      modality, what else is odd
    data/<dataset>/rejected.parquet   a row per clip that goes into quarantine, with the reason

A clip that cannot be used costs that clip and never the run. Splits that the
annotations leave open are assigned by `dataset.split`. The manifest's rows are in a seeded random order that every
later step keeps. Raw files are only ever read.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
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
    """Write the manifest and the rejected clips.

    Returns:
        The classes, clips per split, number of rejected clips, checksums, leaks, flaws and warnings.

    Raises:
        AgmError: for files that changed since they were listed, a single class, or a split without clips.
    """
    dataset = params.dataset
    clips, listed = _listed(params, job)
    splits = assign(clips, dataset.split)
    classes = class_names(clips)
    if len(classes) < 2:
        raise AgmError(
            f"Every clip has the same label, {classes[0]!r}: there is nothing to tell apart",
            where=", ".join(dataset.annotations.values()),
            fix="check dataset.label and the labels of the annotations",
        )
    kinds = {name: modality.kind for name, modality in dataset.modalities.items()}
    probe = partial(probe_clip, dataset.root, kinds, dataset.limits, dataset.quarantine)
    probes = list(parallel_map(probe, clips, "ingest", CHUNK, died=partial(_fatal, kinds)))
    manifest = _manifest(clips, splits, probes, classes, dataset)
    rejected = _rejected(clips, splits, probes)
    counts = {split: manifest["split"].eq(split).sum() for split in SPLITS}
    _check_splits(counts, splits, rejected, dataset, listed["notes"])
    for target, table in zip(job.outputs, (manifest, rejected), strict=True):
        write_parquet(target, table)
    leaks = straddling(manifest, dataset)
    flaws = _flaws(probes, dataset)
    warnings = [*listed["notes"], *_warnings(manifest, classes), *_flawed(flaws)]
    for line in (*leaks, *warnings, f"ingest: {len(manifest)} clips can be used, {len(rejected)} cannot"):
        say(line)
    return {
        "classes": classes,
        "clips": counts,
        "rejected": len(rejected),
        "sha256": checksums(job.index.parent, [target.name for target in job.outputs]),
        "leaks": leaks,
        "flaws": flaws,
        "warnings": warnings,
    }


def class_names(clips: Sequence[Clip]) -> list[str]:
    """The classes in label order: integers by value, names by alphabet."""
    names = {clip.label for clip in clips}
    try:
        return sorted(names, key=int)
    except ValueError:
        return sorted(names)


def _listed(params: Params, job: Job) -> tuple[list[Clip], dict[str, Any]]:
    """The clips of the annotations with the identities of their files, and the index of the listing.

    Files that are not the listed ones are refused: what was listed is what the manifest is on record as made from.
    """
    [index], (stored_clips, listing) = job.inputs, job.data
    again, dataset = "agm list", params.dataset
    record = read_index(index, again)
    clips = stored(stored_clips, dataset)
    listed = dict(pl.read_parquet(listing).select("path", "identity").iter_rows())
    found = identities(Graph(params), dataset, look(dataset, clips))
    changed = [path for path, identity in found.items() if identity != listed.get(path)]
    if changed:
        raise AgmError(
            f"Raw files have changed since they were listed: {len(changed)}, the first is {changed[0]}",
            where=dataset.root,
            fix="run `snakemake`, or `agm check` and `dvc repro`",
        )
    return [_identified(clip, found) for clip in clips], record


def _identified(clip: Clip, identity: Mapping[str, str | None]) -> Clip:
    sources = {name: replace(each, identity=identity.get(each.path)) for name, each in clip.sources.items()}
    return replace(clip, sources=sources)


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
    for number in order(len(clips), dataset.split.seed):
        clip, media = clips[number], probes[number]
        if isinstance(media, Rejection):
            continue
        duration = max((one.duration for one in media.values() if one.duration is not None), default=None)
        row = [clip.clip_id, splits[number], numbers[clip.label], clip.label, clip.group, duration]
        sources = [replace(clip.sources[name], stream=media[name].stream) for name in dataset.modalities]
        flaws = {name: one.flaw for name, one in media.items()}
        texts = {name: one.digest for name, one in media.items()}
        rows.append([*row, *map(asdict, sources), flaws, texts])
    return pl.DataFrame(rows, schema=schema, orient="row")


def _rejected(
    clips: Sequence[Clip], splits: Sequence[str], probes: Sequence[dict[str, Media] | Rejection]
) -> pl.DataFrame:
    """The clips that cannot be used, in the order of the annotations."""
    rows = [
        (clip.clip_id, split, found.modality, "ingest", found.reason, _path(clip, found.modality))
        for clip, split, found in zip(clips, splits, probes, strict=True)
        if isinstance(found, Rejection)
    ]
    return pl.DataFrame(rows, schema=QUARANTINE, orient="row")


def _path(clip: Clip, modality: str | None) -> str | None:
    return clip.sources[modality].path if modality in clip.sources else None


def _fatal(kinds: dict[str, str], clip: Clip) -> Rejection:
    """Which of the clip's files it was, is not known."""
    return Rejection(next(iter(kinds)), "a decoder crashed on one of the clip's files, or memory ran out")


def _flaws(probes: Sequence[dict[str, Media] | Rejection], dataset: Dataset) -> dict[str, dict[str, dict[str, int]]]:
    """For each modality and each flaw that was found in it, how many clips with it are kept and quarantined."""
    kept, quarantined = Counter(), Counter()
    for found in probes:
        if isinstance(found, Rejection):
            quarantined[found.modality, found.flaw] += 1
        else:
            kept.update((name, media.flaw) for name, media in found.items())
    counts = {
        name: {
            flaw: {"kept": kept[name, flaw], "quarantined": quarantined[name, flaw]}
            for flaw in SAYS
            if kept[name, flaw] or quarantined[name, flaw]
        }
        for name in dataset.modalities
    }
    return {name: found for name, found in counts.items() if found}


def _flawed(flaws: dict[str, dict[str, dict[str, int]]]) -> list[str]:
    """The flaws in words."""
    said = []
    for modality, found in flaws.items():
        for flaw, clips in found.items():
            why = f"{SAYS[flaw]} ({modality})"
            if clips["kept"]:
                kept = count("clip", clips["kept"])
                said.append(f"{kept} kept although {why}: '{flaw}' in dataset.quarantine quarantines them")
            if clips["quarantined"]:
                quarantined = count("clip", clips["quarantined"])
                said.append(f"{quarantined} quarantined because {why}: see dataset.quarantine")
    return said


def _check_splits(
    counts: dict[str, int], splits: Sequence[str], rejected: pl.DataFrame, dataset: Dataset, notes: Sequence[str]
) -> None:
    """Refuse data that cannot be trained or tested on."""
    fix = "mend the files, or name other ones in the annotations"
    if find(dataset.adapter).card is not None:
        fix = f"check dataset.root: `agm datasets {dataset.adapter}` says which folder is expected"
        fix = ". ".join([fix, *notes])
    for split in SPLITS:
        if counts[split]:
            continue
        if split in splits:
            reason, often = Counter(rejected.filter(split=split)["reason"]).most_common(1)[0]
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
    """What leaks: for each pair of splits, how many groups are in both."""
    card = find(dataset.adapter).card
    noun = (card and card.group) or dataset.group or "group"
    groups = {split: set(manifest.filter(split=split)["group"].drop_nulls()) for split in SPLITS}
    scheme = f" (split scheme '{card.scheme(dataset)}')" if card else ""
    return [
        f"{count(noun, len(both))} of {split} {'is' if len(both) == 1 else 'are'} in {other} too{scheme}"
        for other, split in combinations(SPLITS, 2)
        if (both := groups[split] & groups[other])
    ]


def count(noun: str, number: int) -> str:
    """'1 actor', '91 actors'."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _warnings(manifest: pl.DataFrame, classes: Sequence[str]) -> list[str]:
    """What later steps can live with and a person should know."""
    found = {split: set(manifest.filter(split=split)["label_name"]) for split in SPLITS}
    warnings = []
    if empty := [name for name in classes if not any(name in names for names in found.values())]:
        warnings.append(f"No clip of these classes can be used: {', '.join(empty)}")
    held_out = found["val"] | found["test"]
    if unseen := [name for name in classes if name in held_out - found["train"]]:
        warnings.append(f"These classes are in validation or test, but not in training: {', '.join(unseen)}")
    return warnings
