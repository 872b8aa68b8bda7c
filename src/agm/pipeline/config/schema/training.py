"""Training, evaluation and the study."""

from typing import Annotated, Any, Literal

from pydantic import Field

from agm.pipeline.config.schema.base import Block, Fraction, Name, Positive, PositiveFloat, Seed


class Sgd(Block):
    name: Literal["sgd"]
    lr: PositiveFloat = 1e-3
    momentum: Fraction = 0.9
    weight_decay: Annotated[float, Field(ge=0)] = 1e-4


class AdamW(Block):
    name: Literal["adamw"]
    lr: PositiveFloat = 1e-3
    weight_decay: Annotated[float, Field(ge=0)] = 1e-2


class StepSchedule(Block):
    step_size: Positive = 70
    """Epochs between two reductions of the learning rate."""
    gamma: PositiveFloat = 0.1


class Trainer(Block):
    epochs: Positive = 100
    batch_size: Positive = 64
    optimizer: Annotated[Sgd | AdamW, Field(discriminator="name")] = Sgd(name="sgd")
    schedule: StepSchedule = StepSchedule()
    grad_clip: PositiveFloat | None = 1.0
    """Where an entry of the classifier's weight gradient exceeds this, all gradients are clipped to this norm."""
    monitor: Literal["accuracy", "loss"] = "accuracy"
    """The validation metric by which the best epoch is picked: the weights of that epoch are kept."""
    shuffle_buffer: Positive = 1024
    """Size of the shuffle buffer in clips, summed over the processes of a run."""
    threads: Positive = 1
    """CPU threads of a run: part of the configuration because results repeat only at the same number."""
    processes: Positive = 1
    """Processes that train one run together, each with a GPU of its own where there are any (data-parallel, by
    torchrun): the batch is the same, divided among them."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """bfloat16: autocast in the passes; weights, losses and the coefficients of modulation stay float32."""
    channels_last: bool = False
    """Memory layout of images and convolutions."""
    compile: bool = False
    """torch.compile for encoders and fusion: minutes at the start, a C++ compiler on a CPU, and other dropout masks."""


class Evaluation(Block):
    ridge_alpha: Annotated[float, Field(ge=0)] | None = 120.0
    """Penalty of the ridge regression behind the competition strength. 120 is the paper's, for features of 512 numbers
    and more; null chooses it on the validation split, whatever the features' scale."""
    outputs: Literal["logits", "probabilities"] = "logits"
    """Which outputs of the mono-modal concept the joint model's feature must express."""
    confidence: Annotated[float, Field(gt=0, lt=1)] = 0.95
    permutations: Annotated[int, Field(ge=2)] = 20
    """Random orders of the clips behind each accuracy with a modality permuted."""
    batch_size: Positive = 256


class Study(Block):
    """A grid over one data set: every fusion × method × seed, and the concepts every method is compared with."""

    name: Name
    fusions: list[Name] = Field(min_length=1)
    methods: list[Name]
    modalities: list[Name] = Field(min_length=1)
    settings: dict[Name, dict[str, Any]] = Field(default={})
    """Parameters of methods that belong to this study's data or length, by method, whether it is compared or not: its
    file in params/method takes them in the place of its defaults. Read when composing; what counts is in `methods`."""
    seeds: list[Seed] = Field(min_length=1)


class Dvc(Block):
    """The methods of the study in two lists, which `dvc.yaml` iterates over: a stage of DVC has the same dependencies
    for all its methods. They follow from `study.methods`, and `agm compose` writes them."""

    methods: list[Name]
    methods_after_runs: list[Name]
    """Methods that read finished runs of the same fusion and seed: the concepts and plain joint training."""
