"""Read YAML that means the same to every program: `params.yaml` is read by DVC too.

DVC reads YAML 1.2, most other programs in Python read YAML 1.1, and the two differ: `010` is 10 or 8, `yes` a text or
true, `1:30` a text or 90. The content here is what DVC's own parser gives, and what a reader of YAML 1.1 would take for
something else is refused. So is what JSON cannot hold, and what a file of parameters has no use for.
"""

import json
import math
import re
from collections.abc import Iterator
from copy import deepcopy
from functools import lru_cache
from typing import Any

import yaml
from ruamel.yaml import YAML
from ruamel.yaml import YAMLError as DvcYamlError

LARGEST = 2**63 - 1
LONG_NUMBER = re.compile(r"[-+.:_0-9]{400,}")
"""Python refuses to read an integer of more than 4,300 digits."""
QUOTES = "put it in quotes if it is a text"
TEXT = "tag:yaml.org,2002:str"
NEVER = {
    "tag:yaml.org,2002:timestamp": f"a date; {QUOTES}",
    "tag:yaml.org,2002:merge": f"a sign of YAML's own; {QUOTES}",
    "tag:yaml.org,2002:value": f"a sign of YAML's own; {QUOTES}",
}
"""Kinds of values that are refused whatever they say."""

# The names and places that lead to a value.
Path = tuple[str | int, ...]


def parse(text: str) -> Any:
    """The content of a YAML document.

    Raises:
        ValueError: naming the line, the key and what to write, with a line of text for each problem.
    """
    return deepcopy(_parsed(text))


# A command reads params.yaml before and after each job, and two parsers of Python go through it each time.
@lru_cache(maxsize=4)
def _parsed(text: str) -> Any:
    """What `parse` copies, so that nobody changes what is kept here."""
    try:
        nodes = dict(_scalars(yaml.compose(text, Loader=_Plain), ()))
        _refuse(nodes, {path: _unfit(node) for path, node in nodes.items()})
        content = YAML(typ="safe").load(text)  # as in dvc.utils.serialize
    except (yaml.MarkedYAMLError, DvcYamlError) as error:
        raise ValueError(_in_short(error)) from None
    except yaml.YAMLError as error:
        raise ValueError(str(error)) from None
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    values = dict(_leaves(content, ()))
    if nodes.keys() != values.keys():
        raise ValueError("YAML 1.1 and YAML 1.2 read its keys differently: put them in quotes")
    _refuse(nodes, {path: _unlike(node, values[path]) for path, node in nodes.items()})
    return content


class _Plain(yaml.SafeLoader):
    """A loader of documents in which every value is written where it belongs."""

    def compose_node(self, parent: Any, index: Any) -> yaml.Node:
        event = self.peek_event()
        if isinstance(event, yaml.AliasEvent) or event.anchor is not None:
            raise _error("anchors and aliases (& and *) are not read: write the value out", event)
        if event.tag is not None:
            raise _error(f"tags are not read: take out {event.tag!r}", event)
        return super().compose_node(parent, index)


def _error(problem: str, place: yaml.Event | yaml.Node) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem=problem, problem_mark=place.start_mark)


def _in_short(error: Any) -> str:
    """An error of either parser in one line."""
    problem, mark = getattr(error, "problem", None), getattr(error, "problem_mark", None)
    return str(error) if problem is None or mark is None else f"line {mark.line + 1}: {problem}"


def _scalars(node: yaml.Node | None, path: Path) -> Iterator[tuple[Path, yaml.Node]]:
    """Every value of the file: a text, a number, true, false, null, an empty list or an empty mapping."""
    if isinstance(node, yaml.MappingNode) and node.value:
        for name, value in node.value:
            if not isinstance(name, yaml.ScalarNode) or name.tag != TEXT:
                raise _error("a key must be a text: put it in quotes", name)
            yield from _scalars(value, (*path, name.value))
    elif isinstance(node, yaml.SequenceNode) and node.value:
        for place, value in enumerate(node.value):
            yield from _scalars(value, (*path, place))
    elif node is not None:
        yield path, node


def _leaves(content: Any, path: Path) -> Iterator[tuple[Path, Any]]:
    """The same values as DVC reads them."""
    if isinstance(content, dict) and content:
        for name, value in content.items():
            yield from _leaves(value, (*path, name))
    elif isinstance(content, list) and content:
        for place, value in enumerate(content):
            yield from _leaves(value, (*path, place))
    elif content is not None or path:
        yield path, content


def _refuse(nodes: dict[Path, yaml.Node], reasons: dict[Path, str | None]) -> None:
    """Refuse the values that there is a reason to refuse."""
    problems = []
    for path, reason in reasons.items():
        if reason is not None:
            node = nodes[path]
            written = node.value[:40] if isinstance(node, yaml.ScalarNode) else "it"
            if not written.isprintable():
                written = ascii(written)
            problems.append(f"line {node.start_mark.line + 1}: {'.'.join(map(str, path))}: {written} is {reason}")
    if problems:
        raise ValueError("\n".join(problems))


def _unfit(node: yaml.Node) -> str | None:
    """Why a value is refused whatever DVC reads, or None."""
    if node.tag in NEVER:
        return NEVER[node.tag]
    if isinstance(node, yaml.ScalarNode) and node.style is None and LONG_NUMBER.fullmatch(node.value):
        return f"the beginning of a number of {len(node.value):,} digits"
    return None


def _unlike(node: yaml.Node, value: Any) -> str | None:
    """Why a value is refused that DVC reads as `value`, or None."""
    if isinstance(value, float) and not math.isfinite(value):
        return "not a finite number"
    if isinstance(value, int) and abs(value) > LARGEST:
        return f"beyond {LARGEST}, the largest integer"
    if isinstance(value, str) and re.search("[\ud800-\udfff]", value):
        return "not a text: it has half a character"
    # YAML 1.1 takes 1e-3 for a text. It is a number to everybody else, and DVC writes small numbers in this form.
    if isinstance(value, float) and node.tag == TEXT:
        return None
    older = yaml.constructor.SafeConstructor().construct_document(node)
    if type(older) is not type(value) or older != value:
        return f"{json.dumps(older)} in YAML 1.1 and {json.dumps(value)} in YAML 1.2; write what is meant, or {QUOTES}"
    return None
