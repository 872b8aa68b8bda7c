"""Probe a file: can it be used, which of its streams is the clip, and how long is it?

A probe reads the header and the first frame, or the first packet of sound, however large the file is. There are two
exceptions: all packets are read of formats whose headers do not state the length (`media.JUMPING`), and of files that
show nothing (`agm.pipeline.steps.ingest.flaws`). A probe does not see damage further on: `agm extract` finds that.
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
    message_of,
    open_container,
    opened_array,
    opened_image,
    origin,
    seconds,
    warnings_named,
)
from agm.pipeline.io.source import Source
from agm.pipeline.steps.ingest.cell import INVISIBLE
from agm.pipeline.steps.ingest.clip import Clip
from agm.pipeline.steps.ingest.flaws import SAYS, flaw

TIFF = (b"II*\0", b"MM\0*")
"""The first bytes of such a file, in its two byte orders."""
COVERS = Disposition.attached_pic | Disposition.timed_thumbnails
# Tracks about the clip, or for some viewers only.
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
        flaw: why it shows nothing although it can be decoded (`agm.pipeline.steps.ingest.flaws`); None for nearly all.
        digest: the digest of a text: equal for texts that differ only in case, spaces and invisible characters.
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
        flaw: the flaw of that modality's file, where the clip is quarantined because of it.
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
    probed = {}
    for modality, kind in kinds.items():
        if modality not in clip.sources:
            return Rejection(modality, f"the annotations name no file for {modality}")
        source = clip.sources[modality].below(root)
        # The flaws are looked for only in a file that can be used.
        try:
            with warnings_named(source.path), limits.under(most):
                media = probe(source, kind)
                media = replace(media, flaw=flaw(source, kind, media.stream))
        except Unusable as error:
            return Rejection(modality, str(error))
        if media.flaw in quarantine:
            return Rejection(modality, f"{SAYS[media.flaw]} (dataset.quarantine)", media.flaw)
        probed[modality] = media
    return probed


def probe(source: Source, kind: str) -> Media:
    """Probe one source as `kind`: video, flow, audio, image, array, text or sequence.

    A file that holds many clips must only exist: reading one clip of it may mean reading all.

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
        if source.member is not None:
            return Media()
        return _within(PROBES[kind](path, size), source)
    except (Unusable, MemoryError):
        raise
    except FileNotFoundError:
        raise Unusable("the file is not there") from None
    except OSError as error:
        raise Unusable(f"the file cannot be read: {error.strerror or error}") from None
    except Exception as error:  # decoders fail in many ways on damaged files; only this clip is quarantined
        raise Unusable(f"the {kind} cannot be decoded: {message_of(error)}") from None


def _within(media: Media, source: Source) -> Media:
    """The probed file with the duration of the clip, which may be a piece of it. The limit holds for the piece."""
    if media.duration is None:
        return media
    start = source.start or 0.0
    end = min(media.duration, source.end or media.duration)
    if start >= end:
        raise Unusable(f"the file ends after {media.duration:g} s, before the clip begins ({start:g} s)")
    limits.check("seconds", end - start, "the clip lasts {} s")
    return replace(media, duration=end - start)


def _timed(kind: str, path: Path, size: int) -> Media:
    """Probe a file of video or sound."""
    missing = _missing_bytes(path, size)
    if missing:
        raise Unusable(f"truncated: the file ends at least {missing:,} bytes too early")
    with open_container(path) as file:
        stream = _main(file, kind)
        if stream is None:
            holder = "video" if file.streams.video else "file"
            wanted = "sound" if kind == "audio" else "picture"
            raise Unusable(f"the {holder} has no {wanted}")
        if stream.codec_context is None:
            raise Unusable(f"there is no decoder for its {kind}")
        stream.codec_context.thread_count = 1
        if kind == "video":
            _check_transparency(stream)
            limits.check_picture(stream.width, stream.height, kind)
        if next(decoded(file, stream), None) is None:
            raise Unusable(f"the {kind} stream is empty, or nothing of it can be decoded")
        # Inside the `with` block: a stream of a closed container is a dangling pointer.
        return Media(stream.index, _duration(path, file, stream))


def _check_transparency(stream: VideoStream) -> None:
    """Refuse VP8 and VP9 with transparency: FFmpeg's own decoders ignore it, and would show what it hides."""
    if stream.metadata.get("alpha_mode") == "1":
        raise Unusable(f"the transparency of its {stream.codec_context.name} video cannot be decoded: save it without")


def _main(file: InputContainer, kind: str) -> Stream | None:
    """The stream that is the clip itself: no cover, no track about the clip and none for some viewers only."""
    best = file.streams.best(kind)
    streams = [stream for stream in getattr(file.streams, kind) if not stream.disposition & COVERS]

    def rank(stream: Stream) -> tuple[bool, ...]:
        name = f"{stream.metadata.get('title', '')} {stream.metadata.get('handler_name', '')}"
        aside = bool(stream.disposition & ASIDE) or ASIDE_NAMES.search(name) is not None
        default = bool(stream.disposition & Disposition.default)
        return stream.codec_context is not None, not aside, stream.index == best.index, default

    return max(streams, key=rank, default=None)


def _duration(path: Path, file: InputContainer, stream: Stream) -> float | None:
    """Seconds from the beginning of the file to the end of the stream; None where nothing states them."""
    if file.format.name in JUMPING:
        duration = seconds(path, stream.index)
    elif stream.duration is not None and stream.duration <= 0:
        duration = 0.0
    elif stream.duration is not None:
        # A stream may begin after the file does, and the clip is counted from the beginning of the file.
        late = (stream.start_time or 0) * stream.time_base - origin(file)
        duration = float(stream.duration * stream.time_base + max(late, 0))
    elif file.duration is not None:
        duration = file.duration / av.time_base
    else:
        return None
    if duration is not None and duration <= 0:
        raise Unusable(f"the {stream.type} lasts {duration:g} s")
    return duration


def _missing_bytes(path: Path, size: int) -> int:
    """The number of bytes by which the last box of an MP4 exceeds the end of the file; 0 for other formats.

    FFmpeg gives no error for a file whose header comes first and whose end is missing.
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
            if length < 8:  # 0 means: to the end of the file; 1 to 7 is no box
                return 0
            position += length
    # Some cameras append data to their files that is no box.
    return max(0, position - size) if name in (b"mdat", b"moov", b"moof") else 0


def _image(path: Path, size: int) -> Media:
    try:
        with opened_image(path) as image:
            image.verify()  # compares checksums, where the format has them; afterwards the file must be opened anew
        with opened_image(path) as image:
            image.load()
    except UnidentifiedImageError:
        raise Unusable(_unidentified(path)) from None
    except (OSError, SyntaxError) as error:  # what Pillow raises for damaged content
        raise Unusable(f"the image is damaged: {message_of(error)}") from None
    return Media()


def _unidentified(path: Path) -> str:
    """Why Pillow does not know a file."""
    with open(path, "rb") as file:
        beginning = file.read(4)
    if beginning in TIFF:
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
    """Probe a text, and compute the digest by which equal texts are found."""
    limits.check("text_bytes", len(text.encode()), "the text has {} bytes")
    visible = INVISIBLE.sub("", text)
    if not visible.strip():
        raise Unusable("the text is blank")
    plain = " ".join(unicodedata.normalize("NFC", visible).casefold().split())
    return Media(digest=blake2b(plain.encode(), digest_size=8).hexdigest())


def _array(path: Path, size: int) -> Media:
    # A sparse file has all the numbers that its header claims, but nearly no bytes on disk.
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
