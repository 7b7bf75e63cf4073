"""Post-training int8 of an exported model, judged on the val set before it appears."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import io
import logging
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np

from segkit.build import build_dataset
from segkit.config import Config
from segkit.deploy import infer
from segkit.deploy.backends import Backend, open_backend
from segkit.deploy.pipeline import Segmenter
from segkit.deploy.spec import FILE, DeploySpec
from segkit.engine.evaluate import evaluate
from segkit.engine.export import output_folder
from segkit.errors import InputError
from segkit.log import logger
from segkit.options import EvalOptions, InferOptions, QuantizeOptions

_RUNS = 10
_WEIGHTED = {"Convolution", "GroupConvolution", "ConvolutionBackpropData", "GroupConvolutionBackpropData", "MatMul"}


def check(spec: DeploySpec, options: QuantizeOptions) -> None:
    """`InputError` for what cannot be quantized, before anything is read."""
    if importlib.util.find_spec("nncf") is None:
        raise InputError("segkit quantize needs NNCF. Install the extra quantize: pip install nncf openvino.")
    if spec.precision == "int8":
        raise InputError(f"{spec.folder}: this model is int8 already. Give the float32 one as --model_path.")
    if spec.openvino is None:
        raise InputError(
            f"{spec.folder}: there is no OpenVINO model to quantize. Export again with --format openvino or all."
        )
    if options.photos < 1:
        raise InputError(f"--photos: got {options.photos}, expected at least 1.")
    if Path(options.save_dir).resolve() == spec.folder.resolve():
        raise InputError(f"--save_dir {options.save_dir}: this is the float32 model's folder. Choose another one.")


def quantize(cfg: Config, spec: DeploySpec, options: QuantizeOptions) -> dict[str, Any]:
    """Write the int8 model of `spec` to `options.save_dir`, whole or not at all.

    Ranges are taken from photos of the training list, mIoU before and after from the val set. Returns both, sizes in
    bytes and milliseconds of a photo; `InputError` where mIoU falls by more than `options.max_drop`.
    """
    check(spec, options)
    before = _judged(cfg, spec, "fp32")
    photos = _photos(cfg, infer.segmenter(spec, before["backend"]), options.photos)
    logger.info("int8: ranges from %d photos of the training list", len(photos))
    with output_folder(Path(options.save_dir)) as folder:
        made = _write(spec, folder, photos)
        cfg.save(folder / "config.yml")
        after = _judged(cfg, made, "int8")
        rows = {"float32": _row(spec, before, photos[0]), "int8": _row(made, after, photos[0])}
        for name, row in rows.items():
            said = "%s: mIoU %.4f, %.2f MB, %.1f ms a photo"
            logger.info(said, name, row["mIoU"], row["bytes"] / 1e6, row["milliseconds"])
        drop = rows["float32"]["mIoU"] - rows["int8"]["mIoU"]
        if drop > options.max_drop:
            raise InputError(
                f"int8 costs {drop:.4f} of mIoU ({before['mIoU']:.4f} -> {after['mIoU']:.4f}), more than --max_drop "
                f"{options.max_drop}. Nothing was written. Give more --photos, a larger --max_drop, or keep "
                "float32."
            )
    logger.info("quantized to %s: model.xml, model.bin, %s", options.save_dir, FILE)
    return {"save_dir": options.save_dir, "photos": len(photos), "drop": drop, **rows}


def _photos(cfg: Config, model: Segmenter, count: int) -> list[np.ndarray]:
    """Batches of one photo each, evenly taken from the training list, as the deployed model sees them."""
    files = build_dataset(cfg, "train").files
    chosen = files[:: max(1, len(files) // count)][:count]
    return [model.prepare(path).x[None] for path, *_ in chosen]


def _write(spec: DeploySpec, folder: Path, photos: list[np.ndarray]) -> DeploySpec:
    import nncf
    import openvino

    model = openvino.Core().read_model(str(spec.folder / str(spec.openvino)))
    nncf.set_log_level(logging.ERROR)  # it tells every layer that stays as it is, on the standard output
    mixed = nncf.QuantizationPreset.MIXED
    with contextlib.redirect_stdout(io.StringIO()):  # its bars would stand in the way of --json
        ends = nncf.IgnoredScope(names=outer_layers(model))
        found = nncf.quantize(model, nncf.Dataset(photos), preset=mixed, subset_size=len(photos), ignored_scope=ends)
    openvino.save_model(found, str(folder / "model.xml"), compress_to_fp16=False)
    alone = {"model": None, "params": None, "onnx": None, "openvino": "model.xml"}
    made = dataclasses.replace(spec, folder=folder, precision="int8", **alone)
    made.path.write_text(made.text(), encoding="utf-8")
    return DeploySpec.load(folder)


def outer_layers(model: Any) -> list[str]:
    """Names of the layers with weights that an OpenVINO model's inputs reach, or that reach its outputs, through no
    other such layer. In int8 they save little time and cost the most pixels, so they stay float32.
    """
    found = set()
    ways = (
        (model.get_parameters(), lambda op: [to.get_node() for out in op.outputs() for to in out.get_target_inputs()]),
        (model.get_results(), lambda op: [value.get_source_output().get_node() for value in op.inputs()]),
    )
    for begin, following in ways:
        seen, left = set(), list(begin)
        while left:
            for op in following(left.pop()):
                name = op.get_friendly_name()
                if name in seen or op.get_type_name() == "ShapeOf":  # sizes are no way of the pixels
                    continue
                seen.add(name)
                if op.get_type_name() in _WEIGHTED:
                    found.add(name)
                else:
                    left.append(op)
    return sorted(found)


def _judged(cfg: Config, spec: DeploySpec, precision: Any) -> dict[str, Any]:
    """The engine, and the metrics of the val set by it."""
    backend = open_backend(spec, InferOptions(backend="openvino", precision=precision))
    dataset = build_dataset(cfg, "val")
    engine = infer.segmenter(spec, backend)
    dataset.transforms = engine.transforms
    return {"backend": backend, "mIoU": evaluate(engine, dataset, EvalOptions())["mIoU"]}


def _row(spec: DeploySpec, judged: dict[str, Any], photo: np.ndarray) -> dict[str, Any]:
    weights = (spec.folder / str(spec.openvino)).with_suffix(".bin")
    return {
        "mIoU": judged["mIoU"],
        "bytes": weights.stat().st_size,
        "milliseconds": _milliseconds(judged["backend"], photo),
    }


def _milliseconds(backend: Backend, photo: np.ndarray) -> float:
    backend.run(photo)
    times = []
    for _ in range(_RUNS):
        begin = time.perf_counter()
        backend.run(photo)
        times.append(1000 * (time.perf_counter() - begin))
    return statistics.median(times)
