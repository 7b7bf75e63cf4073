"""Which class a node of the config stands for, and which keys it may have."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from segkit.config.signature import EMPTY, Field, fields_of
from segkit.errors import InputError, shown
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
)

# For a key path's first part: what a node there is, and what nodes nested in it may be.
_PLACES: dict[str, tuple[tuple[Registry, ...], tuple[Registry, ...]]] = {
    "model": ((MODELS,), (BACKBONES, MODELS)),
    "loss": ((), (LOSSES,)),
    "distill_loss": ((), (LOSSES,)),
    "train_dataset": ((DATASETS,), (TRANSFORMS,)),
    "val_dataset": ((DATASETS,), (TRANSFORMS,)),
    "test_dataset": ((DATASETS,), (TRANSFORMS,)),
    "export": ((), (TRANSFORMS,)),
    "optimizer": ((OPTIMIZERS,), ()),
    "lr_scheduler": ((SCHEDULERS,), (SCHEDULERS,)),
}
# Arguments that the builder fills in, so that a config need not.
FILLED = {
    "model": {"num_classes", "in_channels", "backbone_in_channels"},
    "backbone": {"in_channels"},
    "data set": {"transforms"},
    "optimizer": {"learning_rate", "parameters"},
    "lr_scheduler": {"decay_steps", "T_max", "total_steps"},
}
# Keys of Paddle's classes that a config cannot give.
_INTERNAL = {
    "optimizer": {"learning_rate", "parameters", "name"},
    "lr_scheduler": {"last_epoch", "verbose"},
}


@dataclass(frozen=True)
class Component:
    """A node's class with its fields; `kind` is the word that messages use."""

    kind: str
    name: str
    cls: type
    fields: dict[str, Field]

    @property
    def raw_arguments(self) -> tuple[str, ...]:
        """Arguments whose nodes belong to another library and are passed on as they are."""
        return getattr(self.cls, "raw_arguments", ())

    def required(self) -> list[str]:
        """Keys without which the class cannot be built."""
        filled = FILLED.get(self.kind, set())
        return [name for name, field in self.fields.items() if field.default is EMPTY and name not in filled]


def registries_for(place: tuple[Any, ...]) -> tuple[Registry, ...]:
    """The registries that a node at this key path is looked up in."""
    own, nested = _PLACES.get(place[0], ((), ())) if place else ((), ())
    return own if len(place) == 1 else nested


def find(place: tuple[Any, ...], name: Any) -> Component:
    """The component for `type: name` at this key path; an `InputError` where there is none."""
    registries = registries_for(place)
    if not registries:
        raise InputError(f"no component is expected here (got type '{name}').")
    if not isinstance(name, str):
        raise InputError(f"type is a name (got {shown(name)}). Give one, such as `type: UNet` of a model.")
    for registry in registries:
        if name in registry:
            return component(registry, name)
    raise InputError(registries[0].unknown(name))


def component(registry: Registry, name: str) -> Component:
    """What `registry` knows by that name, with its fields."""
    cls = registry.get(name)
    fields = dict(fields_of(cls))
    if isinstance(registry, ForeignRegistry):
        fields.update(fields_of(registry.extras))
        for key in _INTERNAL[registry.kind]:
            fields.pop(key, None)
    return Component(registry.kind, name, cls, fields)


def accepted_keys(place: tuple[Any, ...], name: Any) -> set[str] | None:
    """The keys that a node of this type takes, or None where the type is unknown."""
    try:
        return set(find(place, name).fields)
    except InputError:
        return None


def same_type(place: tuple[Any, ...], first: Any, second: Any) -> bool:
    """Whether two spellings name one type: Paddle's classes are found in any case, and SGD is Momentum in PaddleSeg."""
    if place and place[0] in ("optimizer", "lr_scheduler"):
        first, second = str(first).lower(), str(second).lower()
        if {first, second} == {"sgd", "momentum"}:
            return True
    return first == second
