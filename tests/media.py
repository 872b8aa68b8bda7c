"""Small real media files for the tests."""

import wave
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from PIL import Image

STEP = 4  # gray levels between one frame of `write_video` and the next


def write_video(
    path: Path,
    frames: int = 10,
    size: tuple[int, int] = (64, 48),
    rate: int = 10,
    *,
    sound: np.ndarray | None = None,
    sound_rate: int = 16000,
    holes: Sequence[tuple[float, float]] = (),
    codec: str = "libx264",
    pixels: str = "yuv420p",
    options: dict[str, str] | None = None,
    container: dict[str, str] | None = None,
    rotation: int = 0,
    matrix: list[int] | None = None,
    aspect: Fraction | None = None,
    times: Sequence[int] | None = None,
    picture: np.ndarray | None = None,
) -> Path:
    """Write `frames` frames, number k uniformly of gray STEP·k (or all `picture`, uint8 [height, width],
    or one each, uint8 [frames, height, width]).

    `sound`, float [samples] at `sound_rate` in [-1, 1], adds an AAC stream, without the packets that
    begin in the `holes`, from … to … seconds. `matrix`, [a, b, c, d], places the picture
    as a display matrix does; `aspect` is the width of a pixel, its height being 1; `times` are those of the frames, in
    units of 1 / rate seconds.
    """
    with av.open(str(path), "w", options=container or {}) as file:
        stream = file.add_stream(codec, rate=rate, options=options or {})
        stream.width, stream.height, stream.pix_fmt = *size, pixels
        if rotation:
            stream.set_display_rotation(rotation)
        if matrix:
            a, b, c, d = matrix
            stream.set_display_matrix([a, b, 0, c, d, 0, 0, 0, 1 << 30])
        if aspect:
            stream.codec_context.sample_aspect_ratio = aspect
        audio = None if sound is None else file.add_stream("aac", rate=sound_rate, layout="mono")
        for number in range(frames):
            values = np.full(size[::-1], STEP * number % 256, np.uint8) if picture is None else picture
            values = values[number] if values.ndim == 3 else values
            frame = av.VideoFrame.from_ndarray(np.repeat(values[:, :, None], 3, axis=2), "rgb24")
            frame.pts, frame.time_base = number if times is None else times[number], Fraction(1, rate)
            file.mux(stream.encode(frame))
        file.mux(stream.encode())
        if audio is not None:
            file.mux(_sound_packets(audio, sound, sound_rate, holes))
    return path


def _sound_packets(
    stream: av.AudioStream, sound: np.ndarray, rate: int, holes: Sequence[tuple[float, float]]
) -> list[av.Packet]:
    frame = av.AudioFrame.from_ndarray(sound.astype(np.float32)[None], "fltp", "mono")
    frame.sample_rate, frame.pts, frame.time_base = rate, 0, Fraction(1, rate)
    packets = [*stream.encode(frame), *stream.encode()]
    for begin, end in holes:
        packets = [each for each in packets if not begin <= each.pts * each.time_base < end]
    return packets


def write_wav(path: Path, sound: np.ndarray, rate: int = 16000) -> Path:
    """Write float [samples] or [samples, channels] in [-1, 1] as 16-bit PCM."""
    sound = sound if sound.ndim == 2 else sound[:, None]
    with wave.open(str(path), "wb") as file:
        file.setnchannels(sound.shape[1])
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes((sound * 32767).round().astype("<i2").tobytes())
    return path


def write_image(path: Path, pixels: np.ndarray, **options: object) -> Path:
    """Write uint8 [height, width] or [height, width, 3] in the format that the suffix names."""
    Image.fromarray(pixels).save(path, **options)
    return path


def tone(hertz: float, seconds: float, rate: int) -> np.ndarray:
    """A sine of amplitude 0.5, float [samples]."""
    return 0.5 * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)


def levels(tensor: np.ndarray) -> list[int]:
    """Which frames of a `write_video` file a uint8 tensor [frames, channels, size, size] holds."""
    return [round(float(each.mean()) / STEP) for each in tensor]
