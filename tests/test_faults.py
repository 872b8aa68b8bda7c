"""A disk that fills up, a folder that cannot be written to, a process that is killed, a bit that flips: at each step.

Whatever happens, a file is there as a whole or not at all, an index means that its job is done, an error is one that a
person understands, and the same command, started again, ends with the same bytes and nothing else. A damaged file is
found before it is used, by every step that reads it. Each command runs for real, on a disk of its own (`warm`).
"""

import random
import re
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import pytest

from agm.pipeline.dag import code
from agm.pipeline.dag.graph import Job
from agm.pipeline.dag.unfinished import ORIGIN
from finished import Finished
from warm import Ended, Write

TINY = [
    "dial.clips=24",
    "dial.noise={video: 0, audio: 0, text: 0}",
    "num_parts=1",
    "study.seeds=[0]",
    "method=[joint,umt]",
    "trainer.epochs=1",
]
TEMPORARY = (".tmp-", ".old-")
PAGE = 4096
"""Bytes that the disk gives away at once."""
MOST = 16
"""Changes at which a step is killed, where it makes more, and bytes of outputs: a demo set is many files."""
SLOW_MOST = {"report": 6}
"""The same where it is fewer: the report makes each of its files by the same few changes."""
FORCED_MOST = 6
"""The same where old outputs are replaced: all but the removal of the old ones is as before."""

# The splits that a step reads; the others' shards are no concern of it.
READS = {"train": ("train", "val"), "concept": ("train", "val"), "evaluate": ("val", "test")}
READS["evaluate_concept"] = READS["evaluate"]


class Study(Finished):
    """What may be done to the jobs of a finished study, and what must be found then.

    Attributes:
        found: what each job writes, as far as that was asked for.
        readers: for each data file its maker, and of each kind of step the first job that reads it.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, TINY)
        self.found: dict[Job, list[Write]] = {}
        self.readers: dict[str, tuple[Job, list[Job]]] = {}
        for name in self.whole:
            makers = [job for job in self.jobs if any(Path(name).is_relative_to(each) for each in job.outputs)]
            readers = self._readers(Path(name)) if makers else []
            if readers:
                self.readers[name] = (makers[0], readers)

    def _readers(self, path: Path) -> list[Job]:
        """The first job of each kind that reads a file."""
        split = path.name.partition("-")[0] if path.parent.name == "shards" else None
        found: dict[tuple[str, bool], Job] = {}
        for job in self.jobs:
            reads = split is None or split in READS.get(job.step, split)
            if reads and any(path.is_relative_to(each) for each in job.data):
                found.setdefault((job.step, job.after_runs), job)
        return list(found.values())

    def first(self, step: str) -> Job:
        return next(job for job in self.jobs if job.step == step)

    def undo(self, job: Job) -> None:
        """Remove what the job made, as the engines do before they start it, and what it could go on from."""
        kept = [Path(".cache", name) for name in ("train", "store", "raw")]
        self.warm.remove([job.index, *job.outputs, *kept])

    def done(self, job: Job, option: str = "") -> Ended:
        """Run the job, which must end as if nothing had happened."""
        ended = self.warm.run(f"{job.command} {option}")
        assert ended.status == 0, ended.said
        assert self.warm.contents() == self.whole
        return ended

    def writes(self, job: Job) -> list[Write]:
        """What the job writes where there is nothing yet; afterwards it is done."""
        if job not in self.found:
            self.undo(job)
            self.found[job] = self.done(job).writes
        return self.found[job]

    def kill(self, job: Job, option: str = "", **when: Any) -> Ended:
        """Run the job with a fault, and see what that left."""
        ended = self.warm.run(f"{job.command} {option}", **when)
        self.check(job, killed=True)
        self.faults += ended.killed
        return ended

    def check(self, job: Job, killed: bool) -> None:
        """Every file is whole, there is nothing that was not there before, and an index means that its job is done."""
        found, own = self.warm.contents(), [str(path) for path in (job.index, *job.outputs)]
        for name, checksum in found.items():
            path = Path(name)
            if any(part.startswith(TEMPORARY) for part in path.parts):
                assert killed, f"{name} is left behind"
            elif path.is_relative_to(".cache/train") and path.suffix == ".safetensors":
                assert path.stem.endswith(checksum), f"the checkpoint {name} is not whole"
            elif path.is_relative_to(".cache/train"):
                assert path.name == ORIGIN, f"{name} is no file of checkpoints"
            else:
                assert self.whole.get(name) == checksum, f"{name} is not whole, or not the job's"
        missing = [name for name in self.whole if name not in found]
        assert all(any(Path(name).is_relative_to(each) for each in own) for name in missing), "another job's file"
        assert not missing or str(job.index) in missing, f"{job.index} says that the job is done"
        for each in own:
            # A folder is one output: there with all its files, or not there.
            files = {name for name in self.whole if Path(name).is_relative_to(each)}
            assert not files & set(missing) or files <= set(missing), f"{each} is there in part"


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Study]:
    made = Study(tmp_path_factory.mktemp("study"))
    yield made
    made.warm.close()
    print(f"\n{made.faults} faults")


@pytest.fixture
def disk(study: Study) -> Iterator[Study]:
    """A study on a disk of its own, which has enough room afterwards."""
    if not study.warm.disk:
        pytest.skip("this machine does not let its users mount")
    yield study
    study.warm.writable(True)
    study.warm.room(None)


def few(points: list, most: int) -> list:
    """At most so many of them, the first and the last included."""
    count = min(most, len(points))
    return [points[round(place * (len(points) - 1) / max(1, count - 1))] for place in range(count)]


def explained(ended: Ended, why: str) -> None:
    """The command ended with an error for a person."""
    assert ended.status == 1, ended.said
    assert "Traceback" not in ended.said
    assert f"error: cannot read or write: {why}\n  where: " in ended.said
    where = ended.said.rpartition("  where: ")[2]
    assert not any(mark in where for mark in TEMPORARY), f"a file that no person knows: {where}"


# --- the disk ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", code.STEPS)
def test_a_folder_that_cannot_be_written_to(disk: Study, step: str) -> None:
    disk.warm.writable(False)
    explained(disk.warm.run(disk.first(step).command), "Read-only file system")
    assert disk.warm.contents() == disk.whole


def fill(study: Study, job: Job, rooms: list[int]) -> None:
    """Run the job with each of the rooms, which are too small."""
    for room in rooms:
        study.undo(job)
        study.warm.room(room)
        explained(study.warm.run(job.command), "No space left on device")
        study.check(job, killed=False)
        study.warm.room(None)
        study.faults += 1
    study.done(job)


def rooms(writes: list[Write]) -> list[int]:
    """What leaves no room, half of it, and all but the last page, for each of the writes in turn."""
    parts = [
        (each.before, each.before + each.used // 2 // PAGE * PAGE, each.before + each.used - PAGE) for each in writes
    ]
    return sorted(set(chain(*parts)))


@pytest.mark.parametrize(("number", "step"), list(enumerate(code.STEPS)))
def test_a_disk_that_fills_up(disk: Study, number: int, step: str) -> None:
    """Before the first byte, somewhere, or before the last one: the steps take turns."""
    job = disk.first(step)
    places = few(rooms(disk.writes(job)), 3)
    fill(disk, job, [places[number % len(places)]])


@pytest.mark.heavy
@pytest.mark.parametrize("step", code.STEPS)
def test_a_disk_that_fills_up_in_each_output(disk: Study, step: str) -> None:
    job = disk.first(step)
    for room in rooms(disk.writes(job)):
        fill(disk, job, [room])


# --- kills ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", code.STEPS)
def test_killed_within_a_file_and_between_two(study: Study, step: str) -> None:
    """One after the other; the run at the end goes on from what both left."""
    job = study.first(step)
    writes = study.writes(job)
    middle = writes[len(writes) // 2]
    for when in ({"cut": (middle.begun, middle.largest // 2)}, {"after": middle.renames + 1}):
        study.undo(job)
        assert study.kill(job, **when).killed
    study.done(job)


@pytest.mark.heavy
@pytest.mark.parametrize("step", code.STEPS)
def test_killed_at_every_change(study: Study, step: str) -> None:
    """Before each of the changes it makes to the files of its folder, and at three bytes of each output."""
    job = study.first(step)
    study.undo(job)
    ended = study.done(job)
    for when in moments(ended, SLOW_MOST.get(step, MOST)):
        study.undo(job)
        assert study.kill(job, **when).killed
        study.done(job)


@pytest.mark.heavy
@pytest.mark.parametrize("step", code.STEPS)
def test_killed_while_old_outputs_are_replaced(study: Study, step: str) -> None:
    """The same where the outputs are there from before, and are made again by force."""
    job = study.first(step)
    # Raw files that were made again have other times: the first run takes note of them.
    study.done(job, "--force")
    ended = study.done(job, "--force")
    assert ended.writes
    for when in moments(ended, FORCED_MOST):
        assert study.kill(job, "--force", **when).killed
        study.done(job)


def moments(ended: Ended, most: int) -> list[dict[str, Any]]:
    """When a command that ended like this may be killed: at most so many changes, and bytes of outputs."""
    changes = [{"kill": number} for number in range(ended.events)]
    cuts = []
    for write in ended.writes:
        for size in (0, write.largest // 2, write.largest - 1):
            cuts.append({"cut": (write.begun, size)})
    return [*few(changes, most), *few(cuts, most)]


# --- damage -----------------------------------------------------------------------------------------------------------


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


KINDS = [
    "clips.parquet",
    "listing.parquet",
    "manifest.parquet",
    "quarantine-ingest.parquet",
    "features/video",
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
    further = re.compile(r"raw/|features/(audio|text)|/(audio|text)/seed-0/|/umt/")
    assert all(any(kind in name for kind in KINDS) for name in study.readers if not further.search(name))


@pytest.mark.parametrize("kind", KINDS)
def test_a_flipped_bit_is_found_by_every_reader(study: Study, kind: str) -> None:
    (name, (maker, readers)) = next(each for each in study.readers.items() if kind in each[0])
    # At the beginning, somewhere between, at the end: the kinds of files and their readers take turns.
    places = [0.0, random.Random(name).uniform(0.1, 0.9), 1.0]
    for number, reader in enumerate(readers, start=KINDS.index(kind)):
        assert damaged(study, name, reader, places[number % 3]) == maker.command
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
