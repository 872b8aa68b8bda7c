"""Optical flow: the motion that is put into a video comes out, in pixels, to the right and downwards."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import save_file
from torchvision.models import get_model

from agm.pipeline.config.schema import ConvEncoder, FlowFeatures, ResNet18Encoder
from agm.pipeline.errors import AgmError
from agm.pipeline.io.files import read_json, sha256
from agm.pipeline.io.media import Unusable
from agm.pipeline.io.source import Source
from agm.pipeline.io.tensors import Feature
from agm.pipeline.networks import build_encoder
from agm.pipeline.steps.extract import flow
from agm.pipeline.steps.extract.pretrained import raft
from agm.pipeline.steps.extract.recipe import recipe
from media import write_video
from pipeline import Pipeline

LOSSLESS = {"crf": "0", "g": "4"}


def texture(size: int = 320) -> np.ndarray:
    """Smooth noise, uint8 [size, size], from a few waves of random direction."""
    random = np.random.default_rng(0)
    y, x = np.mgrid[:size, :size]
    waves = [np.sin(a * x + b * y + c) for a, b, c in random.uniform(-0.5, 0.5, (12, 3)) * (1, 1, 6)]
    total = sum(waves)
    return np.uint8(255 * (total - total.min()) / np.ptp(total))


def moving(path: Path, dx: int, dy: int, frames: int = 6, size: tuple[int, int] = (64, 48)) -> Source:
    """A video whose content moves dx pixels to the right and dy downwards from each frame to the next."""
    whole, (width, height) = texture(), size
    places = [(140 - dy * number, 140 - dx * number) for number in range(frames)]
    pictures = np.stack([whole[top : top + height, left : left + width] for top, left in places])
    return Source(str(write_video(path, frames, size, picture=pictures, options=LOSSLESS)), 0)


def settings(**changed: object) -> FlowFeatures:
    return FlowFeatures(**{"kind": "flow", "frames": 2, "size": 48} | changed)


def pixels(stored: np.ndarray, bound: float = 20.0) -> np.ndarray:
    """Flow as it was kept, in pixels again."""
    return (stored.astype(float) - 127.5) * bound / 127.5


def motion(stored: np.ndarray, bound: float = 20.0) -> np.ndarray:
    """Median of every channel away from the border, [frames, channels]."""
    return np.median(pixels(stored, bound)[..., 8:-8, 8:-8], axis=(2, 3))


@pytest.mark.parametrize("dx, dy", [(2, 0), (0, 3), (-3, 1), (1, -2), (0, 0)])
def test_the_motion_in_the_video_is_found(tmp_path, dx, dy):
    found = flow.load(moving(tmp_path / "a.mp4", dx, dy), settings())
    assert found.dtype == np.uint8 and found.shape == flow.feature(settings()).shape == (2, 2, 48, 48)
    np.testing.assert_allclose(motion(found), [[dx, dy]] * 2, atol=0.25)


def test_pixels_are_those_of_the_scaled_picture(tmp_path):
    found = flow.load(moving(tmp_path / "a.mp4", 4, -2, size=(128, 96)), settings())
    np.testing.assert_allclose(motion(found), [[2, -1]] * 2, atol=0.25)


def test_the_flow_is_cut_off_at_the_bound_and_right_within_its_steps(tmp_path):
    source = moving(tmp_path / "a.mp4", 3, 0)
    assert (flow.load(source, settings(bound=1.0))[:, 0, 8:-8, 8:-8] == 255).all()
    exact = np.random.default_rng(0).uniform(-5, 5, (2, 2, 48, 48)).astype(np.float32)
    kept = flow.stored(exact, settings(bound=5.0))
    assert np.abs(pixels(kept, 5.0) - exact).max() <= 5 / 255 + 1e-6
    assert (flow.stored(np.zeros_like(exact), settings(bound=3.7)) == 128).all()


def test_a_stack_holds_successive_fields(tmp_path):
    """The content is at rest, then moves one pixel further in each frame."""
    whole, offsets = texture(), np.cumsum([0, 0, 1, 2, 3, 4])
    pictures = np.stack([whole[100:148, 140 - offset : 204 - offset] for offset in offsets])
    path = write_video(tmp_path / "a.mp4", 6, picture=pictures, options=LOSSLESS)
    found = motion(flow.load(Source(str(path), 0), settings(frames=1, stack=5)))
    np.testing.assert_allclose(found, [[0, 0, 1, 0, 2, 0, 3, 0, 4, 0]], atol=0.3)
    middle = motion(flow.load(Source(str(path), 0), settings(frames=1, stack=3)))
    np.testing.assert_allclose(middle, [[1, 0, 2, 0, 3, 0]], atol=0.3)


@pytest.mark.parametrize(
    "position, stack, count, expected",
    [
        (0, 1, 2, [0, 1]),
        (4, 1, 6, [4, 5]),
        (4, 3, 10, [3, 4, 5, 6]),
        (0, 3, 10, [0, 1, 2, 3]),
        (8, 3, 10, [6, 7, 8, 9]),
        (1, 4, 3, [0, 1, 2, 2, 2]),  # the last frame stands still
    ],
)
def test_which_frames_a_stack_lies_between(position, stack, count, expected):
    assert flow._run(position, stack, count) == expected


def test_positions_by_rate(tmp_path):
    source = moving(tmp_path / "a.mp4", 1, 0, frames=25)
    times = flow.video.scan(source)
    assert flow._positions(times, settings(frames=4, fps=1.0)) == [0, 10, 20, 23]
    assert flow._positions(times, settings(frames=3)) == [4, 12, 20]


def test_a_piece_of_the_file_and_half_of_the_picture(tmp_path):
    left, right = (moving(tmp_path / f"{dx}.mp4", dx, 0, 10) for dx in (2, -2))
    both = np.concatenate([flow.runs(each, settings(frames=1, stack=9), 1)[0, :, 0] for each in (left, right)], axis=2)
    path = str(write_video(tmp_path / "both.mp4", 10, (96, 48), picture=both, options=LOSSLESS))
    for half, dx in (("left", 2), ("right", -2)):
        found = motion(flow.load(Source(path, 0, start=0.3, end=0.8, half=half), settings(frames=1)))
        np.testing.assert_allclose(found, [[dx, 0]], atol=0.3)


def test_a_single_frame_has_no_flow(tmp_path):
    with pytest.raises(Unusable, match="a single frame"):
        flow.load(moving(tmp_path / "a.mp4", 0, 0, frames=1), settings())
    with pytest.raises(Unusable, match="a single frame"):
        flow.load(Source(moving(tmp_path / "b.mp4", 0, 0).path, 0, start=0.2, end=0.3), settings())


def test_the_same_bytes_every_time(tmp_path):
    source = moving(tmp_path / "a.mp4", 2, 1)
    first = flow.load(source, settings(stack=2))
    flow._method.cache_clear()
    np.testing.assert_array_equal(first, flow.load(source, settings(stack=2)))


@pytest.mark.parametrize(
    "changed, said",
    [
        ({"method": "raft_small"}, "expected weights for raft"),
        ({"weights": "a.pth"}, "expected weights for raft, and for raft only"),
        ({"method": "raft_small", "weights": "a.pth", "size": 120}, "at least 128 that 8 divides"),
        ({"method": "raft_large", "weights": "a.pth", "size": 130}, "at least 128 that 8 divides"),
        ({"size": 11}, "greater than or equal to 12"),
    ],
)
def test_impossible_settings_are_refused(changed, said):
    with pytest.raises(ValidationError, match=said):
        settings(**changed)


# --- RAFT, with weights that the test makes: nothing can be said about how good its flow is -----------------------


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    torch.manual_seed(0)
    state = get_model("raft_small", weights=None).state_dict()
    folder = tmp_path_factory.mktemp("weights")
    torch.save(state, folder / "raft.pth")
    save_file(state, folder / "raft.safetensors")
    return {"pth": folder / "raft.pth", "safetensors": folder / "raft.safetensors"}


def test_raft_is_torchvisions(tmp_path, weights):
    source = moving(tmp_path / "a.mp4", 2, 1, size=(160, 128))
    chosen = settings(method="raft_small", size=128, frames=1, stack=2, weights=str(weights["pth"]), bound=50.0)
    made = recipe(chosen, "features.flow", [], [])
    [found] = made.finish([made.load(source)])
    assert made.pretrained == weights["pth"] and found.shape == made.feature.shape == (1, 4, 128, 128)
    network = get_model("raft_small", weights=None).eval()
    network.load_state_dict(torch.load(weights["pth"]))
    pictures = torch.from_numpy(flow.runs(source, chosen, 3)[0]).float() / 127.5 - 1
    with torch.no_grad():
        wanted = network(pictures[:-1], pictures[1:])[-1].numpy()
    assert wanted.std() > 0.1
    np.testing.assert_allclose(pixels(found[0], 50.0).reshape(2, 2, 128, 128), wanted.clip(-50, 50), atol=0.2)


def test_both_formats_of_weights_give_the_same_flow(tmp_path, weights):
    source = moving(tmp_path / "a.mp4", 2, 1, size=(128, 128))
    found = []
    for path in weights.values():
        made = recipe(settings(method="raft_small", size=128, frames=1, weights=str(path)), "features.flow", [], [])
        found.append(made.finish([made.load(source)])[0])
    np.testing.assert_array_equal(*found)


def test_other_weights_are_refused(tmp_path):
    torch.save(get_model("resnet18", weights=None).state_dict(), tmp_path / "resnet.pth")
    for name, said in (("resnet.pth", "not the weights of raft_small"), ("none.pth", "no pretrained weights")):
        chosen = settings(method="raft_small", size=128, weights=str(tmp_path / name))
        with pytest.raises(AgmError, match=said) as error:
            raft.flows(chosen, "features.flow.weights")
        assert name in str(error.value)


# --- as a modality ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("encoder", [ConvEncoder(name="conv", channels=[4]), ResNet18Encoder(name="resnet18")])
def test_encoders_read_any_number_of_channels(encoder):
    feature = Feature("video", "uint8", (2, 6, 32, 32), mean=(0.0,) * 6, std=(1.0,) * 6)
    assert build_encoder(encoder, feature)(torch.rand(3, 2, 6, 32, 32)).shape == (3, encoder.dim)


def test_weights_of_pictures_start_an_encoder_of_flow(tmp_path):
    state = get_model("resnet18", weights=None).state_dict()
    save_file(state, tmp_path / "a.safetensors")
    block = ResNet18Encoder(name="resnet18", weights=str(tmp_path / "a.safetensors"))
    for channels, factor in ((1, 3), (4, 1)):
        found = build_encoder(block, Feature("image", "uint8", (channels, 32, 32))).network.conv1.weight
        wanted = factor * state["conv1.weight"].mean(dim=1, keepdim=True).expand_as(found)
        torch.testing.assert_close(found, wanted)


# The same files for their pictures and for their motion.
STUDY = (
    "study=spoken_digits",
    "~dataset.modalities",
    "+dataset.modalities={video:{kind:video,column:file},motion:{kind:flow,column:file}}",
    "~features",
    "+features={video:{frames:2,size:16},motion:{frames:2,size:16,stack:2}}",
    "~encoders",
    "+encoders={video:{name:conv,channels:[4]},motion:{name:conv,channels:[4]}}",
)


def test_from_videos_to_a_trained_network(tmp_path, monkeypatch):
    raw = tmp_path / "raw"
    raw.mkdir()
    rows = []
    for number in range(16):
        dx = 2 if number % 2 else -2
        moving(raw / f"{number}.mp4", dx, 0)
        split = ("train", "train", "val", "test")[number // 2 % 4]
        rows.append({"clip_id": f"c{number}", "label": "right" if number % 2 else "left", "split": split})
    moving(raw / "0.mp4", 1, 0, frames=1)
    (raw / "1.mp4").write_bytes((raw / "1.mp4").read_bytes()[:300])
    frame = pl.DataFrame(rows).with_columns(file=pl.col("clip_id").str.slice(1) + ".mp4")
    frame.write_csv(raw / "manifest.csv")
    pipeline = Pipeline(tmp_path / "study", monkeypatch, *STUDY, f"dataset.root={raw}").run()
    assert pipeline.quarantine.keys() == {"c0", "c1"} and "a single frame" in pipeline.quarantine["c0"]
    feature = read_json(pipeline.data / "shards.json")["features"]["motion"]
    assert (feature["kind"], feature["shape"]) == ("video", [2, 4, 16, 16]) and len(feature["mean"]) == 4
    part = pipeline.graph.job("extract", "motion", 0).outputs[0]
    before = sha256(part)
    monkeypatch.setenv("AGM_WORKERS", "2")
    pipeline.run(["extract"])
    assert sha256(part) == before
    assert pipeline.train()
