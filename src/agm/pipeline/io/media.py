"""Open media files, and decode their undamaged packets on one clock. Probing and extraction share this module."""

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

# Pillow's other formats run programs, or rarely hold pictures.
IMAGE_FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
NPY = b"\x93NUMPY"
# FFmpeg's other formats are playlists, which name other files and so lead out of the data set's folder, formats of
# games and consoles, or no media.
CONTAINERS = (
    "aac,ac3,aiff,amr,ape,apng,asf,au,av1,avi,caf,dirac,dnxhd,dts,dtshd,dv,eac3,flac,flv,gif,gsm,gxf,h261,h263,h264,"
    "hevc,ircam,ivf,live_flv,loas,m4v,matroska,mjpeg,mlp,mov,mp3,mp4,mpc,mpc8,mpeg,mpegts,mpegvideo,mxf,nistsphere,nsv,"
    "nut,obu,ogg,oma,paf,qcp,rm,smjpeg,sox,swf,tak,truehd,tta,vc1,voc,vvc,w64,wav,webm,wtv,wv,xwma,yuv4mpegpipe,"
    "bmp_pipe,jpeg_pipe,png_pipe,tiff_pipe,webp_pipe"
)
# Formats whose times may jump where two recordings meet. In other formats a long pause is really a pause: a page of
# slides, for example.
JUMPING = ("mpegts", "mpeg", "flv", "live_flv")
# Seconds by which the stated times may be wrong: some containers count milliseconds.
ROUNDING = Fraction(2, 1000)
# In seconds. Times that go back by less than BACK are out of order, and a pause shorter than JUMP is a hole.
BACK = 0.5
JUMP = 10.0


@contextmanager
def warnings_named(path: str | None) -> Iterator[None]:
    """Print the warnings that libraries raise while they read the file at `path`.

    Each warning is printed once and with the file's name, which the libraries leave out.
    """
    with warnings.catch_warnings(record=True) as caught:
        try:
            yield
        finally:
            messages = [str(warning.message) for warning in caught]
            for message in dict.fromkeys(messages):
                say(f"{path}: warning: {' '.join(message.split())}")


@contextmanager
def opened_image(path: Path) -> Iterator[Image.Image]:
    """Open an image. The caller handles what Pillow raises for a damaged one.

    Raises:
        Unusable: when it has more pixels than the limit, or more text than Pillow reads.
    """
    default = Image.MAX_IMAGE_PIXELS
    most = limits.most("pixels")
    # This replaces Pillow's own limit, which Pillow also checks where a picture grows while it is decoded.
    Image.MAX_IMAGE_PIXELS = None if most == math.inf else int(most)
    try:
        # A small file can claim to be a huge picture. Pillow only warns between its limit and twice that: as an error,
        # the warning stops the decoding.
        with (
            warnings.catch_warnings(action="error", category=Image.DecompressionBombWarning),
            Image.open(path, formats=IMAGE_FORMATS) as image,
        ):
            yield image
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        match = re.search(r"\d+", str(error))  # the first number of the message is that of the pixels
        pixels = int(match[0]) if match else math.inf
        limits.check("pixels", pixels, "the image has {} pixels")
        raise
    except ValueError as error:
        # Pillow has a limit of its own for the compressed texts and colour profiles of PNG files.
        if "Decompressed data too large" in str(error):
            raise Unusable(f"the image holds a compressed text or profile of more than 1 MiB: {error}") from None
        raise
    finally:
        Image.MAX_IMAGE_PIXELS = default


def opened_array(path: Path) -> np.ndarray:
    """Map the numbers [steps, …] of a .npy file into memory; they are read when they are used.

    Raises:
        Unusable: when the file is no .npy file, is damaged, has no step, or holds something else than numbers.
    """
    with open(path, "rb") as file:
        if file.read(len(NPY)) != NPY:
            raise Unusable("not an array in NumPy's .npy format, or damaged")
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except OSError:
        raise
    except Exception as error:  # the parser of headers fails in many ways on damaged ones
        raise Unusable(f"the array is truncated, damaged or made of Python objects: {message_of(error)}") from None
    if array.dtype.kind not in "fiu":
        raise Unusable(f"the array holds {array.dtype}, not integers or floating-point numbers")
    if array.ndim == 0 or 0 in array.shape:
        raise Unusable(f"the array is empty: its shape is {list(array.shape)}")
    return array


def open_container(path: Path) -> InputContainer:
    """Open a video or sound file.

    Raises:
        Unusable: when the file is neither, or is too damaged to be opened.
    """
    if path.stat().st_size == 0:
        raise Unusable("the file is empty")
    try:
        # A playlist must not make FFmpeg open other files, and never the network.
        options = {"protocol_whitelist": "file", "format_whitelist": CONTAINERS}
        return av.open(str(path.absolute()), metadata_errors="ignore", options=options)
    except MemoryError:
        raise
    except av.FFmpegError as error:
        raise Unusable(f"not a video or sound file, truncated or damaged: {message_of(error)}") from None


@lru_cache(maxsize=256)
def seconds(path: Path, index: int) -> float | None:
    """The seconds from the beginning of a file to the end of a stream, by its packets; None where none has a time."""
    with open_container(path) as container:
        stream = container.streams[index]
        last: int | None = None
        for packet in packets(container, stream):
            if packet.pts is None:
                continue
            end = packet.pts + (packet.duration or 0)
            last = end if last is None else max(last, end)
        if last is None:
            return None
        return float(last * stream.time_base - origin(container))


def message_of(error: Exception) -> str:
    """The message of a library's error, without numbers and paths where the error has such a form."""
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


@contextmanager
def opened(path: Path, index: int | None, kind: str) -> Iterator[tuple[InputContainer, Stream]]:
    """Open stream `index` of a container for decoding by one thread.

    Raises:
        Unusable: when the file is no such container, or the stream is not of `kind` ("video" or "audio") or cannot be
            decoded.
    """
    with open_container(path) as container:
        if index is None or index >= len(container.streams) or container.streams[index].type != kind:
            raise Unusable(f"the file has no {kind} in stream {index}")
        stream = container.streams[index]
        if stream.codec_context is None:
            raise Unusable(f"there is no decoder for its {kind}")
        # The worker processes fill the cores already.
        stream.codec_context.thread_count = 1
        yield container, stream


class Recordings:
    """Number the recordings that one stream of a file was joined from.

    Within a recording the times of decoding ascend. A new one begins where they go back or, in some formats, jump.
    """

    def __init__(self, container: InputContainer, stream: Stream) -> None:
        self.current = 0
        self._back = BACK / stream.time_base
        self._jump = JUMP / stream.time_base if container.format.name in JUMPING else math.inf
        self._last: int | None = None
        self._least, self._most = -math.inf, math.inf

    def number(self, packet: Packet) -> int:
        """The number, from 0, of the recording to which the stream's next packet belongs."""
        time = packet.dts
        if time is None or packet.is_discard:
            return self.current
        before = time if self._last is None else self._last
        if not self._least <= time <= self._most:
            self.current += 1
            before = time
        # The range is that of the last two packets, because one alone may have a wrong time.
        self._least, self._most = min(before, time) - self._back, max(before, time) + self._jump
        self._last = time
        return self.current


def packets(container: InputContainer, stream: Stream, recordings: Recordings | None = None) -> Iterator[Packet]:
    """The stream's packets from the present position to the end, or to where the file breaks off.

    Their times are those of one clock: where a second recording follows another and its times go back or jump, they
    are shifted so that it begins where the first one ends. `recordings` counts the recordings.
    """
    recordings = recordings or Recordings(container, stream)
    for packet in _demuxed(container, [stream]):
        # The first recording, which is nearly always the only one, keeps its times.
        if recordings.number(packet) > 0:
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
        return  # the file breaks off here; what came before it is of use


@lru_cache(maxsize=256)
def _shifts(path: str, index: int) -> dict[int, int]:
    """Number of each recording in a stream → the shift of its times, in the stream's units.

    The sound and the picture of one recording get the same shift: a recording begins where both streams of the one
    before it have ended.
    """
    with open_container(Path(path)) as container:
        stream = container.streams[index]
        other = container.streams.best("audio" if stream.type == "video" else "video", related=stream)
        spans = _spans(container, [stream] if other is None else [stream, other])
    # Another stream with other recordings cannot say where those of this one begin.
    joined = [spans_of_stream for spans_of_stream in spans if spans_of_stream.keys() == spans[0].keys()]
    shifts: dict[int, int] = {}
    previous_end = None
    for number in sorted(spans[0]):
        begins, ends = zip(*(spans_of_stream[number] for spans_of_stream in joined), strict=True)
        shift = Fraction(0) if previous_end is None else previous_end - min(begins)
        shifts[number] = round(shift / stream.time_base)
        previous_end = max(ends) + shift
    return shifts


def _spans(container: InputContainer, streams: list[Stream]) -> list[dict[int, tuple[Fraction, Fraction]]]:
    """For each stream: number of a recording → the seconds at which it begins and ends."""
    recordings = {stream.index: Recordings(container, stream) for stream in streams}
    spans: dict[int, dict[int, tuple[Fraction, Fraction]]] = {stream.index: {} for stream in streams}
    for packet in _demuxed(container, streams):
        number = recordings[packet.stream_index].number(packet)
        if packet.pts is None or packet.is_discard:
            continue
        begin = packet.pts * packet.time_base
        end = begin + (packet.duration or 0) * packet.time_base
        # Packets come in the order of decoding: the first one is not always the earliest.
        first, last = spans[packet.stream_index].get(number, (begin, end))
        spans[packet.stream_index][number] = min(first, begin), max(last, end)
    return list(spans.values())


def origin(container: InputContainer) -> Fraction:
    """The time in seconds at which a file begins. Annotations count the pieces of all its streams from there."""
    return Fraction(container.start_time or 0, av.time_base)


def decoded(container: InputContainer, stream: Stream) -> Iterator[Frame]:
    """Every frame from the present position that decodes; of a damaged packet only its own frames are missing.

    Raises:
        Unusable: when a frame has more pixels than the limit; each frame of a video may have another size.
    """
    for packet in chain(packets(container, stream), [None]):  # None asks the decoder for the frames that it still holds
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
    if not frame.format.is_planar:
        # Packed: the samples of all channels alternate.
        values = values.reshape(-1, len(frame.layout.channels)).T
    if values.dtype.kind not in "iu":
        return values.astype(np.float64)
    span = 2.0 ** (8 * values.dtype.itemsize - 1)
    # Unsigned samples have their zero in the middle of their range.
    return values / span - (values.dtype.kind == "u")
