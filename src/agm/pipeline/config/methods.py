"""The parameters of methods: their schema, derived from the constructors of the library.

A method writes its parameters once, in the signature of its constructor, and says what they mean in its docstring
(`agm.methods.parameters`). Importing methods imports torch, which takes seconds: so `agm.pipeline.config.load` reads a
method's name only, and `check` the rest, where plans are made and networks trained.
"""

import json
import re
from dataclasses import fields, is_dataclass
from functools import cache, reduce
from inspect import Parameter, cleandoc
from operator import or_
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from pydantic import Field, ValidationError, create_model

from agm import methods
from agm.methods.method import Network
from agm.methods.parameters import Bounds, settings
from agm.pipeline.config import schema
from agm.pipeline.config.load import message, wrong
from agm.pipeline.config.schema.base import Block


class Settings(schema.MethodBlock, extra="forbid"):
    """A method's block of which every key is known."""


@cache
def schema_of(name: str) -> type[Settings]:
    """The block of the method `name`: its name and the parameters of its constructor.

    Raises:
        KeyError: for a method that does not exist.
    """
    method = methods.get(name)
    about = descriptions(name)
    keys: dict[str, Any] = {"name": (Literal[name], ...)}
    for key, parameter in settings(method).items():
        keys[key] = (_field_type(parameter.annotation), Field(_default(parameter), description=about.get(key)))
    return create_model(method.__name__, __base__=Settings, **keys)


@cache
def descriptions(name: str) -> dict[str, str]:
    """What each parameter of a method means, from the `Args` of its docstring."""
    section = cleandoc(methods.get(name).__doc__ or "").partition("Args:\n")[2]
    texts: dict[str, str] = {}
    key = ""
    for line in section.splitlines():
        if not line.startswith("    "):
            break
        if begins := re.match(r"    (\w+): (.*)", line):
            key = begins[1]
            texts[key] = begins[2]
        else:
            texts[key] += f" {line.strip()}"
    return texts


def typed(block: schema.MethodBlock) -> Settings:
    """The block with its method's types and defaults.

    Raises:
        KeyError: for a method that does not exist.
        ValidationError: for a parameter that is missing, unknown or of another type.
    """
    # JSON mode, as for the rest of the parameters: see agm.pipeline.config.load.
    return schema_of(block.name).model_validate_json(json.dumps(block.model_dump()), strict=True)


def arguments(block: schema.MethodBlock) -> dict[str, Any]:
    """The keyword arguments of the method's constructor."""
    values = typed(block)
    chosen = {}
    for key, parameter in settings(methods.get(block.name)).items():
        value = getattr(values, key)
        # A block within the block stands for a dataclass, such as a window of epochs.
        chosen[key] = parameter.annotation(**value.model_dump()) if isinstance(value, Block) else value
    return chosen


def check(params: schema.Params, source: object) -> None:
    """Check every method's parameters, and that it can train the study's networks.

    Raises:
        AgmError: with one line per problem.
    """
    problems = []
    for key, block in params.methods.items():
        fusions = {}
        if key in params.study.methods:
            fusions = {name: params.fusions[name] for name in params.study.fusions}
        problems += _problems(params, key, block, fusions)
    if problems:
        raise wrong(problems, source)


def _problems(
    params: schema.Params, key: str, block: schema.MethodBlock, fusions: dict[str, schema.Fusion]
) -> list[str]:
    known = sorted(methods.METHODS)
    if block.name not in known:
        return [f"methods.{key}.name: there is no method {block.name!r}; there are {', '.join(known)}"]
    method = methods.get(block.name)
    try:
        values = arguments(block)
    except ValidationError as error:
        return [f"{'.'.join(map(str, ('methods', key, *one['loc'])))}: {message(one)}" for one in error.errors()]
    except ValueError as error:
        return [f"methods.{key}: {error}"]
    if params.trainer.processes > 1 and fusions and not method.data_parallel:
        together = ", ".join(name for name in known if methods.get(name).data_parallel)
        return [f"methods.{key}: trainer.processes may be more than 1 for {together} only, not for {block.name}"]
    problems = []
    for name, fusion in fusions.items():
        if reason := method.refusal(described(params, fusion), **values):
            problems.append(f"methods.{key} with fusions.{name}: {reason}")
    return problems


def described(params: schema.Params, fusion: schema.Fusion) -> Network:
    """The network of a fusion, before there is one."""
    return Network(
        modalities=list(params.encoders),
        dims={name: encoder.dim for name, encoder in params.encoders.items()},
        additive=fusion.additive,
        encoders={name: encoder.name != "identity" for name, encoder in params.encoders.items()},
    )


def _default(parameter: Parameter) -> Any:
    """The default of a parameter, as its block has it."""
    if is_dataclass(parameter.default):
        return _block_of(parameter.annotation)(**vars(parameter.default))
    return ... if parameter.default is Parameter.empty else parameter.default


def _field_type(annotation: Any) -> Any:
    """The library's annotation in pydantic's words."""
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        limits: dict[str, float] = {}
        for bounds in inner[1:]:
            if isinstance(bounds, Bounds):
                limits |= {sign: limit for sign, limit in vars(bounds).items() if limit is not None}
        return Annotated[inner[0], Field(**limits)]
    if origin in (Union, UnionType):
        return reduce(or_, map(_field_type, inner))
    if origin is dict:
        return dict[inner[0], _field_type(inner[1])]
    if is_dataclass(annotation):
        return _block_of(annotation)
    return annotation


@cache
def _block_of(owner: Any) -> type[Block]:
    """A dataclass of the library as a block of parameters."""
    hints = get_type_hints(owner, include_extras=True)
    keys: dict[str, Any] = {}
    for field in fields(owner):
        keys[field.name] = (_field_type(hints[field.name]), field.default)
    return create_model(owner.__name__, __base__=Block, **keys)


__all__ = ["arguments", "check", "described", "descriptions", "schema_of", "typed"]
