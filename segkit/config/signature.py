"""A component's signature is its schema: which keys a node may have and what values they take."""

from __future__ import annotations

import ast
import inspect
from dataclasses import dataclass
from functools import cache
from typing import Any

EMPTY = inspect.Parameter.empty


@dataclass(frozen=True)
class Field:
    """One argument: its annotation as a syntax tree (None: anything), and its default (`EMPTY`: required)."""

    annotation: ast.expr | None
    default: Any

    def mismatch(self, value: Any) -> str | None:
        """What was expected where `value` does not fit, else None."""
        if value is None and self.default is None:
            return None
        annotation = self.annotation
        if annotation is None:
            annotation = _of_default(self.default)
        if annotation is None or _fits(value, annotation):
            return None
        return describe(annotation)


@cache
def fields_of(cls: type) -> dict[str, Field]:
    """Argument name -> `Field` of a class's constructor, `self` and variadic arguments left out."""
    found: dict[str, Field] = {}
    for name, parameter in inspect.signature(cls.__init__).parameters.items():
        if name == "self" or parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            continue
        found[name] = Field(parse_annotation(parameter.annotation), parameter.default)
    return found


def parse_annotation(annotation: Any) -> ast.expr | None:
    """The syntax tree of an annotation given as text or as a class.

    Text is parsed rather than evaluated, so that `int | None` also serves on Python 3.9.
    """
    if annotation is EMPTY:
        return None
    if not isinstance(annotation, str):
        annotation = annotation.__name__ if isinstance(annotation, type) else str(annotation)
    try:
        return ast.parse(annotation.replace("typing.", ""), mode="eval").body
    except SyntaxError:
        return None


def _of_default(default: Any) -> ast.expr | None:
    if isinstance(default, (bool, int, float, str)):
        kind = "float" if type(default) is int else type(default).__name__
        return ast.Name(kind)
    return None


def _name(tree: ast.expr) -> str:
    return tree.attr if isinstance(tree, ast.Attribute) else getattr(tree, "id", "")


def _choices(tree: ast.expr) -> list[ast.expr]:
    """The alternatives of `A | B`, `Optional[A]`, `Union[A, B]`, or the annotation alone."""
    if isinstance(tree, ast.BinOp) and isinstance(tree.op, ast.BitOr):
        return [*_choices(tree.left), *_choices(tree.right)]
    if isinstance(tree, ast.Subscript) and _name(tree.value) in ("Optional", "Union"):
        inner = _elements(tree)
        if _name(tree.value) == "Optional":
            inner = [*inner, ast.Constant(None)]
        return [choice for item in inner for choice in _choices(item)]
    return [tree]


def _elements(tree: ast.Subscript) -> list[ast.expr]:
    return list(tree.slice.elts) if isinstance(tree.slice, ast.Tuple) else [tree.slice]


_SCALARS = {
    "int": lambda v: isinstance(v, int) and not isinstance(v, bool),
    "float": lambda v: isinstance(v, (int, float)) and not isinstance(v, bool),
    "bool": lambda v: isinstance(v, bool),
    "str": lambda v: isinstance(v, str),
    "None": lambda v: v is None,
    "list": lambda v: isinstance(v, (list, tuple)),
    "tuple": lambda v: isinstance(v, (list, tuple)),
    "Sequence": lambda v: isinstance(v, (list, tuple)),
    "dict": lambda v: isinstance(v, dict),
}
_LISTS = ("list", "tuple", "Sequence", "List", "Tuple", "Iterable")


def _fits(value: Any, tree: ast.expr) -> bool:
    return any(_fits_one(value, choice) for choice in _choices(tree))


def _fits_one(value: Any, tree: ast.expr) -> bool:
    if isinstance(tree, ast.Constant):
        return value is None if tree.value is None else True
    if isinstance(tree, ast.Subscript):
        name = _name(tree.value)
        inner = _elements(tree)
        if name == "Literal":
            return any(value == item.value and type(value) is type(item.value) for item in inner)
        if name in _LISTS:
            return _fits_list(value, name, inner)
        return isinstance(value, dict) if name in ("dict", "Mapping", "Dict") else True
    test = _SCALARS.get(_name(tree))
    if test is None:  # a class of ours: built from a node, or not to be judged here
        return True
    return test(value)


def _fits_list(value: Any, name: str, inner: list[ast.expr]) -> bool:
    if not isinstance(value, (list, tuple)):
        return False
    fixed = name in ("tuple", "Tuple") and not (len(inner) == 2 and getattr(inner[1], "value", None) is Ellipsis)
    if fixed:
        return len(value) == len(inner) and all(_fits(item, kind) for item, kind in zip(value, inner))
    return all(_fits(item, inner[0]) for item in value)


def describe(tree: ast.expr) -> str:
    """An annotation in words: `int or list of int`."""
    words = []
    for choice in _choices(tree):
        if isinstance(choice, ast.Constant) and choice.value is None:
            words.append("null")
        elif isinstance(choice, ast.Subscript) and _name(choice.value) == "Literal":
            words.append("one of " + ", ".join(str(item.value) for item in _elements(choice)))
        elif isinstance(choice, ast.Subscript) and _name(choice.value) in _LISTS:
            inner = [item for item in _elements(choice) if getattr(item, "value", None) is not Ellipsis]
            count = f"{len(inner)} " if len(inner) > 1 else ""
            words.append(f"list of {count}{describe(inner[0])}")
        else:
            words.append(ast.unparse(choice))
    return " or ".join(dict.fromkeys(words))
