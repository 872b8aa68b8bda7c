"""Which split each clip belongs to, and in which order the clips are stored.

Both depend on the annotations and a seed alone, not on which files can be read: one broken file moves no other clip.

1. A clip keeps the split that the annotations give it.
2. A clip without one follows its group, where other clips of the group have one, and else counts as training.
3. Where no clip is given to the test, a share of the training clips is held out for it; then the same for
   validation. Groups are held out whole; without groups, every class gives its share.
"""

import random
from collections import defaultdict
from collections.abc import Hashable, Sequence

from agm.pipeline.config.schema import Split
from agm.pipeline.steps.ingest.clip import Clip


def assign(clips: Sequence[Clip], settings: Split) -> list[str]:
    """The split of each clip, by the rules above."""
    groups = {clip.group: clip.split for clip in clips if clip.group is not None and clip.split is not None}
    splits = [clip.split or groups.get(clip.group) or "train" for clip in clips]
    given = {clip.split for clip in clips}
    for name, share in (("test", settings.test), ("val", settings.val)):
        if name not in given:
            pool = [number for number, split in enumerate(splits) if split == "train"]
            for number in _hold_out(clips, pool, share, random.Random(f"{name} {settings.seed}")):
                splits[number] = name
    return splits


def order(count: int, seed: int) -> list[int]:
    """The order in which clips 0 … count-1 are stored."""
    numbers = list(range(count))
    random.Random(f"order {seed}").shuffle(numbers)
    return numbers


def _hold_out(clips: Sequence[Clip], pool: Sequence[int], share: float, chance: random.Random) -> list[int]:
    """The clips of `pool` (numbers) to hold out, about `share` of them."""
    if any(clips[number].group is not None for number in pool):
        return _whole_groups(_members(pool, [clips[number].group for number in pool]), share * len(pool), chance)
    return _of_each_class(_members(pool, [clips[number].label for number in pool]), share, chance)


def _members(pool: Sequence[int], keys: Sequence[Hashable]) -> list[list[int]]:
    """`pool` divided by key, in the order of first appearance."""
    members: defaultdict[Hashable, list[int]] = defaultdict(list)
    for number, key in zip(pool, keys, strict=True):
        members[key].append(number)
    return list(members.values())


def _whole_groups(groups: list[list[int]], wanted: float, chance: random.Random) -> list[int]:
    """Groups in random order, each taken if that brings the number of clips closer to `wanted`.

    The result is within half the largest group of `wanted`, unless one group must be kept for training.
    """
    chance.shuffle(groups)
    held: list[int] = []
    left = len(groups)
    for group in groups:
        if left > 1 and abs(len(held) + len(group) - wanted) < abs(len(held) - wanted):
            held += group
            left -= 1
    if not held and left > 1 and wanted:
        held = min(groups, key=len)
    return held


def _of_each_class(classes: list[list[int]], share: float, chance: random.Random) -> list[int]:
    """A random `share` of each class, rounded so that the total is right; the last of a class is never taken."""
    quotas = [share * len(members) for members in classes]
    counts = [int(quota) for quota in quotas]
    missing = round(sum(quotas)) - sum(counts)
    # Largest remainder first; equal ones in random order, or the first class would always get the odd clip.
    turns = chance.sample(range(len(classes)), len(classes))
    turns.sort(key=lambda number: counts[number] - quotas[number])
    for number in [turn for turn in turns if counts[turn] + 1 < len(classes[turn])][: max(0, missing)]:
        counts[number] += 1
    return [clip for members, count in zip(classes, counts, strict=True) for clip in chance.sample(members, count)]
