"""Encoders: the same network stage by stage, as one feature or as a sequence; and weights from local files."""

from collections.abc import Callable

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from agm.models.encoders import Encoder
from agm.pipeline.config import schema
from agm.pipeline.errors import AgmError
from agm.pipeline.io.tensors import Feature
from agm.pipeline.networks import build_encoder
from plain import attention, linear, normal
from tiny import close

pytestmark = pytest.mark.numerical

TEXT = schema.TransformerEncoder(name="transformer", dim=8, num_heads=2, num_layers=2, dim_feedforward=6)
SENSOR = schema.SequenceTransformerEncoder(
    name="sequence_transformer", dim=6, num_heads=2, num_layers=2, dim_feedforward=5
)
CASES = {
    "audio": (schema.ConvEncoder(name="conv", channels=[3, 5]), Feature("audio", "float32", (1, 9, 14)), 3 * 4),
    "image": (schema.ResNet18Encoder(name="resnet18"), Feature("image", "uint8", (3, 40, 70)), 2 * 3),
    "video": (schema.ConvEncoder(name="conv", channels=[4]), Feature("video", "uint8", (2, 1, 6, 8)), 2 * 3 * 4),
    "text": (TEXT, Feature("text", "int32", (5,), vocabulary=9), 5),
    "sensor": (SENSOR, Feature("sequence", "float32", (5, 2, 2)), 5),
    "array": (schema.IdentityEncoder(name="identity", dim=4), Feature("sequence", "float32", (5, 2, 2)), 5),
}


def made(case: str, sequence: bool = False) -> tuple[Encoder, Tensor]:
    """An encoder in evaluation mode, the same one whether it is to give a sequence, and three prepared inputs."""
    config, feature, _ = CASES[case]
    torch.manual_seed(0)
    encoder = build_encoder(config, feature, sequence).double().eval()
    x = torch.randn(3, *feature.shape, dtype=torch.float64)
    if feature.kind == "text":
        x = torch.randint(1, 9, (3, 5))
    if feature.kind in ("text", "sequence"):
        x[0, 2:] = x[1] = 0
    return encoder, x


def driven(encoder: Encoder, x: Tensor, change: Callable[[Tensor], Tensor]) -> tuple[Tensor, list[torch.Size]]:
    """The feature when every state is changed on the way, and the states' shapes."""
    run, shapes = encoder.run_stages(x), []
    try:
        state = next(run)
        while True:
            shapes.append(state.shape)
            state = run.send(change(state))
    except StopIteration as end:
        return end.value, shapes


@pytest.mark.parametrize("case", CASES)
def test_stages_make_the_encoder(case):
    """What a method that puts something between the stages relies on."""
    encoder, x = made(case)
    wanted = encoder(x)
    assert wanted.shape == (3, encoder.dim)
    feature, shapes = driven(encoder, x, lambda state: state)
    close(feature, wanted)
    assert len(shapes) == len(encoder.stages) == len(encoder.channels)
    assert [shape[1 if len(shape) == 4 else 2] for shape in shapes] == encoder.channels
    frames = 2 if case == "video" else 1
    assert all(shape[0] == 3 * frames for shape in shapes)


@pytest.mark.parametrize("case", CASES)
def test_what_is_sent_is_what_the_next_stage_gets(case):
    encoder, x = made(case)
    hooks = [stage.register_forward_hook(lambda module, given, state: 2 * state) for stage in encoder.stages]
    wanted = encoder(x)
    for hook in hooks:
        hook.remove()
    feature, _ = driven(encoder, x, lambda state: 2 * state)
    close(feature, wanted)


@pytest.mark.parametrize("case", CASES)
def test_a_sequence_of_the_same_network(case):
    (one, x), (many, _) = made(case), made(case, sequence=True)
    for weight, same in zip(one.parameters(), many.parameters(), strict=True):
        assert torch.equal(weight, same)
    feature, tokens = one(x), many(x)
    assert tokens.shape == (3, CASES[case][2], one.dim)
    lengths = [5, 5, 5]
    if case in ("text", "sensor", "array"):
        lengths = [2, 1, 5]  # of nothing but padding the first stays
        for clip, length in zip(tokens, lengths, strict=True):
            assert not clip[length:].any()
    if case == "sensor":
        close(feature, tokens[:, 0])
    elif case in ("text", "array"):
        close(feature, torch.stack([clip[:length].mean(dim=0) for clip, length in zip(tokens, lengths, strict=True)]))
    else:
        close(feature, tokens.mean(dim=1))


def test_tokens_lie_frame_by_frame_and_row_by_row():
    (one, x), (many, _) = made("video"), made("video", sequence=True)
    tokens = many(x)
    (stage,) = one.stages
    for frame in range(2):
        maps = stage(x[:, frame])
        for row in range(3):
            for column in range(4):
                close(tokens[:, 12 * frame + 4 * row + column], maps[:, :, row, column])


@torch.no_grad()
def test_the_sequence_transformer_by_a_plain_computation():
    encoder, x = made("sensor", sequence=True)
    tokens = encoder(x)
    for clip, found in zip(x, tokens, strict=True):
        steps = clip.reshape(5, 4)
        keep = [t == 0 or bool(steps[t].any()) for t in range(5)]
        state = torch.stack([encoder.projection.weight[:, :, 0] @ step for step in steps])
        for layer in encoder.stages:
            state = normal(layer.norm1, state + attention(layer.self_attn, state, state, keep))
            inner = [linear(layer.linear2, linear(layer.linear1, row).clamp_min(0)) for row in state]
            state = normal(layer.norm2, state + torch.stack(inner))
        for t in range(5):
            close(found[t], state[t] if keep[t] else torch.zeros(6, dtype=torch.float64))


# --- local weights ----------------------------------------------------------------------------------------------


def embedded(path) -> Encoder:
    """The encoder of words with the vectors in that file. ResNet-18's weights: test_train.py."""
    config = TEXT.model_copy(update={"embedding": str(path)})
    return build_encoder(config, CASES["text"][1])


def test_word_vectors_come_from_a_local_file(tmp_path):
    vectors = torch.randn(9, 8)
    save_file({"embedding": vectors}, tmp_path / "vectors.safetensors")
    encoder = embedded(tmp_path / "vectors.safetensors")
    assert torch.equal(encoder.embedding.weight[1:], vectors[1:])
    assert not encoder.embedding.weight[0].any()
    encoder(torch.randint(0, 9, (2, 5))).sum().backward()
    assert encoder.embedding.weight.grad[1:].any()


@pytest.mark.parametrize(
    ("held", "said"),
    [
        ({"embedding": torch.zeros(8, 8)}, r"holds an `embedding` of shape \[8, 8\], and \[9, 8\] is needed"),
        ({"embedding": torch.zeros(9, 300)}, r"holds an `embedding` of shape \[9, 300\], and \[9, 8\] is needed"),
        ({"vectors": torch.zeros(9, 8)}, r"holds no `embedding`, and \[9, 8\] is needed"),
        (b"not safetensors", "not a safetensors file, or damaged"),
        (None, "There are no pretrained weights"),
    ],
)
def test_word_vectors_that_do_not_fit_are_refused(tmp_path, held, said):
    path = tmp_path / "vectors.safetensors"
    if isinstance(held, bytes):
        path.write_bytes(held)
    elif held is not None:
        save_file(held, path)
    with pytest.raises(AgmError, match=said) as error:
        embedded(path)
    assert str(path) in str(error.value)


def test_damaged_weights_of_a_resnet_are_refused(tmp_path):
    path = tmp_path / "resnet18.safetensors"
    path.write_bytes(b"\x00" * 100)
    with pytest.raises(AgmError, match="not a safetensors file, or damaged"):
        build_encoder(schema.ResNet18Encoder(name="resnet18", weights=str(path)), CASES["image"][1])
