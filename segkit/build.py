"""From config nodes to objects. Knows no component by name; paddle is imported by those that need it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Optional

from segkit.config import Config
from segkit.config.signature import fields_of
from segkit.errors import InputError
from segkit.registry import BACKBONES, DATASETS, LOSSES, MODELS, TRANSFORMS, Registry

if TYPE_CHECKING:
    import numpy as np

_SHARED = (
    *("num_classes", "class_names", "palette", "ignore_index", "img_channels"),
    *("label_map", "reduce_zero_label", "nodata"),
)
_NESTED: dict[str, tuple[Registry, ...]] = {
    "model": (BACKBONES, MODELS),
    "backbone": (BACKBONES,),
    "loss": (LOSSES,),
    "data set": (TRANSFORMS,),
    "transform": (TRANSFORMS,),
}


def build(registry: Registry, node: dict[str, Any], **defaults: Any) -> Any:
    """The object of a node `{type: Name, key: value, ...}`, nested nodes built first.

    `defaults` fill keys that the node leaves out and the class takes; they reach a loss's inner losses, and
    `in_channels` a model's backbone.
    """
    cls = registry.get(node["type"])
    takes = fields_of(cls)
    raw = getattr(cls, "raw_arguments", ())
    arguments = {key: value for key, value in defaults.items() if key in takes}
    for key, value in node.items():
        if key != "type":
            arguments[key] = value if key in raw else _nested(registry.kind, value, defaults)
    return cls(**arguments)


def _nested(kind: str, value: Any, defaults: dict[str, Any]) -> Any:
    if isinstance(value, list):
        return [_nested(kind, item, defaults) for item in value]
    if not isinstance(value, dict):
        return value
    if "type" not in value:
        return {key: _nested(kind, item, defaults) for key, item in value.items()}
    for registry in _NESTED.get(kind, ()):
        if value["type"] in registry:
            return build(registry, value, **_passed_down(kind, registry.kind, defaults))
    return value


def _passed_down(outer: str, inner: str, defaults: dict[str, Any]) -> dict[str, Any]:
    if outer == inner == "loss":
        return defaults
    return {key: defaults[key] for key in ("in_channels",) if key in defaults and inner == "backbone"}


@dataclass(frozen=True)
class DataInfo:
    """What a data set tells everyone else. `palette`: uint8 [num_classes, 3], RGB."""

    num_classes: int
    ignore_index: int
    class_names: list[str]
    palette: np.ndarray
    img_channels: int
    nodata: Optional[float] = None


def data_info(cfg: Config) -> DataInfo:
    """The training set's facts, from the config alone: the photos need not be there."""
    node = dict(cfg.data["train_dataset"])
    cls = DATASETS.get(node.pop("type"))
    _locate(cfg, node)
    return at_place(cfg, "train_dataset", lambda: DataInfo(**cls.info(**node)))


def _locate(cfg: Config, node: dict[str, Any]) -> None:
    for key in ("dataset_root", "imagenet_root", "pssl_root", "train_path", "val_path", "test_path"):
        if isinstance(node.get(key), str):
            node[key] = str(cfg.find(node[key]))


def build_transforms(cfg: Config, part: str) -> list[Any]:
    """The transforms of `train`, `val` or `export` (the latter falls back on val's)."""
    if part == "export":
        nodes = (cfg.data.get("export") or {}).get("transforms")
        if nodes is None:
            return build_transforms(cfg, "val")
    else:
        nodes = cfg.data.get(f"{part}_dataset", {}).get("transforms") or []
    return [build(TRANSFORMS, node) for node in nodes]


def build_dataset(cfg: Config, part: str, use_multilabel: bool = False, registry: Registry = DATASETS) -> Any:
    """The data set of `train` or `val`, its mode set to the part unless the config says otherwise. `registry`: where
    its type is looked up."""
    node = cfg.data.get(f"{part}_dataset")
    if node is None:
        raise InputError(f"{cfg.path}: there is no {part}_dataset. Add one to evaluate on.")
    node = {"mode": part, **node}
    _locate(cfg, node)
    node["transforms"] = build_transforms(cfg, part)
    shared: dict[str, Any] = {"use_multilabel": True} if use_multilabel else {}
    if part == "val":  # what the training set says about classes and colours holds here too
        first = cfg.data["train_dataset"]
        shared.update({key: first[key] for key in _SHARED if key in first})
    dataset = at_place(cfg, f"{part}_dataset", lambda: build(registry, node, **shared))
    if part == "val":
        dataset.training = False  # whatever list `mode` picks, labels are compared at the photos' own size
    return dataset


def build_model(cfg: Config) -> Any:
    """The model, classes and bands filled in from the data set. Loads no weights."""
    info = data_info(cfg)
    defaults = {"num_classes": info.num_classes, "in_channels": info.img_channels}
    return at_place(cfg, "model", lambda: build(MODELS, cfg.data["model"], **defaults))


def build_losses(cfg: Config, key: str = "loss") -> list[tuple[str, Callable[..., Any], float]]:
    """(name, loss, coefficient) for each entry of `loss` or `distill_loss`; names are unique."""
    info = data_info(cfg)
    node = cfg.data[key]
    ignore_index = node.get("ignore_index", info.ignore_index)
    if ignore_index != info.ignore_index:
        raise InputError(
            f"{cfg.mark(key, 'ignore_index')}: {key}.ignore_index is {ignore_index}, but the data set ignores "
            f"{info.ignore_index}. Give it in one place: train_dataset.ignore_index."
        )
    found, names = [], []
    for item, coef in zip(node["types"], node["coef"]):
        loss = build(LOSSES, item, ignore_index=ignore_index, num_classes=info.num_classes)
        names.append(item["type"])
        count = names.count(item["type"])
        found.append((item["type"] if count == 1 else f"{item['type']}_{count}", loss, float(coef)))
    return found


def at_place(cfg: Config, key: str, make: Callable[[], Any]) -> Any:
    """Run a constructor; a message without a place of its own gets the config's."""
    try:
        return make()
    except InputError as error:
        if str(error).startswith(("/", str(cfg.path))):
            raise
        raise InputError(f"{cfg.mark(key)}: {key}: {error}") from error
