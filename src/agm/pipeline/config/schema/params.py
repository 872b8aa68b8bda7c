"""The whole of `params.yaml`, and what must fit together in it."""

import math
from collections.abc import Collection, Iterable, Mapping
from functools import cached_property
from typing import Any, get_args

from pydantic import model_validator

from agm.methods import PREREQUISITES
from agm.pipeline.config.schema.base import Block, Name, Positive
from agm.pipeline.config.schema.data import Dataset, Dial, Features, SequenceFeatures, Shards
from agm.pipeline.config.schema.encoders import Encoder, IdentityEncoder
from agm.pipeline.config.schema.fusions import Fusion
from agm.pipeline.config.schema.methods import MethodBlock
from agm.pipeline.config.schema.training import Dvc, Evaluation, Study, Trainer
from agm.pipeline.errors import meant

COLUMNS = {"clip_id", "split", "label", "label_name", "group", "duration", "row", "left_out", "flaws", "texts"}
"""What the manifest and the shards hold beside one column per modality."""


def _without_modality(content: dict[str, Any], modalities: Collection[str]) -> list[str]:
    """What is wrong with blocks that belong to no modality of the data set."""
    problems = []
    for section in ("features", "encoders"):
        for name in content[section]:
            if name not in modalities:
                problems.append(
                    f"{section}.{name}: dataset.modalities has no {name!r}{meant(name, modalities)}, "
                    f"only {', '.join(modalities)}; without that modality take this out too: ~{section}.{name}"
                )
    return problems


def lists_of_methods(chosen: Iterable[str], methods: Mapping[str, Any]) -> dict[str, list[str]]:
    """The block `dvc`: the methods of a study, those that read finished runs apart.

    Args:
        chosen: `study.methods`.
        methods: the blocks of the methods as they are written, each with the `name` of a method of the library.
    """
    lists: dict[str, list[str]] = {"methods": [], "methods_after_runs": []}
    for key in chosen:
        # What is no text, or no block, is told by the check of all parameters.
        block = methods.get(str(key))
        reads_runs = isinstance(block, Mapping) and str(block.get("name")) in PREREQUISITES
        lists["methods_after_runs" if reads_runs else "methods"].append(key)
    return lists


class Params(Block):
    """The whole of `params.yaml`."""

    study: Study
    dataset: Dataset
    dial: Dial | None = None
    num_parts: Positive
    """Extraction jobs of each modality: how far a cluster can fan out."""
    features: dict[Name, Features]
    shards: Shards
    encoders: dict[Name, Encoder]
    fusions: dict[Name, Fusion]
    methods: dict[Name, MethodBlock]
    trainer: Trainer
    evaluation: Evaluation
    dvc: Dvc

    @model_validator(mode="before")
    @classmethod
    def _give_features_their_kind(cls, content: Any) -> Any:
        try:
            kinds = {name: modality["kind"] for name, modality in content["dataset"]["modalities"].items()}
            # Blocks of a modality that is not there would be refused as blocks of an unknown kind.
            if problems := _without_modality(content, kinds):
                raise ValueError("\n".join(problems))
            features = {name: {"kind": kinds[name], **block} for name, block in content["features"].items()}
        except (KeyError, TypeError, AttributeError):
            return content  # whatever is missing or misshapen is reported field by field
        return {**content, "features": features}

    @model_validator(mode="after")
    def _fit_together(self) -> "Params":
        modalities = list(self.dataset.modalities)
        problems = [
            f"{key}: expected one entry for each of {modalities}, found {list(entries)}"
            for key, entries in (
                ("features", self.features),
                ("encoders", self.encoders),
                ("study.modalities", self.study.modalities),
            )
            if sorted(entries) != sorted(modalities)
        ]
        for key, chosen, defined in (
            ("study.fusions", self.study.fusions, self.fusions),
            ("study.methods", self.study.methods, self.methods),
        ):
            problems += [
                f"{key}: {name!r} is not defined; there are {list(defined)}" for name in chosen if name not in defined
            ]
        if self.dataset.generated and self.dial is None:
            problems.append("dial: expected the parameters of the demo set that dataset.generated names")
        for key, values in (
            ("fusions", self.study.fusions),
            ("methods", self.study.methods),
            ("seeds", self.study.seeds),
        ):
            if len(set(values)) < len(values):
                problems.append(f"study.{key}: an entry is there twice: {values}")
        if self.dataset.name == "raw":
            problems.append("dataset.name: data/raw is the folder of the demo sets; choose another name")
        if "concepts" in self.study.methods:
            problems.append("study.methods: 'concepts' is the folder of the mono-modal concepts; choose another name")
        if not self.study.methods:
            problems.append("study.methods: there is none; 'joint' is what the others are compared with")
        joint = self.methods.get("joint")
        lists = lists_of_methods(self.study.methods, {key: {"name": block.name} for key, block in self.methods.items()})
        readers = lists["methods_after_runs"]
        if readers and ("joint" not in self.study.methods or joint is None or joint.name != "joint"):
            problems.append(f"study.methods: {readers} read the run of plain joint training; add method 'joint'")
        for key, expected in lists.items():
            if getattr(self.dvc, key) != expected:
                problems.append(
                    f"dvc.{key}: expected {expected}, which follows from study.methods; `agm compose` writes it"
                )
        for name in modalities:
            if name in COLUMNS:
                problems.append(f"dataset.modalities: {name!r} is a column of every data set; choose another name")
            problems += self._mismatch(name)
        for name in self.study.fusions:
            problems += self._unfusable(name)
        problems += self._single_clips()
        if problems:
            raise ValueError("\n".join(problems))
        return self

    @cached_property
    def content(self) -> dict[str, Any]:
        """All parameters in plain values, with every default spelled out."""
        return self.model_dump(mode="json")

    @property
    def baseline(self) -> str | None:
        """The method that the others are compared with: the study's first plain joint training, if it has one."""
        return next((name for name in self.study.methods if self.methods[name].name == "joint"), None)

    def reads_runs(self, method: str) -> bool:
        """Whether a method reads finished runs, which are made before its own."""
        return method in self.methods and self.methods[method].name in PREREQUISITES

    def _mismatch(self, name: str) -> list[str]:
        """What keeps the encoder of modality `name` from reading it."""
        encoder, features = self.encoders.get(name), self.features.get(name)
        if encoder is None or features is None:
            return []
        if (kind := features.produces) not in encoder.reads:
            blocks = [block for block in get_args(get_args(Encoder)[0]) if kind in block.reads]
            fitting = " or ".join(repr(get_args(block.model_fields["name"].annotation)[0]) for block in blocks)
            reads = " or ".join(encoder.reads)
            return [f"encoders.{name}: {encoder.name!r} reads {reads}, and {name!r} is {kind}; use {fitting}"]
        # What a pretrained network gives is seen when it is run; the encoder is checked against that when it is built.
        known = isinstance(encoder, IdentityEncoder) and isinstance(features, SequenceFeatures)
        if known and encoder.dim != math.prod(features.shape):
            return [
                f"encoders.{name}.dim: expected {math.prod(features.shape)}, the numbers in a step of shape "
                f"{features.shape}, found {encoder.dim}"
            ]
        return []

    def _single_clips(self) -> list[str]:
        """What keeps the networks from training on batches of one clip."""
        if self.trainer.batch_size > 1:
            return []
        blocks = {f"encoders.{name}": block for name, block in self.encoders.items()}
        blocks |= {f"fusions.{name}": self.fusions[name] for name in self.study.fusions if name in self.fusions}
        with_batch_norm = [key for key, block in blocks.items() if block.batch_norm]
        if not with_batch_norm:
            return []
        return [
            f"trainer.batch_size: expected 2 or more, found 1: {', '.join(with_batch_norm)} have BatchNorm, which "
            "has no statistics of a single clip"
        ]

    def _unfusable(self, name: str) -> list[str]:
        """What keeps fusion `name` from fusing the modalities."""
        names = list(self.dataset.modalities)
        if name not in self.fusions or not set(names) <= self.features.keys() & self.encoders.keys():
            return []
        features = {modality: self.features[modality] for modality in names}
        dims = {modality: self.encoders[modality].dim for modality in names}
        reason = self.fusions[name].refusal(features, dims)
        return [f"fusions.{name}: {reason}"] if reason else []
