"""How methods write down their parameters: types with bounds, in the signature of the constructor.

    def __init__(self, model: Model, *, alpha: NonNegative = 1.0, window: Window = Window()) -> None:

The signature is the one place where a parameter is written. `checked` refuses what is out of bounds when a method is
made; the pipeline derives the schema of its configuration from it.
"""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import wraps
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints


@dataclass(frozen=True)
class Bounds:
    """The values that a number may have."""

    ge: float | None = None
    gt: float | None = None
    le: float | None = None
    lt: float | None = None

    def __contains__(self, value: float) -> bool:
        return (
            (self.ge is None or value >= self.ge)
            and (self.gt is None or value > self.gt)
            and (self.le is None or value <= self.le)
            and (self.lt is None or value < self.lt)
        )

    def __str__(self) -> str:
        limits = {"≥": self.ge, ">": self.gt, "≤": self.le, "<": self.lt}
        return " and ".join(f"{sign} {limit}" for sign, limit in limits.items() if limit is not None)


NonNegative = Annotated[float, Bounds(ge=0)]
Positive = Annotated[float, Bounds(gt=0)]
Probability = Annotated[float, Bounds(ge=0, le=1)]
Fraction = Annotated[float, Bounds(ge=0, lt=1)]
Share = Annotated[float, Bounds(gt=0, le=1)]
Count = Annotated[int, Bounds(ge=1)]
Epochs = Annotated[int, Bounds(ge=0)]


@dataclass(frozen=True)
class Window:
    """The epochs in which a method acts, counted from 0.

    Args:
        first: the first epoch.
        last: the last epoch; None acts to the end.
    """

    first: Epochs = 0
    last: Epochs | None = None

    def __post_init__(self) -> None:
        for name, annotation in get_type_hints(Window, include_extras=True).items():
            wrong = problem(getattr(self, name), annotation)
            if wrong:
                raise ValueError(f"Window: {name}: {wrong}")
        if self.last is not None and self.last < self.first:
            raise ValueError(f"Window: last: expected an epoch from first={self.first} on, found {self.last}")

    def __contains__(self, epoch: int) -> bool:
        return self.first <= epoch and (self.last is None or epoch <= self.last)


def settings(owner: Any) -> dict[str, inspect.Parameter]:
    """The parameters of a method that a configuration may set, by name, their annotations resolved.

    Args:
        owner: the class of the method.
    """
    hints = get_type_hints(owner.__init__, include_extras=True)
    chosen = {}
    for name, parameter in inspect.signature(owner.__init__).parameters.items():
        if parameter.kind is parameter.KEYWORD_ONLY and name not in ("loss_fn", *owner.prerequisites):
            chosen[name] = parameter.replace(annotation=hints[name])
    return chosen


def checked(init: Callable[..., None]) -> Callable[..., None]:
    """The constructor of a method, behind a check of the values and of what the method asks of the model."""

    signature = inspect.signature(init)

    @wraps(init)
    def made(self: Any, *arguments: Any, **keywords: Any) -> None:
        # Of the constructors that call one another only that of the class itself knows all arguments.
        if init is type(self).__init__.__wrapped__:
            bound = signature.bind(self, *arguments, **keywords)
            bound.apply_defaults()
            values = dict(bound.arguments)
            del values["self"]
            self.require(values.pop("model"), values)
        init(self, *arguments, **keywords)

    return made


def problem(value: Any, annotation: Any) -> str | None:
    """What is wrong with a value for a parameter with that annotation, or None."""
    origin = get_origin(annotation)
    if origin is Annotated:
        kind, *constraints = get_args(annotation)
        for constraint in constraints:
            if isinstance(constraint, Bounds) and isinstance(value, int | float) and value not in constraint:
                return f"expected a number {constraint}, found {value!r}"
        return problem(value, kind)
    if origin in (Union, UnionType):
        options = get_args(annotation)
        problems = [problem(value, option) for option in options]
        if None in problems:
            return None
        for option, wrong in zip(options, problems, strict=True):
            # What is wrong in a mapping says more than that a mapping is no number.
            if get_origin(option) is dict and isinstance(value, Mapping):
                return wrong
        return problems[0]
    if origin is Literal:
        options = get_args(annotation)
        return None if value in options else f"expected one of {list(options)}, found {value!r}"
    if origin is dict:
        if not isinstance(value, Mapping):
            return f"expected a mapping, found {value!r}"
        for key, one in value.items():
            wrong = problem(one, get_args(annotation)[1])
            if wrong:
                return f"{key}: {wrong}"
        return None
    if annotation is float:
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        return None if is_number else f"expected a number, found {value!r}"
    if annotation is None or annotation is type(None):
        return None if value is None else f"expected None, found {value!r}"
    if isinstance(annotation, type):
        is_one = isinstance(value, annotation) and not (annotation is int and isinstance(value, bool))
        return None if is_one else f"expected {annotation.__name__}, found {value!r}"
    return None
