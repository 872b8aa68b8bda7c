"""Small files that claim to be, or unfold to, far more than a machine has; and files that lead out of their folder."""

import pickle
import struct
import zlib
from fractions import Fraction
from pathlib import Path

import av
import h5py
import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from media import write_image, write_video

HUGE = 100_000
"""Sides of the huge pictures."""
HOUR = 3600


# --- pictures: small files with a changed header ---


def picture(path: Path, side: int = HUGE) -> Path:
    """A square picture that is 8 × 8, and claims to have that side."""
    content = bytearray(write_image(path, np.zeros((8, 8, 3), np.uint8), lossless=True).read_bytes())
    match path.suffix:
        case ".png":
            content[16:24] = struct.pack(">II", side, side)
            content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
        case ".bmp":
            content[18:26] = struct.pack("<ii", side, side)
        case ".tiff":
            for tag in (256, 257):  # width and height
                at = content.index(struct.pack("<HHI", tag, 4, 1))
                content[at : at + 12] = struct.pack("<HHII", tag, 4, 1, side)
        case ".gif":  # its frame is as large
            content[6:10] = struct.pack("<HH", side, side)
            at = content.index(b"\x2c\0\0\0\0\x08\0\x08\0")
            content[at + 5 : at + 9] = struct.pack("<HH", side, side)
        case ".webp":  # a large canvas, of 24 bits a side, with one small frame
            canvas = 2 * (side - 1).to_bytes(3, "little")
            body = b"WEBPVP8X" + struct.pack("<I", 10) + b"\0\0\0\0" + canvas + content[12:]
            content = b"RIFF" + struct.pack("<I", len(body)) + body
    path.write_bytes(content)
    return path


def text_chunk(path: Path, megabytes: int = 50) -> Path:
    """A PNG with a compressed text of that size."""
    info = PngInfo()
    info.add_text("comment", "a" * megabytes * 2**20, zip=True)
    Image.new("L", (8, 8)).save(path, pnginfo=info)
    return path


# --- video and sound ---


def long_video(path: Path, seconds: int = HOUR, **options: object) -> Path:
    """One colour, a frame every ten seconds."""
    times = [*range(0, seconds - 1, 10), seconds - 1]
    return write_video(path, len(times), (16, 16), 1, picture=np.zeros((16, 16), np.uint8), times=times, **options)


def short_header(path: Path, seconds: int = HOUR) -> Path:
    """A Matroska file that says it lasts 2 seconds, and holds so many."""
    long_video(path, seconds)
    content = bytearray(path.read_bytes())
    at = content.index(b"\x44\x89\x88") + 3  # the length of the segment, a float of 8 bytes in milliseconds
    content[at : at + 8] = struct.pack(">d", 2000.0)
    while (at := content.find(b"DURATION\x44\x87", at)) >= 0:  # and of the stream, a text
        at = content.index(b"01:00:00", at)
        content[at : at + 8] = b"00:00:02"
    path.write_bytes(content)
    return path


def long_header(path: Path) -> Path:
    """The other way round: 2 seconds of video that claim to be an hour."""
    long_video(path, 2)
    content = bytearray(path.read_bytes())
    at = content.index(b"\x44\x89\x88") + 3
    content[at : at + 8] = struct.pack(">d", HOUR * 1000.0)
    path.write_bytes(content)
    return path


def endless_table(path: Path, frames: int = 2**27) -> Path:
    """An MP4 whose tables say in a few bytes that it has so many frames, of a byte each."""
    long_video(path, 2, options={"g": "1", "bf": "0"})
    content = bytearray(path.read_bytes())
    for name, table in (
        (b"stts", struct.pack(">III", 1, frames, 1)),
        (b"stsz", struct.pack(">II", 1, frames)),
        (b"stsc", struct.pack(">IIII", 1, 1, frames, 1)),
    ):
        at = content.index(name) + 8
        content[at : at + len(table)] = table
    path.write_bytes(content)
    return path


def growing_video(path: Path, sizes: tuple[int, ...] = (64, 640)) -> Path:
    """MPEG-2 whose pictures change their size in mid-stream."""
    parts = [write_video(path.with_name(f"{side}.m2v"), 10, (side, side), 25, codec="mpeg2video") for side in sizes]
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    for part in parts:
        part.unlink()
    return path


def long_sound(path: Path, seconds: int = HOUR) -> Path:
    """Silence as FLAC."""
    with av.open(str(path), "w") as file:
        stream = file.add_stream("flac", rate=8000, layout="mono")
        for second in range(seconds):
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 8000), np.int16), "s16", "mono")
            frame.sample_rate, frame.pts, frame.time_base = 8000, 8000 * second, Fraction(1, 8000)
            file.mux(stream.encode(frame))
        file.mux(stream.encode())
    return path


def short_sound_header(path: Path, long: Path) -> Path:
    """The FLAC `long`, with a header that says 16,000 samples."""
    content = bytearray(long.read_bytes())
    content[22:26] = struct.pack(">I", 16000)
    path.write_bytes(content)
    return path


# --- arrays ---


def npy(path: Path, shape: tuple[int, ...] = (10**12,), holes: bool = False) -> Path:
    """The header of a huge array; with `holes`, a file of that size too, which takes no room."""
    with open(path, "wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": shape})
        if holes:
            file.truncate(file.tell() + 4 * int(np.prod(shape, dtype=object)))
    return path


def hdf5(path: Path, secret: Path) -> Path:
    """Every way in which an HDF5 file can ask for more than it is. `secret` is a file elsewhere."""
    values = np.zeros((4, 3), np.float32)
    with h5py.File(secret.with_suffix(".h5"), "w") as file:
        file["x"] = values
    with h5py.File(path, "w") as file:
        file["good"] = values
        file["external"] = h5py.ExternalLink(str(secret.with_suffix(".h5")), "x")
        file["soft"] = h5py.SoftLink("/good")
        file["group/through"] = h5py.SoftLink("/external")
        file.create_dataset("raw", (16,), "u1", external=[(str(secret), 0, 16)])
        layout = h5py.VirtualLayout((4, 3), "f4")
        layout[:] = h5py.VirtualSource(str(secret.with_suffix(".h5")), "x", (4, 3))
        file.create_virtual_dataset("virtual", layout)
        file.create_dataset("deflate", (2**33,), "u1", chunks=(2**24,), compression=1)[: 2**24] = 0
        file.create_dataset("chunk", (10,), "u1", chunks=(2**27,), maxshape=(None,), compression=1)[:] = 0
        _plug_in(file)
    return path


def _plug_in(file: h5py.File) -> None:
    """A data set that is compressed by a filter of which the library knows nothing."""
    settings = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    settings.set_chunk((4,))
    settings.set_filter(32001, h5py.h5z.FLAG_OPTIONAL, (1,))
    h5py.h5d.create(file.id, b"plugin", h5py.h5t.NATIVE_FLOAT, h5py.h5s.create_simple((4,)), settings)


def overfull_chunk(path: Path, unfolded: int = 2**27) -> Path:
    """An HDF5 chunk of 1 MiB whose compressed bytes unfold to far more."""
    compress = zlib.compressobj(1)
    content = b"".join(compress.compress(bytes(2**24)) for _ in range(unfolded >> 24)) + compress.flush()
    with h5py.File(path, "w") as file:
        found = file.create_dataset("x", (2**20,), "u1", chunks=(2**20,), compression=9)
        found.id.write_direct_chunk((0,), content)
    return path


# --- pickles ---


def laughs(path: Path) -> Path:
    """Lists of lists that stand for 10^20 numbers."""
    row: list = [1.0]
    for _ in range(20):
        row = [row] * 10
    path.write_bytes(pickle.dumps({"x": row, "small": [[1.0, 2.0]]}))
    return path


def copies(path: Path, times: int = 20_000, length: int = 2**20) -> Path:
    """One text that is turned to bytes again and again: with Python's own, 20 GB of a file of 1.2 MB."""
    again = b"h\x00" + b"(h\x01X\x06\x00\x00\x00latin1tR"
    text = b"X" + struct.pack("<I", length) + b"a" * length + b"q\x01"
    path.write_bytes(b"\x80\x02c_codecs\nencode\nq\x000" + text + b"0](" + again * times + b"e.")
    return path
