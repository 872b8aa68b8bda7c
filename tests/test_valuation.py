"""Sample- and modality-level valuation against values counted clip by clip, over all orders of the modalities."""

import copy
import math
from collections.abc import Iterator
from fractions import Fraction
from itertools import permutations

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from agm.methods.method import Batch
from agm.methods.sample_valuation import copies
from agm.models.encoders import Conv, Transformer
from agm.models.multimodal import Multimodal
from agm.pipeline.networks import build_fusion
from by_hand import begin_epoch, gradients
from networks import CLASSES, FUSIONS, NAMES, small_batch, small_method, small_model
from tiny import close

pytestmark = pytest.mark.numerical

# Strong enough that a few clips show it.
SETTINGS = {"sample_valuation": {}, "modality_valuation": {"alpha": 9.0, "part_ratio": 1.0}}
CASES = [(fusion, count) for fusion in ("late_concat", "early", "cross_attention") for count in (2, 3)]
SIZE = 12


def clips(model: Multimodal, count: int, number: int = 0) -> Batch:
    """Clips some of which are right with some modalities and wrong with others."""
    inputs, guesses = small_batch(count, seed=number, batch=SIZE)
    inputs = {name: x if x.dtype == torch.int64 else 8 * x for name, x in inputs.items()}
    model.eval()
    some = [NAMES[:1], NAMES[1:2], NAMES[:count], NAMES[1:count]]
    outputs = [*(model(masked(inputs, kept)).argmax(dim=1) for kept in some), guesses]
    labels = torch.stack([outputs[row % len(outputs)][row] for row in range(SIZE)])
    return Batch(inputs, labels, [f"clip {number} {row}" for row in range(SIZE)])


def masked(inputs: dict[str, Tensor], kept: list[str]) -> dict[str, Tensor]:
    return {name: x if name in kept else torch.zeros_like(x) for name, x in inputs.items()}


class Given:
    """Training batches in the stored order, and the other way round in an epoch's order."""

    def __init__(self, batches: list[Batch]) -> None:
        self.given = batches
        self.read: list[str] = []

    def clips(self, split: str) -> int:
        assert split == "train"
        return sum(len(batch.targets) for batch in self.given)

    def batches(self, split: str, epoch: int | None = None) -> Iterator[Batch]:
        assert split == "train"
        for batch in self.given if epoch is None else reversed(self.given):
            self.read += batch.ids
            yield batch


def values(model: Multimodal, batch: Batch) -> list[dict[str, Fraction]]:
    """φ of each clip: what each modality adds, averaged over all orders in which the modalities may come."""
    model = copy.deepcopy(model).eval()
    orders = list(permutations(batch.inputs))
    kept = {frozenset(order[:size]) for order in orders for size in range(1, len(order) + 1)}
    answers = {each: model(masked(batch.inputs, list(each))).argmax(dim=1).tolist() for each in kept}
    found = []
    for row, label in enumerate(batch.targets.tolist()):
        worth = {each: len(each) * int(answer[row] == label) for each, answer in answers.items()} | {frozenset(): 0}
        added = dict.fromkeys(batch.inputs, 0)
        for order in orders:
            for place, name in enumerate(order):
                added[name] += worth[frozenset(order[: place + 1])] - worth[frozenset(order[:place])]
        found.append({name: Fraction(total, len(orders)) for name, total in added.items()})
    return found


def number_of_copies(value: Fraction, count: int) -> int:
    """The published table for two modalities; for three the same thirds of the way from 1 down to −1."""
    if count == 2:
        return 3 if value < -0.1 else 2 if value < 0.4 else 1 if value < 0.9 else 0
    return sum(value < 1 - step * Fraction(2, 3) for step in range(3))


def rows_of(batch: Batch) -> list[tuple]:
    """Every row as plain numbers, in a comparable order."""
    return sorted(
        (clip, int(label), *(tuple(x[row].flatten().tolist()) for x in batch.inputs.values()))
        for row, (clip, label) in enumerate(zip(batch.ids, batch.targets, strict=True))
    )


@pytest.mark.parametrize(("fusion", "count"), CASES)
def test_a_clip_gets_copies_of_each_modality_that_adds_little_to_it(fusion: str, count: int) -> None:
    model = small_model(fusion, count)
    batches = [clips(model, count, number) for number in range(2)]
    method = small_method("sample_valuation", model, warmup=1)
    state = copy.deepcopy(model.state_dict())
    model.train()
    begin_epoch(method, 1, Given(batches))
    assert model.training and all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    seen = set()
    every = []
    for batch in batches:
        worth = values(model, batch)
        every += worth
        wanted = rows_of(batch)
        for row, value in enumerate(worth):
            one = {name: x[row : row + 1] for name, x in batch.inputs.items()}
            for name in one:
                again = number_of_copies(value[name], count)
                seen.add(again)
                alone = Batch(masked(one, [name]), batch.targets[row : row + 1], batch.ids[row : row + 1])
                wanted += rows_of(alone) * again
        found = method.with_copies(batch)
        assert rows_of(found) == sorted(wanted)
        for name, x in batch.inputs.items():
            assert torch.equal(found.inputs[name][:SIZE], x) and found.inputs[name].dtype == x.dtype
    assert len(seen) > 1
    for name in model.modalities:
        mean = sum(value[name] for value in every) / len(every)
        close(method.diagnostics[f"valuation_{name}"].item(), float(mean))


@pytest.mark.parametrize(("value", "wanted"), [(-1, 3), (0, 2), (1, 1), (2, 0), (3, 0)])
def test_two_modalities_have_the_published_numbers_of_copies(value: int, wanted: int) -> None:
    """Of φ = −½, 0, ½, 1 and 1½, which are given times 2!."""
    assert copies(torch.tensor([[value], [2]])).tolist() == [[wanted], [0]]
    assert number_of_copies(Fraction(value, 2), 2) == wanted


@pytest.mark.parametrize("count", [3, 4, 5])
def test_every_value_there_is_has_its_number_of_copies(count: int) -> None:
    """As fractions work it out: values at the edge of a third are in the right one."""
    steps = math.factorial(count)
    numerators = range(-(count - 1) * steps // 2, (count + 1) * steps // 2 + 1)
    found = copies(torch.tensor(numerators).expand(count, -1))[0].tolist()
    assert found == [max(0, math.ceil(6 * (1 - Fraction(each, steps)) / (count + 1))) for each in numerators]
    assert max(found) == 3
    assert count != 3 or found == [number_of_copies(Fraction(each, steps), 3) for each in numerators]


def twins(seed: int) -> tuple[Multimodal, list[Batch]]:
    """A network to which audio and video are the same, and clips that each come a second time with the two exchanged.

    Over all clips both are worth exactly the same; the sums of their values have other orders.
    """
    torch.manual_seed(seed)
    encoders = {
        "audio": Conv(1, [4]),
        "video": Conv(1, [4]),
        "text": Transformer(9, 5, dim=6, num_heads=2, num_layers=1, dim_feedforward=8),
    }
    encoders["video"].load_state_dict(encoders["audio"].state_dict())
    fusion = build_fusion(FUSIONS["late_sum"], {name: each.dim for name, each in encoders.items()}, CLASSES)
    fusion.heads["video"].load_state_dict(fusion.heads["audio"].state_dict())
    model = Multimodal(encoders, fusion).double()
    one, other = (8 * torch.randn(SIZE, 1, 6, 7, dtype=torch.float64) for _ in range(2))
    words = torch.randint(0, 9, (SIZE, 5))
    labels = torch.randint(0, CLASSES, (SIZE,))
    again = torch.randperm(SIZE)
    first = {"audio": one, "video": other, "text": words}
    second = {"audio": other[again], "video": one[again], "text": words[again]}
    ids = [str(row) for row in range(SIZE)]
    return model, [Batch(first, labels, ids), Batch(second, labels[again], ids)]


@pytest.mark.parametrize("seed", range(20))
def test_equal_modalities_are_equal_in_every_order_of_summation(seed: int) -> None:
    """Neither of them is the stronger one, which copies would leave out."""
    model, batches = twins(seed)
    method = small_method("modality_valuation", model, warmup=0, alpha=9.0, part_ratio=1.0)
    begin_epoch(method, 0, Given(batches))
    assert method.gaps[0] == method.gaps[1]
    copied = method.with_copies(batches[0]).inputs
    present = {name: copied[name][SIZE:].flatten(1).ne(0).any(dim=1) for name in ("audio", "video")}
    assert torch.equal(present["audio"], present["video"])


@pytest.mark.parametrize(("fusion", "count"), CASES)
@pytest.mark.parametrize("alpha", [1.0, 4.0])
def test_copies_without_the_stronger_modalities_are_as_frequent_as_the_others_lag(
    fusion: str, count: int, alpha: float
) -> None:
    model = small_model(fusion, count, seed=1)
    batches = [clips(model, count, number) for number in range(3)]
    data = Given(batches)
    method = small_method("modality_valuation", model, warmup=0, alpha=alpha, part_ratio=0.5)
    begin_epoch(method, 0, data)
    # Half of 36 clips, from the end of the stored order: two of three batches are read, and six clips of the second.
    assert data.read == batches[2].ids + batches[1].ids
    worth = values(model, batches[2]) + values(model, batches[1])[:6]
    gap = {name: 1 - sum(value[name] for value in worth) / 18 for name in model.modalities}
    assert len(set(gap.values())) > 1
    for name in gap:
        close(method.diagnostics[f"valuation_{name}"].item(), float(1 - gap[name]))
    many = 400
    inputs, labels = small_batch(count, batch=many)
    inputs = {name: x if x.dtype == torch.int64 else x + 100 for name, x in inputs.items()}
    inputs = {name: x.clamp_min(1) for name, x in inputs.items()}  # no zero but by masking
    found = method.with_copies(Batch(inputs, labels, [str(row) for row in range(many)]))
    # The copies of each kind: which modalities are left.
    counted: dict[tuple[str, ...], int] = {}
    for row in range(many, len(found.targets)):
        left = tuple(name for name, x in found.inputs.items() if x[row].ne(0).any())
        counted[left] = counted.get(left, 0) + 1
        source = int(found.ids[row])
        assert found.targets[row] == labels[source]
        assert all(torch.equal(found.inputs[name][row], inputs[name][source]) for name in left)
    wanted: dict[tuple[str, ...], float] = {}
    for name in gap:
        left = tuple(other for other in gap if gap[other] >= gap[name])
        fraction = 2 / 3 * alpha * float(gap[name] - min(gap.values()))
        if fraction > 0:
            wanted[left] = wanted.get(left, 0) + fraction
    assert counted.keys() <= wanted.keys()
    for left, fraction in wanted.items():
        # Whole copies are certain, and the rest lies within five standard deviations.
        rest = fraction % 1
        deviation = math.sqrt(many * 2 * rest * (1 - rest)) + 1e-9
        assert abs(counted.get(left, 0) - many * fraction) <= 5 * deviation
    assert torch.equal(found.inputs["audio"][:many], inputs["audio"])


def test_more_than_one_copy_of_every_clip() -> None:
    """⅔ α · gap above 1 is that many whole copies and a random rest."""
    model = small_model("late_concat", 2)
    method = small_method("modality_valuation", model, alpha=6.0)
    method.gaps = [Fraction(0), Fraction(1, 2)]
    batch = clips(model, 2)
    found = method.with_copies(batch)
    assert found.ids == batch.ids + [clip for clip in batch.ids for _ in range(2)]
    assert found.inputs["audio"][SIZE:].eq(0).all()
    assert torch.equal(found.inputs["video"][SIZE::2], batch.inputs["video"])


@pytest.mark.parametrize("name", SETTINGS)
def test_the_loss_is_the_mean_over_clips_and_copies(name: str) -> None:
    model = small_model("early", 2, seed=1)
    batch = clips(model, 2)
    method = small_method(name, model, warmup=0, **SETTINGS[name])
    begin_epoch(method, 0, Given([batch]))
    torch.manual_seed(0)
    found = method.with_copies(batch)
    state = torch.get_rng_state()
    plain = copy.deepcopy(model)
    assert len(found.targets) > SIZE
    torch.manual_seed(0)
    method.loss(*batch).backward()
    torch.set_rng_state(state)
    losses = cross_entropy(plain(found.inputs), found.targets, reduction="none")
    (losses.sum() / len(losses)).backward()
    wanted = gradients(plain)
    for key, gradient in gradients(model).items():
        close(gradient, wanted[key])


@pytest.mark.parametrize("name", SETTINGS)
def test_before_the_warm_up_is_over_batches_stay_as_they_are(name: str) -> None:
    model = small_model("late_sum", 2)
    method = small_method(name, model, warmup=2, **SETTINGS[name])
    batch = clips(model, 2)
    for epoch, plain in ((0, True), (1, True), (2, False), (3, False), (1, True)):
        begin_epoch(method, epoch, Given([batch]))
        assert (len(method.with_copies(batch).targets) == SIZE) == plain
        assert bool(method.diagnostics) != plain


def test_no_strength_is_plain_training() -> None:
    model = small_model("late_sum", 3)
    batch = clips(model, 3)
    method = small_method("modality_valuation", model, warmup=0, alpha=0.0)
    begin_epoch(method, 0, Given([batch]))
    assert method.with_copies(batch) is batch


@pytest.mark.parametrize("name", SETTINGS)
def test_there_is_nothing_to_save(name: str) -> None:
    """The values of an epoch come from the weights at its start: one that starts again there has the same."""
    model = small_model("late_concat", 3)
    batch = clips(model, 3)
    found = []
    for _ in range(2):
        method = small_method(name, model, warmup=0, **SETTINGS[name])
        begin_epoch(method, 4, Given([batch]))
        torch.manual_seed(3)
        found.append(rows_of(method.with_copies(batch)))
        assert not method.state_dict()
    assert found[0] == found[1]


def test_clips_that_were_not_valued_have_no_copies() -> None:
    model = small_model("late_concat", 2)
    method = small_method("sample_valuation", model, warmup=0)
    begin_epoch(method, 0, Given([clips(model, 2, 0)]))
    other = clips(model, 2, 1)
    assert method.with_copies(other) is other
