"""What it costs to probe and extract one clip: milliseconds of CPU time on one thread.

    python benchmarks/decoding.py clip.mp4 other.avi --rounds 11

Each job runs once a round, and the median over the rounds is printed. To compare two checkouts, run it by turns with
`PYTHONPATH=<checkout>/src`.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from agm.pipeline.config.schema import AudioFeatures, FlowFeatures, VideoFeatures
from agm.pipeline.io.source import Source
from agm.pipeline.steps.extract import audio, flow, video
from agm.pipeline.steps.ingest.probe import probe

EVENLY = VideoFeatures(kind="video", frames=3)
AT_A_RATE = VideoFeatures(kind="video", frames=8, rate=2)
FLOW = FlowFeatures(kind="flow", frames=2, size=112)
SOUND = AudioFeatures(kind="audio", seconds=5.0)


def jobs(path: Path) -> dict[str, Callable[[], object]]:
    """What is done with one file, by name; nothing with a modality that it lacks."""
    found = {}
    file = Source(str(path))
    picture, sound = (_stream(file, kind) for kind in ("video", "audio"))
    if picture is not None:
        found["probe"] = partial(probe, file, "video")
        found["3 frames"] = partial(video.load, picture, EVENLY)
        found["2 frames a second"] = partial(video.load, picture, AT_A_RATE)
        found["optical flow"] = partial(flow.load, picture, FLOW)
    if sound is not None:
        found["5 s of sound"] = partial(audio.load, sound, SOUND)
    return found


def _stream(file: Source, kind: str) -> Source | None:
    try:
        return Source(file.path, probe(file, kind).stream)
    except Exception as error:
        print(f"{file.path}: {error}")
        return None


def measure(paths: list[Path], rounds: int) -> dict[tuple[str, str], float]:
    """Median milliseconds of each file's jobs."""
    times: dict[tuple[str, str], list[float]] = {}
    for _ in range(rounds):
        for path in paths:
            for name, job in jobs(path).items():
                start = time.process_time()
                job()
                times.setdefault((path.name, name), []).append(1000 * (time.process_time() - start))
    return {key: statistics.median(each) for key, each in times.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("paths", nargs="+", type=Path, metavar="FILE")
    parser.add_argument("--rounds", type=int, default=11)
    arguments = parser.parse_args()
    for (path, name), milliseconds in measure(arguments.paths, arguments.rounds).items():
        print(f"{path:<28}{name:<20}{milliseconds:9.1f}")


if __name__ == "__main__":
    main()
