"""Whether AGM trains transformers whose inputs are now and then nothing but zeros, beside joint training.

    python benchmarks/empty_clips.py --layers 2 8 --alpha 4

Three sequences of 3 to 10 steps carry a weak sign of one of two classes; of every 17th clip one sequence is empty. The
networks are `sequence_transformer`s and late concatenation, trained by SGD with the clipping of the training loop.
Printed is the validation accuracy after the last epoch, for each seed.
"""

import argparse

import torch
from torch import Tensor

from agm.models import Inputs, Multimodal
from agm.pipeline.config import schema
from agm.pipeline.io.tensors import Feature
from agm.pipeline.networks import build_encoder, build_fusion, build_method, seed_for
from agm.pipeline.steps.train.loop import clip_gradients, gradient_norm

NUMBERS = {"vision": 37, "audio": 20, "text": 30}
SIGN = {"vision": 0.1, "audio": 0.1, "text": 0.2}
"""Per number of a step, with noise of standard deviation 1."""
STEPS, BATCH, CLIP = 10, 64, 5.0


def clips(count: int, seed: int) -> tuple[Inputs, Tensor]:
    """Sequences `{m: [N, STEPS, numbers]}` and labels `[N]`."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, 2, (count,), generator=generator)
    inputs = {}
    for index, (name, numbers) in enumerate(NUMBERS.items()):
        direction = torch.randn(numbers, generator=torch.Generator().manual_seed(100 + index))
        x = torch.randn(count, STEPS, numbers, generator=generator)
        x += SIGN[name] * (2 * labels - 1).view(-1, 1, 1) * direction
        lengths = torch.randint(3, STEPS + 1, (count, 1, 1), generator=generator)
        inputs[name] = x * (torch.arange(STEPS).view(1, STEPS, 1) < lengths)
    inputs["vision"][::17] = 0
    return inputs, labels


def network(layers: int, seed: int) -> Multimodal:
    """Three transformers and late concatenation."""
    config = schema.SequenceTransformerEncoder(
        name="sequence_transformer", dim=64, num_heads=4, num_layers=layers, dim_feedforward=128
    )
    encoders = {}
    for name, numbers in NUMBERS.items():
        seed_for(seed, f"encoder {name}")
        encoders[name] = build_encoder(config, Feature("sequence", "float32", (STEPS, numbers)))
    seed_for(seed, "fusion")
    fusion = build_fusion(schema.LateConcat(name="late_concat"), {name: config.dim for name in NUMBERS}, 2)
    return Multimodal(encoders, fusion)


def accuracy(block: schema.MethodBlock, layers: int, epochs: int, seed: int) -> float:
    """Validation accuracy after training; nan where a gradient was not finite."""
    model = network(layers, seed)
    method = build_method(block, model, seed)
    weights = list(model.parameters())
    optimizer = torch.optim.SGD(weights, 1e-3, momentum=0.9, weight_decay=1e-4)
    inputs, labels = clips(1200, seed=1)
    torch.manual_seed(seed)
    for epoch in range(epochs):
        model.train()
        method.start_epoch(epoch)
        for rows in torch.randperm(len(labels)).split(BATCH):
            optimizer.zero_grad()
            loss = method.loss({name: x[rows] for name, x in inputs.items()}, labels[rows])
            method.backward(loss)
            norm = gradient_norm(weights)
            if not norm.isfinite():
                return float("nan")
            clip_gradients(model.fusion.classifiers, weights, CLIP, norm)
            optimizer.step()
    inputs, labels = clips(400, seed=2)
    with torch.no_grad():
        return (model.eval()(inputs).argmax(dim=1) == labels).double().mean().item()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, nargs="+", default=[2, 8])
    parser.add_argument("--alpha", type=float, default=4.0, help="strength of AGM; its bound is 7")
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    given = parser.parse_args()
    torch.set_num_threads(1)
    joint = schema.MethodBlock(name="joint")
    agm = schema.MethodBlock(name="agm", alpha=given.alpha, bound=7.0)
    for layers in given.layers:
        for block in (joint, agm):
            found = [accuracy(block, layers, given.epochs, seed) for seed in given.seeds]
            print(f"{layers} layers, {block.name}: {', '.join(f'{each:.3f}' for each in found)}", flush=True)


if __name__ == "__main__":
    main()
