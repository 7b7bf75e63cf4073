"""Learning-rate schedules and optimizers: Paddle's own classes by name, with PaddleSeg's extra keys."""

from __future__ import annotations

import inspect
import math
import re
from dataclasses import dataclass, fields
from typing import Any, Callable

import paddle
from paddle.optimizer import Optimizer
from paddle.optimizer.lr import LRScheduler

from segkit.errors import InputError
from segkit.log import logger, warn_once
from segkit.registry import nearest

# They need a function, a metric at every step or a closure, which a config cannot give; Rprop takes no schedule.
_NOT_FROM_CONFIG = {
    *("LRScheduler", "LambdaDecay", "MultiplicativeDecay", "ReduceOnPlateau"),
    *("Optimizer", "LBFGS", "Rprop"),
}
# The key that says how long a schedule runs; it is the iterations after the warm-up unless the config has it.
_LENGTH = {
    "PolynomialDecay": "decay_steps",
    "CosineAnnealingDecay": "T_max",
    "OneCycleLR": "total_steps",
    "LinearLR": "total_steps",
}
# PaddleSeg's names for AdamW with `layerwise_decay`.
_ADAMW_NAMES = ("AdamWDL", "AdamWDL_CAE")
_CLIPS = ("ClipGradByNorm", "ClipGradByGlobalNorm", "ClipGradByValue")


@dataclass
class SchedulerKeys:
    """What an `lr_scheduler` node may hold beside the arguments of its class."""

    warmup_iters: int = 0
    """First iterations, in which the rate rises in a straight line."""
    warmup_start_lr: float = 0.0
    """Where it starts."""


@dataclass
class OptimizerKeys:
    """What an `optimizer` node may hold beside the arguments of its class."""

    weight_decay: float | None = None
    """L2 coefficient (decoupled in AdamW)."""
    custom_cfg: list | None = None
    """Parameter groups: `{name: part of the parameter's name, lr_mult: 1.0, weight_decay_mult: 1.0}`; the first that
    fits counts. `lr_multi` is accepted and has no effect, as in PaddleSeg."""
    backbone_lr_mult: float | None = None
    """Short for a group named `backbone`."""
    layerwise_decay: float | None = None
    """Rate factor per transformer block, counted from the head down; the embeddings get the lowest."""
    grad_clip: dict | None = None
    """`{name: ClipGradByGlobalNorm, clip_norm: 1.0}` and the like. With parameter groups, Paddle takes the global
    norm of each group by itself."""
    grad_clip_cfg: dict | None = None
    """The same, in PaddleSeg's spelling."""


def scheduler_classes() -> dict[str, type]:
    """Name -> class of every schedule that a config can name."""
    return _classes(paddle.optimizer.lr, LRScheduler)


def optimizer_classes() -> dict[str, type]:
    """Name -> class of every optimizer that a config can name."""
    found = _classes(paddle.optimizer, Optimizer)
    return {**found, **dict.fromkeys(_ADAMW_NAMES, found["AdamW"])}


def _classes(module: Any, base: type) -> dict[str, type]:
    return {
        name: item
        for name, item in vars(module).items()
        if inspect.isclass(item) and issubclass(item, base) and name not in _NOT_FROM_CONFIG
    }


def _find(kind: str, name: Any, classes: dict[str, type]) -> str:
    """The spelling that Paddle has for `name` in any case."""
    lowered = {known.lower(): known for known in classes}
    found = lowered.get(str(name).lower())
    if found is None:
        raise InputError(
            f"{kind}.type: unknown {kind} type '{name}'.{nearest(str(name), list(classes))} "
            f"Known: {', '.join(sorted(classes))}."
        )
    return found


def _split(kind: str, name: str, node: dict[str, Any], cls: type, extras: type) -> tuple[dict[str, Any], Any]:
    """The class's own arguments, and the rest as an `extras` object."""
    own = {key for key in inspect.signature(cls).parameters if key not in ("parameters", "name", "last_epoch")}
    if kind == "optimizer":
        own -= {"learning_rate", "weight_decay", "grad_clip"}
    further = {field.name for field in fields(extras)}
    arguments, rest = {}, {}
    for key, value in node.items():
        if key == "type":
            continue
        if key not in own and key not in further:
            allowed = sorted(own | further)
            raise InputError(
                f"{kind}.{key}: {name} takes no '{key}'.{nearest(key, allowed)} Allowed: {', '.join(allowed)}."
            )
        _not_negative(f"{kind}.{key}", value)
        (arguments if key in own else rest)[key] = value
    return arguments, extras(**rest)


def _not_negative(where: str, value: Any) -> None:
    if isinstance(value, (int, float)) and not isinstance(value, bool) and not (value >= 0 and math.isfinite(value)):
        raise InputError(f"{where}: not a usable number (got {value}, expected 0 or more). Correct it in the config.")


def _make(kind: str, name: str, make: Callable[..., Any], arguments: dict[str, Any]) -> Any:
    """Call a Paddle constructor; what it refuses is the config's mistake."""
    try:
        return make(**arguments)
    except (TypeError, ValueError, AssertionError) as error:
        given = ", ".join(f"{key}={value!r}" for key, value in arguments.items() if key != "parameters")
        raise InputError(f"{kind}: {name} refuses its arguments ({given}): {error} Correct them.") from error


def build_scheduler(node: dict[str, Any], iters: int) -> LRScheduler:
    """The schedule of an `lr_scheduler` node for a training of `iters` iterations, stepped once an iteration.

    `warmup_iters` puts a straight rise from `warmup_start_lr` before it; a schedule's length, where it is not
    given, is what remains.
    """
    if iters < 1:
        raise InputError(f"iters: nothing to train (got {iters}, expected 1 or more). Raise iters.")
    classes = scheduler_classes()
    name = _find("lr_scheduler", node.get("type"), classes)
    arguments, extras = _split("lr_scheduler", name, node, classes[name], SchedulerKeys)
    warmup = extras.warmup_iters
    if not isinstance(warmup, int):
        raise InputError(f"lr_scheduler.warmup_iters: expected a whole number of iterations (got {warmup!r}).")
    if warmup >= iters:
        warn_once(
            f"lr_scheduler.warmup_iters: the warm-up ({warmup}) fills the whole training of {iters} iterations. Lower "
            "it, or train longer."
        )
    if name in _LENGTH:
        arguments.setdefault(_LENGTH[name], max(iters - warmup, 1))
    if isinstance(arguments.get("learning_rate"), dict):
        arguments["learning_rate"] = build_scheduler(arguments["learning_rate"], iters)
    schedule = _make("lr_scheduler", name, classes[name], arguments)
    if not warmup or schedule() == extras.warmup_start_lr:  # nothing to rise to: Paddle's warm-up refuses that
        return schedule
    rise = {"learning_rate": schedule, "warmup_steps": warmup, "start_lr": extras.warmup_start_lr}
    return _make("lr_scheduler", "LinearWarmup", paddle.optimizer.lr.LinearWarmup, {**rise, "end_lr": schedule()})


def effective_type(node: dict[str, Any]) -> str:
    """Paddle's name for an `optimizer` node's type; SGD with a momentum is Momentum."""
    name = _find("optimizer", node.get("type"), optimizer_classes())
    return "Momentum" if name == "SGD" and "momentum" in node else name


def build_optimizer(node: dict[str, Any], scheduler: LRScheduler, model: paddle.nn.Layer) -> Optimizer:
    """The optimizer of an `optimizer` node over the model's parameters that are not frozen."""
    name = effective_type(node)
    cls = optimizer_classes()[name]
    arguments, extras = _split("optimizer", name, node, cls, OptimizerKeys)
    decay = _weight_decay(cls, extras, arguments)
    arguments["learning_rate"] = scheduler
    arguments["parameters"] = _groups(model, extras, decay)
    clip = _grad_clip(extras)
    if clip is not None:
        arguments["grad_clip"] = clip
    return _make("optimizer", name, cls, arguments)


def _weight_decay(cls: type, extras: OptimizerKeys, arguments: dict[str, Any]) -> float | None:
    """Put the decay among the arguments under the name that the class has for it, and return it."""
    takes = inspect.signature(cls).parameters
    key = "weight_decay" if "weight_decay" in takes else "lamb_weight_decay"
    if extras.weight_decay is None:
        return takes[key].default
    arguments[key] = float(extras.weight_decay)
    return arguments[key]


def _grad_clip(extras: OptimizerKeys) -> Any:
    if extras.grad_clip is not None and extras.grad_clip_cfg is not None:
        raise InputError("optimizer: grad_clip and grad_clip_cfg say the same thing. Keep one of them.")
    node = extras.grad_clip if extras.grad_clip is not None else extras.grad_clip_cfg
    if node is None:
        return None
    name = node.get("name", node.get("type")) if isinstance(node, dict) else node
    if name not in _CLIPS:
        raise InputError(
            f"optimizer.grad_clip_cfg: unknown way of clipping (got {name!r}, expected a 'name' among "
            f"{', '.join(_CLIPS)}).{nearest(str(name), list(_CLIPS))}"
        )
    arguments = {key: value for key, value in node.items() if key not in ("name", "type")}
    for key, value in arguments.items():
        if key != "min":
            _not_negative(f"optimizer.grad_clip_cfg.{key}", value)
    return _make("optimizer.grad_clip_cfg", name, getattr(paddle.nn, name), arguments)


def _groups(model: paddle.nn.Layer, extras: OptimizerKeys, decay: float | None) -> list[Any]:
    """The trainable parameters: a plain list, or one group for each pair of multipliers."""
    named = [(name, parameter) for name, parameter in model.named_parameters() if not parameter.stop_gradient]
    if not named:
        raise InputError("freeze: no parameter is left to train. Freeze less of the model.")
    entries = _entries(extras)
    _warn_unmatched(entries, [name for name, _ in named])
    layers = _layer_factors([name for name, _ in named], extras.layerwise_decay)
    groups: dict[tuple[float, float], list[Any]] = {}
    for name, parameter in named:
        entry = next((entry for entry in entries if entry["name"] in name), {})
        rate = float(entry.get("lr_mult", 1.0)) * layers[name]
        groups.setdefault((rate, float(entry.get("weight_decay_mult", 1.0))), []).append(parameter)
    if list(groups) == [(1.0, 1.0)]:
        return groups[1.0, 1.0]
    found = []
    for (rate, times), parameters in groups.items():
        group = {"params": parameters, "learning_rate": rate}
        if decay is not None and times != 1.0:
            group["weight_decay"] = decay * times
        found.append(group)
    return found


def _entries(extras: OptimizerKeys) -> list[dict[str, Any]]:
    """The group entries, checked."""
    entries = [dict(entry) if isinstance(entry, dict) else entry for entry in extras.custom_cfg or []]
    known = ["lr_mult", "lr_multi", "name", "weight_decay_mult"]
    for index, entry in enumerate(entries):
        where = f"optimizer.custom_cfg.{index}"
        if not isinstance(entry, dict) or not isinstance(entry.get("name"), str):
            raise InputError(f"{where}: expected {{name: ..., lr_mult: ..., weight_decay_mult: ...}} (got {entry!r}).")
        for key, value in entry.items():
            if key not in known:
                raise InputError(f"{where}.{key}: unknown key.{nearest(key, known)} Allowed: {', '.join(known)}.")
            _not_negative(f"{where}.{key}", value)
        if "lr_multi" in entry:
            warn_once(f"{where}.lr_multi: without effect, as in PaddleSeg. Write lr_mult to change the learning rate.")
    if extras.backbone_lr_mult is not None:
        entries.append({"name": "backbone", "lr_mult": extras.backbone_lr_mult})
    return entries


def _warn_unmatched(entries: list[dict[str, Any]], names: list[str]) -> None:
    for entry in entries:
        if not any(entry["name"] in name for name in names):
            parts = sorted({name.split(".")[0] for name in names})
            logger.warning(
                f"optimizer.custom_cfg: no parameter has '{entry['name']}' in its name; its multipliers act on "
                f"nothing. The model's parts: {', '.join(parts)}."
            )


def _layer_factors(names: list[str], layerwise_decay: float | None) -> dict[str, float]:
    """Parameter name -> rate factor: 1 above the last transformer block, one power lower for each block below, and
    the embeddings under the first. A model whose names tell no blocks counts as twelve deep, as in PaddleSeg."""
    if layerwise_decay is None:
        return dict.fromkeys(names, 1.0)
    blocks = {name: re.search(r"\bblocks\.(\d+)\.", name) for name in names}
    depth = max((int(found[1]) + 1 for found in blocks.values() if found), default=12)
    factors = {}
    for name, found in blocks.items():
        level = int(found[1]) + 1 if found else depth + 1
        if any(part in name for part in ("pos_embed", "cls_token", "patch_embed", "mask_token")):
            level = 0
        factors[name] = layerwise_decay ** (depth + 1 - level)
    return factors
