"""Can this file be used? Which of its streams, and how long is it?

The answer costs the header and the first frame, or the first packet of sound: a file's size does not matter, except
for formats whose headers do not tell how long they are (`media.JUMPING`), of which all packets are read, and for files
that show nothing (`agm.pipeline.steps.ingest.flaws`). What a probe cannot see, damage further on, is found when the
features are extracted.
"""

import re
import unicodedata
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from functools import partial
from hashlib import blake2b
from pathlib import Path

import av
from av.container import InputContainer
from av.stream import Disposition, Stream
from av.video.stream import VideoStream
from PIL import UnidentifiedImageError

from agm.pipeline.config.schema import Flaw, Limits
from agm.pipeline.io import limits
from agm.pipeline.io.encoding import as_text
from agm.pipeline.io.media import (
    IMAGE_FORMATS,
    JUMPING,
    Unusable,
    decoded,
    open_container,
    opened_array,
    opened_image,
    origin,
    seconds,
    told,
    warnings_named,
)
from agm.pipeline.io.source import Source
from agm.pipeline.steps.ingest.cell import INVISIBLE
from agm.pipeline.steps.ingest.clip import Clip
from agm.pipeline.steps.ingest.flaws import SAYS, flaw

TIFF = (b"II*\0", b"MM\0*")
"""How such a file begins."""
COVERS = Disposition.attached_pic | Disposition.timed_thumbnails
ASIDE = (
    Disposition.comment
    | Disposition.descriptions
    | Disposition.visual_impaired
    | Disposition.hearing_impaired
    | Disposition.karaoke
    | Disposition.lyrics
    | Disposition.clean_effects
    | Disposition.non_diegetic
    | Disposition.dependent
)
ASIDE_NAMES = re.compile("comment(s|ary)|description|descriptive", re.IGNORECASE)


@dataclass(frozen=True)
class Media:
    """One usable file.

    Attributes:
        stream: index of the stream in its container, for video and audio.
        duration: seconds from the beginning of the file to the end of that stream, where the container knows it.
        flaw: what it shows although it can be decoded (`agm.pipeline.steps.ingest.flaws`); None for nearly all.
        digest: of a text: equal for texts that differ in case, spaces and invisible characters alone.
    """

    stream: int | None = None
    duration: float | None = None
    flaw: Flaw | None = None
    digest: str | None = None


@dataclass(frozen=True)
class Rejection:
    """Why a clip cannot be used.

    Attributes:
        modality: its first modality that fails, or None where the annotations leave the clip out.
        flaw: what that modality's file shows, where the clip is quarantined because of it.
    """

    modality: str | None
    reason: str
    flaw: Flaw | None = None


def probe_clip(
    root: str, kinds: dict[str, str], most: Limits, quarantine: Collection[Flaw], clip: Clip
) -> dict[str, Media] | Rejection:
    """Probe every modality (name → kind in `kinds`) of one clip, under the limits `most`.

    Args:
        quarantine: the flaws for which the clip is quarantined.
    """
    if clip.left_out is not None:
        return Rejection(None, clip.left_out)
    found = {}
    for modality, kind in kinds.items():
        if modality not in clip.sources:
            return Rejection(modality, f"the annotations name no file for {modality}")
        source = clip.sources[modality].below(root)
        try:
            with warnings_named(source.path), limits.under(most):
                media = probe(source, kind)
                media = replace(media, flaw=flaw(source, kind, media.stream))
        except Unusable as error:
            return Rejection(modality, str(error))
        if media.flaw in quarantine:
            return Rejection(modality, f"{SAYS[media.flaw]} (dataset.quarantine)", media.flaw)
        found[modality] = media
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
    except Exception as error:  # decoders fail in many ways on damaged files, and each must quarantine one clip only
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
        stream = _main(file, kind)
        if stream is None:
            raise Unusable(f"the {holds} has no {'sound' if kind == 'audio' else 'picture'}")
        if stream.codec_context is None:
            raise Unusable(f"there is no decoder for its {kind}")
        stream.codec_context.thread_count = 1
        if kind == "video":
            _check_transparency(stream)
            limits.check_picture(stream.width, stream.height, kind)
        if next(decoded(file, stream), None) is None:
            raise Unusable(f"the {kind} stream is empty, or nothing of it can be decoded")
        # Inside the block: a stream of a closed container is a dangling pointer.
        return Media(stream.index, _duration(path, file, stream))


def _check_transparency(stream: VideoStream) -> None:
    """Refuse VP8 and VP9 with transparency: FFmpeg's own decoders leave it out, and what it hides would be seen."""
    if stream.metadata.get("alpha_mode") == "1":
        raise Unusable(f"the transparency of its {stream.codec_context.name} video cannot be decoded: save it without")


def _main(file: InputContainer, kind: str) -> Stream | None:
    """The stream that is the clip itself: neither a cover, nor a track about it or for some only."""
    best = file.streams.best(kind)
    streams = [each for each in getattr(file.streams, kind) if not each.disposition & COVERS]

    def rank(stream: Stream) -> tuple[bool, ...]:
        name = " ".join(stream.metadata.get(key, "") for key in ("title", "handler_name"))
        aside = bool(stream.disposition & ASIDE) or ASIDE_NAMES.search(name) is not None
        default = bool(stream.disposition & Disposition.default)
        return stream.codec_context is not None, not aside, stream.index == best.index, default

    return max(streams, key=rank, default=None)


def _duration(path: Path, file: InputContainer, stream: Stream) -> float | None:
    if file.format.name in JUMPING:
        found = seconds(path, stream.index)
    elif stream.duration is not None:
        late = (stream.start_time or 0) * stream.time_base - origin(file)
        found = float(stream.duration * stream.time_base + max(late, 0)) if stream.duration > 0 else 0.0
    elif file.duration is not None:
        found = file.duration / av.time_base
    else:
        found = None
    if found is not None and found <= 0:
        raise Unusable(f"the {stream.type} lasts {found:g} s")
    return found


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
        raise Unusable(_unidentified(path)) from None
    except (OSError, SyntaxError) as error:  # what Pillow raises for damaged content
        raise Unusable(f"the image is damaged: {told(error)}") from None
    return Media()


def _unidentified(path: Path) -> str:
    """What is wrong with a file that Pillow does not know."""
    with open(path, "rb") as file:
        if file.read(4) in TIFF:
            kinds = "64-bit floats, or colours as floats, say"
            return f"a kind of TIFF that cannot be read ({kinds}): save it as another, or as an array"
    return f"not an image ({', '.join(IMAGE_FORMATS)}), or damaged"


def _text(path: Path, size: int) -> Media:
    limits.check("text_bytes", size, "the text has {} bytes")
    try:
        text = as_text(path.read_bytes())
    except UnicodeDecodeError as error:
        byte = error.object[error.start]
        raise Unusable(f"the text is not UTF-8 (byte {byte:#04x} at {error.start})") from None
    return _words(text)


def _words(text: str) -> Media:
    limits.check("text_bytes", len(text.encode()), "the text has {} bytes")
    seen = INVISIBLE.sub("", text)
    if not seen.strip():
        raise Unusable("the text is blank")
    plain = " ".join(unicodedata.normalize("NFC", seen).casefold().split())
    return Media(digest=blake2b(plain.encode(), digest_size=8).hexdigest())


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
