"""What one training step of each method costs, measured against the joint step of the same network.

    python benchmarks/step_cost.py --network crema_d --batch 8 --rounds 11

The step is the training loop's own, `Training.train_step`: the method's losses, backward passes, clipping and the
optimizer, on random clips that already lie on the device. Steps take turns (joint, method A, method B, joint, …), so
that whatever else the machine does meets all of them alike; the ratio to the joint step is taken round by round, and
the table shows its median and quartiles. Methods run with their default parameters, in an epoch in which they act.
"""

import argparse
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

from agm import methods
from agm.methods import METHODS
from agm.methods.method import Network
from agm.models import Multimodal
from agm.pipeline.config import schema
from agm.pipeline.config.methods import arguments as method_arguments
from agm.pipeline.io.tensors import Feature
from agm.pipeline.networks import build_encoder, build_fusion, build_method, seed_for
from agm.pipeline.runtime.device import environment, prepare_device
from agm.pipeline.steps.shard.stream import StoredBatch
from agm.pipeline.steps.train.clips import Split
from agm.pipeline.steps.train.loop import Training

SEED = 0
FUSION = schema.LateConcat(name="late_concat")
VARIANTS = {"agm": {"agm, coalitions shared": {"coalitions": "shared"}}}
SWITCHES = {
    "bfloat16": {"precision": "bfloat16"},
    "channels_last": {"channels_last": True},
    "compile": {"compile": True},
}
WARM_UP = 2
PAST_EPOCHS = 30


@dataclass(frozen=True)
class Setting:
    """A network of a published experiment, in what decides its speed.

    Attributes:
        features: what the inputs are, by modality.
        encoders: what reads them.
    """

    features: dict[str, Feature]
    encoders: dict[str, schema.Encoder]
    classes: int

    def build(self, modalities: list[str]) -> Multimodal:
        """The network over `modalities`."""
        encoders = {}
        for name in modalities:
            seed_for(SEED, f"encoder {name}")
            encoders[name] = build_encoder(self.encoders[name], self.features[name])
        seed_for(SEED, "fusion")
        fusion = build_fusion(FUSION, {name: encoder.dim for name, encoder in encoders.items()}, self.classes)
        return Multimodal(encoders, fusion)

    def refusal(self, method: str) -> str | None:
        """Why `method` cannot train it, or None."""
        dims = {name: encoder.dim for name, encoder in self.encoders.items()}
        network = Network(list(dims), dims, FUSION.additive, dict.fromkeys(dims, True))
        return methods.get(method).refusal(network, **method_arguments(schema.MethodBlock(name=method)))


def crema_d(arguments: argparse.Namespace) -> Setting:
    """CREMA-D: two ResNet-18 over a spectrogram and one frame."""
    resnet = schema.ResNet18Encoder(name="resnet18")
    shapes = {"audio": ("audio", (1, 257, 188)), "video": ("image", (3, 224, 224))}
    return Setting(images(shapes), {"audio": resnet, "video": resnet}, classes=6)


def ur_funny(arguments: argparse.Namespace) -> Setting:
    """UR-FUNNY: three transformers of 8 layers over aligned sequences, of which the first step is the feature."""
    widths = {"vision": 371, "audio": 81, "text": 300}
    features = {
        name: Feature("sequence", "float32", (arguments.steps, width), (0.0,), (1.0,)) for name, width in widths.items()
    }
    transformer = schema.SequenceTransformerEncoder(name="sequence_transformer")
    return Setting(features, dict.fromkeys(widths, transformer), classes=2)


def tiny(arguments: argparse.Namespace) -> Setting:
    """A few hundred weights, to try this program out."""
    conv = schema.ConvEncoder(name="conv", channels=[4, 6])
    shapes = {"audio": ("audio", (1, 9, 8)), "video": ("image", (3, 8, 8))}
    return Setting(images(shapes), {"audio": conv, "video": conv}, classes=3)


NETWORKS = {"crema_d": crema_d, "ur_funny": ur_funny, "tiny": tiny}


def images(shapes: dict[str, tuple[str, tuple[int, ...]]]) -> dict[str, Feature]:
    """Inputs of these kinds and shapes, normalised as they come."""
    channels = {name: shape[0] for name, (_, shape) in shapes.items()}
    return {
        name: Feature(kind, "float32", shape, (0.0,) * channels[name], (1.0,) * channels[name])
        for name, (kind, shape) in shapes.items()
    }


class RandomShards:
    """Random clips in the place of the shards (`agm.pipeline.steps.shard.stream.Shards`), alike in every pass: what
    the steps and `start_epoch` read."""

    def __init__(self, network: Setting, batch: int) -> None:
        self.network, self.batch, self.features = network, batch, network.features
        self.counts = {"train": 2 * batch, "val": batch}

    def rows(self, split: str) -> int:
        """Number of clips in `split`."""
        return self.counts[split]

    def batches(self, split: str, batch_size: int, *, modalities: list[str], **order: object) -> Iterator[StoredBatch]:
        """The clips of `split`, always in the same order."""
        for start in range(0, self.counts[split], batch_size):
            generator = torch.Generator().manual_seed(start)
            rows = range(start, start + batch_size)
            inputs = {
                name: torch.randn(batch_size, *self.network.features[name].shape, generator=generator)
                for name in modalities
            }
            labels = torch.tensor(rows) % self.network.classes
            yield StoredBatch(inputs, labels, [f"{split}{row}" for row in rows])


@dataclass(frozen=True)
class Row:
    """One row of the table: what is timed, and how it is built when its turn comes."""

    label: str
    build: Callable[[], Callable[[], object]]


def prepare(
    network: Setting, block: schema.MethodBlock, arguments: argparse.Namespace, **switches: object
) -> Callable[[], object]:
    """One training step of the method, to be called again and again."""
    trainer = schema.Trainer(batch_size=arguments.batch, threads=arguments.threads, **switches)
    device = torch.device(arguments.device)
    model = network.build(list(network.features)).to(device)
    method = build_method(block, model, SEED, **finished_runs(block.name, network, device))
    shards = RandomShards(network, arguments.batch)
    training = Training(model.to(device), method.to(device), shards, trainer, SEED)
    model.train()
    for epoch in (0, arguments.epoch):
        train, val = Split(training.data, "train", epoch), Split(training.data, "val")
        method.start_epoch(epoch, train=train, val=val, epochs=trainer.epochs)
    batch = next(training.data.batches("train", arguments.epoch))
    return partial(training.train_step, batch)


def finished_runs(name: str, setting: Setting, device: torch.device) -> dict[str, object]:
    """What a method reads of finished runs: encoders that learnt nothing, and losses that fell."""
    teachers = {}
    for modality in setting.features:
        teachers[modality] = setting.build([modality]).encoders[modality].requires_grad_(False).to(device)
    histories = {run: history(pace) for pace, run in enumerate([*teachers, "joint"], start=2)}
    found = {"teachers": teachers, "histories": histories}
    return {argument: found[argument] for argument in methods.get(name).prerequisites}


def history(pace: int) -> dict[str, list[float]]:
    """Losses of a run: that of validation falls more slowly than that of training."""
    train = [2.0 / (1 + epoch / pace) for epoch in range(PAST_EPOCHS)]
    return {"train_loss": train, "val_loss": [1 + loss / 2 for loss in train]}


def seconds(step: Callable[[], object], device: torch.device) -> float:
    """Time of one step; on a GPU from the first kernel to the last, waiting only before and after."""
    if device.type != "cuda":
        start = time.perf_counter()
        step()
        return time.perf_counter() - start
    first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize(device)
    first.record()
    step()
    last.record()
    torch.cuda.synchronize(device)
    return first.elapsed_time(last) / 1000


def measure(rows: list[Row], arguments: argparse.Namespace) -> list[dict[str, float]]:
    """Seconds of every row's step, round by round."""
    device = torch.device(arguments.device)
    steps = {row.label: row.build() for row in rows}
    for step in steps.values():
        for _ in range(WARM_UP):
            step()
    return [{label: seconds(step, device) for label, step in steps.items()} for _ in range(arguments.rounds)]


def table(labels: list[str], rounds: list[dict[str, float]]) -> str:
    """A Markdown table of medians and quartiles; not every step is in every round, but the joint one is."""
    lines = ["| step | milliseconds | × joint | quartiles |", "|---|---:|---:|---|"]
    for label in labels:
        taken = [one[label] for one in rounds if label in one]
        ratio = [one[label] / one["joint"] for one in rounds if label in one]
        low, middle, high = statistics.quantiles(ratio, n=4, method="inclusive")
        lines.append(f"| {label} | {1000 * statistics.median(taken):.1f} | {middle:.2f} | {low:.2f}–{high:.2f} |")
    return "\n".join(lines)


def surroundings(arguments: argparse.Namespace) -> str:
    """Hardware, versions and the command, as Markdown."""
    about = environment(torch.device(arguments.device))
    if about["device"] == "cpu":
        about["device"] = f"{processor()}, {os.cpu_count()} cores, {arguments.threads} used"
    versions = ", ".join(f"{name} {about[name]}" for name in ("agm", "python", "torch", "torchvision"))
    command = f"python benchmarks/step_cost.py {' '.join(arguments.given)}"
    return f"- Hardware: {about['device']}\n- Versions: {versions}\n- Command: `{command}`\n"


def processor() -> str:
    """The CPU's name, where Linux tells it."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "CPU")


def rows_of(name: str, network: Setting, arguments: argparse.Namespace) -> list[Row]:
    """A method with its default parameters and what variants it has."""
    variants = {name: {}} | VARIANTS.get(name, {})
    return [
        Row(label, partial(prepare, network, schema.MethodBlock(name=name, **settings), arguments))
        for label, settings in variants.items()
    ]


def switched_rows(network: Setting, arguments: argparse.Namespace) -> list[Row]:
    """Joint training and AGM under each of the trainer's switches."""
    return [
        Row(
            f"{name}, {switch}",
            partial(prepare, network, schema.MethodBlock(name=name), arguments, **SWITCHES[switch]),
        )
        for switch in arguments.switches
        for name in ("joint", "agm")
    ]


def compare(network: Setting, arguments: argparse.Namespace) -> int:
    """Print what every step costs."""
    refused = {name: reason for name in arguments.methods if (reason := network.refusal(name))}
    (joint,) = rows_of("joint", network, arguments)
    chosen = [name for name in arguments.methods if name != "joint" and name not in refused]
    rows = [row for name in chosen for row in rows_of(name, network, arguments)]
    rows += switched_rows(network, arguments)
    rounds = []
    for start in range(0, len(rows), arguments.together):
        rounds += measure([joint, *rows[start : start + arguments.together]], arguments)
        print(f"{min(start + arguments.together, len(rows))} of {len(rows)} measured", file=sys.stderr)
    print(surroundings(arguments))
    print(table([row.label for row in (joint, *rows)], rounds))
    for name, reason in refused.items():
        print(f"\n{name} was left out: {reason}.")
    return 0


def find_synchronisations(network: Setting, arguments: argparse.Namespace) -> int:
    """Run every method's step with torch refusing whatever waits for the GPU; the number of methods that do."""
    guilty = 0
    for name in arguments.methods:
        if reason := network.refusal(name):
            print(f"{name}: left out, {reason}")
            continue
        step = prepare(network, schema.MethodBlock(name=name), arguments)
        for _ in range(WARM_UP):  # the first steps make handles, workspaces and the optimizer's state
            step()
        torch.cuda.set_sync_debug_mode("error")
        try:
            step()
            print(f"{name}: ok")
        except RuntimeError as error:
            guilty += 1
            print(f"{name}: {error}")
        finally:
            torch.cuda.set_sync_debug_mode("default")
    return guilty


def parse(given: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="step_cost.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add(
        "--network",
        choices=NETWORKS,
        default="crema_d",
        help="; ".join(f"{name}: {network.__doc__.rstrip('.')}" for name, network in NETWORKS.items()),
    )
    add("--methods", nargs="+", choices=sorted(METHODS), default=sorted(METHODS), metavar="METHOD", help="default: all")
    add(
        "--switches",
        nargs="*",
        choices=SWITCHES,
        default=list(SWITCHES),
        help="settings of the trainer, each tried with joint training and AGM against the joint step without it; "
        "compile takes minutes; none: --switches with nothing behind it",
    )
    add("--batch", type=int, default=8, help="clips in a step (8)")
    add("--steps", type=int, default=20, help="steps of each sequence of ur_funny (20)")
    add("--rounds", type=int, default=11, help="timed steps of each method (11); the first two are never timed")
    add("--epoch", type=int, default=10, help="the epoch that the steps belong to (10): some methods begin late")
    add("--threads", type=int, default=1, help="CPU threads (1)")
    add("--device", default="cpu", help="cpu (default), cuda or cuda:N")
    add("--together", type=int, default=4, help="methods in memory at a time (4), each with weights of its own")
    add("--syncs", action="store_true", help="time nothing: look for steps that make the host wait for the GPU")
    arguments = parser.parse_args(given)
    arguments.given = sys.argv[1:] if given is None else given
    if arguments.syncs and not arguments.device.startswith("cuda"):
        parser.error("--syncs needs a GPU: add --device cuda")
    return arguments


def main(given: list[str] | None = None) -> int:
    """The program; returns its exit status."""
    arguments = parse(given)
    os.environ["AGM_DEVICE"] = arguments.device
    prepare_device(arguments.threads)
    network = NETWORKS[arguments.network](arguments)
    return find_synchronisations(network, arguments) if arguments.syncs else compare(network, arguments)


if __name__ == "__main__":
    sys.exit(main())
