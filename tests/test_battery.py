"""Every method of the library passes the battery, and so does one that somebody else wrote."""

import importlib
import re
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from agm import methods
from agm.distributed import LossFunction, cross_entropy
from agm.methods import Method
from agm.methods.method import Windowed, scale_gradients
from agm.methods.parameters import NonNegative, Probability, Window
from agm.models import Inputs, Model
from battery import MethodBattery
from clone import ROOT
from subjects import CASES, Case, Subject
from tiny import Data, seed_draws, sgd, train_epoch

SUBJECTS = [Subject.named(name) for name in methods.METHODS]


@pytest.mark.parametrize("subject", SUBJECTS, ids=str)
class TestEveryMethod(MethodBattery):
    """The methods of the library."""


class Smoothed(Windowed):
    """A method that this project does not have: label smoothing, and encoders that learn at half the rate.

    Args:
        share: of the label's weight that all classes have.
        slow: the encoders' gradients are divided by 1 + this.
        window: epochs in which it acts.
    """

    modulates_encoders = True
    classification = True

    def __init__(
        self,
        model: Model,
        *,
        loss_fn: LossFunction = cross_entropy,
        share: Probability = 0.1,
        slow: NonNegative = 1.0,
        window: Window = Window(),
    ) -> None:
        super().__init__(model, loss_fn=loss_fn)
        self.share, self.slow, self.window = share, slow, window

    def modulated_loss(self, inputs: Inputs, targets: Tensor) -> Tensor:
        outputs = self.model(inputs)
        self.report(coefficient=torch.full((len(self.modalities),), 1 / (1 + self.slow)))
        wide = outputs.to(torch.promote_types(outputs.dtype, torch.float32))
        smooth = -wide.log_softmax(dim=1).mean()
        return (1 - self.share) * self.mean_loss(outputs, targets) + self.share * smooth

    def modulate(self) -> None:
        if self.active:
            factors = torch.full((len(self.modalities),), 1 / (1 + self.slow))
            scale_gradients(self.model.encoders.values(), factors)


class Plain(Method):
    """A method that changes nothing, and says that several processes may train it."""

    data_parallel = True


FOREIGN = [
    Subject(Smoothed, Case(neutral={"share": 0.0, "slow": 0.0}, scaled=True)),
    Subject(Plain, Case(neutral={})),
]


@pytest.mark.parametrize("subject", FOREIGN, ids=str)
class TestForeignMethods(MethodBattery):
    """Methods of somebody else, for which nothing but this line is written."""


def test_the_cases_are_of_methods_that_there_are() -> None:
    assert set(CASES) <= set(methods.METHODS)


def test_the_page_says_what_the_classes_say(monkeypatch: pytest.MonkeyPatch) -> None:
    """And the battery holds the classes to it: `python docs/compatibility.py` writes the table anew."""
    monkeypatch.syspath_prepend(ROOT / "docs")
    compatibility = importlib.import_module("compatibility")
    page = (ROOT / "docs/library.md").read_text(encoding="utf-8")
    assert compatibility.page_with_table(page) == page
    assert page.count("\n| `") == len(methods.METHODS)


@pytest.mark.parametrize("subject", SUBJECTS, ids=str)
def test_what_is_read_is_what_the_class_says(subject: Subject) -> None:
    """Of the loaders of `start_epoch`, in the first six epochs."""
    model = subject.network()
    method, data = subject.on(model), Data(model)
    read = set()

    class Watched:
        def __init__(self, split: str) -> None:
            self.split, self.loader = split, data.train(0) if split == "train" else data.val()
            self.num_samples = len(self.loader.dataset)

        def __iter__(self) -> Iterator[Any]:
            read.add(self.split)
            return iter(self.loader)

    for epoch in range(6):
        model.train()
        method.start_epoch(epoch, train=Watched("train"), val=Watched("val"), epochs=6)
    said = set(subject.kind.reads)
    assert read == said or (subject.kind is methods.MLA and not read)  # MLA asks how many samples there are
    for split in said:
        other = subject.on(subject.network())
        loaders = {"train": data.train(0), "val": data.val()}
        loaders.pop(split)
        with pytest.raises(ValueError, match=f"{subject} reads the {split} samples"):
            for epoch in range(6):
                other.start_epoch(epoch, **loaders, epochs=6)


def test_random_numbers_are_drawn_by_whom_the_page_says() -> None:
    """While training: two steps with the global generator in two states, without dropout."""
    drawing = set()
    for subject in SUBJECTS:
        if subject.kind is methods.CML:
            continue  # draws once, when it is made
        ends = []
        for seed in (0, 1):
            model = subject.network(count=3)
            method, data = subject.on(model), Data(model, train=8)
            seed_draws(seed)
            optimizer = sgd(method)
            for epoch in range(3):
                train_epoch(method, optimizer, data, epoch)
            ends.append(torch.cat([weight.flatten() for weight in model.parameters()]))
        if not torch.equal(*ends):
            drawing.add(str(subject))
    page = (ROOT / "docs/library.md").read_text(encoding="utf-8")
    (sentence,) = re.findall(r"Random numbers are drawn by (.*?)\. ", page, re.DOTALL)
    assert drawing | {"CML"} == set(re.findall(r"`(\w+)`", sentence))
