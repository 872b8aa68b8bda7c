"""Opening files, and decoding what is sound in them on one clock: what probing and extraction share."""

import math
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from functools import lru_cache
from itertools import chain
from pathlib import Path

import av
import numpy as np
from av.audio.frame import AudioFrame
from av.container import InputContainer
from av.frame import Frame
from av.packet import Packet
from av.stream import Stream
from av.video.frame import VideoFrame
from PIL import Image

from agm.pipeline.io import limits
from agm.pipeline.io.limits import Unusable
from agm.pipeline.runtime.progress import say

# Pillow's other formats run programs or are rarely pictures.
IMAGE_FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
NPY = b"\x93NUMPY"
# FFmpeg's other formats are playlists, which name files of their own and so lead out of the data set's folder, games'
# and consoles', or not media.
CONTAINERS = (
    "aac,ac3,aiff,amr,ape,apng,asf,au,av1,avi,caf,dirac,dnxhd,dts,dtshd,dv,eac3,flac,flv,gif,gsm,gxf,h261,h263,h264,"
    "hevc,ircam,ivf,live_flv,loas,m4v,matroska,mjpeg,mlp,mov,mp3,mp4,mpc,mpc8,mpeg,mpegts,mpegvideo,mxf,nistsphere,nsv,"
    "nut,obu,ogg,oma,paf,qcp,rm,smjpeg,sox,swf,tak,truehd,tta,vc1,voc,vvc,w64,wav,webm,wtv,wv,xwma,yuv4mpegpipe,"
    "bmp_pipe,jpeg_pipe,png_pipe,tiff_pipe,webp_pipe"
)
# Files whose times may jump where two recordings meet. In others a long pause is one: a page of slides, say.
JUMPING = ("mpegts", "mpeg", "flv", "live_flv")
# Seconds by which the times that containers state may be wrong, which count milliseconds.
ROUNDING = Fraction(2, 1000)
# Seconds. Times that go back by less are out of order, and a shorter pause is a hole.
BACK = 0.5
JUMP = 10.0


@contextmanager
def warnings_named(path: str | None) -> Iterator[None]:
    """Say what libraries warn of while the file at `path` is read, each warning once and with the file's name, which
    the libraries themselves leave out."""
    with warnings.catch_warnings(record=True) as caught:
        try:
            yield
        finally:
            for message in dict.fromkeys(str(each.message) for each in caught):
                say(f"{path}: warning: {' '.join(message.split())}")


@contextmanager
def opened_image(path: Path) -> Iterator[Image.Image]:
    """Open an image; what Pillow raises for a damaged one is the caller's.

    Raises:
        Unusable: when it has more pixels than the limit, or more text than Pillow reads.
    """
    pillows, most = Image.MAX_IMAGE_PIXELS, limits.most("pixels")
    # In the place of Pillow's own limit, which it also asks where a picture grows while it is decoded.
    Image.MAX_IMAGE_PIXELS = None if most == math.inf else int(most)
    try:
        # A small file can claim to be a huge picture: where Pillow would warn, nothing is decoded.
        with (
            warnings.catch_warnings(action="error", category=Image.DecompressionBombWarning),
            Image.open(path, formats=IMAGE_FORMATS) as image,
        ):
            yield image
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        pixels = re.search(r"\d+", str(error))  # the number of pixels is the first in its words
        limits.check("pixels", int(pixels[0]) if pixels else math.inf, "the image has {} pixels")
        raise
    except ValueError as error:
        if "Decompressed data too large" in str(error):  # of a PNG's texts and profiles; a limit of Pillow's own
            raise Unusable(f"the image holds a compressed text or profile of more than 1 MiB: {error}") from None
        raise
    finally:
        Image.MAX_IMAGE_PIXELS = pillows


def opened_array(path: Path) -> np.ndarray:
    """Map the numbers [steps, …] of a .npy file; they are read where they are used.

    Raises:
        Unusable: when it is no such file, is damaged, has no step, or holds something else than numbers.
    """
    with open(path, "rb") as file:
        if file.read(len(NPY)) != NPY:
            raise Unusable("not an array in NumPy's .npy format, or damaged")
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except OSError:
        raise
    except Exception as error:  # the parser of headers fails in many ways on damaged ones
        raise Unusable(f"the array is truncated, damaged or made of Python objects: {told(error)}") from None
    if array.dtype.kind not in "fiu":
        raise Unusable(f"the array holds {array.dtype}, not integers or floating-point numbers")
    if array.ndim == 0 or 0 in array.shape:
        raise Unusable(f"the array is empty: its shape is {list(array.shape)}")
    return array


def open_container(path: Path) -> InputContainer:
    """Open a video or sound file.

    Raises:
        Unusable: when it is none, or is too damaged to be opened.
    """
    if path.stat().st_size == 0:
        raise Unusable("the file is empty")
    try:
        # A playlist must not make FFmpeg open other places, the network least of all.
        options = {"protocol_whitelist": "file", "format_whitelist": CONTAINERS}
        return av.open(str(path.absolute()), metadata_errors="ignore", options=options)
    except MemoryError:
        raise
    except av.FFmpegError as error:
        raise Unusable(f"not a video or sound file, truncated or damaged: {told(error)}") from None


@lru_cache(maxsize=256)
def seconds(path: Path, index: int) -> float | None:
    """How many seconds after its beginning a file's stream ends, by its packets; None where they do not tell."""
    with open_container(path) as container:
        stream = container.streams[index]
        ends = [each.pts + (each.duration or 0) for each in packets(container, stream) if each.pts is not None]
        return float(max(ends) * stream.time_base - origin(container)) if ends else None


def told(error: Exception) -> str:
    """What a library says, without its numbers and paths."""
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


@contextmanager
def opened(path: Path, index: int | None, kind: str) -> Iterator[tuple[InputContainer, Stream]]:
    """Open stream `index` of a container for decoding by one thread.

    Raises:
        Unusable: when the file is no such container, or the stream is not of `kind` ("video" or "audio") or cannot be
            decoded.
    """
    with open_container(path) as found:
        if index is None or index >= len(found.streams) or found.streams[index].type != kind:
            raise Unusable(f"the file has no {kind} in stream {index}")
        stream = found.streams[index]
        if stream.codec_context is None:
            raise Unusable(f"there is no decoder for its {kind}")
        stream.codec_context.thread_count = 1
        yield found, stream


class Recordings:
    """Numbers the recordings that one stream of a file was joined from.

    A new one begins where times of decoding, which ascend, go back or, in some formats, jump.
    """

    def __init__(self, container: InputContainer, stream: Stream) -> None:
        self.current = 0
        self._back = BACK / stream.time_base
        self._jump = JUMP / stream.time_base if container.format.name in JUMPING else math.inf
        self._last: int | None = None
        self._least, self._most = -math.inf, math.inf

    def number(self, packet: Packet) -> int:
        """The number of the recording that the stream's next packet belongs to, from 0."""
        time = packet.dts
        if time is None or packet.is_discard:
            return self.current
        before = time if self._last is None else self._last
        if not self._least <= time <= self._most:
            self.current += 1
            before = time
        # Of the last two, because one alone may have a wrong time.
        self._least, self._most = min(before, time) - self._back, max(before, time) + self._jump
        self._last = time
        return self.current


def packets(container: InputContainer, stream: Stream, recordings: Recordings | None = None) -> Iterator[Packet]:
    """The stream's packets from the present position to the end, or to where the file breaks off.

    Their times are those of one clock: where a recording was put behind another one, and times go back or jump, the
    second one follows the first. `recordings` counts them.
    """
    recordings = recordings or Recordings(container, stream)
    for packet in _demuxed(container, [stream]):
        if recordings.number(packet):
            shift = _shifts(container.name, stream.index).get(recordings.current, 0)
            if packet.pts is not None:
                packet.pts += shift
            if packet.dts is not None:
                packet.dts += shift
        yield packet


def _demuxed(container: InputContainer, streams: list[Stream]) -> Iterator[Packet]:
    try:
        for packet in container.demux(*streams):
            if packet.size:
                yield packet
    except MemoryError:
        raise
    except av.FFmpegError:
        return


@lru_cache(maxsize=256)
def _shifts(path: str, index: int) -> dict[int, int]:
    """What the times of each recording in a stream are to be moved by, in the stream's units, by its number.

    Sound and picture that belong together are moved together: a recording begins where both have ended.
    """
    with open_container(Path(path)) as container:
        stream = container.streams[index]
        other = container.streams.best("audio" if stream.type == "video" else "video", related=stream)
        spans = _spans(container, [stream] if other is None else [stream, other])
    # Another stream that was not joined from as many recordings is no help.
    joined = [each for each in spans if each.keys() == spans[0].keys()]
    shifts: dict[int, int] = {}
    end = None
    for number in sorted(spans[0]):
        first = min(each[number][0] for each in joined)
        shift = Fraction(0) if end is None else end - first
        shifts[number] = round(shift / stream.time_base)
        end = max(each[number][1] for each in joined) + shift
    return shifts


def _spans(container: InputContainer, streams: list[Stream]) -> list[dict[int, tuple[Fraction, Fraction]]]:
    """When the recordings of each stream begin and end, in seconds, by their numbers."""
    recordings = {each.index: Recordings(container, each) for each in streams}
    spans: dict[int, dict[int, tuple[Fraction, Fraction]]] = {each.index: {} for each in streams}
    for packet in _demuxed(container, streams):
        number = recordings[packet.stream_index].number(packet)
        if packet.pts is None or packet.is_discard:
            continue
        begin = packet.pts * packet.time_base
        end = begin + (packet.duration or 0) * packet.time_base
        first, last = spans[packet.stream_index].get(number, (begin, end))
        spans[packet.stream_index][number] = min(first, begin), max(last, end)
    return list(spans.values())


def origin(container: InputContainer) -> Fraction:
    """The time in seconds at which a file begins: 0 of all its streams and of the pieces that annotations name."""
    return Fraction(container.start_time or 0, av.time_base)


def decoded(container: InputContainer, stream: Stream) -> Iterator[Frame]:
    """Every frame from the present position that decodes: a damaged packet costs its own frames only.

    Raises:
        Unusable: when a frame has more pixels than the limit: every frame of a video may be of another size.
    """
    for packet in chain(packets(container, stream), [None]):  # None asks for what the decoder still holds
        for frame in _frames(stream, packet):
            if isinstance(frame, VideoFrame):
                limits.check_picture(frame.width, frame.height, "video")
            yield frame


def _frames(stream: Stream, packet: Packet | None) -> list[Frame]:
    try:
        return stream.codec_context.decode(packet)
    except MemoryError:
        raise
    except av.FFmpegError:
        return []


def samples(frame: AudioFrame) -> np.ndarray:
    """Decoded sound in [-1, 1] whatever the stored type: float64 [channels, samples]."""
    values = frame.to_ndarray()
    values = values if frame.format.is_planar else values.reshape(-1, len(frame.layout.channels)).T
    if values.dtype.kind not in "iu":
        return values.astype(np.float64)
    span = 2.0 ** (8 * values.dtype.itemsize - 1)
    return values / span - (values.dtype.kind == "u")
