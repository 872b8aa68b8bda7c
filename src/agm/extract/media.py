"""Opening containers and decoding what is sound in them, for video and audio alike."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import chain
from pathlib import Path

import av
from av.container import InputContainer
from av.frame import Frame
from av.packet import Packet
from av.stream import Stream


class Unusable(Exception):
    """A clip that cannot be used; the message is the reason, a sentence that a person understands."""


@contextmanager
def opened(path: Path, index: int | None, kind: str) -> Iterator[tuple[InputContainer, Stream]]:
    """Open stream `index` of a container for decoding by one thread.

    Raises:
        Unusable: when the file is no such container or the stream is not of `kind` ("video" or "audio").
    """
    if path.stat().st_size == 0:
        raise Unusable("The file is empty")
    try:
        # A playlist must not make FFmpeg open anything but files.
        container = av.open(str(path.absolute()), metadata_errors="ignore", options={"protocol_whitelist": "file"})
    except av.FFmpegError as error:
        raise Unusable(f"The file cannot be opened, it may be truncated: {error.strerror}") from None
    with container:
        if index is None or index >= len(container.streams) or container.streams[index].type != kind:
            raise Unusable(f"The file has no {kind} in stream {index}")
        stream = container.streams[index]
        stream.codec_context.thread_count = 1
        yield container, stream


def packets(container: InputContainer, stream: Stream) -> Iterator[Packet]:
    """The stream's packets from the present position to the end, or to where the file breaks off."""
    try:
        yield from (packet for packet in container.demux(stream) if packet.size)
    except av.FFmpegError:
        return


def decoded(container: InputContainer, stream: Stream) -> Iterator[Frame]:
    """Every frame from the present position that decodes: a damaged packet costs its own frames only."""
    for packet in chain(packets(container, stream), [None]):  # None asks for what the decoder still holds
        with suppress(av.FFmpegError):
            yield from stream.codec_context.decode(packet)
