"""YAML with its line numbers: every key and list item remembers the file and line it came from."""

from __future__ import annotations

import re
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


class _Loader(yaml.SafeLoader):
    """YAML 1.1 with `1e-3` read as the number it is, and anchors kept on the nodes."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        anchor = getattr(self.peek_event(), "anchor", None)
        is_alias = self.check_event(yaml.AliasEvent)
        node = super().compose_node(parent, index)
        if anchor and not is_alias:
            node.anchored = True
        return node


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\d[\d_]*(\.[\d_]*)?|\.\d[\d_]*)[eE][-+]?\d+$"),
    list("-+0123456789."),
)


def read_value(text: str) -> Any:
    """One YAML value, as after the `=` of `--opts`, without marks."""
    return yaml.load(text, Loader=_Loader)  # nosec B506: a SafeLoader


def read_file(path: Path, shown: str) -> MarkedDict:
    """Parse one config file, which messages call `shown`; what is wrong with it is an `InputError`."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise InputError(f"{shown}: this config file does not exist. Check the path{_nearby(path)}.") from None
    except IsADirectoryError:
        raise InputError(f"{shown}: is a folder, expected a YAML file.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{shown}: cannot be read as UTF-8 text ({error}). Save it as UTF-8.") from None
    loader = None
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        data = MarkedDict() if node is None else _construct(loader, node, shown, set())
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise InputError(
            f"{shown}:{line}: this is not valid YAML: {error.problem or error.context}. "
            "Check the indentation, colons and brackets there."
        ) from None
    except yaml.YAMLError as error:
        raise InputError(f"{shown}: this is not valid YAML: {error}.") from None
    finally:
        if loader is not None:
            loader.dispose()
    if not isinstance(data, MarkedDict):
        kind = "a list" if isinstance(data, list) else type(data).__name__
        raise InputError(f"{shown}:1: a config is a mapping of keys to values (got {kind}).")
    return data


def _nearby(path: Path) -> str:
    found = sorted(p.name for p in path.parent.glob("*.y*ml")) if path.parent.is_dir() else []
    return f"; {path.parent} holds {', '.join(found[:8])}" if found else ""


def _construct(loader: _Loader, node: yaml.Node, source: str, parents: set[int]) -> Any:
    if isinstance(node, yaml.ScalarNode):
        return loader.construct_object(node)
    if id(node) in parents:
        raise yaml.constructor.ConstructorError(None, None, "a value that contains itself", node.start_mark)
    if node.tag not in ("tag:yaml.org,2002:seq", "tag:yaml.org,2002:map"):
        raise yaml.constructor.ConstructorError(None, None, f"the tag {node.tag} is not known here", node.start_mark)
    parents = parents | {id(node)}
    if isinstance(node, yaml.SequenceNode):
        items = MarkedList()
        for child in node.value:
            items.add(_construct(loader, child, source, parents), Mark(source, child.start_mark.line + 1))
        return items
    own_keys = [key.value for key, _ in node.value if key.tag != "tag:yaml.org,2002:merge"]
    for key, _ in node.value:
        if own_keys.count(key.value) > 1 and isinstance(key, yaml.ScalarNode):
            last = [k for k, _ in node.value if k.value == key.value][-1]
            raise yaml.constructor.ConstructorError(
                None, None, f"the key '{key.value}' stands twice in one mapping", last.start_mark
            )
    loader.flatten_mapping(node)
    result = MarkedDict()
    for key, child in node.value:
        name = loader.construct_object(key, deep=True)
        result.put(name, _construct(loader, child, source, parents), Mark(source, key.start_mark.line + 1))
        if getattr(child, "anchored", False):
            result.anchored.add(name)
    return result


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
