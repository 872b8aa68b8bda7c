"""What methods there are, and the parameters of one of them.

agm methods           list them
agm methods agm       what the method does, its source, and its parameters in params.yaml
"""

import inspect
from importlib import import_module
from typing import Annotated, Any, get_args, get_origin

from agm import methods
from agm.methods.parameters import Bounds, settings
from agm.pipeline.config.methods import descriptions
from agm.pipeline.errors import AgmError, meant
from agm.pipeline.runtime.progress import show


def overview() -> None:
    """List the methods, a line each."""
    width = max(map(len, methods.METHODS))
    for name in sorted(methods.METHODS):
        about = inspect.getdoc(methods.get(name)) or ""
        show(f"{name:{width}}  {about.splitlines()[0]}")


def describe(name: str) -> None:
    """Show what a method does and its parameters.

    Raises:
        AgmError: when there is no such method.
    """
    if name not in methods.METHODS:
        alike = meant(name, methods.METHODS)
        raise AgmError(f"There is no method {name!r}{alike}", fix="`agm methods` lists them")
    method = methods.get(name)
    show((import_module(method.__module__).__doc__ or "").strip())
    about = descriptions(name)
    parameters = settings(method)
    show(f"\nParameters, under methods.{name} in params.yaml:" if parameters else "\nIt has no parameters.")
    for key, parameter in parameters.items():
        show(f"  {key}: {kind(parameter.annotation)} = {_written(parameter.default)}")
        if key in about:
            show(f"      {about[key]}")
    for argument in method.prerequisites:
        show(f"  {argument}: from finished runs of the same fusion and seed, which the engines make first")


def kind(annotation: Any) -> str:
    """A type with its bounds, in words."""
    if get_origin(annotation) is Annotated:
        inner, *constraints = get_args(annotation)
        bounds = [str(constraint) for constraint in constraints if isinstance(constraint, Bounds)]
        return " ".join([kind(inner), *bounds])
    arguments = get_args(annotation)
    if arguments and not isinstance(arguments[0], str):
        joined = [kind(argument) for argument in arguments]
        return ": ".join(joined) if get_origin(annotation) is dict else " or ".join(joined)
    if arguments:
        return " or ".join(arguments)
    if annotation is type(None):
        return "null"
    return getattr(annotation, "__name__", str(annotation)).lower()


def _written(default: Any) -> str:
    """A default as YAML has it."""
    if default is None:
        return "null"
    if hasattr(default, "__dataclass_fields__"):
        inner = [f"{name}: {_written(value)}" for name, value in vars(default).items()]
        return "{" + ", ".join(inner) + "}"
    return str(default)
