"""Render the picture, sound and transcript of a clip of `dial`.

A plan fixes a clip's digit, split and handwritten sample; three functions render it. Each draws from a generator
seeded by (seed, clip, modality), so that no clip depends on another or on the order of the work, and the noise of one
modality changes nothing in the others.

The noise of each modality limits how well anybody can recognise the digit:
- video: white noise, new in every pixel of every frame; its standard deviation divided by the digit's contrast. The
  digit is enlarged five times, so that it covers many pixels and a network can average some noise away.
- audio: white noise; its standard deviation divided by the amplitude of each of the tone's two sines.
- text: the share of transcripts that name a wrong digit. The other number words are drawn independently of the label,
  so nobody can do better than 1 - noise.text.
"""

from dataclasses import dataclass

import numpy as np
from numpy.random import Generator, default_rng

from agm.pipeline.config.schema import Dial

SHARES = {"train": 0.6, "val": 0.2, "test": 0.2}
DIGITS = 10

FPS = 10
FRAMES = 10
SIZE = 48
DIGIT_SIZE = 40
CONTRAST = 32.0  # grey levels between paper and ink
PAPER = 112.0  # mid-grey, so that noise clips as little at black as ink and noise do at white

RATE = 8000
SECONDS = 1.0
TONE_SECONDS = 0.4
FADE_SECONDS = 0.01
AMPLITUDE = 0.05  # of each sine; it leaves room for loud noise below full scale
ROWS, COLUMNS = (697, 770, 852, 941), (1209, 1336, 1477)  # Hz, ITU-T Q.23
KEYS = "123456789*0#"

WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
SENTENCES = (
    "dial {digit} then hold, extension {a} {b}",
    "for room {a} please dial {digit}, not {b}",
    "if line {a} is busy, dial {digit} and wait for {b} tones",
    "after {a} rings dial {digit} or ask for desk {b}",
)


@dataclass(frozen=True)
class Plan:
    """One clip to make.

    Attributes:
        index: its number, which with `seed` seeds all its randomness.
        ink: the handwritten sample, float64 [8, 8], 0 (paper) to 1 (ink).
    """

    clip_id: str
    split: str
    label: int
    seed: int
    index: int
    ink: np.ndarray

    def random(self, purpose: int) -> Generator:
        """The generator of one modality (0 picture, 1 sound, 2 transcript) of this clip."""
        return default_rng((self.seed, self.index, purpose))


def plan(settings: Dial) -> list[Plan]:
    """Every clip of the data set: contiguous splits, labels in turn, samples used evenly."""
    pools = _pools(settings.seed)
    counts = {split: round(share * settings.clips) for split, share in SHARES.items()}
    # Rounding may lose or add a clip.
    counts["train"] += settings.clips - sum(counts.values())
    plans: list[Plan] = []
    for split, count in counts.items():
        for turn in range(count):
            label = turn % DIGITS
            pool = pools[split][label]
            ink = pool[turn // DIGITS % len(pool)]
            index = len(plans)
            plans.append(Plan(f"dial-{index:05d}", split, label, settings.seed, index, ink))
    return plans


def _pools(seed: int) -> dict[str, list[np.ndarray]]:
    """The handwritten samples of each split and digit, [samples, 8, 8]: every sample is in exactly one split."""
    from sklearn.datasets import load_digits  # the import takes a second, and the workers do not need it

    images, labels = load_digits(return_X_y=True)
    images = images.reshape(-1, 8, 8) / 16.0
    random = default_rng((seed,))
    pools: dict[str, list[np.ndarray]] = {split: [] for split in SHARES}
    bounds = np.cumsum(list(SHARES.values()))[:-1]
    for digit in range(DIGITS):
        samples = images[random.permutation(np.flatnonzero(labels == digit))]
        parts = np.split(samples, np.round(bounds * len(samples)).astype(int))
        for split, part in zip(SHARES, parts, strict=True):
            pools[split].append(part)
    return pools


def frames(plan: Plan, noise: float) -> np.ndarray:
    """The picture: uint8 [frames, size, size], the digit on a straight path over fresh noise in every frame."""
    random = plan.random(0)
    digit = _enlarged(plan.ink)
    start, end = random.uniform(0, SIZE - DIGIT_SIZE, size=(2, 2))
    screen = random.normal(scale=noise, size=(FRAMES, SIZE, SIZE))
    for number in range(FRAMES):
        top, left = np.round(start + (end - start) * number / (FRAMES - 1)).astype(int)
        screen[number, top : top + DIGIT_SIZE, left : left + DIGIT_SIZE] += digit
    return np.clip(np.round(PAPER + CONTRAST * screen), 0, 255).astype(np.uint8)


def _enlarged(ink: np.ndarray) -> np.ndarray:
    """The sample at DIGIT_SIZE, by linear interpolation along both axes."""
    places = np.linspace(0, len(ink) - 1, DIGIT_SIZE)
    # Column k of the matrix interpolates the k-th unit vector; so the matrix interpolates any vector.
    columns = [np.interp(places, np.arange(len(ink)), unit) for unit in np.eye(len(ink))]
    interpolation = np.stack(columns, axis=1)
    return interpolation @ ink @ interpolation.T


def sound(plan: Plan, noise: float) -> np.ndarray:
    """The sound: float32 [samples] within ±1, the label's key tone at a random moment in white noise."""
    random = plan.random(1)
    samples = random.normal(scale=noise, size=round(RATE * SECONDS))
    time = np.arange(round(RATE * TONE_SECONDS)) / RATE
    fade = np.clip(np.minimum(time, time[::-1]) / FADE_SECONDS, 0, 1)  # without it, a click
    row, column = divmod(KEYS.index(str(plan.label)), len(COLUMNS))
    row_phase, column_phase = random.uniform(0, 2 * np.pi, size=2)

    tone = np.sin(2 * np.pi * ROWS[row] * time + row_phase) + np.sin(2 * np.pi * COLUMNS[column] * time + column_phase)
    start = random.integers(len(samples) - len(time) + 1)
    samples[start : start + len(time)] += fade * tone
    return np.clip(AMPLITUDE * samples, -1, 1).astype(np.float32)


def sentence(plan: Plan, noise: float) -> str:
    """The transcript: the word after "dial" names the digit, or with probability `noise` another one."""
    random = plan.random(2)
    a, b = random.integers(DIGITS, size=2)
    # The wrong digit is drawn in any case, so that the noise does not change what is drawn after it.
    wrong = (plan.label + random.integers(1, DIGITS)) % DIGITS
    digit = wrong if random.random() < noise else plan.label
    return SENTENCES[random.integers(len(SENTENCES))].format(digit=WORDS[digit], a=WORDS[a], b=WORDS[b])
