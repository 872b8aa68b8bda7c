"""Can this file be used? Which of its streams, and how long is it?

The answer costs the header and the first frame, or the first packet of sound: a file's size does not matter. What a
probe cannot see, damage further on, is found when the features are extracted.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import av
from av.container import InputContainer
from av.stream import Disposition, Stream
from PIL import UnidentifiedImageError

from agm import limits
from agm.config.schema import Limits
from agm.encoding import decoded
from agm.ingest.cell import INVISIBLE
from agm.ingest.clip import Clip
from agm.media import IMAGE_FORMATS, Unusable, open_container, opened_array, opened_image, told
from agm.source import Source


@dataclass(frozen=True)
class Media:
    """One usable file.

    Attributes:
        stream: index of the stream in its container, for video and audio.
        duration: of that stream in seconds, where the container knows it.
    """

    stream: int | None = None
    duration: float | None = None


@dataclass(frozen=True)
class Rejection:
    """Why a clip cannot be used: its first modality that fails, or None where the annotations leave the clip out."""

    modality: str | None
    reason: str


def probe_clip(root: str, kinds: dict[str, str], most: Limits, clip: Clip) -> dict[str, Media] | Rejection:
    """Probe every modality (name → kind in `kinds`) of one clip, under the limits `most`."""
    if clip.left_out is not None:
        return Rejection(None, clip.left_out)
    found = {}
    for modality, kind in kinds.items():
        if modality not in clip.sources:
            return Rejection(modality, f"the annotations name no file for {modality}")
        try:
            with limits.under(most):
                found[modality] = probe(clip.sources[modality].below(root), kind)
        except Unusable as error:
            return Rejection(modality, str(error))
    return found


def probe(source: Source, kind: str) -> Media:
    """Probe one source as `kind`: video, flow, audio, image, array, text or sequence.

    Of a file that holds many clips, only that it is there: reading a clip of it may mean reading it all.

    Raises:
        Unusable: with the reason.
    """
    if source.text is not None:
        return _words(source.text)
    path = Path(source.path)
    try:
        size = path.stat().st_size
        if size == 0:
            raise Unusable("the file is empty")
        return _within(PROBES[kind](path, size), source) if source.member is None else Media()
    except (Unusable, MemoryError):
        raise
    except FileNotFoundError:
        raise Unusable("the file is not there") from None
    except OSError as error:
        raise Unusable(f"the file cannot be read: {error.strerror or error}") from None
    except Exception as error:  # decoders fail in many ways on damaged files, and each must cost one clip only
        raise Unusable(f"the {kind} cannot be decoded: {told(error)}") from None


def _within(media: Media, source: Source) -> Media:
    """The same file, of which the clip may be only a piece: that is what must not be too long."""
    if media.duration is None:
        return media
    start, end = source.start or 0.0, min(media.duration, source.end or media.duration)
    if start >= end:
        raise Unusable(f"the file ends after {media.duration:g} s, before the clip begins ({start:g} s)")
    limits.check("seconds", end - start, "the clip lasts {} s")
    return replace(media, duration=end - start)


def _timed(kind: str, path: Path, size: int) -> Media:
    if missing := _missing_bytes(path, size):
        raise Unusable(f"truncated: the file ends at least {missing:,} bytes too early")
    with open_container(path) as file:
        holds = "video" if file.streams.video else "file"
        stream = file.streams.best(kind)
        if stream is None or stream.disposition & Disposition.attached_pic:
            raise Unusable(f"the {holds} has no {'sound' if kind == 'audio' else 'picture'}")
        if stream.codec_context is None:
            raise Unusable(f"there is no decoder for its {kind}")
        stream.codec_context.thread_count = 1
        if kind == "video":
            limits.check_picture(stream.width, stream.height, kind)
        first = next(file.decode(stream), None)
        if first is None:
            raise Unusable(f"the {kind} stream is empty")
        if kind == "video":
            limits.check_picture(first.width, first.height, kind)
        # Inside the block: a stream of a closed container is a dangling pointer.
        return Media(stream.index, _duration(file, stream))


def _duration(file: InputContainer, stream: Stream) -> float | None:
    if stream.duration is not None:
        seconds = float(stream.duration * stream.time_base)
    elif file.duration is not None:
        seconds = file.duration / av.time_base
    else:
        return None
    if seconds <= 0:
        raise Unusable(f"the {stream.type} lasts {seconds:g} s")
    return seconds


def _missing_bytes(path: Path, size: int) -> int:
    """How far the last box of an MP4 reaches beyond the end of the file; 0 for other formats.

    FFmpeg opens a file whose header comes first and whose end is missing without a word.
    """
    with open(path, "rb") as file:
        position, name = 0, b""
        while position + 8 <= size:
            file.seek(position)
            header = file.read(16)
            length, name = int.from_bytes(header[:4]), header[4:8]
            if position == 0 and name != b"ftyp":
                return 0
            if length == 1:  # a 64-bit length follows
                length = int.from_bytes(header[8:])
            if length < 8:  # 0: to the end of the file; else not a box
                return 0
            position += length
    # Whatever some camera appends to its files is no box.
    return max(0, position - size) if name in (b"mdat", b"moov", b"moof") else 0


def _image(path: Path, size: int) -> Media:
    try:
        with opened_image(path) as image:
            image.verify()  # checksums, where the format has them; the file must be opened anew after it
        with opened_image(path) as image:
            image.load()
    except UnidentifiedImageError:
        raise Unusable(f"not an image ({', '.join(IMAGE_FORMATS)}), or damaged") from None
    except (OSError, SyntaxError) as error:  # what Pillow raises for damaged content
        raise Unusable(f"the image is damaged: {told(error)}") from None
    return Media()


def _text(path: Path, size: int) -> Media:
    limits.check("text_bytes", size, "the text has {} bytes")
    try:
        text = decoded(path.read_bytes())
    except UnicodeDecodeError as error:
        byte = error.object[error.start]
        raise Unusable(f"the text is not UTF-8 (byte {byte:#04x} at {error.start})") from None
    return _words(text)


def _words(text: str) -> Media:
    limits.check("text_bytes", len(text.encode()), "the text has {} bytes")
    if not INVISIBLE.sub("", text).strip():
        raise Unusable("the text is blank")
    return Media()


def _array(path: Path, size: int) -> Media:
    # A file of holes has all the numbers that its header claims, and hardly a byte.
    limits.check("numbers", opened_array(path).size, "the array has {} numbers")
    return Media()


PROBES: dict[str, Callable[[Path, int], Media]] = {
    "video": partial(_timed, "video"),
    "flow": partial(_timed, "video"),
    "audio": partial(_timed, "audio"),
    "image": _image,
    "array": _array,
    "text": _text,
    "sequence": _array,
}
