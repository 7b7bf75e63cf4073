"""`Config`: one resolved, checked config with its overrides."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from segkit.config import check, components, legacy, merge
from segkit.config.imports import import_users_code
from segkit.config.source import Mark, MarkedDict, MarkedList, marked, plain, read_value
from segkit.errors import InputError, list_problems, shown
from segkit.registry import nearest

_ORDER = (
    *("imports", "iters", "batch_size", "seed", "freeze", "to_static_training"),
    *("train_dataset", "val_dataset", "test_dataset", "model", "loss", "distill_loss"),
    *("optimizer", "lr_scheduler", "test_config", "export"),
)
_SHORTEN = "Give the key before it a value, or mend the path."
_OLD_PATHS = (("learning_rate.value", "lr_scheduler.learning_rate"), ("learning_rate.decay.", "lr_scheduler."))
_DATA_PATHS = ("dataset_root", "imagenet_root", "pssl_root", "train_path", "val_path", "test_path")


class Config:
    """A YAML config with its `_base_` files, `opts` over it, in one spelling, checked.

    `opts` are strings `a.b.0.c=value`, as after `--opts`. Every problem is listed in one `InputError`,
    unless `check` is False. `trust`: run what `imports:` names also where the config lies outside the working
    directory, or is `of_model`: one that came with weights. `data` is the result in plain dicts and lists.
    """

    def __init__(
        self,
        path: str | Path,
        opts: Sequence[str] = (),
        check: bool = True,
        trust: bool = False,
        of_model: bool = False,
    ):
        self.path = Path(path)
        self.trust, self.of_model = trust, of_model
        file, changes = merge.read(self.path), _parse_opts(opts)
        self._import(merge.giver(file, "imports"), changes)  # first: merging asks components what keys they take
        self._override(merge.merged(file), changes)
        if check:
            self.check()

    def _import(self, data: MarkedDict, changes: Sequence[tuple[str, Any, Mark]]) -> None:
        data = copy.deepcopy(data)
        for change in changes:
            if change[0].split(".")[0] == "imports":
                _put(data, *change)
        import_users_code(data, self.trust, self.of_model)

    def _override(self, data: MarkedDict, changes: Sequence[tuple[str, Any, Mark]]) -> None:
        data = legacy.normalise(copy.deepcopy(data))
        for change in changes:
            _put(data, *change)
        self._marked = legacy.normalise(data)
        self.data: dict[str, Any] = plain(self._marked)

    def problems(self) -> list[str]:
        """Every problem, one line each; empty when the config is fit to be built."""
        return check.problems(self._marked, str(self.path))

    def check(self) -> None:
        """Raise an `InputError` that lists every problem."""
        found = self.problems()
        if len(found) == 1:
            raise InputError(found[0])
        if found:
            raise InputError(list_problems(f"{self.path}: {len(found)} problems:", found, limit=100))

    def update(self, changes: Sequence[str] | Mapping[str, Any], source: str = "override ") -> Config:
        """A changed and checked copy. `changes`: strings as after `--opts`, or a mapping of key path to value."""
        other = copy.copy(self)
        if isinstance(changes, Mapping):
            pairs = [(path, value, Mark(f"{source}{path}")) for path, value in changes.items()]
        else:
            pairs = _parse_opts(changes)
        other._import(self._marked, pairs)
        other._override(self._marked, pairs)
        other.check()
        return other

    def mark(self, *path: Any) -> str:
        """Where the value at a key path was written: `file:line`."""
        node: Any = self._marked
        for part in path[:-1]:
            node = node[part]
        return str(node.marks[path[-1]])

    @property
    def iters(self) -> int:
        """Training iterations."""
        return self.data["iters"]

    @property
    def batch_size(self) -> int:
        """Samples per iteration and process."""
        return self.data["batch_size"]

    @property
    def test_config(self) -> dict[str, Any]:
        """How val applies the model; empty when the config does not say."""
        return self.data.get("test_config") or {}

    @property
    def to_static_training(self) -> bool:
        """Whether to train a compiled graph."""
        return bool(self.data.get("to_static_training", False))

    @property
    def seed(self) -> int | None:
        """The config's own seed, if it has one."""
        return self.data.get("seed")

    @property
    def freeze(self) -> list[str]:
        """Name patterns of the parameters that are not trained."""
        return self.data.get("freeze") or []

    def find(self, path: str | Path) -> Path:
        """A path of the config: under the working directory, else under the nearest folder above the config
        file where it exists. Where it exists nowhere, the one under the working directory."""
        path = Path(path).expanduser()
        if path.is_absolute() or path.exists():
            return path
        for folder in self.path.absolute().parents:
            if (folder / path).exists():
                return folder / path
        return path

    def to_yaml(self) -> str:
        """The resolved config as YAML, keys in their usual order."""
        ordered = {key: self.data[key] for key in _ORDER if key in self.data}
        return yaml.dump(ordered, sort_keys=False, allow_unicode=True, default_flow_style=None, width=110)

    def save(self, path: str | Path) -> None:
        """Write the resolved config. Paths of the data that exist are made absolute, so that the copy works
        from another folder."""
        saved = copy.copy(self)
        saved.data = copy.deepcopy(self.data)
        for part in ("train_dataset", "val_dataset", "test_dataset"):
            node = saved.data.get(part) or {}
            for key in _DATA_PATHS:
                if isinstance(node.get(key), str) and self.find(node[key]).exists():
                    node[key] = str(self.find(node[key]).absolute())
        Path(path).write_text(saved.to_yaml(), encoding="utf-8")

    @classmethod
    def from_model_path(cls, model_path: str | Path, opts: Sequence[str] = (), trust: bool = False) -> Config:
        """The config.yml that training wrote beside the weights: for `best_model`, an `iter_N` folder, a file in
        one, or a run folder that holds a `best_model`."""
        path = Path(model_path)
        folder = path.parent if path.is_file() else path
        for candidate in (folder / "config.yml", folder / "best_model" / "config.yml"):
            if candidate.is_file():
                return cls(candidate, opts, trust=trust, of_model=True)
        if not path.exists():
            raise InputError(
                f"{model_path}: there is no such file or folder. Give a run's best_model or iter_N folder."
            )
        raise InputError(f"{model_path}: there is no config.yml beside these weights. Give the config with --config.")


def _parse_opts(opts: Sequence[str]) -> list[tuple[str, Any, Mark]]:
    changes = []
    for text in opts:
        path, equals, value = text.partition("=")
        if not equals or not path.strip():
            raise InputError(f"--opts {text}: expected KEY=VALUE, such as --opts train_dataset.num_classes=3.")
        changes.append((path.strip(), read_value(value, f"--opts {text}"), Mark(f"--opts {text}")))
    return changes


def _put(data: MarkedDict, path: str, value: Any, mark: Mark) -> None:
    """Set one key path. A changed `type` keeps of the node what the new type takes."""
    for old, new in _OLD_PATHS:
        if path == old or (old.endswith(".") and path.startswith(old)):
            path = new + path[len(old) :]
    parts: list[str] = path.split(".")
    node: Any = data
    for depth, part in enumerate(parts):
        last = depth == len(parts) - 1
        if isinstance(node, MarkedList):
            if not part.lstrip("-").isdigit() or not -len(node) <= int(part) < len(node):
                allowed = f"0 to {len(node) - 1}" if node else "none, the list is empty"
                raise InputError(
                    f"{mark}: '{part}' is no index of the list {'.'.join(parts[:depth])} ({allowed}). Give one."
                )
            key: Any = int(part)
        elif isinstance(node, MarkedDict):
            key = part
            if last and key == "type" and "type" in node:
                _change_type(node, tuple(parts[:-1]), value, mark)
        else:
            raise InputError(
                f"{mark}: {'.'.join(parts[:depth])} is {shown(node)}, it has no keys of its own. {_SHORTEN}"
            )
        if not last:
            if isinstance(node, MarkedDict) and not isinstance(node.get(key), (MarkedDict, MarkedList)):
                if node.get(key) is not None:
                    place = ".".join(parts[: depth + 1])
                    raise InputError(f"{mark}: {place} is {shown(node[key])}, it has no keys of its own. {_SHORTEN}")
                _refuse_unknown_top(depth, key, mark)
                node.put(key, MarkedDict(), mark)
            node = node[key]
            continue
        if isinstance(node, MarkedList):
            node[key], node.marks[key] = marked(value, mark), mark
        else:
            node.put(key, marked(value, mark), mark)


def _refuse_unknown_top(depth: int, key: str, mark: Mark) -> None:
    if depth == 0 and key not in _ORDER:
        raise InputError(f"{mark}: unknown key '{key}'.{nearest(key, list(_ORDER))}")


def _change_type(node: MarkedDict, place: tuple[str, ...], value: Any, mark: Mark) -> None:
    if components.same_type(place, node["type"], value):
        return
    kept = merge.inherit(node, value, place, mark)
    for key in [key for key in node if key not in kept]:
        node.drop(key)
