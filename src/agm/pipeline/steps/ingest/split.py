"""Assign each clip to a split, and choose the order in which the clips are stored.

Both depend only on the annotations and a seed, not on which files can be read: a broken file moves no other clip.

1. A clip keeps the split that the annotations give it.
2. A clip without a split gets that of its group, where other clips of the group have one; otherwise it is a training
   clip.
3. Where the annotations give no clip to the test split, a share of the training clips is held out for it; then the
   same for validation. Groups are held out whole; without groups, every class gives its share.
"""

import random
from collections import defaultdict
from collections.abc import Sequence

from agm.pipeline.config.schema import Split
from agm.pipeline.steps.ingest.clip import Clip


def assign(clips: Sequence[Clip], settings: Split) -> list[str]:
    """The split of each clip, by the rules above."""
    split_of_group: dict[str, str] = {}
    for clip in clips:
        if clip.group is not None and clip.split is not None:
            split_of_group[clip.group] = clip.split
    splits = [clip.split or split_of_group.get(clip.group) or "train" for clip in clips]
    given = {clip.split for clip in clips}
    for name, share in (("test", settings.test), ("val", settings.val)):
        if name in given:
            continue
        pool = [number for number, split in enumerate(splits) if split == "train"]
        # Each split has a generator of its own: a given test split does not change the validation split.
        chance = random.Random(f"{name} {settings.seed}")
        for number in _hold_out(clips, pool, share, chance):
            splits[number] = name
    return splits


def order(count: int, seed: int) -> list[int]:
    """The order in which clips 0 … count-1 are stored."""
    numbers = list(range(count))
    random.Random(f"order {seed}").shuffle(numbers)
    return numbers


def _hold_out(clips: Sequence[Clip], pool: Sequence[int], share: float, chance: random.Random) -> list[int]:
    """The numbers of the clips of `pool` to hold out, about `share` of them."""
    # Both are in the order of first appearance, which the generator permutes.
    groups: defaultdict[str | None, list[int]] = defaultdict(list)
    classes: defaultdict[str, list[int]] = defaultdict(list)
    for number in pool:
        groups[clips[number].group].append(number)
        classes[clips[number].label].append(number)
    if any(group is not None for group in groups):
        return _whole_groups(list(groups.values()), share * len(pool), chance)
    return _of_each_class(list(classes.values()), share, chance)


def _whole_groups(groups: list[list[int]], wanted: float, chance: random.Random) -> list[int]:
    """Take groups in random order, each if it brings the number of clips closer to `wanted`.

    The result differs from `wanted` by at most half the largest group, unless one group must stay for training.
    """
    chance.shuffle(groups)
    held: list[int] = []
    left = len(groups)
    for group in groups:
        distance = abs(len(held) - wanted)
        distance_with_group = abs(len(held) + len(group) - wanted)
        if left > 1 and distance_with_group < distance:
            held += group
            left -= 1
    # Every group was too large; but a split that was asked for must not be empty.
    if not held and left > 1 and wanted:
        held = min(groups, key=len)
    return held


def _of_each_class(classes: list[list[int]], share: float, chance: random.Random) -> list[int]:
    """A random `share` of each class, rounded so that the total is right; the last clip of a class is never taken."""
    quotas = [share * len(members) for members in classes]
    counts = [int(quota) for quota in quotas]
    missing = round(sum(quotas)) - sum(counts)
    # The largest remainder comes first; equal ones are in random order, or the first class would always get the odd
    # clip.
    turns = chance.sample(range(len(classes)), len(classes))
    turns.sort(key=lambda number: counts[number] - quotas[number])
    for number in turns:
        if missing > 0 and counts[number] + 1 < len(classes[number]):
            counts[number] += 1
            missing -= 1
    held: list[int] = []
    for members, count in zip(classes, counts, strict=True):
        held += chance.sample(members, count)
    return held
