"""AGM in Accelerate: `python examples/accelerate_loop.py`, or `accelerate launch examples/accelerate_loop.py`.

`agm.distributed.Objective` is the method's loss as a module, inputs and labels to a number: that is what Accelerate
prepares, for one process or several. In the place of `accelerator.backward` stands the method's own.
"""

import torch
from accelerate import Accelerator

import agm
from plain_loop import build_model
from samples import loader


def train(method: agm.methods.Method, batches: object, epochs: int, lr: float, pieces: int) -> list[float]:
    """Train with the gradients of `pieces` batches in each step; returns the last loss of each epoch."""
    accelerator = Accelerator(cpu=True, gradient_accumulation_steps=pieces)
    agm.distributed.convert_batch_norm(method.model)
    optimizer = torch.optim.SGD(method.weights(), lr=lr)
    objective, optimizer, batches = accelerator.prepare(agm.distributed.Objective(method), optimizer, batches)
    history = []
    for epoch in range(epochs):
        objective.train()
        method.start_epoch(epoch)
        for inputs, labels in batches:
            with accelerator.accumulate(objective):
                loss = objective(inputs, labels)
                method.backward(loss / pieces)
                optimizer.step()
                optimizer.zero_grad()
        history.append(loss.item())
    return history


def main() -> list[float]:
    """Train for two epochs."""
    torch.manual_seed(0)
    history = train(agm.methods.AGM(build_model(), alpha=1.0), loader(), epochs=2, lr=0.05, pieces=2)
    print("last loss of each epoch:", [round(loss, 3) for loss in history])
    return history


if __name__ == "__main__":
    main()
