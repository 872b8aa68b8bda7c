"""Networks that this project did not write, as they are: `python examples/black_box.py`.

A network with a torchvision model in it, and a vision-and-language model of Hugging Face's transformers (tiny, with
random weights: nothing is downloaded). Of both only the inputs and the outputs are known, so each step takes 2^M − 1
forward passes.
"""

import torch
import torchvision
from torch import Tensor, nn
from transformers import ViltConfig, ViltForQuestionAnswering

import agm
from samples import CLASSES, loader


class TwoBranches(nn.Module):
    """Somebody's network: a torchvision model for the image, a small one for the sound."""

    def __init__(self) -> None:
        super().__init__()
        self.image_branch = torchvision.models.shufflenet_v2_x0_5(num_classes=16)
        self.sound_branch = nn.Sequential(nn.Flatten(), nn.Linear(256, 16), nn.ReLU())
        self.head = nn.Linear(32, CLASSES)

    def forward(self, inputs: dict[str, Tensor]) -> Tensor:
        image = self.image_branch(inputs["video"])
        sound = self.sound_branch(inputs["audio"])
        return self.head(torch.cat([sound, image], dim=1))


def torchvision_model() -> float:
    """AGM on it: no change of the network, nothing to say but the names of its inputs."""
    torch.manual_seed(0)
    model = agm.BlackBox(TwoBranches(), modalities=["audio", "video"])
    method = agm.methods.AGM(model)
    optimizer = torch.optim.SGD(method.weights(), lr=0.01)
    for inputs, labels in loader():
        loss = method.step(inputs, labels, optimizer)
    return loss.item()


def hugging_face_model(count: int = 6) -> agm.BlackBox:
    """ViLT, as a model of two modalities.

    It takes keyword arguments, and returns an object with `logits`. Its embeddings belong to one modality each: that is
    all that methods need which act on encoders.
    """
    config = ViltConfig(
        vocab_size=50,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        image_size=32,
        patch_size=16,
        max_position_embeddings=8,
        num_labels=count,
    )
    network = ViltForQuestionAnswering(config)
    embeddings = network.vilt.embeddings
    return agm.BlackBox(
        network,
        modalities=["input_ids", "pixel_values"],
        unpack=True,
        output="logits",
        encoders={"input_ids": embeddings.text_embeddings, "pixel_values": embeddings.patch_embeddings},
    )


def question_answering() -> float:
    """OGM on it. A masked question is the padding word, number 0; `attention_mask` is no modality and stays."""
    torch.manual_seed(0)
    method = agm.methods.OGM(hugging_face_model(), alpha=0.5)
    optimizer = torch.optim.AdamW(method.weights(), lr=1e-3)
    inputs = {
        "input_ids": torch.randint(1, 50, (4, 8)),
        "attention_mask": torch.ones(4, 8, dtype=torch.int64),
        "pixel_values": torch.randn(4, 3, 32, 32),
    }
    answers = torch.tensor([0, 1, 2, 3])
    for _ in range(3):
        loss = method.step(inputs, answers, optimizer)
    return loss.item()


def main() -> tuple[float, float]:
    """Train both for a few steps."""
    losses = torchvision_model(), question_answering()
    print("last losses:", [round(loss, 3) for loss in losses])
    return losses


if __name__ == "__main__":
    main()
