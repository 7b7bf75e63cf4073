"""What can stand in a config, from the signatures and docstrings: `segkit config --explain NAME`, and the pages of
docs/reference, which `python -m segkit.config.reference docs/reference` writes."""

from __future__ import annotations

import ast
import inspect
import re
import sys
from itertools import groupby
from pathlib import Path

from segkit.config.components import FILLED, Component, component
from segkit.config.schema import SECTIONS, TOP
from segkit.config.signature import EMPTY, Field, describe, fields_of, parse_annotation
from segkit.errors import InputError
from segkit.registry import (
    BACKBONES,
    DATASETS,
    LOSSES,
    MODELS,
    OPTIMIZERS,
    SCHEDULERS,
    TRANSFORMS,
    ForeignRegistry,
    Registry,
    nearest,
)

_OWN = (DATASETS, TRANSFORMS, LOSSES, MODELS, BACKBONES)
_ALL = (*_OWN, OPTIMIZERS, SCHEDULERS)
_NOTE = "<!-- Written by `python -m segkit.config.reference docs/reference`; change the code, not this page. -->"
_HEAD = """Any key is overridden on the command line by its path: `--opts model.type=UNet
train_dataset.transforms.0.target_size=[256,256]`. `segkit config FILE` prints a config with its `_base_` files
resolved, `segkit config FILE --check` names every mistake, `segkit config --explain NAME` prints one entry of these
pages. Sizes are [width, height]."""


def explain(name: str) -> str:
    """The keys of every component of that name, as plain text. An unknown name is an `InputError` with near ones."""
    found = [component(registry, name) for registry in _ALL if name in registry]
    if not found:
        known = sorted({known for registry in _ALL for known in registry.names()})
        raise InputError(
            f"config --explain: no component is called '{name}'.{nearest(name, known)} docs/reference lists them all."
        )
    return "\n\n".join(_plain(item) for item in found)


def _plain(item: Component) -> str:
    lines = [f"{item.name} ({item.kind})"]
    if item.kind in (OPTIMIZERS.kind, SCHEDULERS.kind):
        lines.append("One of Paddle's, whose documentation says what its keys mean; segkit's own are explained here.")
        notes = _attribute_notes((OPTIMIZERS if item.kind == OPTIMIZERS.kind else SCHEDULERS).extras)
    else:
        text, notes = _docs(item.cls)
        lines.append(text)
    lines += ["", *(f"  {_key(item.kind, key, field)}{_after(notes.get(key))}" for key, field in _keys(item).items())]
    return "\n".join(lines)


def _after(note: str | None) -> str:
    return f"\n      {note}" if note else ""


def _docs(cls: type) -> tuple[str, dict[str, str]]:
    """A docstring without its `Args:`, and those as name -> text."""
    text, _, arguments = (inspect.getdoc(cls) or "").partition("\nArgs:\n")
    notes: dict[str, str] = {}
    for names, note in re.findall(r"^ +([\w, ]+): (.+)$", arguments, re.MULTILINE):
        notes.update(dict.fromkeys(names.split(", "), note))
    return text.strip(), notes


def _attribute_notes(cls: type) -> dict[str, str]:
    """The docstrings under a dataclass's fields."""
    body = ast.parse(inspect.getsource(cls)).body[0].body
    return {
        field.target.id: " ".join(note.value.value.split())
        for field, note in zip(body, body[1:])
        if isinstance(field, ast.AnnAssign) and isinstance(note, ast.Expr)
    }


def _keys(item: Component) -> dict[str, Field]:
    """What a config may write: transforms stand in a list of their own, parts of a loss too."""
    return {key: field for key, field in item.fields.items() if (item.kind, key) != ("data set", "transforms")}


def _key(kind: str, name: str, field: Field) -> str:
    """`name: type = default`."""
    told = f": {describe(field.annotation)}" if field.annotation is not None else ""
    if field.default is not EMPTY:
        return f"{name}{told} = {_default(field)}"
    return f"{name}{told}, {'filled in' if name in FILLED.get(kind, ()) else 'required'}"


def _default(field: Field) -> str:
    """As YAML has it."""
    value = list(field.default) if isinstance(field.default, tuple) else field.default
    return {"None": "null", "True": "true", "False": "false"}.get(str(value), str(value))


def _markdown(text: str) -> str:
    """Plain text with `code` in it: outside of the code, what Markdown would take for markup is escaped."""
    parts = re.split(r"(`[^`]*`)", text)
    return "".join(part if part.startswith("`") else re.sub(r"[*<|]|\b_|_\b", r"\\\g<0>", part) for part in parts)


def _table(rows: list[tuple[str, str, str]]) -> list[str]:
    return ["| key | value | meaning |", "|---|---|---|", *(f"| `{k}` | {v} | {m} |" for k, v, m in rows), ""]


def _kinds(text: str) -> str:
    return describe(parse_annotation(text)).replace("dict", "mapping").replace("|", "\\|")


def _own_names(registry: Registry) -> list[str]:
    """Those of segkit itself, without what a config's `imports:` have added."""
    return [name for name in registry.names() if registry.get(name).__module__.startswith(f"{registry.package}.")]


def config_page() -> str:
    """docs/reference/config.md: every key but those of models."""
    lines = [_NOTE, "", "# Config reference", "", *_HEAD.split("\n"), "", "## Top level", ""]
    lines += _table(
        [(name, _kinds(k.kind) + (", required" if k.example else ""), _markdown(k.meaning)) for name, k in TOP.items()]
    )
    for section, keys in SECTIONS.items():
        if section != "distill_loss":
            title = "`loss` and `distill_loss`" if section == "loss" else f"`{section}`"
            lines += [f"## {title}", ""]
            lines += _table([(name, _kinds(key.kind), _markdown(key.meaning)) for name, key in keys.items()])
    lines += _foreign(OPTIMIZERS, "optimizer", "AdamW") + _foreign(SCHEDULERS, "lr_scheduler", "PolynomialDecay")
    lines += _datasets()
    lines += _section(
        "Transforms", TRANSFORMS, "In this order under `transforms:`; labels are transformed in training alone."
    )
    lines += _section("Losses", LOSSES, "Under `loss.types`. `weight: auto` balances the classes.")
    lines += ["Models and backbones: [models.md](models.md).", ""]
    return "\n".join(lines)


def models_page() -> str:
    """docs/reference/models.md."""
    lines = [_NOTE, "", "# Models and backbones", ""]
    lines += [
        "Which to take: [choosing a model](../choosing.md). `num_classes` and `in_channels` come from the data set.",
        "",
    ]
    lines += _section("Models", MODELS, "")
    lines += _section("Backbones", BACKBONES, "Under `model.backbone`, in models that have the key.")
    return "\n".join(lines)


def _foreign(registry: ForeignRegistry, key: str, example: str) -> list[str]:
    notes = _attribute_notes(registry.extras)
    fields = fields_of(registry.extras)
    rows = [
        (name, describe(field.annotation).replace("|", "\\|"), _markdown(notes[name])) for name, field in fields.items()
    ]
    return [
        f"## `{key}`", "",
        "`type` is one of Paddle's classes in any case, with their arguments, as `segkit config --explain",
        f"{example}` prints them. Besides:",
        "", *_table(rows),
    ]  # fmt: skip


def _datasets() -> list[str]:
    """Each but `Dataset` with the keys in which it differs from that."""
    usual = _keys(component(DATASETS, "Dataset"))
    lines = ["## Data sets", "", "Keys of every data set, unless its entry says otherwise, are those of `Dataset`.", ""]
    text, notes = _docs(DATASETS.get("Dataset"))
    lines += ["### Dataset", "", _markdown(text), ""]
    lines += _table([(key, _value(field), _markdown(notes.get(key, ""))) for key, field in usual.items()])
    for name in _own_names(DATASETS):
        if name == "Dataset":
            continue
        item = component(DATASETS, name)
        keys = _keys(item)
        own = [key for key, field in keys.items() if key not in usual or _value(field) != _value(usual[key])]
        lines += [f"### {name}", "", _markdown(_docs(item.cls)[0]), ""]
        if own:
            lines += [_list(item.kind, {key: keys[key] for key in own}), ""]
        absent = ", ".join(f"`{key}`" for key in usual if key not in keys)
        lines += [f"Without: {absent}", ""] if absent else []
    return lines


def _value(field: Field) -> str:
    """Type and default, for a table."""
    return _key("data set", "", field).removeprefix(": ").replace("|", "\\|")


def _list(kind: str, keys: dict[str, Field]) -> str:
    return "Keys: " + "; ".join(f"`{_key(kind, key, field)}`" for key, field in keys.items())


def _section(title: str, registry: Registry, intro: str) -> list[str]:
    """Entries, those that share docstring and keys (sizes of one backbone) together."""
    lines = [f"## {title}", "", *([intro, ""] if intro else [])]
    items = [component(registry, name) for name in _own_names(registry)]
    entries = [
        (_markdown(_docs(item.cls)[0]), _list(item.kind, _keys(item)) if _keys(item) else "No keys.") for item in items
    ]
    for (text, keys), group in groupby(zip(entries, items), key=lambda pair: pair[0]):
        names = ", ".join(item.name for _, item in group)
        lines += [f"### {names}", "", text, "", keys, ""]
    return lines


def main(argv: list[str]) -> int:
    """Write both pages into the folder."""
    if len(argv) != 1:
        print("usage: python -m segkit.config.reference FOLDER", file=sys.stderr)
        return 2
    folder = Path(argv[0])
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in (("config.md", config_page()), ("models.md", models_page())):
        (folder / name).write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
