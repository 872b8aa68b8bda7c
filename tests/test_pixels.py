"""Pictures become what a person sees: transparency, deep gray values, and the camera's turn are taken into account."""

import struct
import zlib
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from PIL import Image, ImageOps, TiffImagePlugin

from agm.pipeline.config.schema import FlowFeatures, ImageFeatures, VideoFeatures
from agm.pipeline.io.limits import Limits, Unusable
from agm.pipeline.io.source import Source
from agm.pipeline.steps.extract import flow, image, picture, video
from agm.pipeline.steps.extract.pretrained import vision
from agm.pipeline.steps.extract.step import _tensor
from agm.pipeline.steps.ingest.clip import Clip
from agm.pipeline.steps.ingest.probe import Media, probe, probe_clip
from media import write_image

EMOJI = Path(__file__).parents[2] / "shared" / "data" / "emoji"
SIZE = 16
GROUNDS = ([255, 255, 255], [0, 0, 0], [10, 200, 90])


def settings(**changes: object) -> ImageFeatures:
    return ImageFeatures(**({"kind": "image", "size": SIZE} | changes))


def loaded(path: Path, **changes: object) -> np.ndarray:
    return image.load(Source(str(path)), settings(**changes))


def refused(path: Path, **changes: object) -> str:
    with pytest.raises(Unusable) as error:
        loaded(path, **changes)
    return str(error.value)


# --- transparency -----------------------------------------------------------------------------------------------


def hidden(seed: int, levels: int = 256) -> tuple[np.ndarray, np.ndarray]:
    """A gray disc of 80, and loud colours under the transparent pixels around it: uint8 [16, 16, 3] and which pixels
    are visible, bool [16, 16]."""
    down, across = np.mgrid[:SIZE, :SIZE] - SIZE / 2 + 0.5
    visible = np.hypot(down, across) < 6
    colours = np.random.default_rng(seed).integers(0, levels, (SIZE, SIZE, 3)).astype(np.uint8)
    colours[visible] = 80
    return colours, visible


def seen(visible: np.ndarray, ground: list[int]) -> np.ndarray:
    """The disc on the ground, uint8 [3, 16, 16]."""
    return np.moveaxis(np.where(visible[:, :, None], 80, ground), 2, 0)


def with_alpha(path: Path, mode: str, seed: int) -> np.ndarray:
    """Write the disc in one of the ways to store transparency; which pixels are visible."""
    colours, visible = hidden(seed)
    alpha = np.where(visible, 255, 0).astype(np.uint8)
    match mode:
        case "RGBA":
            Image.fromarray(np.dstack([colours, alpha])).save(path, lossless=True, exact=True)
        case "LA":
            Image.merge("LA", (Image.fromarray(colours[:, :, 0]), Image.fromarray(alpha))).save(path)
        case "palette":
            # Entries 0 to 9 are transparent and of loud colours, entry 10 is the disc.
            numbers = np.where(visible, 10, colours[:, :, 0] % 10).astype(np.uint8)
            picture = Image.fromarray(numbers, "P")
            picture.putpalette([*np.random.default_rng(seed).integers(0, 256, 30).tolist(), 80, 80, 80])
            picture.save(path, transparency=bytes([0] * 10 + [255]))
        case "one entry of the palette":
            picture = Image.fromarray(np.where(visible, 1, 0).astype(np.uint8), "P")
            picture.putpalette([250, 0, 7 * seed, 80, 80, 80])
            picture.save(path, transparency=0)
        case "one colour":
            pixels = np.where(visible[:, :, None], 80, [250, 0, 7 * seed]).astype(np.uint8)
            Image.fromarray(pixels).save(path, transparency=(250, 0, 7 * seed))
        case "one gray value":
            Image.fromarray(np.where(visible, 80, 7 * seed).astype(np.uint8)).save(path, transparency=7 * seed)
    return visible


WAYS = [
    ("a.png", "RGBA"),
    ("a.png", "LA"),
    ("a.png", "palette"),
    ("a.png", "one entry of the palette"),
    ("a.png", "one colour"),
    ("a.png", "one gray value"),
    ("a.gif", "one entry of the palette"),
    ("a.webp", "RGBA"),
    ("a.tiff", "RGBA"),
]


@pytest.mark.parametrize("name, mode", WAYS)
def test_what_is_hidden_by_transparency_is_not_seen(tmp_path: Path, name: str, mode: str) -> None:
    for seed in (1, 2):
        visible = with_alpha(tmp_path / name, mode, seed)
        for ground in GROUNDS:
            found = loaded(tmp_path / name, background=ground)
            np.testing.assert_array_equal(found, seen(visible, ground), err_msg=f"{name}, {mode}, on {ground}")
    np.testing.assert_array_equal(loaded(tmp_path / name), seen(visible, GROUNDS[0]))


@pytest.mark.parametrize("key", [(7,), (64000,), (64000, 512, 1792)], ids=["dark gray", "light gray", "colour"])
def test_the_transparent_value_of_sixteen_bits(tmp_path: Path, key: tuple[int, ...]) -> None:
    path, visible = tmp_path / "a.png", hidden(1)[1]
    values = np.where(visible[:, :, None], 80 * 257, key).astype(np.uint16)
    assert cv2.imwrite(str(path), values[:, :, ::-1])  # OpenCV has blue first
    content = path.read_bytes()
    place = content.index(b"IDAT") - 4
    chunk = b"tRNS" + struct.pack(f">{len(key)}H", *key)
    framed = struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk))
    path.write_bytes(content[:place] + framed + content[place:])
    np.testing.assert_array_equal(loaded(path), seen(visible, GROUNDS[0]))


def test_pixels_that_are_transparent_in_part_are_mixed_with_the_ground(tmp_path: Path) -> None:
    pixels = np.zeros((SIZE, SIZE, 4), np.uint8)
    pixels[:, :, 3] = 51  # a fifth of black
    Image.fromarray(pixels).save(tmp_path / "a.png")
    assert np.unique(loaded(tmp_path / "a.png")).tolist() == [204]
    assert np.unique(loaded(tmp_path / "a.png", channels=1, background=[100, 100, 100])).tolist() == [80]


def test_hidden_colours_do_not_bleed_where_a_picture_is_scaled(tmp_path: Path) -> None:
    large = tmp_path / "a.png"
    found = []
    for seed in (1, 2):
        colours, visible = hidden(seed)
        pixels = np.dstack([colours, np.where(visible, 255, 0).astype(np.uint8)])
        Image.fromarray(pixels).resize((64, 64), Image.Resampling.NEAREST).save(large)
        found.append(loaded(large))
    np.testing.assert_array_equal(*found)


def write_transparent_video(path: Path, codec: str, pixels: str, seed: int) -> np.ndarray:
    colours, visible = hidden(seed)
    values = np.dstack([colours, np.where(visible, 255, 0).astype(np.uint8)])
    with av.open(str(path), "w") as file:
        stream = file.add_stream(codec, rate=10)
        stream.width, stream.height, stream.pix_fmt = SIZE, SIZE, pixels
        for number in range(3):
            frame = av.VideoFrame.from_ndarray(np.roll(values, number, axis=1), "rgba")
            frame.pts, frame.time_base = number, Fraction(1, 10)
            file.mux(stream.encode(frame))
        file.mux(stream.encode())
    return visible


@pytest.mark.parametrize(
    "name, codec, pixels", [("a.mov", "png", "rgba"), ("a.mov", "qtrle", "argb"), ("a.mkv", "ffv1", "bgra")]
)
def test_what_is_hidden_in_a_video_is_not_seen(tmp_path: Path, name: str, codec: str, pixels: str) -> None:
    path = tmp_path / name
    flows = []
    for seed in (1, 2):
        visible = write_transparent_video(path, codec, pixels, seed)
        for ground in GROUNDS:
            found = video.load(
                Source(str(path), 0), VideoFeatures(kind="video", frames=3, size=SIZE, background=ground)
            )
            np.testing.assert_array_equal(found[0], seen(visible, ground))
            gray = VideoFeatures(kind="video", frames=3, size=SIZE, channels=1, background=ground)
            assert abs(int(video.load(Source(str(path), 0), gray)[0, 0, 8, 8]) - 80) <= 1
        with av.open(str(path)) as file:
            frame = next(file.decode(video=0))
            np.testing.assert_array_equal(
                picture.whole(frame, Fraction(1), None, GROUNDS[2]), seen(visible, GROUNDS[2])
            )
        flows.append(flow.load(Source(str(path), 0), FlowFeatures(kind="flow", frames=2, size=SIZE)))
    np.testing.assert_array_equal(*flows)


ONE, MINUS = 1 << 16, -(1 << 16)
PLACEMENTS = {
    "as stored": [ONE, 0, 0, ONE],
    "mirrored": [MINUS, 0, 0, ONE],
    "turned": [0, MINUS, ONE, 0],
    "transposed": [0, ONE, ONE, 0],
}


def write_placed_video(path: Path, frames: np.ndarray, matrix: list[int], aspect: Fraction) -> Path:
    """Write uint8 [frames, height, width, 3 or 4], ten a second, without loss."""
    pixels = "rgba" if frames.shape[-1] == 4 else "rgb24"
    a, b, c, d = matrix
    with av.open(str(path), "w") as file:
        stream = file.add_stream("png", rate=10)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = pixels
        stream.set_display_matrix([a, b, 0, c, d, 0, 0, 0, 1 << 30])
        stream.codec_context.sample_aspect_ratio = aspect
        for number, values in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(values), pixels)
            frame.pts, frame.time_base = number, Fraction(1, 10)
            file.mux(stream.encode(frame))
        file.mux(stream.encode())
    return path


@pytest.mark.parametrize("matrix", PLACEMENTS.values(), ids=PLACEMENTS)
@pytest.mark.parametrize("aspect", [Fraction(1), Fraction(2)])
@pytest.mark.parametrize("piece", [{}, {"half": "left"}, {"start": 0.25, "end": 0.65, "half": "right"}], ids=str)
def test_a_transparent_video_is_seen_as_one_composited_beforehand(
    tmp_path: Path, matrix: list[int], aspect: Fraction, piece: dict[str, object]
) -> None:
    """Mirrored or turned, with pixels of any shape, in a piece of the file or a half of the picture."""
    random = np.random.default_rng(0)
    alpha = np.kron(random.integers(0, 2, (8, 6, 8)), np.ones((1, 8, 4))).astype(bool)[..., None]
    drawing = np.kron(random.integers(0, 256, (8, 6, 8, 3)), np.ones((1, 8, 4, 1)))
    hidden = random.integers(0, 256, drawing.shape)
    transparent = np.concatenate([np.where(alpha, drawing, hidden), 255 * alpha], axis=3).astype(np.uint8)
    composited = np.where(alpha, drawing, GROUNDS[2]).astype(np.uint8)
    sources = [
        Source(str(write_placed_video(tmp_path / name, frames, matrix, aspect)), 0, **piece)
        for name, frames in (("a.mov", transparent), ("b.mov", composited))
    ]
    about = {"size": SIZE, "background": GROUNDS[2]}
    of_video = VideoFeatures(kind="video", frames=3, **about)
    of_flow = FlowFeatures(kind="flow", frames=2, **about)
    of_network = VideoFeatures(kind="video", frames=2, frozen={"model": "resnet18", "weights": "unused"}, **about)
    for load, settings in ((video.load, of_video), (flow.load, of_flow), (vision.load_video, of_network)):
        np.testing.assert_array_equal(*(load(each, settings) for each in sources))


def test_transparency_that_cannot_be_decoded_is_told(tmp_path: Path) -> None:
    write_transparent_video(tmp_path / "a.webm", "libvpx-vp9", "yuva420p", 1)
    with pytest.raises(Unusable, match="the transparency of its vp9 video cannot be decoded"):
        probe(Source(str(tmp_path / "a.webm")), "video")


def test_a_pretrained_network_is_given_no_hidden_colours(tmp_path: Path) -> None:
    frozen = {"model": "resnet18", "weights": "unused"}
    pictures, frames = [], []
    for seed in (1, 2):
        with_alpha(tmp_path / "a.png", "RGBA", seed)
        write_transparent_video(tmp_path / "a.mov", "png", "rgba", seed)
        pictures.append(vision.load_image(Source(str(tmp_path / "a.png")), settings(frozen=frozen)))
        of_video = VideoFeatures(kind="video", frames=2, frozen=frozen)
        frames.append(vision.load_video(Source(str(tmp_path / "a.mov"), 0), of_video))
    np.testing.assert_array_equal(*pictures)
    np.testing.assert_array_equal(*frames)


@pytest.mark.skipif(not EMOJI.exists(), reason="the shared emoji are not here")
def test_real_pictures_with_alpha_are_no_smears() -> None:
    paths = sorted(EMOJI.rglob("*.png"))[::14]
    assert len(paths) > 150
    for path in paths:
        found = loaded(path, size=64).astype(float)
        with Image.open(path) as opened:
            pixels = np.asarray(opened.convert("RGBA"), float)
        share = pixels[:, :, 3:] / 255
        wanted = np.moveaxis(pixels[:, :, :3] * share + 255 * (1 - share), 2, 0)
        assert np.abs(found - wanted).max() <= 1, path


# --- more than 8 bits -------------------------------------------------------------------------------------------


def ramp(high: float, kind: str) -> np.ndarray:
    """From 0 to `high` from left to right, [16, 16]."""
    return np.broadcast_to(np.linspace(0, high, SIZE), (SIZE, SIZE)).astype(kind)


RAMP = np.linspace(0, 255, SIZE).round()


@pytest.mark.parametrize(
    "values, white",
    [
        (ramp(255, "uint8"), None),
        (ramp(65535, "uint16"), None),
        (ramp(2**15 - 1, "int16"), None),
        (ramp(2**31 - 1, "int32"), None),
        (ramp(2**32 - 1, "uint32"), None),
        (ramp(1, "float32"), None),
        (ramp(4095, "uint16"), 4095),
        (ramp(255, "int32"), 255),
        (ramp(255, "uint32"), 255),
        (ramp(255, "float32"), 255),
    ],
    ids=lambda each: str(getattr(each, "dtype", each)),
)
def test_gray_values_of_any_type(tmp_path: Path, values: np.ndarray, white: float | None) -> None:
    assert cv2.imwrite(str(tmp_path / "a.tiff"), values)
    found = loaded(tmp_path / "a.tiff", white=white)
    assert np.abs(found - RAMP).max() <= 1


def test_sixteen_bits_in_other_formats(tmp_path: Path) -> None:
    for name in ("a.png", "a.pgm"):
        assert cv2.imwrite(str(tmp_path / name), ramp(65535, "uint16"))
        assert np.abs(loaded(tmp_path / name) - RAMP).max() <= 1


@pytest.mark.parametrize("kind", ["uint16", "float32"])
def test_a_picture_whose_smallest_value_is_white(tmp_path: Path, kind: str) -> None:
    values = ramp(1 if kind == "float32" else 65535, kind)
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    tags[TiffImagePlugin.PHOTOMETRIC_INTERPRETATION] = 0
    Image.fromarray(values).save(tmp_path / "a.tiff", tiffinfo=tags)
    with Image.open(tmp_path / "a.tiff") as opened:
        assert opened.tag_v2[TiffImagePlugin.PHOTOMETRIC_INTERPRETATION] == 0
    assert np.abs(loaded(tmp_path / "a.tiff") - RAMP[::-1]).max() <= 1


@pytest.mark.parametrize(
    "values, said",
    [
        (ramp(255, "int32"), "between 0 and 255, where 0 is black and 2.14748e+09 is white: set `white`"),
        (ramp(255, "uint16"), "between 0 and 255, where 0 is black and 65535 is white: set `white`"),
        (ramp(255, "float32"), "between 0 and 255, where 0 is black and 1 is white: set `white`"),
        (-ramp(1, "float32"), "between -1 and"),
        (-ramp(9, "int32"), "between -9 and 0"),
        (ramp(np.nan, "float32"), "not finite"),
    ],
    ids=["int32", "uint16", "float", "negative", "negative int32", "nan"],
)
def test_values_that_would_become_black_or_be_cut_off_are_refused(
    tmp_path: Path, values: np.ndarray, said: str
) -> None:
    assert cv2.imwrite(str(tmp_path / "a.tiff"), values)
    assert said in refused(tmp_path / "a.tiff")


@pytest.mark.parametrize(
    "values", [ramp(1, "float64"), np.dstack([ramp(1, "float32")] * 3)], ids=["64 bits", "colours"]
)
def test_a_tiff_that_cannot_be_read_is_called_one(tmp_path: Path, values: np.ndarray) -> None:
    assert cv2.imwrite(str(tmp_path / "a.tiff"), values)
    with pytest.raises(Unusable, match="a kind of TIFF that cannot be read"):
        probe(Source(str(tmp_path / "a.tiff")), "image")


def test_a_black_picture_is_black(tmp_path: Path) -> None:
    assert cv2.imwrite(str(tmp_path / "a.tiff"), ramp(0, "int32"))
    assert not loaded(tmp_path / "a.tiff").any()


# --- EXIF -------------------------------------------------------------------------------------------------------


def entry(tag: int, kind: int, count: int, value: int) -> bytes:
    return struct.pack("<HHII", tag, kind, count, value)


def exif(*entries: bytes) -> bytes:
    return b"Exif\0\0II*\0\x08\0\0\0" + struct.pack("<H", len(entries)) + b"".join(entries) + bytes(4)


TURNED = entry(0x0112, 3, 1, 6)
DAMAGED = {
    "a rational as a text": entry(0x011A, 2, 4, 10),
    "a text as a number": entry(0x010F, 11, 1, 5),
    "a number out of range": entry(0x0128, 4, 1, 0xFFFFFFFF),
    "a folder that is nowhere": entry(0x8769, 8, 1, 0xFFFFFFFF),
}


@pytest.mark.parametrize("bad", DAMAGED)
@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.webp"])
def test_a_damaged_entry_does_not_cost_a_turned_picture(tmp_path: Path, name: str, bad: str) -> None:
    white_above = np.zeros((SIZE, SIZE), np.uint8)
    white_above[: SIZE // 2] = 255
    more = {"lossless": True} if name == "a.webp" else {}
    path = write_image(tmp_path / name, white_above, exif=exif(TURNED, DAMAGED[bad]), **more)
    found = loaded(path, channels=1)[0]
    assert found[:, -6:].mean() > 240 and found[:, :6].mean() < 15


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation_is_as_pillow_has_it(tmp_path: Path, orientation: int) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (SIZE, SIZE, 3)).astype(np.uint8)
    path = write_image(tmp_path / "a.png", pixels, exif=exif(entry(0x0112, 3, 1, orientation)))
    with Image.open(path) as opened:
        wanted = np.asarray(ImageOps.exif_transpose(opened))
    np.testing.assert_array_equal(loaded(path), np.moveaxis(wanted, 2, 0))


def test_damaged_exif_as_a_whole_does_not_cost_the_picture(tmp_path: Path) -> None:
    pixels = np.full((SIZE, SIZE, 3), 200, np.uint8)
    path = write_image(tmp_path / "a.jpg", pixels, exif=b"Exif\0\0nonsense")
    assert loaded(path).mean() == pytest.approx(200, abs=1)


# --- warnings ---------------------------------------------------------------------------------------------------


def test_warnings_of_libraries_name_the_file(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    pixels = np.full((SIZE, SIZE, 3), 200, np.uint8)
    names = ("one.jpg", "other.jpg")
    for name in names:
        # The list of entries breaks off within the second one.
        write_image(tmp_path / name, pixels, exif=exif(TURNED, TURNED)[:-12])
    for name in names:
        clip = Clip(name, None, "a", None, {"image": Source(name)}, 2)
        assert probe_clip(str(tmp_path), {"image": "image"}, Limits(), (), clip) == {"image": Media(flaw="blank")}
        assert isinstance(
            _tensor(Source(str(tmp_path / name)), lambda s: image.load(s, settings()), Limits(), refuse_constant=False),
            np.ndarray,
        )
    said = capfd.readouterr().err
    lines = [line for line in said.splitlines() if line]
    assert {line.split(": warning: ")[0] for line in lines} == {str(tmp_path / name) for name in names}
    assert len(lines) == 4 and all("Corrupt EXIF data" in line for line in lines)
