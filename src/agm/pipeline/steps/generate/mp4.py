"""Encode a small clip as MP4 in memory; equal clips give equal bytes."""

import io

import av
import numpy as np
from av.codec.context import Flags

# The constant quantiser is small, because noise is part of the data, and an encoder at its usual quality removes noise.
# 'zerolatency' switches off the look-ahead, whose choices on pictures this small vary from run to run.
H264 = {"preset": "veryfast", "tune": "zerolatency", "qp": "14", "threads": "1"}
# 'fast' is three times as fast as the default. Perceptual noise substitution would replace the noise by other noise.
AAC = {"aac_coder": "fast", "aac_pns": "0"}
AAC_BITS_PER_SECOND = 48_000


def encode(frames: np.ndarray, fps: int, sound: np.ndarray, rate: int) -> bytes:
    """Encode grey frames and mono sound as H.264 and AAC.

    The encoders run on one thread and write no versions or times into the file: the same input gives the same bytes.

    Args:
        frames: uint8 [frames, height, width], with an even height and width.
        sound: float32 [samples], within ±1, at `rate` samples per second.

    Returns:
        The MP4 file's content.
    """
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4", options={"fflags": "+bitexact"}) as container:
        video = container.add_stream("libx264", rate=fps, options=H264)
        video.height, video.width = frames.shape[1:]
        video.pix_fmt = "yuv420p"
        audio = container.add_stream("aac", rate=rate, layout="mono", options=AAC)
        audio.bit_rate = AAC_BITS_PER_SECOND
        for stream in (video, audio):
            stream.codec_context.thread_count = 1
            stream.codec_context.flags |= Flags.bitexact
        for number, frame in enumerate(frames):
            container.mux(video.encode(_picture(frame, number)))
        container.mux(video.encode(None))
        container.mux(audio.encode(_samples(sound, rate)))
        container.mux(audio.encode(None))
    return buffer.getvalue()


def _picture(grey: np.ndarray, number: int) -> av.VideoFrame:
    # The luma plane is written directly (16 is black, 235 is white): a conversion would differ between processors.
    luma = np.round(16 + grey * (219 / 255)).astype(np.uint8)
    chroma = np.full((luma.shape[0] // 2, luma.shape[1]), 128, dtype=np.uint8)
    frame = av.VideoFrame.from_ndarray(np.concatenate([luma, chroma]), format="yuv420p")
    frame.pts = number
    return frame


def _samples(sound: np.ndarray, rate: int) -> av.AudioFrame:
    frame = av.AudioFrame.from_ndarray(sound[np.newaxis], format="fltp", layout="mono")
    frame.sample_rate = rate
    frame.pts = 0
    return frame
