"""Clips as pictures: a row per clip, a field per modality, drawn from the tensors that the networks see."""

import io
import textwrap
import unicodedata
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import hsv_to_rgb
from matplotlib.figure import Figure

from agm.pipeline.io.files import replacing
from agm.pipeline.io.tensors import Feature
from agm.pipeline.steps.inspect.fonts import Fonts
from agm.pipeline.steps.inspect.transcript import Transcript

FRAMES = 4
"""Greatest number of frames shown of a video."""
STYLE = {"font.family": "DejaVu Sans", "font.size": 7.0, "text.color": "#1f2630", "text.parse_math": False}
MUTED = "#667080"
ROW, CAPTION, GAP, HEAD = 1.1, 1.5, 0.12, 0.25
"""Inches: the height of a row, the width of its caption, the space between two fields, and that above the rows."""
WIDTHS = {"video": 1.1, "image": 1.1, "audio": 2.2, "sequence": 2.2, "text": 2.6}
"""Width of a field in inches; for a video, of one frame."""
LETTER, LINE = 0.056, 0.125
"""Width of a letter and height of a line of text, in inches."""
DPI = 100


@dataclass(frozen=True)
class Shown:
    """One clip to draw.

    Attributes:
        tensors: the tensor of each modality that the clip has.
        texts: the words of each text modality.
    """

    clip_id: str
    split: str
    label: str
    duration: float | None
    tensors: Mapping[str, np.ndarray]
    texts: Mapping[str, Transcript]


def draw(clips: Sequence[Shown], features: Mapping[str, Feature], target: Path, scale: float = 1.0) -> None:
    """Write the clips to `target` as PNG; equal clips give equal bytes.

    Args:
        scale: enlarges fields and pictures, but no letters.
    """
    widths = {name: scale * WIDTHS[feature.kind] * _frames(feature) for name, feature in features.items()}
    height = scale * ROW
    size = (CAPTION + sum(widths.values()) + GAP * (1 + len(widths)), HEAD + len(clips) * (height + GAP))
    fonts = Fonts(_characters(clips))
    style = STYLE | {"font.family": fonts.families}
    # matplotlib warns of a script that no font has, which the picture itself says.
    with mpl.rc_context(style), warnings.catch_warnings(action="ignore"):
        figure = Figure(figsize=size, dpi=DPI)
        for number, clip in enumerate(clips):
            top = HEAD + number * (height + GAP)
            _caption(_field(figure, GAP, top, CAPTION - GAP, height), clip, fonts)
            left = CAPTION + GAP
            for name, feature in features.items():
                axes = _field(figure, left, top, widths[name], height)
                left += widths[name] + GAP
                # The names of the modalities stand above the first row only.
                if number == 0:
                    axes.set_title(name, fontsize=7, color=MUTED, loc="left", pad=3)
                if name in clip.tensors:
                    _fill(axes, clip, name, feature, fonts)
        # By way of the memory: on a full disk, drawing to a file fails without saying why.
        content = io.BytesIO()
        FigureCanvasAgg(figure).print_png(content, metadata={"Software": None})
    with replacing(target) as temporary:
        temporary.write_bytes(content.getbuffer())


def _characters(clips: Sequence[Shown]) -> str:
    """All characters that the picture needs."""
    texts = []
    for clip in clips:
        texts += [clip.label, clip.clip_id]
        for transcript in clip.texts.values():
            texts += [transcript.person or "", transcript.network or ""]
    return "".join(texts)


def _frames(feature: Feature) -> int:
    """How many pictures stand side by side in a field."""
    return min(FRAMES, feature.shape[0]) if feature.kind == "video" else 1


def _field(figure: Figure, left: float, top: float, width: float, height: float) -> Axes:
    """Axes without marks at a place in inches from the upper left corner."""
    across, down = figure.get_size_inches()
    axes = figure.add_axes((left / across, 1 - (top + height) / down, width / across, height / down))
    axes.set_axis_off()
    return axes


def _caption(axes: Axes, clip: Shown, fonts: Fonts) -> None:
    """Label, clip id, split and duration of a clip."""
    seconds = "" if clip.duration is None else f", {clip.duration:.2f} s"
    label, clip_id = fonts.drawable(clip.label), fonts.drawable(clip.clip_id)
    axes.text(0, 1, "\n".join(_wrapped(label, 20, 3)), va="top", fontsize=9, weight="bold")
    details = [*_wrapped(clip_id, 24, 3), f"{clip.split}{seconds}"]
    axes.text(0, 0, "\n".join(details), color=MUTED)


def _fill(axes: Axes, clip: Shown, name: str, feature: Feature, fonts: Fonts) -> None:
    """Draw one modality of one clip."""
    if name in clip.texts:
        _words(axes, clip.texts[name], fonts)
        return
    tensor = clip.tensors[name]
    match feature.kind:
        case "video":
            places = np.linspace(0, len(tensor) - 1, _frames(feature)).round().astype(int)
            # An even number of channels is optical flow, horizontal and vertical in turn; pictures have 1 or 3.
            to_picture = _movement if tensor.shape[1] % 2 == 0 else _coloured
            _pictures(axes, [to_picture(tensor[place]) for place in places])
        case "image":
            _pictures(axes, [_coloured(tensor)])
        case "audio":
            axes.imshow(tensor.mean(axis=0), origin="lower", aspect="auto", cmap="magma", interpolation="nearest")
        case "sequence":
            _heat(axes, tensor, feature)


def _pictures(axes: Axes, pictures: Sequence[np.ndarray]) -> None:
    """Pictures [height, width, 3] side by side."""
    for place, picture in enumerate(pictures):
        axes.imshow(picture, extent=(1.04 * place, 1.04 * place + 1, 0, 1), interpolation="nearest")
    axes.set(xlim=(0, 1.04 * len(pictures) - 0.04), ylim=(0, 1), anchor="NW")


def _coloured(tensor: np.ndarray) -> np.ndarray:
    """A picture [channels, height, width] as colours [height, width, 3] from 0 to 1."""
    values = tensor.astype(np.float32)
    if tensor.dtype == np.uint8:
        values /= 255
    else:
        # Values of any scale: from the smallest one, black, to the largest one, white.
        values = (values - values.min()) / max(float(np.ptp(values)), 1e-6)
    if len(values) == 3:
        return np.moveaxis(values, 0, 2)
    gray = values.mean(axis=0)
    return np.repeat(gray[:, :, None], 3, axis=2)


def _movement(flow: np.ndarray) -> np.ndarray:
    """The first of the flows [2 · stack, height, width]: the direction is the hue, the speed its saturation."""
    # Flow is stored as bytes, 128 for no motion.
    across, down = flow[:2].astype(np.float32) - 128
    speed = np.hypot(across, down)
    hue = np.arctan2(down, across) / (2 * np.pi) % 1
    saturation = speed / max(float(speed.max()), 1e-6)
    return hsv_to_rgb(np.stack([hue, saturation, np.ones_like(hue)], axis=2))


def _heat(axes: Axes, tensor: np.ndarray, feature: Feature) -> None:
    """A sequence [steps, …, channels] as a map: steps from left to right, standardised channels from top to bottom."""
    # Zeros are padding.
    values = np.where(tensor == 0, 0.0, (tensor - np.array(feature.mean)) / np.array(feature.scale))
    flat = values.reshape(len(values), -1).T
    axes.imshow(flat, aspect="auto", cmap="coolwarm", vmin=-3, vmax=3, interpolation="nearest")


def _words(axes: Axes, text: Transcript, fonts: Fonts) -> None:
    """The text for a person, and below it, where they differ, the words that the network gets."""
    box = axes.get_window_extent()
    width, lines = int(box.width / DPI / LETTER), int(box.height / DPI / LINE)
    if text.person is not None:
        # Two texts share the field.
        most = lines if text.network is None else lines // 2
        axes.text(0, 1, "\n".join(_wrapped(fonts.drawable(text.person), width, most)), va="top")
    if text.network is not None:
        words = f"the network: {fonts.drawable(text.network)}"
        axes.text(0, 0, "\n".join(_wrapped(words, width, lines - lines // 2)), va="bottom", color=MUTED)


def _wrapped(text: str, width: int, lines: int) -> list[str]:
    """The first lines of a text; a character of Chinese, Japanese or Korean is as wide as two letters."""
    if any(unicodedata.east_asian_width(character) in "WF" for character in text):
        width //= 2
    return textwrap.wrap(text, width, max_lines=lines, placeholder=" …")
