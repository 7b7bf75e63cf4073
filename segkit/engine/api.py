"""The Python API beside `load`: each tool as a function of a config, a model and the tool's flags as keywords."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, TypeVar

import paddle

from segkit.build import build_dataset, data_info
from segkit.config import Config
from segkit.engine import evaluate as evaluating
from segkit.engine import export as exporting
from segkit.engine import predict as predicting
from segkit.engine.segmenter import from_model, set_up
from segkit.errors import InputError
from segkit.options import EvalOptions, ExportOptions, PredictOptions, TrainOptions
from segkit.registry import nearest

T = TypeVar("T")


def train(cfg: Config, **options: Any) -> paddle.nn.Layer:
    """Train the config's model; keywords are the flags of `segkit train`. Returns the model."""
    from segkit.engine.train import train as run

    return run(cfg, options_of(TrainOptions, options))


def evaluate(cfg: Config, model: paddle.nn.Layer, **options: Any) -> dict[str, Any]:
    """Metrics of a model on the config's val_dataset; keywords are the flags of `segkit val`."""
    chosen = options_of(EvalOptions, options)
    set_up(chosen)
    return evaluating.evaluate(
        model, build_dataset(cfg, "val", use_multilabel=chosen.use_multilabel), chosen, cfg.test_config
    )


def predict(cfg: Config, model: paddle.nn.Layer, **options: Any) -> dict[str, Any]:
    """Write masks and overlays of photos; keywords are the flags of `segkit predict`."""
    chosen = options_of(PredictOptions, options)
    predicting.check(chosen, data_info(cfg).num_classes)
    set_up(chosen)
    return predicting.predict(from_model(cfg, model, chosen), chosen)


def export(cfg: Config, model: paddle.nn.Layer, **options: Any) -> dict[str, Any]:
    """Write the model for deployment; keywords are the flags of `segkit export`."""
    return exporting.export(cfg, model, options_of(ExportOptions, options))


def options_of(kind: type[T], given: Mapping[str, Any]) -> T:
    """An options object of keywords; an unknown one is an `InputError` that names the nearest."""
    names = [field.name for field in dataclasses.fields(kind)]  # type: ignore[arg-type]
    for name in given:
        if name not in names:
            raise InputError(f"unknown option '{name}'.{nearest(name, names)} Known: {', '.join(names)}.")
    return kind(**given)
