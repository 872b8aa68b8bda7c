"""A flipped bit in any data file is found before the file is used, by every step that reads it.

The message names the file, both checksums and the command that makes it again, and that command does.
"""

import random
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from agm.pipeline.dag.graph import Job
from finished import Finished

TINY = [
    "dial.clips=60",
    "dial.noise={video: 0, audio: 0, text: 0}",
    "num_parts=1",
    "study.seeds=[0]",
    "method=[joint,umt]",
    "trainer.epochs=1",
]
# The splits that a step reads; the others' shards are no concern of it.
READS = {"train": ("train", "val"), "concept": ("train", "val"), "evaluate": ("val", "test")}
READS["evaluate_concept"] = READS["evaluate"]


class Study(Finished):
    """A finished study.

    Attributes:
        readers: for each data file its maker, and of each kind of step the first job that reads it.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, TINY)
        self.readers = {name: found for name in self.whole if (found := self._about(Path(name))) and found[1]}

    def _about(self, path: Path) -> tuple[Job, list[Job]] | None:
        makers = [job for job in self.jobs if any(path.is_relative_to(each) for each in job.outputs)]
        if not makers:
            return None
        readers: dict[tuple[str, bool], Job] = {}
        for job in self.jobs:
            split = path.name.partition("-")[0] if path.parent.name == "shards" else None
            reads = split is None or split in READS.get(job.step, split)
            if reads and any(path.is_relative_to(each) for each in job.data):
                readers.setdefault((job.step, job.after_runs), job)
        return makers[0], list(readers.values())


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Study]:
    made = Study(tmp_path_factory.mktemp("study"))
    yield made
    made.warm.close()
    print(f"\n{made.faults} flipped bits")


def damaged(study: Study, name: str, reader: Job, place: float) -> str:
    """Flip a bit there, which `reader` must find; returns the command that the message names. The file is whole again
    afterwards."""
    chance = random.Random(f"{name} {reader.command} {place}")
    bit = chance.randrange(8)
    study.warm.flip(name, place, bit)
    found = study.warm.contents()
    refused = study.warm.run(f"{reader.command} --force")
    assert refused.status == 1, f"`{reader.command}` did not find the damage in {name}: {refused.said}"
    for part in (f"where: {name}\n", f"is {found[name]}, and {study.whole[name]} was recorded"):
        assert part in refused.said, refused.said
    left = study.warm.contents()
    # The reader's own outputs are as they were, but that its index says no more that they are up to date.
    assert {**left, str(reader.index): ""} == {**found, str(reader.index): ""}
    study.warm.flip(name, place, bit)
    study.faults += 1
    return re.search(r"run `(.*?)`", refused.said)[1]


def places(name: str) -> list[float]:
    """At the beginning, somewhere between, at the end."""
    return [0.0, random.Random(name).uniform(0.1, 0.9), 1.0]


KINDS = [
    "clips.parquet",
    "listing.parquet",
    "manifest.parquet",
    "rejected.parquet",
    "features/video",
    "features/audio",
    "features/text",
    "shards/train",
    "shards/val",
    "shards/test",
    "quarantine.parquet",
    "contact_sheet.png",
    "concepts/video/seed-0/model",
    "concepts/video/seed-0/history",
    "joint/seed-0/model",
    "joint/seed-0/history",
    "video/seed-0/predictions",
]


def test_no_kind_of_data_file_is_forgotten(study: Study) -> None:
    """What other steps read is in the list below, but for the files of the demo set and of further cells."""
    further = re.compile(r"raw/|/(audio|text)/seed-0/|/umt/")
    assert all(any(kind in name for kind in KINDS) for name in study.readers if not further.search(name))


@pytest.mark.parametrize("kind", KINDS)
def test_a_flipped_bit_is_found_by_every_reader(study: Study, kind: str) -> None:
    (name, (maker, readers)) = next(each for each in study.readers.items() if kind in each[0])
    for number, reader in enumerate(readers):
        # Where in the file it is makes no difference to who reads it: the others take turns.
        tried = places(name) if number == 0 else [places(name)[number % 3]]
        commands = {damaged(study, name, reader, place) for place in tried}
        assert commands == {maker.command}
        assert study.warm.run(reader.command).status == 0  # the next reader may read what this one makes
    # And now as it is told to be mended.
    study.warm.flip(name, 0.5, 0)
    for job in (maker, readers[0]):
        ended = study.warm.run(job.command)
        assert ended.status == 0, ended.said
    assert study.warm.contents() == study.whole


def test_a_changed_digit_in_an_index_is_found_by_every_reader(study: Study) -> None:
    """Which is JSON still, and says something else."""
    for maker in {(job.step, job.after_runs): job for job in study.jobs if job.step != "report"}.values():
        name = str(maker.index)
        for reader in {(job.step, job.after_runs): job for job in study.jobs if maker.index in job.inputs}.values():
            place = random.Random(f"{name} {reader.command}").uniform(0, 0.9)
            study.warm.digit(name, place)
            refused = study.warm.run(reader.command)
            assert refused.status == 1, f"`{reader.command}` did not find the damage in {name}: {refused.said}"
            assert name in refused.said
            study.warm.digit(name, place)
            study.faults += 1
            assert study.warm.run(reader.command).status == 0
    assert study.warm.contents() == study.whole


def test_a_damaged_index_is_named_with_what_it_should_be(study: Study) -> None:
    shards, train = (next(job for job in study.jobs if job.step == step) for step in ("shard", "train"))
    study.warm.digit(str(shards.index), 0.5)
    said = study.warm.run(train.command).said
    assert f"`{shards.command}`: {shards.record} is missing or damaged, or of another {shards.index}" in said, said
    for job in (shards, train):
        assert study.warm.run(job.command).status == 0
    assert study.warm.contents() == study.whole
