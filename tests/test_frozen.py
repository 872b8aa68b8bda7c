"""Pretrained networks of torchvision and torchaudio. Their weights are random ones that the tests make: what is
checked is that the features are those of the network, with the preprocessing that is published for it."""

import re
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import nn
from torchaudio import pipelines
from torchaudio.models import wav2vec2_model, wavlm_model
from torchvision import models

from agm.pipeline.config.schema import AudioFeatures, ImageFeatures, VideoFeatures
from agm.pipeline.errors import AgmError
from agm.pipeline.io.files import read_json, sha256
from agm.pipeline.io.media import Unusable
from agm.pipeline.io.source import Source
from agm.pipeline.io.tensors import Feature
from agm.pipeline.steps.extract import image, step, torchaudio_ops
from agm.pipeline.steps.extract.pretrained import vision, weights
from agm.pipeline.steps.extract.recipe import Recipe, recipe
from clone import ROOT
from media import tone, write_image, write_video, write_wav
from pipeline import Pipeline

RANDOM = np.random.default_rng(0)


Networks = Callable[..., tuple[nn.Module, str]]


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Networks:
    """Name → a whole network of torchvision with random weights, and their file. Each is made once."""
    folder = tmp_path_factory.mktemp("weights")

    @cache
    def make(name: str, suffix: str = ".pth") -> tuple[nn.Module, str]:
        torch.manual_seed(0)
        found = models.get_model(name, weights=None).eval()
        path = folder / f"{name}{suffix}"
        save_file(found.state_dict(), path) if suffix == ".safetensors" else torch.save(found.state_dict(), path)
        return found, str(path)

    return make


def made(settings: VideoFeatures | ImageFeatures | AudioFeatures) -> Recipe:
    return recipe(settings, "features.m", [], [])


def of_video(model: str, path: str, frames: int = 3) -> Recipe:
    return made(VideoFeatures(kind="video", frames=frames, size=8, frozen={"model": model, "weights": path}))


def of_image(model: str, path: str, **chosen: str) -> Recipe:
    return made(ImageFeatures(kind="image", frozen={"model": model, "weights": path, **chosen}))


def noise(height: int, width: int) -> np.ndarray:
    return RANDOM.integers(0, 256, (height, width, 3), np.uint8)


# --- images and videos --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_an_image_becomes_what_the_classifier_reads(tmp_path, suffix, network):
    full, path = network("resnet18", suffix)
    found = of_image("resnet18", path)
    assert found.feature == Feature("sequence", "float32", (1, 512))
    picture = write_image(tmp_path / "a.png", noise(300, 420))
    [vector] = found.finish([found.load(Source(str(picture)))])
    # By another way: the picture through Pillow, and the classifier on the vector against the whole network.
    prepared = models.ResNet18_Weights.DEFAULT.transforms()(Image.open(picture))
    with torch.no_grad():
        torch.testing.assert_close(full.fc(torch.from_numpy(vector[0])), full(prepared[None])[0], atol=0.02, rtol=0)
        assert full(prepared[None]).std() > 0.1


@pytest.mark.parametrize("name", ["mobilenet_v3_small", "squeezenet1_1", "googlenet", "shufflenet_v2_x0_5"])
@pytest.mark.filterwarnings("ignore:The default weight initialization")
def test_the_last_layer_is_left_out_of_any_network(name, network):
    full, path = network(name)
    block = ImageFeatures(kind="image", frozen={"model": name, "weights": path})
    vectors = vision.network(block.frozen, "features.m.frozen", "image").eval()
    last = [each for each in full.modules() if isinstance(each, nn.Linear | nn.Conv2d)][-1]
    seen = []
    last.register_forward_pre_hook(lambda module, given: seen.append(given[0]))
    full.transform_input = name == "googlenet"  # as torchvision sets it where it has the weights
    x = torch.rand(1, 3, 224, 224)
    with torch.no_grad():
        full(x)
        found = vectors(x[:, None])
    wanted = seen[0].relu().mean(dim=(2, 3)) if seen[0].ndim == 4 else seen[0]
    torch.testing.assert_close(found, wanted[:, None])


def test_frames_become_a_vector_each(tmp_path, network):
    _, path = network("resnet18")
    found = of_video("resnet18", path)
    assert found.feature.shape == (3, 512)
    clip = write_video(tmp_path / "a.mp4", 6, (96, 64))
    [vectors] = found.finish([found.load(Source(str(clip), 0))])
    single = of_image("resnet18", path)
    for vector, gray in zip(vectors, (4, 12, 20), strict=True):  # frames 1, 3 and 5 of six
        picture = write_image(tmp_path / "a.png", np.full((64, 96, 3), gray, np.uint8))
        [wanted] = single.finish([single.load(Source(str(picture)))])
        np.testing.assert_allclose(vector, wanted[0], rtol=0.02, atol=0.02)  # a gray level or less


def test_a_network_of_videos_reads_the_whole_clip(tmp_path, network):
    full, path = network("mc3_18")
    found = of_video("mc3_18", path)
    assert found.feature.shape == (1, 512)
    pictures = RANDOM.integers(0, 256, (3, 64, 96), np.uint8)
    clip = write_video(tmp_path / "a.mp4", 3, (96, 64), picture=pictures, options={"crf": "0"})
    loaded = found.load(Source(str(clip), 0))
    [vector] = found.finish([loaded])
    draw = partial(vision.whole, half=None, background=(255, 255, 255))
    frames = vision.video.chosen(Source(str(clip), 0), settings3(), draw)
    frames = torch.from_numpy(np.stack(frames))
    prepared = models.video.MC3_18_Weights.DEFAULT.transforms()(frames)
    np.testing.assert_allclose(loaded, prepared.numpy(), atol=1e-6)
    with torch.no_grad():
        torch.testing.assert_close(full.fc(torch.from_numpy(vector[0])), full(prepared[None])[0])


def settings3() -> VideoFeatures:
    return VideoFeatures(kind="video", frames=3)


def test_preprocessing_is_that_of_the_weights_named(tmp_path, network):
    _, path = network("resnet50")
    picture = Source(str(write_image(tmp_path / "a.png", noise(250, 260))))
    pixels = torch.from_numpy(
        np.moveaxis(np.array(image.whole(picture, ImageFeatures(kind="image")).convert("RGB")), 2, 0)
    )
    by_entry = {}
    for entry in ("IMAGENET1K_V1", "IMAGENET1K_V2"):
        by_entry[entry] = of_image("resnet50", path, entry=entry).load(picture)
        wanted = models.ResNet50_Weights[entry].transforms()(pixels)
        np.testing.assert_array_equal(by_entry[entry][0], wanted.numpy())
    assert np.abs(by_entry["IMAGENET1K_V1"] - by_entry["IMAGENET1K_V2"]).max() > 0.1


def test_names_of_older_published_weights():
    assert vision._present("features.denseblock1.denselayer2.norm.1.weight") == (
        "features.denseblock1.denselayer2.norm1.weight"
    )
    names = models.get_model("densenet121", weights=None).state_dict()
    assert all(vision._present(name) == name for name in names)


@pytest.mark.parametrize(
    "chosen, said",
    [
        ({"model": "resnet19"}, "torchvision has no network 'resnet19'"),
        ({"entry": "IMAGENET22K"}, "publishes no weights 'IMAGENET22K' of resnet18"),
        ({"weights": "none.pth"}, "There are no pretrained weights"),
        ({"model": "resnet34"}, "not the weights of resnet34"),
        ({"model": "r3d_18"}, "r3d_18 reads videos, not images"),
    ],
)
def test_what_does_not_fit_is_refused(tmp_path, chosen, said, network):
    _, path = network("resnet18")
    with pytest.raises(AgmError, match=said) as error:
        of_image(**{"model": "resnet18", "path": path} | {k.replace("weights", "path"): v for k, v in chosen.items()})
    assert "features.m.frozen" in str(error.value) or path in str(error.value)


def test_too_few_frames_for_the_network(tmp_path, network):
    _, path = network("s3d")
    with pytest.raises(AgmError, match="cannot read inputs of shape") as error:
        of_video("s3d", path, frames=4)
    assert "features.m.frozen" in str(error.value) and "frames" in str(error.value)


class Evil:
    """A pickle that would leave a trace."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple:
        return open, (str(self.trace), "w")


def test_weights_that_would_run_code_are_not_opened(tmp_path):
    torch.save({"fc.weight": Evil(tmp_path / "ran")}, tmp_path / "a.pth")
    with pytest.raises(AgmError, match="cannot be read, or are more than tensors"):
        weights.read(tmp_path / "a.pth", "key")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("content", [b"", b"damaged", b"\x80\x02}q\x00."])
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_damaged_weights(tmp_path, content, suffix):
    path = tmp_path / f"a{suffix}"
    path.write_bytes(content)
    with pytest.raises(AgmError) as error:
        weights.read(path, "key")
    assert str(path) in str(error.value)


def test_weights_within_a_checkpoint_are_refused(tmp_path):
    torch.save({"model": {"fc.weight": torch.ones(2)}, "epoch": 3}, tmp_path / "a.pth")
    with pytest.raises(AgmError, match="not tensors by name"):
        weights.read(tmp_path / "a.pth", "key")


# --- sound --------------------------------------------------------------------------------------------------------

SMALL = {
    "extractor_mode": "group_norm",
    "extractor_conv_layer_config": [(8, 10, 5), (8, 3, 2), (8, 3, 2), (8, 3, 2), (8, 3, 2), (8, 2, 2), (8, 2, 2)],
    "extractor_conv_bias": False,
    "encoder_embed_dim": 12,
    "encoder_projection_dropout": 0.0,
    "encoder_pos_conv_kernel": 8,
    "encoder_pos_conv_groups": 2,
    "encoder_num_layers": 2,
    "encoder_num_heads": 2,
    "encoder_attention_dropout": 0.0,
    "encoder_ff_interm_features": 8,
    "encoder_ff_interm_dropout": 0.0,
    "encoder_dropout": 0.0,
    "encoder_layer_norm_first": False,
    "encoder_layer_drop": 0.0,
    "aux_num_out": 5,
}


@pytest.fixture(params=[False, True], ids=["as it is", "normalised"])
def speech(request, tmp_path, monkeypatch) -> tuple[nn.Module, str, bool]:
    """A small network in the place of one of torchaudio's pipelines, its weights' file, and whether it normalises."""
    small = torchaudio_ops.SpeechNetwork(partial(wav2vec2_model, **SMALL | {"aux_num_out": None}), request.param)
    monkeypatch.setitem(torchaudio_ops.SPEECH, "WAV2VEC2_BASE", small)
    torch.manual_seed(0)
    found = wav2vec2_model(**SMALL).eval()
    # The published files have the names of an older weight norm, and a layer for letters.
    names = {"parametrizations.weight.original0": "weight_g", "parametrizations.weight.original1": "weight_v"}
    state = found.state_dict()
    for new, old in names.items():
        state = {name.replace(new, old): each for name, each in state.items()}
    torch.save(state, tmp_path / "speech.pth")
    return found, str(tmp_path / "speech.pth"), request.param


def all_pipelines() -> dict[str, pipelines.Wav2Vec2Bundle]:
    """torchaudio's pipelines that turn sound into vectors, by name."""
    found = {name: getattr(pipelines, name) for name in dir(pipelines)}
    return {name: each for name, each in found.items() if isinstance(each, pipelines.Wav2Vec2Bundle)}


def test_all_pipelines_of_speech_are_known():
    assert torchaudio_ops.SPEECH.keys() == all_pipelines().keys()
    assert {each.sample_rate for each in all_pipelines().values()} == {torchaudio_ops.SPEECH_RATE}


def structure(network: nn.Module) -> tuple[list[str], list[torch.Size], list[tuple[str, str, object]]]:
    """All that decides what a network makes of sound, weights aside: dropout is for training."""
    settings = []
    for name, module in network.named_modules():
        for key, value in vars(module).items():
            of_training = "drop" in key or key in ("p", "training")
            if isinstance(value, bool | int | float | str) and not of_training:
                settings.append((f"{name} {type(module).__name__}", key, value))
    state = network.state_dict()
    return list(state), [each.shape for each in state.values()], settings


def test_a_network_of_speech_is_the_one_that_its_pipeline_has():
    """torchaudio says it in private attributes, which only this test reads."""
    same: dict[str, list[str]] = {}
    for name, bundle in all_pipelines().items():
        assert torchaudio_ops.SPEECH[name].normalise == bundle._normalize_waveform
        # Many pipelines have one network, which differs in weights alone: it is built once.
        params = bundle._params | {"aux_num_out": None}
        same.setdefault(f"{torchaudio_ops.SPEECH[name].build} {bundle._model_type} {params}", []).append(name)
    for name, *_ in same.values():
        bundle = all_pipelines()[name]
        build = {"Wav2Vec2": wav2vec2_model, "WavLM": wavlm_model}[bundle._model_type]
        with torch.device("meta"):  # shapes without numbers: some networks take gigabytes
            wanted = structure(build(**bundle._params | {"aux_num_out": None}))
            found = structure(torchaudio_ops.SPEECH[name].build())
        assert found == wanted, name


def test_one_module_knows_torchaudio():
    sources = [
        path for path in (ROOT / "src").rglob("*.py") if re.search(r"(from|import) torchaudio\b", path.read_text())
    ]
    assert sources == [Path(torchaudio_ops.__file__)]


def of_sound(path: str, **chosen: object) -> AudioFeatures:
    frozen = {"model": "WAV2VEC2_BASE", "weights": path}
    return AudioFeatures(**{"kind": "audio", "seconds": 0.5, "frozen": frozen} | chosen)


def test_sound_becomes_the_last_layers_states(tmp_path, speech):
    full, path, normalised = speech
    found = made(of_sound(path))
    assert found.feature == Feature("sequence", "float32", (24, 12))
    waves = [0.3 * RANDOM.normal(size=count).clip(-3, 3) for count in (8000, 4000, 8000, 12000)]
    sources = [Source(str(write_wav(tmp_path / f"{n}.wav", wave)), 0) for n, wave in enumerate(waves)]
    for source, vectors in zip(sources, found.finish([found.load(each) for each in sources]), strict=True):
        wave = torch.from_numpy(found.load(source))[None]
        wave = nn.functional.layer_norm(wave, wave.shape) if normalised else wave
        with torch.no_grad():
            wanted = full.extract_features(wave)[0][-1][0].numpy()
        np.testing.assert_allclose(vectors[: len(wanted)], wanted, atol=1e-5)
        assert not vectors[len(wanted) :].any() and len(wanted) == (wave.shape[1] - 400) // 320 + 1


def test_sound_is_read_at_the_networks_rate_and_length(tmp_path, speech):
    _, path, _ = speech
    short = Source(str(write_wav(tmp_path / "a.wav", tone(440, 0.2, 8000), 8000)), 0)
    for chosen, samples in (({"sample_rate": 44100}, 3200), ({"fit": "tile"}, 8000), ({"seconds": 0.1}, 1600)):
        wave = made(of_sound(path, **chosen)).load(short)
        assert wave.shape == (samples,)
        peak = np.abs(np.fft.rfft(wave)).argmax() * 16000 / samples
        assert peak == pytest.approx(440, abs=12)


def test_a_sound_shorter_than_a_step_costs_its_clip(tmp_path, speech):
    _, path, _ = speech
    with pytest.raises(Unusable, match="too short: 320 samples at 16000 Hz, and 400 are needed"):
        made(of_sound(path)).load(Source(str(write_wav(tmp_path / "a.wav", tone(440, 0.02, 16000))), 0))


def test_an_unknown_pipeline_and_other_weights(tmp_path, speech, network):
    _, path = network("resnet18")
    with pytest.raises(AgmError, match="not the weights of WAV2VEC2_BASE"):
        made(of_sound(path))
    for name in ("WAV2VEC3", "CONVTASNET_BASE_LIBRI2MIX"):
        with pytest.raises(AgmError, match="has no pipeline") as error:
            made(of_sound(path, frozen={"model": name, "weights": path}))
        assert "HUBERT_BASE" in str(error.value)


# --- as a modality ------------------------------------------------------------------------------------------------


def test_a_clip_does_not_depend_on_those_beside_it(tmp_path, speech):
    _, path, _ = speech
    found = made(of_sound(path))
    waves = [RANDOM.normal(size=count).astype(np.float32) for count in (8000, 5000, 8000)]
    together = found.finish(waves)
    for wave, vectors in zip(waves, together, strict=True):
        np.testing.assert_allclose(found.finish([wave])[0], vectors, atol=1e-5)


def test_clips_that_failed_keep_their_place():
    given = ["no", np.ones(2), "nor", np.full(2, np.nan), np.zeros(2)] * 9
    found = list(step._finished(((each, "file") for each in given), lambda clips: [2 * each for each in clips]))
    assert len(found) == 45
    for number, (each, content) in enumerate(found):
        assert content == "file"
        if number % 5 in (1, 4):
            np.testing.assert_array_equal(each, 2 * given[number])
        else:
            assert (
                each
                == ("no", None, "nor", "the pretrained network makes of it a number that is not finite")[number % 5]
            )


def study(*features: str) -> tuple[str, ...]:
    return (
        "study=spoken_digits",
        "~dataset.modalities",
        "+dataset.modalities={video:{kind:video,column:file},audio:{kind:audio,column:file}}",
        "~features",
        "+features={" + ",".join(features) + "}",
        "~encoders",
        "+encoders={video:{name:sequence_transformer,dim:8,num_heads:2,num_layers:1},audio:{name:identity,dim:12}}",
    )


def raw(folder: Path) -> Path:
    """Sixteen videos with sound; the sound of clip 0 is too short, and clip 1 is damaged."""
    folder.mkdir()
    rows = []
    for number in range(16):
        sound = tone(300 * (1 + number % 2), 0.02 if number == 0 else 0.5, 16000)
        write_video(folder / f"{number}.mp4", 5, sound=sound)
        split = ("train", "train", "val", "test")[number // 2 % 4]
        rows.append({"clip_id": f"c{number}", "label": number % 2, "split": split, "file": f"{number}.mp4"})
    (folder / "1.mp4").write_bytes(b"damaged")
    pl.DataFrame(rows).write_csv(folder / "manifest.csv")
    return folder


@pytest.mark.parametrize("speech", [False], indirect=True)
def test_from_videos_to_a_trained_network(tmp_path, monkeypatch, capsys, speech, network):
    """And no further where the encoder of a vector expects another size."""
    _, path = network("mobilenet_v3_small", ".safetensors")
    chosen = study(
        f"video:{{frames:2,frozen:{{model:mobilenet_v3_small,weights:{path}}}}}",
        f"audio:{{seconds:0.5,frozen:{{model:WAV2VEC2_BASE,weights:{speech[1]}}}}}",
    )
    pipeline = Pipeline(tmp_path / "study", monkeypatch, *chosen, f"dataset.root={raw(tmp_path / 'raw')}").run()
    assert {"c1"} <= pipeline.quarantine.keys() <= {"c0", "c1"}
    features = read_json(pipeline.data / "shards.json")["features"]
    assert {name: (each["kind"], each["shape"]) for name, each in features.items()} == {
        "video": ("sequence", [2, 1024]),
        "audio": ("sequence", [24, 12]),
    }
    part = pipeline.graph.job("extract", "video", 0)
    assert read_json(part.index)["pretrained"] == sha256(Path(path))
    assert pipeline.train()
    # What runs in how many processes does not change a byte.
    before = sha256(part.outputs[0])
    monkeypatch.setenv("AGM_WORKERS", "2")
    step.run(pipeline.params, part)
    assert sha256(part.outputs[0]) == before
    pipeline = Pipeline(
        tmp_path / "study", monkeypatch, *chosen, f"dataset.root={tmp_path / 'raw'}", "encoders.audio.dim=13"
    )
    with pytest.raises(AssertionError):
        pipeline.train()
    assert "Each step of the sequence has 12 numbers, and the encoder `identity` was told 13" in capsys.readouterr().err


def test_encoders_are_checked_against_what_the_features_are(tmp_path, monkeypatch):
    chosen = [*study("video:{frozen:{model:resnet18,weights:a.pth}}", "audio:{}")]
    with pytest.raises(AgmError, match="'identity' reads sequence, and 'audio' is audio") as error:
        Pipeline(tmp_path / "study", monkeypatch, *chosen, f"dataset.root={tmp_path}")
    assert "encoders.video" not in str(error.value)
    chosen[-1] = "+encoders={video:{name:resnet18},audio:{name:conv}}"
    with pytest.raises(AgmError, match="'resnet18' reads video or audio or image, and 'video' is sequence"):
        Pipeline(tmp_path / "study", monkeypatch, *chosen, f"dataset.root={tmp_path}")
