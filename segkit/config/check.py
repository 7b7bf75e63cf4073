"""Every problem of a config at once, before anything is built."""

from __future__ import annotations

from typing import Any

from segkit.config.components import find, registries_for
from segkit.config.schema import SECTIONS, TOP
from segkit.config.signature import Field, describe, parse_annotation
from segkit.config.source import Mark, MarkedDict, MarkedList, plain
from segkit.errors import InputError
from segkit.registry import DATASETS, MODELS, nearest

_NODE_LISTS = ("transforms", "types")


def problems(data: MarkedDict, source: str) -> list[str]:
    """One line for each problem: place, key path, what was got, what is allowed, the nearest name."""
    checker = _Checker(source)
    checker.top(data)
    checker.num_classes(data)
    return list(dict.fromkeys(checker.found))


_ONE_EACH = {
    "loss": "Give one for each, or a single loss for all.",
    "distill_loss": "Give one for each: they are all of the model's main output, compared with the teacher's.",
}


class _Checker:
    def __init__(self, source: str):
        self.source = source
        self.found: list[str] = []
        self.outputs: int | None = None
        self.losses: tuple[int, ...] = ()

    def say(self, mark: Mark | None, path: tuple[Any, ...], text: str) -> None:
        place = mark or Mark(self.source)
        self.found.append(f"{place}: {'.'.join(map(str, path))}: {text}" if path else f"{place}: {text}")

    def top(self, data: MarkedDict) -> None:
        model = data.get("model")
        if isinstance(model, MarkedDict) and model.get("type") in MODELS:
            self.outputs = getattr(MODELS.get(model["type"]), "train_outputs", None)
            self.losses = getattr(MODELS.get(model["type"]), "train_losses", (self.outputs,) if self.outputs else ())
        for key in data:
            if key not in TOP:
                if key not in data.anchored:
                    known = sorted(TOP)
                    hint = nearest(str(key), known)
                    self.say(data.marks[key], (key,), f"unknown key '{key}'.{hint} Known here: {', '.join(known)}.")
                continue
            wanted = Field(parse_annotation(TOP[key].kind), ...).mismatch(data[key])
            if wanted:
                self.say(
                    data.marks[key],
                    (key,),
                    f"got {_show(data[key])}, expected {wanted.replace('dict', 'a mapping')}. Mend the value.",
                )
            elif key in ("iters", "batch_size") and data[key] < 1:
                self.say(data.marks[key], (key,), f"got {data[key]}, expected at least 1. Mend the value.")
            elif key in SECTIONS and data[key] is not None:
                self.section(data[key], (key,))
            elif isinstance(data[key], MarkedDict):
                self.node(data[key], (key,), data.marks[key])
        for name, key in TOP.items():
            if key.example and name not in data:
                self.say(None, (), f"the key '{name}' is missing. Add for example `{key.example}`.")

    def section(self, node: MarkedDict, path: tuple[Any, ...]) -> None:
        known = SECTIONS[path[0]]
        for key, value in node.items():
            mark = node.marks[key]
            if key not in known:
                hint = nearest(str(key), list(known))
                self.say(mark, (*path, key), f"unknown key '{key}'.{hint} Known here: {', '.join(known)}.")
                continue
            wanted = Field(parse_annotation(known[key].kind), ...).mismatch(value)
            if wanted:
                self.say(mark, (*path, key), f"got {_show(value)}, expected {wanted}. Mend the value.")
            else:
                self.nested(value, (*path, key), mark)
        if path[0] in ("loss", "distill_loss"):
            self.loss_lengths(node, path)

    def loss_lengths(self, node: MarkedDict, path: tuple[Any, ...]) -> None:
        types, coef = node.get("types"), node.get("coef")
        if "types" not in node:
            self.say(None, path, "the key 'types' is missing. Add for example `types: [{type: CrossEntropyLoss}]`.")
        elif isinstance(types, list) and isinstance(coef, list) and len(types) != len(coef):
            self.say(
                node.marks["coef"],
                (*path, "coef"),
                f"got {len(coef)} coefficients for {len(types)} losses. {_ONE_EACH[path[0]]}",
            )
        elif path[0] == "loss" and self.losses and isinstance(coef, list) and len(coef) not in self.losses:
            self.say(
                node.marks["coef"],
                (*path, "coef"),
                f"the model gives {self.outputs} outputs in training, but there are {len(coef)} losses. "
                f"Give one loss for each, or a single one with coef: {[1] * self.outputs}.",
            )
        elif isinstance(types, list) and not types:
            self.say(node.marks["types"], (*path, "types"), "got an empty list, expected at least one loss. Add one.")

    def nested(self, value: Any, path: tuple[Any, ...], mark: Mark) -> None:
        """Look into lists and dicts for nodes with a type."""
        if isinstance(value, MarkedList):
            for index, item in enumerate(value):
                if path[-1] in _NODE_LISTS and not isinstance(item, MarkedDict):
                    example = f"{{type: {item}}}" if isinstance(item, str) else "{type: Normalize}"
                    text = f"got {_show(item)}, expected a mapping with a type, such as {example}."
                    self.say(value.marks[index], (*path, index), text)
                self.nested(item, (*path, index), value.marks[index])
        elif isinstance(value, MarkedDict) and registries_for(path) and ("type" in value or self.wants_node(path)):
            self.node(value, path, mark)

    def wants_node(self, path: tuple[Any, ...]) -> bool:
        return len(path) > 1 and (path[-2] in _NODE_LISTS or path[-1] == "backbone")

    def node(self, node: MarkedDict, path: tuple[Any, ...], mark: Mark) -> None:
        """A node that stands for a component: its type, then its keys against the signature."""
        if "type" not in node:
            kinds = registries_for(path)
            names = f" Known: {', '.join(kinds[0].names())}." if kinds else ""
            hints = [key for key in node if nearest(str(key), ["type"])]
            hint = f" Is '{hints[0]}' meant?" if hints else ""
            self.say(mark, path, f"the key 'type' is missing.{hint}{names}")
            return
        try:
            component = find(path, node["type"])
        except InputError as error:
            self.say(node.marks["type"], (*path, "type"), str(error))
            return
        before = len(self.found)
        for key, value in node.items():
            if key == "type":
                continue
            self.argument(component, key, value, (*path, key), node.marks[key])
        if len(self.found) == before and component.kind in ("transform", "loss"):
            self.construct(component, node, path, mark)
        for name in component.required():
            if name not in node:
                wanted = component.fields[name].annotation
                kind = f" ({describe(wanted)})" if wanted is not None else ""
                self.say(mark, path, f"{component.name} needs the key '{name}'{kind}.")

    def construct(self, component: Any, node: MarkedDict, path: tuple[Any, ...], mark: Mark) -> None:
        """Transforms and losses are cheap to build and judge their own values; those that hold others are left out."""
        arguments = {key: plain(value) for key, value in node.items() if key != "type"}
        holds_nodes = any(
            isinstance(item, dict) for value in arguments.values() if isinstance(value, list) for item in value
        )
        if not holds_nodes and all(name in arguments for name in component.required()):
            try:
                component.cls(**arguments)
            except InputError as error:
                self.say(mark, path, str(error))

    def argument(self, component: Any, key: str, value: Any, path: tuple[Any, ...], mark: Mark) -> None:
        field = component.fields.get(key)
        if field is None:
            known = sorted(component.fields)
            hint = nearest(str(key), known)
            takes = f"takes {', '.join(known)}" if known else "takes no keys"
            self.say(mark, path, f"unknown key '{key}' of {component.name}.{hint} It {takes}.")
            return
        if key in component.raw_arguments:
            return
        before = len(self.found)
        self.nested(value, path, mark)
        wanted = field.mismatch(value)
        if wanted and len(self.found) == before:
            self.say(mark, path, f"got {_show(value)}, expected {wanted}. Mend the value.")

    def num_classes(self, data: MarkedDict) -> None:
        """One number of classes: the data sets', the model's, and what a data set's type itself knows."""
        given: list[tuple[str, int, Mark]] = []
        for key in ("train_dataset", "val_dataset"):
            node = data.get(key)
            if not isinstance(node, MarkedDict):
                continue
            if isinstance(node.get("num_classes"), int):
                given.append((f"{key}.num_classes", node["num_classes"], node.marks["num_classes"]))
            elif isinstance(node.get("type"), str) and node["type"] in DATASETS:
                known = getattr(DATASETS.get(node["type"]), "NUM_CLASSES", None)
                if known:
                    given.append((f"{key} ({node['type']})", known, node.marks["type"]))
        model = data.get("model")
        if isinstance(model, MarkedDict) and isinstance(model.get("num_classes"), int):
            given.append(("model.num_classes", model["num_classes"], model.marks["num_classes"]))
        if not given:
            mark = data.marks.get("train_dataset")
            if mark:
                self.say(mark, ("train_dataset",), "num_classes is given nowhere. Add train_dataset.num_classes.")
            return
        first = given[0]
        if first[1] < 1:
            self.say(first[2], (first[0],), f"got {first[1]}, expected at least 1. Mend the value.")
        for name, value, mark in given[1:]:
            sigmoid = name == "model.num_classes" and value == 1 and first[1] == 2
            if value != first[1] and not sigmoid:
                self.say(
                    mark,
                    (),
                    f"{name} is {value}, but {first[0]} is {first[1]} ({first[2]}). "
                    "Give it in one place, the data set.",
                )


def _show(value: Any) -> str:
    if isinstance(value, dict):
        return "a mapping"
    text = repr(value)
    return f"{text[:60]} ({type(value).__name__.replace('Marked', '').lower()})"
