"""Make a demo data set as raw files: `agm generate dial`.

`dial` is calibrated: every clip says one digit three times, and a parameter sets how clearly each time
(`dial.noise`). In the picture a real handwritten digit (scikit-learn's `load_digits`) drifts over noise; in the sound
its telephone key tone (two frequencies) rings in noise; in the transcript the word after "dial" names it.

    data/raw/dial/clips/<id>.mp4   H.264 and AAC
    data/raw/dial/clips/<id>.txt   the transcript
    data/raw/dial/labels.csv       clip_id, split, label, video, text, sha256 (of the MP4), text_sha256

60 % of the clips are for training, 20 % for validation, 20 % for the test, each balanced over the digits; no
handwritten sample is in two splits. Equal parameters give equal bytes, however many processes share the work.
"""

import csv
import hashlib
from functools import partial
from pathlib import Path
from typing import Any

from agm.pipeline.config import Params
from agm.pipeline.dag.graph import Job
from agm.pipeline.io.files import checksums, replacing
from agm.pipeline.runtime.parallel import parallel_map
from agm.pipeline.steps.generate import dial
from agm.pipeline.steps.generate.mp4 import encode

COLUMNS = ("clip_id", "split", "label", "video", "text", "sha256", "text_sha256")


def run(params: Params, job: Job) -> dict[str, Any]:
    """Write the clips and their labels.

    Returns:
        The number of clips of each split, the noise and the checksum of the labels.
    """
    labels, clips = job.outputs
    plans = dial.plan(params.dial)
    noise = params.dial.noise.model_dump()
    with replacing(clips) as folder:
        folder.mkdir()
        digests = list(parallel_map(partial(_make, folder, noise), plans, "generate dial"))
    counts = dict.fromkeys(dial.SHARES, 0)
    with replacing(labels) as temporary, open(temporary, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        for plan, (video_sha256, text_sha256) in zip(plans, digests, strict=True):
            video = f"{clips.name}/{plan.clip_id}.mp4"
            text = f"{clips.name}/{plan.clip_id}.txt"
            writer.writerow([plan.clip_id, plan.split, plan.label, video, text, video_sha256, text_sha256])
            counts[plan.split] += 1
    return {
        "clips": counts,
        "noise": noise,
        "sha256": checksums(labels.parent, [labels.name]),
    }


def _make(folder: Path, noise: dict[str, float], plan: dial.Plan) -> tuple[str, str]:
    """Write the two files of one clip, and return the checksum of each."""
    # The clip is encoded in memory, so that a full disk raises a plain OSError here and not inside the encoder.
    content = encode(dial.frames(plan, noise["video"]), dial.FPS, dial.sound(plan, noise["audio"]), dial.RATE)
    (folder / f"{plan.clip_id}.mp4").write_bytes(content)
    text = f"{dial.sentence(plan, noise['text'])}\n".encode()
    (folder / f"{plan.clip_id}.txt").write_bytes(text)
    return hashlib.sha256(content).hexdigest(), hashlib.sha256(text).hexdigest()
