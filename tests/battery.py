"""One set of checks that every method passes, in the manner of torchmetrics' MetricTester.

A new method gets all of them for one line:

    @pytest.mark.parametrize("subject", [Subject(MyMethod)], ids=str)
    class TestMyMethod(MethodBattery): ...

What the battery may demand of a method it asks the class: what it says of itself (`needs_features`, `scale_free`, …)
is held true, and what it refuses must be refused with a reason. `Case` tells the rest (`subjects.py`). The networks
(`tiny.py`) are in float64.
"""

import copy
import functools
import importlib
import io
import math
import multiprocessing
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
import torch._dynamo
from torch import Tensor, nn

from agm import distributed
from agm.methods import Joint, Method, Window
from agm.methods.method import Network, Windowed
from agm.methods.parameters import Bounds, settings
from agm.methods.sample_valuation import Valuation
from agm.models import BlackBox, Multimodal
from subjects import Case, Subject, teachers
from tiny import (
    Closed,
    Data,
    Met,
    Whole,
    close,
    constant_draws,
    first_step,
    fusions,
    gradients_of,
    mean_of_input,
    network,
    same_steps,
    seed_draws,
    sgd,
    squared_error,
    statistics,
    train_epoch,
)

numerical = pytest.mark.numerical


class MethodBattery:
    """The checks. `subject` comes from the subclass's mark."""

    @pytest.mark.parametrize("count", [2, 3, 4])
    @pytest.mark.parametrize("fusion", list(fusions()))
    def test_every_network_is_trained_or_refused_with_a_reason(self, subject: Subject, fusion: str, count: int) -> None:
        if fusion == "Psp" and count != 2:
            with pytest.raises(ValueError, match="two modalities"):
                subject.network(fusion, count)
            return
        model = subject.network(fusion, count, one_size=subject.one_size)
        if subject.staged and model.fusion.sequential:
            pytest.skip("the encoders here that are chains of stages give no sequences")
        reason = subject.kind.refusal(Network.of(model))
        if reason is not None:
            assert len(reason.split()) > 3
            with pytest.raises(ValueError) as error:
                subject.on(model)
            assert str(error.value) == f"{subject} cannot train this model: {reason}"
            return
        method = subject.on(model)
        before = {name: weight.detach().clone() for name, weight in model.named_parameters()}
        # In the second epoch: in the first some methods train a single modality, or wait.
        losses = train_epoch(method, sgd(method), Data(model, train=4), epoch=1)
        assert all(loss.isfinite() and loss.shape == () for loss in losses)
        for name in model.modalities:
            weights = model.encoders[name].named_parameters(f"encoders.{name}")
            assert any(not torch.equal(weight, before[key]) for key, weight in weights), name

    @numerical
    @pytest.mark.parametrize("fusion", list(fusions()))
    def test_a_black_box_gives_what_the_fast_form_gives(self, subject: Subject, fusion: str) -> None:
        if not subject.takes_black_boxes:
            model = subject.network("LateSum")
            with pytest.raises(ValueError, match=r"black box|additive|has none"):
                subject.on(BlackBox(Whole(model), model.modalities, encoders=model.encoders))
            return
        count = 2 if fusions()[fusion].sequential else 3
        mask = {"audio": 0.4, "video": mean_of_input}
        fast = subject.network(fusion, count, mask=mask)
        forms = [fast] if not (fast.additive and subject.case.terms) else []
        if fast.additive:
            # Then u_m is a term of the output, which nobody finds in a black box: it has f with the others masked.
            forms.append(Multimodal(dict(copy.deepcopy(fast).encoders), Closed(copy.deepcopy(fast).fusion), mask=mask))
        for form in forms:
            twin = copy.deepcopy(form)
            box = BlackBox(Whole(twin), twin.modalities, encoders=twin.encoders, mask=mask)
            data = Data(form, train=4)
            results = []
            for model in (form, box):
                method = subject.on(model)
                seed_draws(5)
                optimizer, losses = sgd(method), []
                for epoch in range(2):
                    losses += train_epoch(method, optimizer, data, epoch)
                results.append((torch.stack(losses), [weight.grad for weight in model.parameters()]))
            close(results[0], results[1])

    def test_a_black_box_without_encoders_is_refused_by_who_acts_on_them(self, subject: Subject) -> None:
        model = network()
        box = BlackBox(Whole(model), model.modalities)
        if subject.takes_black_boxes and not (subject.kind.needs_encoders or subject.kind.modulates_encoders):
            subject.on(box)
            return
        with pytest.raises(ValueError, match=f"{subject} cannot train this model: ") as error:
            subject.on(box)
        if subject.takes_black_boxes:
            assert "BlackBox(…, encoders={…})" in str(error.value)

    @numerical
    def test_neutral_parameters_are_joint_training(self, subject: Subject) -> None:
        case = subject.case
        closed = {"window": Window(first=9)} if issubclass(subject.kind, Windowed) else None
        choices = [(case.neutral, case.neutral_epoch), (closed, 0)]
        chosen = [(arguments, epoch) for arguments, epoch in choices if arguments is not None]
        if not chosen:
            pytest.skip(case.no_neutral or "nothing is said of neutral parameters")
        for fusion in subject.fusions:
            for arguments, epoch in chosen:
                # Without dropout: some methods draw random numbers between its draws.
                model = subject.network(fusion, 3, norm=True, dropout=0.0)
                joint = Joint(copy.deepcopy(model))
                same_steps(subject.on(model, **arguments), joint, epochs=(epoch,))

    @numerical
    def test_masked_passes_leave_running_statistics_and_modes_alone(self, subject: Subject) -> None:
        for fusion in subject.fusions:
            model = subject.network(fusion, 2, norm=True)
            plain = copy.deepcopy(model).train()
            method, data = subject.on(model), Data(model)
            model.train()
            frozen = next(module for module in model.encoders["video"].modules() if isinstance(module, nn.BatchNorm1d))
            frozen.eval()  # a module that the user froze stays frozen
            modes = {name: module.training for name, module in model.named_modules()}
            before = statistics(model)
            method.start_epoch(1, train=data.train(1), val=data.val(), epochs=3)
            assert {name: module.training for name, module in model.named_modules()} == modes
            close(statistics(model), before, 0)
            inputs, targets, ids = data.batch(1)
            loss = next(iter(method.losses(inputs, targets, ids)))
            method.backward(loss)
            assert {name: module.training for name, module in model.named_modules()} == modes
            plain(inputs)
            once = statistics(plain)
            for name, value in statistics(model).items():
                if torch.equal(value, before[name]):
                    continue
                # What has moved has moved by one pass over the samples as they are.
                if name.endswith("num_batches_tracked"):
                    assert value == before[name] + 1
                elif name in once and not subject.kind.own_network and not issubclass(subject.kind, Valuation):
                    close(value, once[name])

    @numerical
    def test_interrupted_and_resumed_equals_not_interrupted(self, subject: Subject) -> None:
        """Between epochs, after each of them, bit for bit."""
        for fusion in subject.fusions:
            ends = []
            for interrupted in (False, True):
                model = subject.network(fusion, 3, norm=True)
                method = subject.on(model)
                optimizer, data = sgd(method), Data(model, train=8)
                seed_draws(3)
                losses = []
                for epoch in range(subject.case.epochs):
                    if interrupted and epoch > 0:
                        method, optimizer = self._resumed(subject, fusion, self._saved(method, optimizer))
                    losses += train_epoch(method, optimizer, data, epoch)
                ends.append((losses, method.model.state_dict(), method.state_dict(), optimizer.state_dict()))
            for whole, resumed in zip(*ends, strict=True):
                torch.testing.assert_close(resumed, whole, rtol=0, atol=0, equal_nan=True)

    @staticmethod
    def _saved(method: Method, optimizer: torch.optim.Optimizer) -> bytes:
        states = [method.model.state_dict(), method.state_dict(), optimizer.state_dict(), torch.get_rng_state()]
        file = io.BytesIO()
        torch.save(states, file)
        return file.getvalue()

    @staticmethod
    def _resumed(subject: Subject, fusion: str, saved: bytes) -> tuple[Method, torch.optim.Optimizer]:
        """A new process, as far as one can have it here: nothing is the same object, and all weights start apart."""
        model = subject.network(fusion, 3, norm=True, seed=9)
        method = subject.on(model, seed=9, **{name: None for name in subject.kind.prerequisites if name != "teachers"})
        if "teachers" in subject.kind.prerequisites:
            method = subject.on(model, seed=9, teachers=teachers(subject.network(fusion, 3, norm=True)))
        optimizer = sgd(method)
        of_model, of_method, of_optimizer, draws = torch.load(io.BytesIO(saved), weights_only=True)
        model.load_state_dict(of_model)
        method.load_state_dict(of_method)
        optimizer.load_state_dict(of_optimizer)
        torch.set_rng_state(draws)
        return method, optimizer

    @numerical
    def test_permuting_the_modalities_permutes_the_results(self, subject: Subject) -> None:
        """Losses, weights and diagnostics. Random draws are replaced by a constant: a draw belongs to a place in the
        order, not to a modality."""
        if subject.case.in_turn:
            pytest.skip(subject.case.in_turn)
        names = ["audio", "video", "text"]
        for fusion in ["LateSum"] if subject.kind.needs_additive else ["LateSum", Met]:
            first = subject.network(fusion, names=names)
            second = subject.network(fusion, names=["text", "audio", "video"])
            second.load_state_dict(first.state_dict())
            pair = [subject.on(first), subject.on(second)]
            with torch.no_grad():
                for one, other in ((first, second), (pair[0], pair[1])):
                    for name, weight in other.named_parameters():
                        weight.copy_(one.get_parameter(name))
            subject.case.align_weights(*pair)
            optimizers = [sgd(method) for method in pair]
            data = [Data(method.model) for method in pair]
            with constant_draws():
                for epoch in range(3):
                    for method, own in zip(pair, data, strict=True):
                        own.start(method, epoch)
                    subject.case.align_epoch(*pair)
                    for batches in zip(*(own.train(epoch) for own in data), strict=True):
                        losses = []
                        for method, optimizer, (inputs, targets, ids) in zip(pair, optimizers, batches, strict=True):
                            losses.append(method.step(inputs, targets, optimizer, ids=ids))
                        close(*losses)
                        close(pair[0].diagnostics, pair[1].diagnostics)
            weights = dict(second.named_parameters())
            for name, weight in first.named_parameters():
                if "squeeze.weight" not in name:
                    close(weight, weights[name])

    @numerical
    def test_gradients_are_derivatives_of_the_loss(self, subject: Subject) -> None:
        """By finite differences, in a random direction for each part of the network; where the gradients of encoders
        are scaled, times the coefficient that is reported."""
        case = subject.case
        if case.not_differentiable:
            pytest.skip(case.not_differentiable)
        for fusion in subject.fusions:
            with constant_draws():
                method = subject.on(subject.network(fusion, 3), **case.differentiable)
                data = Data(method.model)
                data.start(method)
                before = copy.deepcopy(method)
                _, found = first_step(method, data)
                for part, names in _parts_of(method, case, list(found)).items():
                    factor = torch.ones(())
                    if case.scaled and part != "rest":
                        factor = method.diagnostics[f"coefficient_{part}"]
                    direction = _direction(found, names)
                    slope = torch.stack([(found[name] * direction[name]).sum() for name in names]).sum()
                    close(slope, (difference(before, data, direction) * factor).double(), 1e-7)

    @numerical
    def test_micro_batches_add_up(self, subject: Subject) -> None:
        """Two pieces with `backward(loss / 2)` leave the mean of what each piece leaves on its own."""
        if not (subject.kind.single_step and subject.kind.scale_free):
            pytest.skip("it makes several steps of a batch, or needs the gradients of whole batches")
        model = subject.network(count=3)
        together = subject.on(model)
        data = Data(model, batch=6)
        train_epoch(together, sgd(together), data, 0)
        data.start(together, 1)
        apart = copy.deepcopy(together)
        inputs, targets, ids = data.batch(1)
        pieces = []
        for rows in (slice(0, 3), slice(3, 6)):
            pieces.append(({name: x[rows] for name, x in inputs.items()}, targets[rows], ids[rows]))
        seed_draws(4)
        together.zero_grad()
        together.model.zero_grad()
        for piece in pieces:
            (loss,) = together.losses(*piece)
            together.backward(loss / 2)
        seed_draws(4)
        single = []
        for piece in pieces:
            apart.zero_grad()
            apart.model.zero_grad()
            (loss,) = apart.losses(*piece)
            apart.backward(loss)
            single.append(gradients_of(apart))
        found = gradients_of(together)
        for name in found.keys() | single[0].keys() | single[1].keys():
            parts = [piece[name] for piece in single if name in piece]
            # The noise of OGM-GE has a spread of 1e-8 more than that of the gradient.
            close(found[name], torch.stack(parts).sum(dim=0) / 2, 1e-7)

    def test_bfloat16_runs_and_losses_stay_float32(self, subject: Subject) -> None:
        for fusion in subject.fusions:
            for norm in (False, True):
                model = subject.network(fusion, 2, norm=norm, dtype=torch.float32)
                method = subject.on(model)
                optimizer, data = sgd(method), Data(model)
                for epoch in range(2):
                    data.start(method, epoch)
                    for inputs, targets, ids in data.train(epoch):
                        with torch.autocast("cpu", torch.bfloat16):
                            loss = method.step(inputs, targets, optimizer, ids=ids)
                        assert loss.dtype == torch.float32
                        assert loss.isfinite()
                for weight in method.weights():
                    assert weight.dtype == torch.float32
                    assert weight.isfinite().all()

    @numerical
    def test_a_grad_scaler_gives_the_same_steps_or_is_refused(self, subject: Subject) -> None:
        results = []
        for scaled in (False, True):
            model = subject.network(count=3)
            method = subject.on(model)
            scaler = torch.amp.GradScaler("cpu", init_scale=2.0**12) if scaled else None
            if scaled and not subject.kind.scale_free:
                with pytest.raises(ValueError, match=f"{subject} .*GradScaler"):
                    method.step(*Data(model).batch()[:2], sgd(method), scaler=scaler)
                return
            seed_draws(6)
            optimizer, data = sgd(method), Data(model)
            losses = []
            for epoch in range(2):
                losses += train_epoch(method, optimizer, data, epoch, scaler=scaler, max_norm=1.0)
            results.append((torch.stack(losses), model.state_dict()))
        # The noise of OGM-GE has a spread of 1e-8 more than that of the gradient, whatever the scale.
        close(results[0], results[1], 1e-6)

    @numerical
    def test_compiled_parts_give_the_same_step(self, subject: Subject) -> None:
        fusion = "LateSum" if subject.kind.needs_additive else Met
        plain, compiled = (subject.on(subject.network(fusion)) for _ in range(2))
        # One encoder stands for all: compiling takes longer than all the rest.
        for part in (compiled.model.encoders["audio"], compiled.model.fusion):
            part.compile(backend=counted)
        calls = COMPILED["calls"]
        # What one method had compiled serves the next one where it uses the parts in the same way.
        with torch._dynamo.config.patch(recompile_limit=1000, fail_on_recompile_limit_hit=True):
            results = [first_step(method, Data(method.model, train=4), epoch=1) for method in (plain, compiled)]
        close(results[0], results[1], 1e-12)
        if not subject.staged:
            # Nothing is compiled in encoders that run stage by stage.
            assert COMPILED["calls"] > calls

    def test_other_losses_work_or_are_refused(self, subject: Subject) -> None:
        model = subject.network()
        if subject.kind.classification:
            with pytest.raises(ValueError, match=f"{subject} cannot train this model: .*cross-entropy"):
                subject.on(model, loss_fn=squared_error)
            return
        method = subject.on(model, loss_fn=squared_error)
        plain = subject.on(subject.network())
        data = Data(model)
        loss, found = first_step(method, data)
        other, _ = first_step(plain, data)
        assert loss.isfinite() and not torch.equal(loss, other)
        assert found
        # A method that takes another loss must take its numbers from nowhere else.
        doubled = subject.on(subject.network(), loss_fn=lambda *given: 2 * squared_error(*given))
        assert first_step(doubled, data)[0] > loss

    def test_an_optimizer_made_too_early_is_refused(self, subject: Subject) -> None:
        model = subject.network()
        early = torch.optim.SGD(model.parameters(), lr=0.1)
        known = {id(weight) for weight in model.parameters()}
        method = subject.on(model)
        data = Data(model)
        data.start(method)
        inputs, targets, ids = data.batch()
        if {id(weight) for weight in method.weights()} <= known:
            method.step(inputs, targets, early, ids=ids)
            return
        before = copy.deepcopy(model.state_dict())
        with pytest.raises(ValueError, match=r"the optimizer lacks .*make it after the method"):
            method.step(inputs, targets, early, ids=ids)
        close(model.state_dict(), before, 0)
        method.step(inputs, targets, sgd(method), ids=ids)

    def test_values_out_of_bounds_are_refused_with_name_and_bounds(self, subject: Subject) -> None:
        for name, parameter in settings(subject.kind).items():
            for value, expected in bad_values(parameter.annotation):
                with pytest.raises(ValueError) as error:
                    subject.on(subject.network(), **{name: value})
                message = str(error.value)
                assert message.startswith(f"{subject}: {name}: expected "), message
                assert expected in message, (value, message)
        with pytest.raises(TypeError, match="unexpected keyword argument"):
            subject.on(subject.network(), strenght=1.0)

    def test_a_model_of_no_kind_is_refused(self, subject: Subject) -> None:
        with pytest.raises(TypeError, match=r"agm\.BlackBox\(model, modalities=\[…\]\)"):
            subject.kind(nn.Linear(2, 2))

    def test_it_can_be_copied_and_moved(self, subject: Subject) -> None:
        model = subject.network()
        method = subject.on(model)
        other = copy.deepcopy(method)
        assert other.model is not model
        assert not {id(weight) for weight in other.weights()} & {id(weight) for weight in method.weights()}
        assert not any(key.startswith("model.") for key in method.state_dict())

    @numerical
    def test_several_processes_equal_one_or_are_refused(self, subject: Subject, tmp_path: Path) -> None:
        if not subject.kind.data_parallel:
            with pytest.raises(ValueError, match=f"{subject} cannot be trained by several processes"):
                distributed.distribute(subject.on(subject.network()))
            return
        alone = trained_in_shares(subject, 1, 0)
        clean_process().submit(_two_ranks, subject, str(tmp_path)).result()
        shares = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2)]
        # Each one's loss is its share of the sum.
        close((shares[0][0] + shares[1][0]) / 2, alone[0])
        for share in shares:
            for name, value in alone[1].items():
                close(share[1][name], value)
            close(share[2], alone[2])


def _parts_of(method: Method, case: Case, names: list[str]) -> dict[str, list[str]]:
    """The names of weights by the part of the network that they belong to: a modality, or the rest."""
    owned = {}
    for modality in method.modalities:
        # What scales gradients takes the classifier that reads nothing but one modality for a part of it, or does not:
        # it is left out.
        for name, weight in method.model.named_parameters():
            if any(weight is own for own in method.model.own_part(modality).parameters()):
                owned[name] = modality if name.startswith("encoders.") else ""
    parts: dict[str, list[str]] = {}
    for name in names:
        part = owned.get(name, "rest") if case.scaled else "rest"
        if part and not (case.apart and name.startswith(case.apart)):
            parts.setdefault(part, []).append(name)
    return parts


def _direction(gradients: dict[str, Tensor], names: list[str]) -> dict[str, Tensor]:
    """A random way for each of the weights, of about the same length."""
    generator = torch.Generator().manual_seed(7)
    direction = {}
    for name in names:
        draw = torch.randn(gradients[name].shape, generator=generator, dtype=torch.float64)
        direction[name] = draw / math.sqrt(draw.numel())
    return direction


def difference(before: Method, data: Data, direction: dict[str, Tensor], step: float = 1e-5) -> Tensor:
    """The slope of the loss in a direction, from the losses of two copies."""
    values = []
    for sign in (1, -1):
        method = copy.deepcopy(before)
        weights = dict(method.model.named_parameters()) | dict(method.named_parameters())
        with torch.no_grad():
            for name, way in direction.items():
                weights[name].add_(way, alpha=sign * step)
        inputs, targets, ids = data.batch()
        seed_draws(1)
        values.append(next(iter(method.losses(inputs, targets, ids))).detach())
    return (values[0] - values[1]) / (2 * step)


COMPILED = Counter[str]()
"""How often graphs that were compiled have run."""


def counted(graph: torch.fx.GraphModule, inputs: list[Tensor]) -> Callable[..., Any]:
    """A backend of `torch.compile` that runs the graph as it is, and counts."""

    def run(*given: Any) -> Any:
        COMPILED["calls"] += 1
        return graph(*given)

    return run


def bad_values(annotation: Any) -> list[tuple[Any, str]]:
    """Values that a parameter may not have, and what the message must say of each."""
    found: list[tuple[Any, str]] = []
    options = get_args(annotation)
    bounds = [option for option in options if isinstance(option, Bounds)]
    for limit in bounds:
        step = 1 if options[0] is int else 0.01
        for value in (limit.ge, limit.gt):
            if value is not None:
                kind = int if options[0] is int else float
                wrong = kind(value - step if value == limit.ge else value)
                found.append((wrong, str(limit)))
        for value in (limit.le, limit.lt):
            if value is not None:
                found.append((value + step if value == limit.le else value, str(limit)))
        found.append((float("nan"), str(limit)))
    if not found and options and not bounds and annotation is not Any:
        found.append((object(), "expected"))
    if bounds:
        found.append(("much", "found 'much'"))
    return found


# --- several processes ----------------------------------------------------------------------------------------------


def trained_in_shares(
    subject: Subject, processes: int, rank: int
) -> tuple[Tensor, dict[str, Tensor], dict[str, Tensor]]:
    """Two epochs with this process's share of every batch, of uneven sizes; losses and states."""
    # Without dropout: each process would draw its own.
    model = subject.network(count=3, norm=True, dropout=0.0)
    method, data = subject.on(model), Data(model, train=14, batch=7)
    if processes > 1:
        distributed.distribute(method)
    optimizer, losses = sgd(method), []
    for epoch in range(2):
        data.start(method, epoch)
        for inputs, targets, ids in data.train(epoch):
            rows = slice(0, None) if processes == 1 else slice(0, 4) if rank == 0 else slice(4, None)
            own = {name: x[rows] for name, x in inputs.items()}
            losses.append(method.step(own, targets[rows], optimizer, ids=ids[rows]))
    return torch.stack(losses), model.state_dict(), method.state_dict()


@functools.cache
def clean_process() -> ProcessPoolExecutor:
    """A process that has imported torch and done nothing else: others can be forked from it."""
    # Optimizers import Dynamo, which takes seconds: here once, and not in each of the others.
    return ProcessPoolExecutor(
        1, multiprocessing.get_context("spawn"), initializer=importlib.import_module, initargs=("torch._dynamo",)
    )


def _two_ranks(subject: Subject, folder: str) -> None:
    """Train in two processes."""
    torch.multiprocessing.start_processes(_rank, (subject, folder), nprocs=2, start_method="fork")


def _rank(rank: int, subject: Subject, folder: str) -> None:
    """One of two processes."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2, timeout=timedelta(seconds=60)
    )
    torch.save(trained_in_shares(subject, 2, rank), Path(folder) / f"{rank}.pt")
    torch.distributed.destroy_process_group()
