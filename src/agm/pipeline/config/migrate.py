"""`agm compose --migrate FILE`: rewrite the old names in a params.yaml, or in a file of params/, in place.

A key that keeps its section is replaced letter by letter, so that values, comments and layout stay as they are; so are
references to it (`${trainer.clip}`) and the package in the header of a group's file (`# @package trainer`). A key that
moves to another section, or whose new name is there already, makes ruamel.yaml write the file anew: values and comments
stay, and the layout may change a little. A whole configuration gets the block `dvc`, which old ones do not have.
"""

import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any, get_args

import yaml
from ruamel.yaml import YAML, YAMLError
from ruamel.yaml.comments import CommentedMap
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode
from ruamel.yaml.representer import RoundTripRepresenter

from agm.pipeline.config import renamed
from agm.pipeline.config.renamed import Renamed
from agm.pipeline.config.schema import Features, Params
from agm.pipeline.config.schema.params import lists_of_methods
from agm.pipeline.errors import AgmError
from agm.pipeline.io.files import replacing
from agm.pipeline.runtime.progress import say

HEADER = re.compile(r"\A((?:[ \t]*(?:#[^\n]*)?\n)*?#[ \t]*@package[ \t]+)(\S+)")
"""The package of a group's file, in a comment before everything else."""
PACKAGE = re.compile(r"@([a-z_][\w.]*)")
"""The package in an entry of the defaults: `/method@methods.mine`."""
REFERENCE = re.compile(r"(\$\{(?:oc\.(?:select|dict\.keys|dict\.values):)?)(\.*)([A-Za-z_][\w.]*)")
"""A reference of OmegaConf: what is before the key, the dots of a relative one, the key."""
WHOLE = Params.model_fields.keys() - {"dvc"}
"""The sections of a whole configuration; a file of params/ has some of them."""
BY_HAND = "write the new names by hand, then run it again"
FEATURES: dict[str, set[str]] = {}
"""The keys that the features of each kind of modality have."""
for _block in get_args(get_args(Features)[0]):
    FEATURES[get_args(_block.model_fields["kind"].annotation)[0]] = set(_block.model_fields)


def migrate(files: Sequence[str], overrides: Sequence[str] = ()) -> None:
    """Rewrite the old names in each of `files`, and say what was changed. A second time, nothing is.

    Args:
        overrides: what else stands on the command line, where nothing else belongs.

    Raises:
        AgmError: when a file cannot be read, or an old name in it must be rewritten by hand; the others are rewritten.
    """
    if overrides:
        raise AgmError(
            "Files are rewritten or a study is composed, not both",
            where=" ".join(overrides),
            fix=f"agm compose --migrate {' '.join(files)}, and then agm compose {' '.join(overrides)}",
        )
    for file in files:
        _migrate(Path(file))


def _migrate(path: Path) -> None:
    # A link stays a link: what it leads to is rewritten.
    target = path.resolve()
    try:
        before = target.read_bytes().decode("utf-8")
    except UnicodeDecodeError as error:
        raise AgmError(f"The file is not UTF-8: {error}", where=path) from None
    text, changes, by_hand = rewritten(before, target)
    if text != before:
        with replacing(target) as temporary:
            temporary.write_bytes(text.encode("utf-8"))
            shutil.copymode(target, temporary)
    for change in changes:
        say(f"{path}: {change}")
    if not changes and not by_hand:
        say(f"{path}: there are no old names")
    if by_hand:
        lines = "\n".join(f"  {problem}" for problem in by_hand)
        raise AgmError(f"Some old names are left as they are:\n{lines}", where=path, fix=BY_HAND)


def rewritten(text: str, path: Path) -> tuple[str, list[str], list[str]]:
    """The text of the file `path` with new names.

    Returns:
        The text, what was changed, and what must be changed by hand, a line for each.

    Raises:
        AgmError: when it is no YAML.
    """
    changes: list[str] = []
    by_hand: list[str] = []
    # One change at a time, each in the text that the one before left: positions shift, and rows may build on others.
    while True:
        try:
            document = _Document(text, path)
            edit = _next_edit(document, by_hand)
        except YAMLError as error:
            raise AgmError(f"The file cannot be read: {error}", where=path) from None
        if edit is None:
            break
        text, said = edit
        changes.append(said)
    if block := _missing_lists(document.content):
        newline = "\r\n" if "\r\n" in text else "\n"
        # The last line may have no end.
        text = text.rstrip("\r\n") + newline + block.replace("\n", newline)
        changes.append("dvc is added: the lists of dvc.yaml, which follow from study.methods")
    return text, changes, by_hand


def _missing_lists(content: Any) -> str:
    """The block `dvc` of a whole configuration that has none; else nothing."""
    if not isinstance(content, Mapping) or "dvc" in content or not content.keys() >= WHOLE:
        return ""
    study, methods = content["study"], content["methods"]
    if not (isinstance(study, Mapping) and isinstance(study.get("methods"), list) and isinstance(methods, Mapping)):
        return ""
    return yaml.safe_dump({"dvc": lists_of_methods(study["methods"], methods)}, sort_keys=False)


class _Document:
    """A file of the configuration: its text, its nodes with their places, and what it says about modalities."""

    def __init__(self, text: str, path: Path) -> None:
        self.text = text
        self.root: Node | None = YAML().compose(text)
        self.content: Any = YAML(typ="safe").load(text)
        self.package = _package(text, path)
        self.entries = list(_entries(self.root, self.package))
        self.kinds = self._kinds(path)

    def _kinds(self, path: Path) -> dict[str, str]:
        """The kinds of the modalities, by this file, by the data set that its defaults name, or by the blocks' keys."""
        content = self.content
        for name in reversed(self.package):
            content = {name: content}
        kinds = {}
        for name, keys in self._features():
            fitting = {kind for kind, known in FEATURES.items() if keys <= known}
            # Of video and optical flow the same keys were renamed, to the same names.
            if fitting == {"video", "flow"}:
                fitting = {"video"}
            if len(fitting) == 1:
                kinds[name] = fitting.pop()
        kinds |= renamed.kinds_in(_data_set(self.content, path))
        return kinds | renamed.kinds_in(content)

    def _features(self) -> Iterator[tuple[str, set[str]]]:
        """Each block of features: its modality and its keys that have no old name."""
        blocks: dict[str, set[str]] = {}
        for entry in self.entries:
            if len(entry.path) == 3 and entry.path[0] == "features":
                known = blocks.setdefault(entry.path[1], set())
                if not renamed.rows_for(entry.path, {}):
                    known.add(entry.path[2])
        for name, keys in blocks.items():
            if keys:
                yield name, keys


@dataclass(frozen=True)
class _Entry:
    """A key with its value, and where they are."""

    path: renamed.Path
    key: ScalarNode
    value: Node
    siblings: tuple[str, ...]


def _entries(node: Node | None, above: renamed.Path) -> Iterator[_Entry]:
    """Every key of nested mappings with its full name, a section before the keys in it."""
    if isinstance(node, MappingNode):
        siblings = tuple(str(key.value) for key, _ in node.value)
        for key, value in node.value:
            path = (*above, str(key.value))
            yield _Entry(path, key, value, siblings)
            yield from _entries(value, path)


def _scalars(node: Node | None, above: renamed.Path) -> Iterator[tuple[renamed.Path, ScalarNode]]:
    """Every value that is one scalar, with the full name of the section that it is in."""
    if isinstance(node, MappingNode):
        for key, value in node.value:
            inner = above if isinstance(value, ScalarNode) else (*above, str(key.value))
            yield from _scalars(value, inner)
    elif isinstance(node, SequenceNode):
        for value in node.value:
            yield from _scalars(value, above)
    elif node is not None:
        yield above, node


def _package(text: str, path: Path) -> renamed.Path:
    """Where the file's content goes: what its header says, or else its group's name; nowhere for params.yaml."""
    header = HEADER.search(text)
    if header is not None:
        return () if header[2] == "_global_" else tuple(header[2].split("."))
    group = path.parent.name
    if not (path.parent.parent / "config.yaml").is_file():
        return ()
    # The file of an encoder is put where `encoder@encoders.video=…` says.
    return ("encoders", renamed.ANY) if group == "encoder" else (group,)


def _data_set(content: Any, path: Path) -> Any:
    """The content of the data set's file that the defaults of a group's file name, or None."""
    defaults = content.get("defaults") if isinstance(content, Mapping) else None
    for default in defaults if isinstance(defaults, list) else ():
        if not isinstance(default, Mapping):
            continue
        for group, name in default.items():
            # As in `override /dataset: dial`.
            if str(group).split()[-1].strip("/") != "dataset":
                continue
            for folder in (path.parent, path.parent.parent):
                file = folder / "dataset" / f"{name}.yaml"
                if file.is_file():
                    return YAML(typ="safe").load(file.read_text(encoding="utf-8"))
    return None


# --- one change ---


def _next_edit(document: _Document, by_hand: list[str]) -> tuple[str, str] | None:
    """The text after the first change that can be made, and what it is; None where nothing is left.

    Args:
        by_hand: what cannot be changed is appended here, once.
    """
    edit = _package_renamed(document) or _reference_renamed(document)
    if edit is not None:
        return edit
    for entry in document.entries:
        rows = renamed.rows_for(entry.path, document.kinds)
        if not rows:
            continue
        old = ".".join(entry.path)
        new = " or ".join(dict.fromkeys(".".join(row.target(entry.path)) for row in rows))
        said = f"{old} is now {new}"
        try:
            if len(rows) > 1:
                raise ValueError("this file does not say of which kind the modality is")
            return _renamed(document, entry, rows[0]), said
        except ValueError as error:
            problem = f"{said}: {error}"
            if problem not in by_hand:
                by_hand.append(problem)
    return None


def _package_renamed(document: _Document) -> tuple[str, str] | None:
    """Rename the first package that is an old section: in the header, or in the list of defaults."""
    places = []
    header = HEADER.search(document.text)
    if header is not None:
        places.append(header.span(2))
    for entry in document.entries:
        if entry.path[-1] == "defaults" and isinstance(entry.value, SequenceNode):
            for default in entry.value.value:
                for group, _ in default.value if isinstance(default, MappingNode) else ():
                    at = PACKAGE.search(document.text, group.start_mark.index, group.end_mark.index)
                    if at is not None:
                        places.append(at.span(1))
    for start, end in places:
        old = document.text[start:end]
        new = renamed.now(tuple(old.split(".")), {})
        if new is not None:
            return document.text[:start] + new + document.text[end:], f"the package {old} is now {new}"
    return None


def _reference_renamed(document: _Document) -> tuple[str, str] | None:
    """Rename the first reference to an old key."""
    for section, node in _scalars(document.root, document.package):
        start, end = node.start_mark.index, node.end_mark.index
        for match in REFERENCE.finditer(document.text, start, end):
            _, dots, key = match.groups()
            names = tuple(key.strip(".").split("."))
            # One dot is the section that the value is in, each further dot the one above.
            above = section[: len(section) + 1 - len(dots)] if dots else ()
            new = renamed.now((*above, *names), document.kinds)
            if new is None or " or " in new:
                continue
            short = new.split(".")[len(above) :] if dots else new.split(".")
            text = document.text[: match.start(3)] + ".".join(short) + document.text[match.end(3) :]
            return text, f"the reference {dots}{key} is now {dots}{'.'.join(short)}"
    return None


def _renamed(document: _Document, entry: _Entry, row: Renamed) -> str:
    """The text in which one key has its new name.

    Raises:
        ValueError: why this must be done by hand.
    """
    target = row.target(entry.path)
    if target[:-1] != entry.path[:-1] or target[-1] in entry.siblings:
        return _moved(document, entry.path, target, row)
    text = document.text
    start, end = entry.key.start_mark.index, entry.key.end_mark.index
    if row.convert is None:
        return text[:start] + target[-1] + text[end:]
    value = row.convert(YAML(typ="safe").load(text[start : _end(entry.value)])[entry.path[-1]])
    return f"{text[:start]}{target[-1]}: {value}{text[_end(entry.value) :]}"


def _end(node: Node) -> int:
    """Where the last sign of a value is: the mark of a block is only behind the lines after it."""
    while isinstance(node, MappingNode | SequenceNode) and not node.flow_style and node.value:
        last = node.value[-1]
        node = last[1] if isinstance(node, MappingNode) else last
    return node.end_mark.index


# --- to another section ---


def _moved(document: _Document, old: renamed.Path, new: renamed.Path, row: Renamed) -> str:
    """The text in which the value at `old` stands at `new`, merged with what is there.

    Raises:
        ValueError: why this must be done by hand.
    """
    depth = len(document.package)
    if new[:depth] != document.package:
        raise ValueError(f"this file is read into {'.'.join(document.package)}")
    round_trip = _round_trip(document)
    content = round_trip.load(document.text)
    source = _section(content, old[depth:-1])
    comment = source.ca.items.pop(old[-1], None)
    value = source.pop(old[-1])
    if row.convert is not None:
        value = row.convert(value)
    section = _section(content, new[depth:-1])
    if new[-1] in section:
        value = _merged(section[new[-1]], value, ".".join(new))
    section[new[-1]] = value
    if comment is not None:
        section.ca.items.setdefault(new[-1], comment)
    written = StringIO()
    round_trip.dump(content, written)
    return written.getvalue()


def _section(content: Any, path: renamed.Path) -> Any:
    """The mapping at `path`, made where it is missing."""
    for name in path:
        if content.get(name) is None:
            content[name] = CommentedMap()
        content = content[name]
    if not isinstance(content, Mapping):
        raise ValueError(f"{'.'.join(path)} is no mapping")
    return content


def _merged(there: Any, moved: Any, key: str) -> Any:
    """One value of the two that an old and a new key have.

    Raises:
        ValueError: when both say something, and not the same.
    """
    if moved == there or moved in ([], {}):
        return there
    if there in ([], {}):
        return moved
    if isinstance(there, Mapping) and isinstance(moved, Mapping):
        for name, value in moved.items():
            there[name] = _merged(there[name], value, f"{key}.{name}") if name in there else value
        return there
    if isinstance(there, list) and isinstance(moved, list):
        for item in moved:
            if item not in there:
                there.append(item)
        return there
    raise ValueError(f"{key} is there already, with {there} where the old key has {moved}; take one out")


class _Representer(RoundTripRepresenter):
    """Writes null as the word, where ruamel.yaml writes nothing."""

    def represent_none(self, data: None) -> Any:
        return self.represent_scalar("tag:yaml.org,2002:null", "null")


_Representer.add_representer(type(None), _Representer.represent_none)


def _round_trip(document: _Document) -> YAML:
    """A writer that keeps quotes, long lines and how far lists and mappings are indented."""
    yaml = YAML()
    yaml.Representer = _Representer
    yaml.preserve_quotes = True
    yaml.width = 1_000_000
    mapping = 2
    sequence = 0
    for entry in document.entries:
        if isinstance(entry.value, MappingNode | SequenceNode) and not entry.value.flow_style:
            further = entry.value.start_mark.column - entry.key.start_mark.column
            if isinstance(entry.value, MappingNode):
                mapping = further
            else:
                sequence = further
    yaml.indent(mapping=mapping, sequence=sequence + 2, offset=sequence)
    return yaml
