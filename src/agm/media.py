"""Opening files and decoding what is sound in them: what probing and extraction share."""

import math
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
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

from agm import limits
from agm.limits import Unusable
from agm.progress import say

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


def told(error: Exception) -> str:
    """What a library says, without its numbers and paths."""
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


@contextmanager
def opened(path: Path, index: int | None, kind: str) -> Iterator[tuple[InputContainer, Stream]]:
    """Open stream `index` of a container for decoding by one thread.

    Raises:
        Unusable: when the file is no such container or the stream is not of `kind` ("video" or "audio").
    """
    with open_container(path) as found:
        if index is None or index >= len(found.streams) or found.streams[index].type != kind:
            raise Unusable(f"the file has no {kind} in stream {index}")
        stream = found.streams[index]
        stream.codec_context.thread_count = 1
        yield found, stream


def packets(container: InputContainer, stream: Stream) -> Iterator[Packet]:
    """The stream's packets from the present position to the end, or to where the file breaks off."""
    try:
        yield from (packet for packet in container.demux(stream) if packet.size)
    except MemoryError:
        raise
    except av.FFmpegError:
        return


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
