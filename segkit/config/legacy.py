"""PaddleSeg's older spellings, brought to the one that the rest of segkit reads."""

from __future__ import annotations

from typing import Any

from segkit.config.source import Mark, MarkedDict, MarkedList
from segkit.errors import InputError
from segkit.registry import DATASETS, OPTIMIZERS, SCHEDULERS

_DECAYS = {"poly": "PolynomialDecay", "piecewise": "PiecewiseDecay", "stepdecay": "StepDecay"}


def normalise(data: MarkedDict) -> MarkedDict:
    """`data` in the new spelling; what is wrong beyond repair is left for the check to name."""
    result = MarkedDict()
    for key in data:
        result.take(key, data)
    _classes(result)
    _multilabel(result)
    _two_chains(result)
    if "learning_rate" in result:
        _learning_rate(result)
    if isinstance(result.get("lr_scheduler"), MarkedDict):
        result["lr_scheduler"] = _scheduler(result["lr_scheduler"])
    if isinstance(result.get("optimizer"), MarkedDict):
        result["optimizer"] = _optimizer(result["optimizer"])
    for key in ("loss", "distill_loss"):
        if isinstance(result.get(key), MarkedDict):
            result[key] = _loss(result[key], spread=key == "loss")
    return result


def _copy(node: MarkedDict) -> MarkedDict:
    result = MarkedDict()
    for key in node:
        result.take(key, node)
    return result


def _classes(data: MarkedDict) -> None:
    """`num_classes` may stand on the model or on the other data set alone: the training set is told."""
    node = data.get("train_dataset")
    if not isinstance(node, MarkedDict) or "num_classes" in node or node.get("type") not in DATASETS:
        return
    if getattr(DATASETS.get(node["type"]), "NUM_CLASSES", None):
        return
    for key in ("val_dataset", "model"):
        other = data.get(key)
        if isinstance(other, MarkedDict) and isinstance(other.get("num_classes"), int):
            value = other["num_classes"]
            data["train_dataset"] = node = _copy(node)
            node.put("num_classes", 2 if key == "model" and value == 1 else value, other.marks["num_classes"])
            return


def _multilabel(data: MarkedDict) -> None:
    """`test_config.use_multilabel` says it for the data sets, which everyone asks."""
    node = data.get("test_config")
    if not isinstance(node, MarkedDict) or node.get("use_multilabel") is not True:
        return
    for key in ("train_dataset", "val_dataset"):
        if isinstance(data.get(key), MarkedDict) and "use_multilabel" not in data[key]:
            data[key] = _copy(data[key])
            data[key].put("use_multilabel", True, node.marks["use_multilabel"])


def _two_chains(data: MarkedDict) -> None:
    """PaddleSeg's EG1800 and SUPERVISELY give `common_transforms` and two chains after it, for a plain and a distorted
    view: one chain is made of the common part and the distorted view, or the plain one where that is all."""
    for key in ("train_dataset", "val_dataset"):
        node = data.get(key)
        if not isinstance(node, MarkedDict) or not isinstance(node.get("common_transforms"), MarkedList):
            continue
        if node.get("transforms"):
            continue
        data[key] = node = _copy(node)
        mark, chain = node.marks["common_transforms"], MarkedList()
        parts = [node.drop(name) for name in ("common_transforms", "transforms1", "transforms2")]
        for part in (parts[0], parts[2] or parts[1]):
            if isinstance(part, MarkedList):
                for item, place in zip(part, part.marks):
                    chain.add(item, place)
        node.put("transforms", chain, mark)


def _learning_rate(data: MarkedDict) -> None:
    """`learning_rate: {value, decay: {type: poly, ...}}` or a plain number -> `lr_scheduler`."""
    mark = data.marks["learning_rate"]
    old = data.drop("learning_rate")
    if "lr_scheduler" in data:
        raise InputError(
            f"{mark}: learning_rate is the older spelling of lr_scheduler, which also stands at "
            f"{data.marks['lr_scheduler']}. Keep one of them."
        )
    new = MarkedDict()
    value, value_mark = old, mark
    decay: Any = MarkedDict()
    if isinstance(old, MarkedDict):
        unknown = sorted(set(old) - {"value", "decay"})
        if unknown or "value" not in old:
            raise InputError(
                f"{mark}: learning_rate has the keys value and decay (got {', '.join(map(str, old))}). "
                "Write learning_rate: {value: 0.01, decay: {type: poly, power: 0.9, end_lr: 0}}."
            )
        value, value_mark = old["value"], old.marks["value"]
        decay = old.get("decay") or MarkedDict()
    kind = str(decay.get("type", "poly"))
    name = _DECAYS.get(kind.lower(), kind)
    new.put("type", name, decay.marks.get("type", mark))
    new.put("values" if name == "PiecewiseDecay" else "learning_rate", value, value_mark)
    for key in decay:
        if key != "type":
            new.take(key, decay)
    if name == "PolynomialDecay":
        for key, default in (("power", 0.9), ("end_lr", 0)):
            if key not in new:
                new.put(key, default, mark)
    data.put("lr_scheduler", new, mark)


def _scheduler(node: MarkedDict) -> MarkedDict:
    node = _copy(node)
    if isinstance(node.get("type"), str) and node["type"] in SCHEDULERS:
        node["type"] = SCHEDULERS.spelling(node["type"])
    return node


def _optimizer(node: MarkedDict) -> MarkedDict:
    """Type names in any case; `sgd` with a momentum is Momentum."""
    node = _copy(node)
    kind = node.get("type")
    if isinstance(kind, str) and kind in OPTIMIZERS:
        node["type"] = OPTIMIZERS.spelling(kind)
        if node["type"] == "SGD" and "momentum" in node:
            node["type"] = "Momentum"
    return node


def _loss(node: MarkedDict, spread: bool) -> MarkedDict:
    """With `spread` one entry of `types` serves every entry of `coef`, which are those of the model's outputs."""
    node = _copy(node)
    types, coef = node.get("types"), node.get("coef")
    if isinstance(types, MarkedDict):
        types = _listed(types, node.marks["types"])
    if isinstance(types, list) and types and coef is None:
        node.put("coef", [1] * len(types), node.marks["types"])
        coef = node["coef"]
    if isinstance(coef, (int, float)) and not isinstance(coef, bool):
        coef = node["coef"] = [coef]
    if spread and isinstance(types, list) and isinstance(coef, list) and len(types) == 1 < len(coef):
        first, mark = types[0], types.marks[0]
        types = MarkedList()
        for _ in coef:
            types.add(first, mark)
    if types is not None:
        node["types"] = types
    return node


def _listed(value: Any, mark: Mark) -> MarkedList:
    items = MarkedList()
    items.add(value, mark)
    return items
