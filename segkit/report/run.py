"""`segkit report` of one run: evaluate, write what was found as report.json, and the page."""

from __future__ import annotations

import dataclasses
import json
import os
import sys
import time
from pathlib import Path
from typing import Any, Optional

import paddle

from segkit import __version__, io
from segkit.config import Config
from segkit.dist import world_size
from segkit.engine import checkpoint
from segkit.engine.checkpoint import Progress
from segkit.engine.evaluate import evaluate
from segkit.engine.segmenter import for_evaluation
from segkit.engine.start import computing
from segkit.engine.summary import learned
from segkit.errors import InputError
from segkit.log import logger
from segkit.options import EvalOptions, ReportOptions
from segkit.report import charts, history
from segkit.report.collect import Collector
from segkit.report.page import write_page
from segkit.report.photos import fingerprint

FILE = "report.json"
_FORMAT = 2  # of report.json and masks.zip
_NO_NUMBERS = ("save_dir", "images", "num_workers", "device", "auc_roc")


def report(cfg: Config, options: ReportOptions, model_path: Optional[str]) -> dict[str, Any]:
    """Write report.html into `options.save_dir` (by default `report/` in the run's folder), with metrics.json as val
    writes it, and report.json and masks.zip, from which two runs are compared. Returns the metrics and `report`."""
    check(options)
    folder = Path(options.save_dir or default_folder(model_path))
    found, dataset = measure(cfg, options, model_path, folder)
    page = folder / "report.html"
    write_page(page, found, dataset, folder, options.images)
    logger.info("the report is %s (%.1f MB)", page, page.stat().st_size / 1e6)
    return {**found["metrics"], "report": str(page)}


def check(options: ReportOptions) -> None:
    """`InputError` for what cannot work, before anything is evaluated."""
    charts.require()
    if options.images < 0:
        raise InputError(f"--images: got {options.images}, expected at least 0. Give such a number.")
    if world_size() > 1:
        raise InputError("segkit report runs in one process. Leave paddle.distributed.launch out.")


def default_folder(model_path: Optional[str]) -> Path:
    """`report/` in the run's folder (`report_iter_N/` for a checkpoint), or else beside the weights."""
    path = Path(model_path or "output")
    folder = path if path.is_dir() else path.parent
    course = history.find(model_path)
    name = f"report_{folder.name}" if folder.name.startswith("iter_") else "report"
    return (folder if course is None else course.parent) / name


def measure(cfg: Config, options: ReportOptions, model_path: Optional[str], folder: Path) -> tuple[dict[str, Any], Any]:
    """(what report.json says, the data set) of one evaluation, written into `folder`."""
    options.save_dir = str(folder)
    model, dataset, test_config = for_evaluation(cfg, options, model_path)
    if options.use_multilabel or getattr(dataset, "use_multilabel", False):
        raise InputError("segkit report shows one class a pixel (got use_multilabel). Use segkit val for its scores.")
    data = fingerprint(dataset)  # before: what changes while it is evaluated counts as another
    begin = time.perf_counter()
    with Collector(dataset, folder) as collector:
        metrics = evaluate(model, dataset, options, test_config, collector)
    seconds = time.perf_counter() - begin
    stood, path = progress_of(model_path), history.find(model_path)
    course = history.read(path, stood and stood.iteration) if path else None
    found = {
        "of": identity(cfg, options, model_path, data),
        "summary": {
            **summary(cfg, model, model_path, metrics),
            **times(cfg, options, stood, course, seconds, metrics["num_images"]),
        },
        "model_path": os.fspath(model_path or ""),
        "iteration": stood and stood.iteration,
        "channels": cfg.data["model"].get("num_classes", dataset.num_classes),
        "config": cfg.to_yaml(),
        "metrics": metrics,
        "palette": dataset.palette.tolist(),
        "history": course,
        **collector.compute(),
    }
    cfg.save(folder / "config.yml")
    io.write_bytes_atomic(folder / FILE, (json.dumps(found, ensure_ascii=False) + "\n").encode())
    return found, dataset


def identity(cfg: Config, options: ReportOptions, model_path: Optional[str], data: str) -> dict[str, Any]:
    """What the numbers depend on: the weights' file and its time, the config, the flags of the evaluation, and `data`,
    the fingerprint of the data set."""
    weights = weights_of(model_path)
    flags = {key: value for key, value in dataclasses.asdict(options).items() if key not in _NO_NUMBERS}
    return {
        "weights": [str(weights.resolve()), weights.stat().st_mtime_ns] if weights else None,
        "config": cfg.to_yaml(),
        "flags": flags,
        "data": data,
        "format": _FORMAT,
    }


def weights_of(model_path: Optional[str]) -> Optional[Path]:
    """The file that holds the weights, or the deploy.yaml of an exported folder."""
    path = Path(model_path or "")
    places = (path, path / checkpoint.WEIGHTS, path / "best_model" / checkpoint.WEIGHTS, path / "deploy.yaml")
    return next((place for place in places if place.is_file()), None)


def progress_of(model_path: Optional[str]) -> Optional[Progress]:
    """Where the training stood when the weights were written; None where no trainer.json beside them tells."""
    weights = weights_of(model_path)
    try:
        return checkpoint.read_progress(weights.parent / checkpoint.TRAINER) if weights else None
    except InputError:
        return None


def summary(cfg: Config, model: Any, model_path: Optional[str], metrics: dict[str, Any]) -> dict[str, str]:
    """What was evaluated on what, as rows of text."""
    kind = str(cfg.data["model"]["type"])
    if isinstance(model, paddle.nn.Layer):
        kind += f", {sum(p.size for p in learned(model)):,} parameters"
    node = cfg.data["val_dataset"]
    return {
        "config": str(cfg.path),
        "weights": str(weights_of(model_path) or ""),
        "model": kind,
        "data": f"{node['type']} {node.get('dataset_root', '')}: {metrics['num_images']} images, "
        f"{len(metrics['class_names'])} classes",
        "training": f"{cfg.iters} iterations of {cfg.batch_size}, {cfg.data['optimizer']['type']}, "
        f"{cfg.data['lr_scheduler']['type']}",
    }  # fmt: skip


def times(
    cfg: Config,
    options: EvalOptions,
    stood: Optional[Progress],
    course: Optional[dict[str, Any]],
    seconds: float,
    images: int,
) -> dict[str, str]:
    """Where and how long the weights were trained and evaluated, and by which versions, as rows of text."""
    trained = "not known: there is no trainer.json beside the weights that says so"
    if stood is not None:
        trained = f"to iteration {stood.iteration:,} of {cfg.iters:,}"
        if stood.trained_on:
            trained += f" on {', then '.join(stood.trained_on)}"
        if course is not None:
            trained += f", in {duration(course['own_seconds'])} without evaluations"
    return {
        "trained": trained,
        "evaluated": f"on {computing(options.precision)}, in {duration(seconds)} "
        f"({images / max(seconds, 1e-9):.1f} images/s), {time.strftime('%Y-%m-%d %H:%M')}",
        "versions": f"segkit {__version__}, Paddle {paddle.__version__}, Python {sys.version.split()[0]}",
    }  # fmt: skip


def duration(seconds: float) -> str:
    """In the unit that people would say."""
    if seconds < 120:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
