"""YAML with its line numbers: every key and list item remembers the file and line it came from."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from segkit.errors import InputError


@dataclass(frozen=True)
class Mark:
    """Where a value was written: a file and line, or a flag."""

    source: str
    line: int | None = None

    def __str__(self) -> str:
        return f"{self.source}:{self.line}" if self.line else self.source


class MarkedDict(dict):
    """A dict that knows where each key was written; `anchored` are the keys that carry a YAML anchor."""

    def __init__(self) -> None:
        super().__init__()
        self.marks: dict[Any, Mark] = {}
        self.anchored: set[Any] = set()

    def put(self, key: Any, value: Any, mark: Mark) -> None:
        self[key] = value
        self.marks[key] = mark

    def take(self, key: Any, other: MarkedDict) -> None:
        """Copy one key of `other` with its mark."""
        self.put(key, other[key], other.marks[key])
        if key in other.anchored:
            self.anchored.add(key)

    def drop(self, key: Any) -> Any:
        self.marks.pop(key, None)
        self.anchored.discard(key)
        return self.pop(key, None)


class MarkedList(list):
    """A list that knows where each item was written."""

    def __init__(self) -> None:
        super().__init__()
        self.marks: list[Mark] = []

    def add(self, value: Any, mark: Mark) -> None:
        self.append(value)
        self.marks.append(mark)


_DEEPEST, _MOST = 50, 100_000
"""levels, and values with aliases written out, of one file: far above any config, far below what takes long"""
_LARGEST = 2**63
_BROKEN = "Check the indentation, colons and brackets there."


class _Refused(yaml.constructor.ConstructorError):
    """YAML whose values are no use here, with what to do about it."""

    def __init__(self, problem: str, remedy: str, mark: yaml.Mark):
        super().__init__(None, None, problem, mark)
        self.remedy = remedy


class _Loader(yaml.SafeLoader):
    """YAML 1.1 with `1e-3` read as the number it is, and anchors kept on the nodes."""

    depth = 0

    def __init__(self, stream: Any):
        super().__init__(stream)
        self.flattened: set[int] = set()
        """nodes whose merges are written out already: an alias constructs the same node again"""

    def compose_node(self, parent: Any, index: Any) -> Any:
        event = self.peek_event()
        anchor = getattr(event, "anchor", None)
        is_alias = self.check_event(yaml.AliasEvent)
        self.depth += 1
        if self.depth > _DEEPEST:
            raise _Refused(f"over {_DEEPEST} levels of lists and mappings", "Write it flatter.", event.start_mark)
        node = super().compose_node(parent, index)
        self.depth -= 1
        if anchor and not is_alias:
            node.anchored = True
        return node


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\d[\d_]*(\.[\d_]*)?|\.\d[\d_]*)[eE][-+]?\d+$"),
    list("-+0123456789."),
)


def read_value(text: str, shown: str) -> Any:
    """One YAML value, as after the `=` of `--opts`, without marks; `shown` is the flag. Errors: `InputError`."""
    try:
        return plain(_read(text, shown))
    except yaml.YAMLError as error:
        reason = f" ({error.problem})" if isinstance(error, _Refused) else ""
        raise InputError(f"{shown}: the value is not valid YAML{reason}. Put quotes round it.") from None


def read_file(path: Path, shown: str) -> MarkedDict:
    """Parse one config file, which messages call `shown`; what is wrong with it is an `InputError`."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise InputError(f"{shown}: this config file does not exist. Check the path{_nearby(path)}.") from None
    except IsADirectoryError:
        raise InputError(f"{shown}: is a folder, expected a YAML file. Give a file in it.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{shown}: cannot be read as UTF-8 text ({error}). Save it as UTF-8.") from None
    try:
        data = _read(text, shown)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise InputError(
            f"{shown}:{line}: this is not valid YAML: {error.problem or error.context}. "
            f"{getattr(error, 'remedy', _BROKEN)}"
        ) from None
    except yaml.YAMLError as error:
        raise InputError(f"{shown}: this is not valid YAML: {error}. {_BROKEN}") from None
    data = MarkedDict() if data is None else data
    if not isinstance(data, MarkedDict):
        kind = "a list" if isinstance(data, list) else type(data).__name__
        raise InputError(
            f"{shown}:1: a config is a mapping of keys to values (got {kind}). Write it as `key: value` lines."
        )
    return data


def _nearby(path: Path) -> str:
    found = sorted(p.name for p in path.parent.glob("*.y*ml")) if path.parent.is_dir() else []
    return f"; {path.parent} holds {', '.join(found[:8])}" if found else ""


def _read(text: str, source: str) -> Any:
    """What a YAML text holds, with marks; `yaml.YAMLError` for whatever is wrong with it."""
    loader = _Loader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        _count(node, {})
        return _construct(loader, node, source)
    finally:
        loader.dispose()


def _count(node: yaml.Node, known: dict[int, int]) -> int:
    """Values in `node` with its aliases written out. Refuses too many, and a node that contains itself."""
    if isinstance(node, yaml.ScalarNode):
        return 1
    if id(node) not in known:
        known[id(node)] = 0  # until it is counted: met again meanwhile, it is in itself
        parts = node.value if isinstance(node, yaml.SequenceNode) else [part for pair in node.value for part in pair]
        known[id(node)] = 1 + sum(_count(part, known) for part in parts)
    if known[id(node)] == 0:
        raise _Refused("a value that contains itself", "Write it out without the alias.", node.start_mark)
    if known[id(node)] > _MOST:
        raise _Refused(f"over {_MOST:,} values, aliases written out", "Leave out what is not needed.", node.start_mark)
    return known[id(node)]


def _construct(loader: _Loader, node: yaml.Node, source: str) -> Any:
    if isinstance(node, yaml.ScalarNode):
        return _scalar(loader, node)
    if node.tag not in ("tag:yaml.org,2002:seq", "tag:yaml.org,2002:map"):
        raise _Refused(f"the tag {node.tag} is not known here", "Take the tag out.", node.start_mark)
    if isinstance(node, yaml.SequenceNode):
        items = MarkedList()
        for child in node.value:
            items.add(_construct(loader, child, source), Mark(source, child.start_mark.line + 1))
        return items
    if id(node) not in loader.flattened:
        loader.flattened.add(id(node))
        times = Counter(key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode))
        for key, _ in reversed(node.value):
            if isinstance(key, yaml.ScalarNode) and times[key.value] > 1 and key.tag != "tag:yaml.org,2002:merge":
                raise _Refused(f"the key '{key.value}' stands twice in one mapping", "Take one out.", key.start_mark)
        loader.flatten_mapping(node)
    result = MarkedDict()
    for key, child in node.value:
        if not isinstance(key, yaml.ScalarNode):
            raise _Refused("a key that is a list or a mapping", "Give it a name.", key.start_mark)
        name = _construct(loader, key, source)
        result.put(name, _construct(loader, child, source), Mark(source, key.start_mark.line + 1))
        if getattr(child, "anchored", False):
            result.anchored.add(name)
    return result


def _scalar(loader: _Loader, node: yaml.ScalarNode) -> Any:
    large = node.tag == "tag:yaml.org,2002:int" and len(node.value) > 100  # Python takes its time over many digits
    try:
        value = None if large else loader.construct_object(node)
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError):  # no such date, `!!bool x`
        kind = node.tag.rpartition(":")[2]
        raise _Refused(
            f"{node.value[:40]!r} is no {kind}", "Correct it; a text is put in quotes.", node.start_mark
        ) from None
    if large or (isinstance(value, int) and abs(value) > _LARGEST):
        raise _Refused(f"{node.value[:40]!r} is too large a whole number", "Write a smaller one.", node.start_mark)
    return value


def plain(value: Any) -> Any:
    """The same value in ordinary dicts and lists."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return value


def marked(value: Any, mark: Mark) -> Any:
    """The same value with `mark` on every key and item."""
    if isinstance(value, dict):
        result = MarkedDict()
        for key, item in value.items():
            result.put(key, marked(item, mark), mark)
        return result
    if isinstance(value, (list, tuple)):
        items = MarkedList()
        for item in value:
            items.add(marked(item, mark), mark)
        return items
    return value
