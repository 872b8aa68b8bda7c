"""The methods, one file each: small objects that the one training loop drives (`agm.methods.method.Method`)."""

import json
from importlib import import_module
from pathlib import Path

from pydantic import ValidationError

from agm.methods.method import Data, Method, Network, Past
from agm.models.multimodal import MultimodalModel, seed_for
from agm.pipeline.config import Params, schema
from agm.pipeline.config.load import message, wrong


def names() -> list[str]:
    """The methods there are: the files of this folder."""
    return sorted(path.stem for path in Path(__file__).parent.glob("[a-z]*.py") if path.stem != "method")


def find(name: str) -> type[Method]:
    """The method in the file of that name.

    Raises:
        KeyError: when there is none.
    """
    if name not in names():
        raise KeyError(name)
    module = import_module(f"agm.methods.{name}")
    (found,) = (
        each
        for each in vars(module).values()
        if isinstance(each, type) and issubclass(each, Method) and each.__module__ == module.__name__
    )
    return found


def build_method(block: schema.MethodBlock, model: MultimodalModel, seed: int, past: Past | None = None) -> Method:
    """The method that `block` describes, for `model`, of which it may replace a part; its own weights depend on
    `seed` alone."""
    seed_for(seed, f"method {block.name}")
    return find(block.name)(typed(block), model, past)


def check(params: Params, source: object) -> None:
    """Check every method's parameters, and that it can train the study's networks.

    Raises:
        AgmError: with one line per problem.
    """
    problems = []
    for section, blocks, used in (
        ("methods", params.methods, params.study.methods),
        ("taught", params.taught, params.study.taught),
    ):
        for key, block in blocks.items():
            fusions = {name: params.fusions[name] for name in params.study.fusions} if key in used else {}
            problems += _problems(params, section, key, block, fusions)
    if problems:
        raise wrong(problems, source)


def _problems(
    params: Params, section: str, key: str, block: schema.MethodBlock, fusions: dict[str, schema.Fusion]
) -> list[str]:
    try:
        method = find(block.name)
    except KeyError:
        return [f"{section}.{key}.name: there is no method {block.name!r}; there are {', '.join(names())}"]
    if method.taught != (section == "taught"):
        return [f"{section}.{key}: {block.name!r} belongs under {'taught' if method.taught else 'methods'}"]
    try:
        config = typed(block)
    except ValidationError as error:
        return [f"{'.'.join(map(str, (section, key, *one['loc'])))}: {message(one)}" for one in error.errors()]
    if params.trainer.processes > 1 and fusions and not method.data_parallel:
        together = ", ".join(each for each in names() if find(each).data_parallel)
        return [f"{section}.{key}: trainer.processes may be more than 1 for {together} only, not for {block.name}"]
    bare = [name for name, encoder in params.encoders.items() if encoder.name == "identity"]
    if method.modulates_encoders and bare and fusions:
        return [f"{section}.{key}: it acts on the weights of the encoders, and those of {', '.join(bare)} have none"]
    dims = {name: encoder.dim for name, encoder in params.encoders.items()}
    reasons = {name: method.refusal(config, Network(fusion, dims)) for name, fusion in fusions.items()}
    return [f"{section}.{key} with fusions.{name}: {reason}" for name, reason in reasons.items() if reason]


def typed(block: schema.MethodBlock) -> schema.MethodBlock:
    """The block as its method's `Config`.

    Raises:
        KeyError: for a method that does not exist.
        ValidationError: for a parameter that is missing, unknown or of another type.
    """
    # JSON mode, as for the rest of the parameters: see agm.pipeline.config.load.
    return find(block.name).Config.model_validate_json(json.dumps(block.model_dump()), strict=True)


__all__ = ["Data", "Method", "Network", "Past", "build_method", "check", "find", "names", "typed"]
