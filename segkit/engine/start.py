"""What happens once at the start of training: pretrained weights, and the page that says what is about to run."""

from __future__ import annotations

import itertools
import os
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
import paddle

from segkit import __version__
from segkit.config import Config
from segkit.data.scan import Scan
from segkit.dist import world_size
from segkit.engine import memory
from segkit.engine.checkpoint import Progress
from segkit.engine.download import is_url, weights_from
from segkit.engine.summary import describe, learned
from segkit.engine.weights import load_weights
from segkit.errors import InputError
from segkit.log import logger
from segkit.options import TrainOptions

_TRIAL = 128  # pixels of a side on which FLOPs are counted: those of a larger photo are as many times more as its area


def load_pretrained(cfg: Config, model: paddle.nn.Layer, offline: bool = False) -> None:
    """`model.pretrained` and that of its parts (`model.backbone.pretrained`): weights to start from, paths or URLs.

    What did not fit, such as the head of another number of classes, is listed in the log; less than half is a warning.
    """
    nodes = [(("model", key), getattr(model, key, None), value) for key, value in cfg.data["model"].items()]
    parts = [(place, layer, value) for place, layer, value in nodes if isinstance(layer, paddle.nn.Layer)]
    for place, layer, node in [*parts, (("model",), model, cfg.data["model"])]:
        path = node.get("pretrained") if isinstance(node, dict) else None
        if path is None:
            continue
        key = ".".join((*place, "pretrained"))
        try:
            file = weights_from(path, offline) if is_url(path) else cfg.find(path)
            report = load_weights(layer, file, any_size=True)
        except InputError as error:
            raise InputError(f"{cfg.mark(*place, 'pretrained')}: {key}: {error}") from error
        say = logger.info if report.most else logger.warning
        say("%s: %s", key, report)


def say_start(
    cfg: Config, options: TrainOptions, datasets: tuple[Any, Any], seen: Sequence[Scan], model: paddle.nn.Layer
) -> None:
    """Device, data, model, batch, schedule and output, in a few lines. `datasets`: train and val, which may be None;
    `seen`: what `quick_check` looked at."""
    train, val = datasets
    batch = cfg.batch_size * world_size() * options.accumulate_steps
    detail = (
        f" ({cfg.batch_size} x {world_size()} ranks x {options.accumulate_steps} accumulated)"
        if batch != cfg.batch_size
        else ""
    )
    images = (
        f"{len(train)} training images" if val is None else f"{len(train)} training and {len(val)} validation images"
    )
    rows = {
        "device": computing(options.precision),
        **({"memory": f"freed memory is {memory.plan()}"} if paddle.get_device() == "cpu" else {}),
        "data": f"{images}, {train.num_classes} classes",
        "classes": _classes(train, seen),
        "model": f"{cfg.data['model']['type']}, {_size(model, train)}",
        "loss": _losses(cfg.data["loss"]),
        "steps": f"{cfg.iters} iterations of {batch} samples{detail}, {batch * cfg.iters / len(train):.1f} epochs",
        "schedule": f"{cfg.data['optimizer']['type']}, {cfg.data['lr_scheduler']['type']}, seed {options.seed}",
        "output": options.save_dir,
    }
    title = f"segkit {__version__}, Paddle {paddle.__version__}, Python {sys.version.split()[0]}"
    logger.info("\n".join([title, *(f"  {name:9} {text}" for name, text in rows.items())]))


def _classes(dataset: Any, seen: Sequence[Scan]) -> str:
    """Names of the classes, with their share of the pixels in the training labels that were looked at."""
    names = dataset.class_names
    labels = [item.counts for item in seen if item.part == "train" and item.counts]
    pixels = [sum(counts.get(number, 0) for counts in labels) for number in range(len(names))]
    if not sum(pixels) or getattr(dataset, "use_multilabel", False):
        return _first(names)
    shares = [f"{name} {100 * count / sum(pixels):.1f} %" for name, count in zip(names, pixels)]
    return f"{_first(shares)} of the pixels in {len(labels)} labels"


def _size(model: paddle.nn.Layer, dataset: Any) -> str:
    """Parameters, and multiply-adds of one training photo."""
    weights = learned(model)
    frozen = sum(p.size for p in weights if p.stop_gradient)
    text = f"{sum(p.size for p in weights):,} parameters" + (f", {frozen:,} of them frozen" if frozen else "")
    try:
        height, width, channels = dataset.get(0, np.random.default_rng(0))["image"].shape
        sides = [min(side, _TRIAL) for side in (height, width)]
        flops = describe(model, [1, channels, *sides]).flops * height * width / (sides[0] * sides[1])
    except Exception:  # a photo that cannot be read is told when it is its turn; a model may take one size alone
        return text
    return f"{text}, about {flops / 1e9:.3g} GFLOPs at {width}x{height}"


def note_device(progress: Progress, options: TrainOptions) -> None:
    """Keep in `progress` where this run computes, if that is not where it did so before it was resumed."""
    here = computing(options.precision) + (f", {world_size()} ranks" if world_size() > 1 else "")
    if progress.iteration and not progress.trained_on:  # a checkpoint of an older segkit
        progress.trained_on.append("what its checkpoint does not tell")
    if progress.trained_on[-1:] != [here]:
        progress.trained_on.append(here)


def computing(precision: str) -> str:
    """Device, on the CPU how many threads the kernels use, and precision."""
    if paddle.get_device() != "cpu":
        return f"{paddle.get_device()}, {precision}"
    threads = os.environ.get("OMP_NUM_THREADS", "1")
    return f"cpu, {threads} {'thread' if threads == '1' else 'threads'}, {precision}"


def _losses(node: dict[str, Any]) -> str:
    """`CrossEntropyLoss + 0.4 CrossEntropyLoss`, equal neighbours counted: `5 x CrossEntropyLoss`."""
    texts = [(f"{c:g} " if c != 1 else "") + n["type"] for n, c in zip(node["types"], node["coef"])]
    groups = [(text, len(list(same))) for text, same in itertools.groupby(texts)]
    return " + ".join(f"{count} x {text}" if count > 1 else text for text, count in groups)


def _first(texts: list[str]) -> str:
    return ", ".join(texts) if len(texts) <= 8 else ", ".join(texts[:8]) + ", ..."
