"""AGM in a training loop of your own: `python examples/plain_loop.py`.

Two networks of your own, a fusion, torch's DataLoader and optimizer. Nothing here knows of this project's pipeline.
"""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

import agm
from samples import CLASSES, loader


def build_model() -> agm.Multimodal:
    """An encoder for each modality, `[B, …] → [B, D]`, and what puts their features together."""
    audio = nn.Sequential(nn.Flatten(), nn.Linear(256, 16), nn.BatchNorm1d(16), nn.ReLU())
    video = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten())
    fusion = agm.fusion.LateConcat({"audio": 16, "video": 32}, classes=CLASSES)
    return agm.Multimodal({"audio": audio, "video": video}, fusion)


def train(
    method: agm.methods.Method,
    optimizer: torch.optim.Optimizer,
    batches: Iterable[tuple[dict[str, Tensor], Tensor]],
    epochs: int,
) -> list[float]:
    """Train; returns the mean loss of each epoch."""
    history = []
    for epoch in range(epochs):
        method.model.train()
        method.start_epoch(epoch)
        losses = []
        for inputs, labels in batches:
            losses.append(method.step(inputs, labels, optimizer))
        history.append(torch.stack(losses).mean().item())
    return history


def main() -> list[float]:
    """Train, then ask what each modality has learned."""
    torch.manual_seed(0)
    model = build_model()
    method = agm.methods.AGM(model, alpha=1.0)
    optimizer = torch.optim.SGD(method.weights(), lr=0.05, momentum=0.9)  # after the method, which may add weights
    batches = loader()
    history = train(method, optimizer, batches, epochs=3)
    print("loss by epoch:", [round(loss, 3) for loss in history])

    inputs, labels = next(iter(batches))
    with torch.no_grad():
        responses = agm.modality_responses(model.eval(), inputs)  # φ, [M, B, C]
    for name, response in zip(model.modalities, responses, strict=True):
        right = (response.argmax(dim=1) == labels).float().mean().item()
        print(f"{name} alone names the class of {right:.0%}")
    return history


if __name__ == "__main__":
    main()
