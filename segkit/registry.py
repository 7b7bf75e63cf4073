"""Component registries: a name in a config becomes a class, and only its own file is imported."""

from __future__ import annotations

import ast
import difflib
import importlib
import importlib.util
import os
from functools import cached_property
from pathlib import Path
from types import ModuleType

from segkit import runtime
from segkit.errors import InputError


def nearest(name: str, choices: list[str]) -> str:
    """`" Did you mean 'x'?"` for the closest of `choices`, compared without case, or an empty string."""
    lowered = {choice.lower(): choice for choice in choices}
    found = difflib.get_close_matches(name.lower(), lowered, n=1, cutoff=0.6)
    return f" Did you mean '{lowered[found[0]]}'?" if found else ""


class Registry:
    """Classes of one kind by name.

    `package`'s files are scanned, not imported: a class under `@<REGISTRY>.register` is found by its
    syntax tree, and its file is imported when the name is first asked for. Classes registered from
    elsewhere (a config's `imports:`) are held directly. `needs_paddle`: the files import it.
    """

    def __init__(self, kind: str, variable: str, package: str, needs_paddle: bool = False):
        self.kind = kind
        self.variable = variable
        self.package = package
        self.needs_paddle = needs_paddle
        self._classes: dict[str, type] = {}

    def register(self, cls: type) -> type:
        """Class decorator. A second class of the same name is an error that names both modules."""
        known = self._classes.get(cls.__name__)
        here = self._modules.get(cls.__name__)
        taken = known.__module__ if known is not None and known.__module__ != cls.__module__ else None
        if here is not None and here != cls.__module__:
            taken = here
        if taken:
            raise ValueError(self._twice(cls.__name__, taken, cls.__module__))
        self._classes[cls.__name__] = cls
        return cls

    @cached_property
    def _modules(self) -> dict[str, str]:
        """Name -> module that defines it, from the syntax trees of the package's files."""
        spec = importlib.util.find_spec(self.package)
        found: dict[str, str] = {}
        for folder in spec.submodule_search_locations:
            for path in sorted(Path(folder).rglob("*.py")):
                text = path.read_text(encoding="utf-8")
                if f"@{self.variable}.register" not in text:
                    continue
                relative = os.fspath(path.relative_to(folder).with_suffix("")).replace(os.sep, ".")
                module = f"{self.package}.{relative}".removesuffix(".__init__")
                for name in self._registered_names(text):
                    if name in found:
                        raise ValueError(self._twice(name, found[name], module))
                    found[name] = module
        return found

    def _registered_names(self, text: str) -> list[str]:
        return [
            node.name
            for node in ast.parse(text).body
            if isinstance(node, ast.ClassDef)
            and any(ast.unparse(decorator) == f"{self.variable}.register" for decorator in node.decorator_list)
        ]

    def _twice(self, name: str, first: str, second: str) -> str:
        return f"{self.kind} '{name}' is defined twice, in {first} and in {second}. Rename one of them."

    def names(self) -> list[str]:
        """Every name that can be looked up, sorted."""
        return sorted({*self._modules, *self._classes})

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and (name in self._classes or name in self._modules)

    def get(self, name: str) -> type:
        """The class of that name. An unknown name is an `InputError` that lists near ones; an error inside
        the file that defines it surfaces as itself."""
        if name not in self._classes:
            if name not in self._modules:
                raise InputError(self.unknown(name))
            self._import(self._modules[name])
        return self._classes[name]

    def _import(self, module: str) -> ModuleType:
        if self.needs_paddle:
            runtime.require_paddle()
        return importlib.import_module(module)

    def unknown(self, name: str) -> str:
        """The message for a name that is not here."""
        names = self.names()
        hint = nearest(str(name), names)
        return f"unknown {self.kind} type '{name}'.{hint} Known: {', '.join(names)}."


MODELS = Registry("model", "MODELS", "segkit.models", needs_paddle=True)
BACKBONES = Registry("backbone", "BACKBONES", "segkit.models", needs_paddle=True)
LOSSES = Registry("loss", "LOSSES", "segkit.losses", needs_paddle=True)
DATASETS = Registry("data set", "DATASETS", "segkit.datasets")
TRANSFORMS = Registry("transform", "TRANSFORMS", "segkit.transforms")


class ForeignRegistry(Registry):
    """Classes of Paddle, such as its optimizers, found in any case.

    `module` (imported at the first look-up) has a function `classes` that returns name -> class, and a
    class `extras` whose signature holds the further keys that a node of this kind may have.
    """

    def __init__(self, kind: str, module: str, classes: str, extras: str):
        super().__init__(kind, "", module, needs_paddle=True)
        self._classes_name, self._extras_name = classes, extras

    @cached_property
    def _by_lower(self) -> dict[str, tuple[str, type]]:
        classes = getattr(self._import(self.package), self._classes_name)()
        return {name.lower(): (name, cls) for name, cls in classes.items()}

    def names(self) -> list[str]:
        """Every name, sorted, in the library's own spelling."""
        return sorted(name for name, _ in self._by_lower.values())

    def __contains__(self, name: object) -> bool:
        return str(name).lower() in self._by_lower

    def get(self, name: str) -> type:
        """The class of that name in any case, or an `InputError` that lists near ones."""
        if name not in self:
            raise InputError(self.unknown(name))
        return self._by_lower[name.lower()][1]

    def spelling(self, name: str) -> str:
        """The library's own spelling of a name it has."""
        return self._by_lower[name.lower()][0]

    @property
    def extras(self) -> type:
        """What holds the further keys: its signature is their schema."""
        return getattr(self._import(self.package), self._extras_name)


OPTIMIZERS = ForeignRegistry("optimizer", "segkit.optim", "optimizer_classes", "OptimizerKeys")
SCHEDULERS = ForeignRegistry("lr_scheduler", "segkit.optim", "scheduler_classes", "SchedulerKeys")
