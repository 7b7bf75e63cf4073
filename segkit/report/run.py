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
from segkit.engine.evaluate import evaluate
from segkit.engine.segmenter import for_evaluation
from segkit.engine.summary import learned
from segkit.errors import InputError
from segkit.log import logger
from segkit.options import EvalOptions, ReportOptions
from segkit.report import charts, history
from segkit.report.collect import Collector
from segkit.report.page import write_page
from segkit.report.photos import fingerprint

FILE = "report.json"
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
    course = history.find(model_path)
    found = {
        "of": identity(cfg, options, model_path, data),
        "summary": summary(cfg, options, model, model_path, seconds, metrics),
        "config": cfg.to_yaml(),
        "metrics": metrics,
        "palette": dataset.palette.tolist(),
        "history": history.read(course) if course else None,
        **collector.compute(),
    }
    cfg.save(folder / "config.yml")
    io.write_bytes_atomic(folder / FILE, (json.dumps(found, ensure_ascii=False) + "\n").encode())
    return found, dataset


def identity(cfg: Config, options: ReportOptions, model_path: Optional[str], data: str) -> dict[str, Any]:
    """What the numbers depend on: the weights' file and its time, the config, the flags of the evaluation, and `data`,
    the fingerprint of the data set."""
    path = Path(model_path or "")
    places = (path, path / "model.pdparams", path / "best_model" / "model.pdparams", path / "deploy.yaml")
    weights = next((place for place in places if place.is_file()), None)
    flags = {key: value for key, value in dataclasses.asdict(options).items() if key not in _NO_NUMBERS}
    return {
        "weights": [str(weights.resolve()), weights.stat().st_mtime_ns] if weights else None,
        "config": cfg.to_yaml(),
        "flags": flags,
        "data": data,
    }


def summary(
    cfg: Config, options: EvalOptions, model: Any, model_path: Optional[str], seconds: float, metrics: dict[str, Any]
) -> dict[str, str]:
    """What was evaluated on what, as rows of text."""
    kind = str(cfg.data["model"]["type"])
    if isinstance(model, paddle.nn.Layer):
        kind += f", {sum(p.size for p in learned(model)):,} parameters"
    node = cfg.data["val_dataset"]
    images = metrics["num_images"]
    return {
        "config": str(cfg.path),
        "weights": os.fspath(model_path or ""),
        "model": kind,
        "data": f"{node['type']} {node.get('dataset_root', '')}: {images} images, "
        f"{len(metrics['class_names'])} classes",
        "training": f"{cfg.iters} iterations of {cfg.batch_size}, {cfg.data['optimizer']['type']}, "
        f"{cfg.data['lr_scheduler']['type']}",
        "device": f"{paddle.get_device()}, {options.precision}",
        "evaluation": f"{seconds:.1f} s, {images / max(seconds, 1e-9):.1f} images/s, "
        f"{time.strftime('%Y-%m-%d %H:%M')}",
        "versions": f"segkit {__version__}, Paddle {paddle.__version__}, Python {sys.version.split()[0]}",
    }  # fmt: skip
