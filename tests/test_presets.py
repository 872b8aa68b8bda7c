"""The published experiments: each composes, is accepted, and builds the network of its published size."""

from dataclasses import replace
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import torch

from agm.models import Multimodal
from agm.pipeline import config
from agm.pipeline.config import Params
from agm.pipeline.config.compose import compose
from agm.pipeline.config.methods import typed
from agm.pipeline.io.tensors import Feature
from agm.pipeline.networks import Preparation, build_joint, build_method
from agm.pipeline.steps.extract import array, audio, image, sequence, video
from clone import ROOT

MAKERS = {
    "array": array.feature,
    "audio": audio.feature,
    "image": image.feature,
    "sequence": sequence.feature,
    "video": video.feature,
}
CLASSES = {
    "av_mnist": 10,
    "crema_d": 6,
    "ur_funny": 2,
    "ave": 28,
    "ave_raw": 28,
    "kinetics_sounds": 31,
    "vggsound": 309,
    "cmu_mosei": 2,
}
# Ten seconds of sound and three pictures, in two ResNet-18.
AUDIO_VISUAL = (
    {"audio": (1, 257, 1004), "video": (3, 3, 224, 224)},
    {"audio": 512, "video": 512},
    {"late_concat": 1024},
)
# By study: shape of each stored tensor, size of each feature, and of Z by fusion.
SIZES = {
    "av_mnist": (
        {"image": (1, 28, 28), "audio": (1, 112, 112)},
        {"image": 512, "audio": 512},
        {"late_concat": 1024, "early": 1024},
    ),
    "crema_d": (
        {"audio": (1, 257, 188), "video": (1, 3, 224, 224)},
        {"audio": 512, "video": 512},
        {"late_concat": 1024, "early": 1024},
    ),
    "ur_funny": (
        {"vision": (50, 371), "audio": (50, 81), "text": (50, 300)},
        {"vision": 768, "audio": 768, "text": 768},
        {"late_concat": 2304},
    ),
    "ave": (
        {"audio": (10, 128), "visual": (10, 7, 7, 512)},
        {"audio": 128, "visual": 49 * 512},
        {"psp": 64},
    ),
    "ave_raw": AUDIO_VISUAL,
    "kinetics_sounds": AUDIO_VISUAL,
    "vggsound": AUDIO_VISUAL,
    "cmu_mosei": (
        {"text": (60, 300), "audio": (60, 80)},
        {"text": 512, "audio": 512},
        {"cross_attention": 1024},
    ),
}
# α, upper bound, epochs, clipping; what the papers and their authors' answers leave open has the defaults.
TRAINING = {
    "av_mnist": (2.5, None, 1000, 1.0),
    "crema_d": (1.5, 10.0, 1500, 1.0),
    "ur_funny": (4.0, 7.0, 800, 5.0),
    "ave": (1.0, None, 100, 1.0),
    "ave_raw": (1.0, None, 100, 1.0),
    "kinetics_sounds": (1.0, None, 100, 1.0),
    "vggsound": (1.0, None, 100, 1.0),
    "cmu_mosei": (1.0, None, 100, 1.0),
}


@cache
def composed(*overrides: str) -> Params:
    with TemporaryDirectory() as folder:
        path = Path(folder, "params.yaml")
        compose([*overrides, "dataset.root=raw"], path, ROOT / "params")
        return config.load(path)


def stored(params: Params) -> dict[str, Feature]:
    """What the study's shards would hold."""
    made = {name: MAKERS[block.kind](block) for name, block in params.features.items()}
    channels = {"video": 1, "sequence": -1}
    counts = {name: each.shape[channels.get(each.kind, 0)] for name, each in made.items()}
    return {name: replace(each, mean=(0.0,) * counts[name], std=(1.0,) * counts[name]) for name, each in made.items()}


def clips(features: dict[str, Feature], count: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {name: torch.rand(count, *each.shape, generator=generator) for name, each in features.items()}


@pytest.mark.parametrize("study", SIZES)
def test_the_network_has_its_published_size(study):
    params = composed(f"study={study}")
    shapes, dims, fused = SIZES[study]
    features = stored(params)
    assert {name: each.shape for name, each in features.items()} == shapes
    assert {name: block.dim for name, block in params.encoders.items()} == dims
    assert params.study.fusions == list(fused)
    for fusion, size in fused.items():
        model = build_joint(params, fusion, features, CLASSES[study], seed=0).eval()
        prepare = Preparation(features, model.modalities)
        assert model.fusion.dims == dims
        with torch.no_grad():
            encoded = model.encode(prepare(clips(features, 1)))
            z = model.fusion.fuse(encoded)
            assert {name: h.shape[-1] for name, h in encoded.items()} == dims
            assert z.shape == (1, size)
            logits = model.fusion.classify(z)
        assert logits.shape == (1, CLASSES[study]) and logits.isfinite().all()
        (classifier,) = model.fusion.classifiers
        assert classifier.weight.shape == (CLASSES[study], size)
        check_layers(study, model)


def check_layers(study: str, model: Multimodal) -> None:
    """What the table of published networks says beyond the sizes of features."""
    if study in ("av_mnist", "crema_d", "ave_raw", "kinetics_sounds", "vggsound"):
        first = {name: next(encoder.parameters()).shape[1] for name, encoder in model.encoders.items()}
        assert first == {name: 3 if name == "video" else 1 for name in first}
    if study == "ur_funny":
        for encoder in model.encoders.values():
            assert len(encoder.stages) == 8 and all(layer.self_attn.num_heads == 4 for layer in encoder.stages)
    if study == "cmu_mosei":
        assert len(model.fusion.layers) == 6
        for layer in model.fusion.layers:
            for stream in layer.streams.values():
                assert stream.own.embed_dim == 512 and stream.own.num_heads == 4
                assert stream.feedforward[0].out_features == 1024
    if study == "ave":
        assert model.fusion.regions == 49 and model.fusion.propagate.threshold == 0.099
    if not model.fusion.additive and hasattr(model.fusion, "mixer"):
        assert [layer.linear.out_features // 2 for layer in model.fusion.mixer[::3]] == [2048, 1024]


@pytest.mark.parametrize("study", SIZES)
def test_training_is_the_published_one(study):
    params = composed(f"study={study}")
    alpha, bound, epochs, clip = TRAINING[study]
    agm = typed(params.methods["agm"])
    assert (agm.alpha, agm.bound, agm.window.first, agm.window.last) == (alpha, bound, 0, None)
    trainer = params.trainer
    assert (trainer.epochs, trainer.grad_clip) == (epochs, clip)
    assert (trainer.optimizer.name, trainer.optimizer.momentum, trainer.optimizer.weight_decay) == ("sgd", 0.9, 1e-4)
    assert (trainer.schedule.step_size, trainer.schedule.gamma) == (70, 0.1)
    assert params.evaluation.ridge_alpha == 120.0
    assert params.study.methods == ["joint", "agm"]


def test_a_method_takes_the_settings_of_the_study_when_it_is_chosen():
    """What belongs to one data set stands in its study, for methods that it does not compare by itself too."""
    chosen = "method=[joint,ogm,mslr,mses,inforeg]"
    found = composed("study=crema_d", chosen).methods
    assert found["ogm"].alpha == 0.8 and found["mses"].patience == 80
    assert found["mslr"].coefficients == {"audio": 0.9, "video": 1.1}
    assert found["inforeg"].beta == {"audio": 0.95, "video": 0.1}
    assert composed("study=crema_d", chosen, "methods.ogm.alpha=0.1").methods["ogm"].alpha == 0.1
    plain = composed("study=kinetics_sounds", chosen).methods
    assert (plain["ogm"].alpha, plain["mslr"].coefficients, plain["inforeg"].beta) == (0.3, None, 0.95)
    assert list(composed("study=table", "method=[joint,agm]").methods) == ["joint", "agm"]


def test_the_other_published_setting_of_ur_funny():
    params = composed("study=ur_funny", "fusion=[early]", "methods.agm.alpha=6.0")
    assert params.study.fusions == ["early"]
    assert (params.fusions["early"].hidden, params.fusions["early"].pieces) == ([2048, 1024], 2)


def test_a_step_of_agm_at_full_size():
    """AVE, where everything is in the fusion; two clips."""
    params = composed("study=ave")
    features = stored(params)
    model = build_joint(params, "psp", features, 28, seed=0)
    method = build_method(params.methods["agm"], model, seed=0)
    prepare = Preparation(features, model.modalities)
    loss = method.loss(prepare(clips(features, 2)), torch.tensor([3, 17]))
    method.backward(loss)
    assert loss.isfinite()
    assert all(weight.grad.isfinite().all() for weight in model.parameters())


@pytest.mark.parametrize("study", SIZES)
def test_a_preset_tells_how_it_is_composed(study):
    text = (ROOT / f"params/study/{study}.yaml").read_text()
    assert f"#   agm compose study={study} dataset.root=/path/to/{study}\n" in text
