"""Post-training int8 of an exported model, judged on the val set before it appears."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import io
import logging
import statistics
import time
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from segkit import runtime
from segkit.build import build_dataset
from segkit.config import Config
from segkit.deploy import infer
from segkit.deploy.backends import Backend, open_backend
from segkit.deploy.pipeline import Segmenter
from segkit.deploy.spec import FILE, DeploySpec
from segkit.deploy.windows import windows_as
from segkit.engine.evaluate import Masks, evaluate
from segkit.engine.export import output_folder
from segkit.errors import InputError
from segkit.log import logger
from segkit.options import EvalOptions, InferOptions, QuantizeOptions

_RUNS = 10
_GOLDEN = 0.618  # of its multiples the fractions lie evenly between 0 and 1
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
        raise InputError(f"--photos: got {options.photos}, expected at least 1. Give such a number.")
    if Path(options.save_dir).resolve() == spec.folder.resolve():
        raise InputError(f"--save_dir {options.save_dir}: this is the float32 model's folder. Choose another one.")


def quantize(cfg: Config, spec: DeploySpec, options: QuantizeOptions) -> dict[str, Any]:
    """Write the int8 model of `spec` to `options.save_dir`, whole or not at all.

    Ranges are taken from photos of the training list, metrics before and after from the val set, applied as the
    folder's `test_config` says. Returns both, the share of pixels that stay as they were, the class that loses most,
    sizes in bytes and milliseconds of a photo; `InputError` where int8 costs more than the options allow.
    """
    check(spec, options)
    windows = windows_as(InferOptions(), spec.test_config)
    masks: dict[str, bytes] = {}
    before = _judged(cfg, spec, "fp32", lambda path, mask: masks.update({path: zlib.compress(mask.tobytes(), 1)}))
    photos = _Photos(cfg, infer.segmenter(spec, before["backend"], windows), spec.input_shape[0], options.photos)
    logger.info("int8: ranges from %d photos of the training list", photos.count)
    with output_folder(Path(options.save_dir)) as folder:
        made = _write(spec, folder, photos)
        cfg.save(folder / "config.yml")
        same = _Same(masks)
        after = _judged(cfg, made, "int8", same)
        rows = {"float32": _row(spec, before, photos[0]), "int8": _row(made, after, photos[0])}
        for name, row in rows.items():
            said = "%s: mIoU %.4f, %.2f MB, %.1f ms a photo"
            logger.info(said, name, row["mIoU"], row["bytes"] / 1e6, row["milliseconds"])
        drop = _drop(before["metrics"], after["metrics"])
        worst = _worst_class(before["metrics"], after["metrics"])
        said = "int8 leaves %.3f %% of the val set's pixels as they were; %s loses most, IoU %.4f -> %.4f"
        logger.info(said, 100 * same.share, worst["name"], worst["float32"], worst["int8"])
        _refuse(rows, drop, worst, same.share, options)
    logger.info("quantized to %s: model.xml, model.bin, %s", options.save_dir, FILE)
    found = {"save_dir": options.save_dir, "photos": photos.count, "drop": drop}
    return {**found, "agreement": same.share, "worst_class": worst, **rows}


class _Same:
    """Counts the pixels of masks that are as in `masks`: a photo's path -> its mask's bytes, compressed."""

    def __init__(self, masks: dict[str, bytes]):
        self._masks, self._same, self._pixels = masks, 0, 0

    def __call__(self, path: str, mask: np.ndarray) -> None:
        before = np.frombuffer(zlib.decompress(self._masks[path]), mask.dtype)
        self._same += int((before == mask.ravel()).sum())
        self._pixels += mask.size

    @property
    def share(self) -> float:
        """Of all pixels; NaN without any."""
        return self._same / self._pixels if self._pixels else float("nan")


def _drop(before: dict[str, Any], after: dict[str, Any]) -> float:
    """What int8 costs of the mean IoU, over the classes that both score: one without labels that a stray pixel
    brings into one of the two means, or takes out of it, says nothing."""
    pairs = zip(before["class_iou"], after["class_iou"])
    losses = [float32 - int8 for float32, int8 in pairs if float32 is not None and int8 is not None]
    return float(np.mean(losses)) if losses else 0.0


def _worst_class(before: dict[str, Any], after: dict[str, Any]) -> dict[str, Any]:
    """Name and both IoUs of the class that loses most; one that is nowhere in a mask or a label counts as 0."""
    pairs = [[value or 0.0 for value in pair] for pair in zip(before["class_iou"], after["class_iou"])]
    number = int(np.argmax([float32 - int8 for float32, int8 in pairs]))
    return {"name": before["class_names"][number], "float32": pairs[number][0], "int8": pairs[number][1]}


def _refuse(rows: dict[str, Any], drop: float, worst: dict[str, Any], share: float, options: QuantizeOptions) -> None:
    """`InputError` for all that int8 costs beyond the options' bounds; what is not a number is beyond any."""
    mious = f"{rows['float32']['mIoU']:.4f} -> {rows['int8']['mIoU']:.4f}"
    loss = worst["float32"] - worst["int8"]
    wrong = [
        (drop <= options.max_drop, f"{drop:.4f} of mIoU ({mious}), more than --max_drop {options.max_drop}"),
        (
            loss <= options.max_class_drop,
            f"{loss:.4f} of the IoU of {worst['name']}, more than --max_class_drop {options.max_class_drop}",
        ),
        (
            share >= options.min_agreement,
            f"{100 * (1 - share):.3f} % of the pixels, which change, so that {100 * share:.3f} % stay (expected at "
            f"least --min_agreement {options.min_agreement})",
        ),
    ]
    said = [text for good, text in wrong if not good]
    if said:
        raise InputError(
            f"int8 costs {'; and '.join(said)}. Nothing was written. Give more --photos, allow more, or keep float32."
        )


class _Photos:
    """What the engine gets of `count` photos of the training list, taken evenly, `together` at a time, each read when
    it is its turn: the whole of it, or, of a model with sliding windows, one of them, each time at another place."""

    def __init__(self, cfg: Config, model: Segmenter, together: int, count: int):
        files = [path for path, *_ in build_dataset(cfg, "train").files]
        chosen = np.unique(np.linspace(0, len(files) - 1, min(count, len(files))).round().astype(int))
        self._files, self.count = [files[index] for index in chosen], len(chosen)
        self._model, self._together = model, max(1, together)

    def __len__(self) -> int:
        return -(-self.count // self._together)

    def __getitem__(self, index: int) -> np.ndarray:
        """A batch of as many photos as the graph takes."""
        if index >= len(self):
            raise IndexError(index)
        places = [(index * self._together + place) % self.count for place in range(self._together)]
        return np.concatenate([self._input(place) for place in places])

    def _input(self, place: int) -> np.ndarray:
        at = place * _GOLDEN % 1
        return self._model.first_batch(self._model.prepare(self._files[place]), at)


def _write(spec: DeploySpec, folder: Path, photos: _Photos) -> DeploySpec:
    import nncf
    import openvino

    model = openvino.Core().read_model(str(spec.folder / str(spec.openvino)))
    nncf.set_log_level(logging.ERROR)  # it tells every layer that stays as it is, on the standard output
    mixed = nncf.QuantizationPreset.MIXED
    # Its bars would stand in the way of --json.
    with runtime.signal_stack_kept(), contextlib.redirect_stdout(io.StringIO()):
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


def _judged(cfg: Config, spec: DeploySpec, precision: Any, masks: Masks) -> dict[str, Any]:
    """The engine, and the metrics of the val set by it; each mask goes to `masks`."""
    backend = open_backend(spec, InferOptions(backend="openvino", precision=precision))
    dataset = build_dataset(cfg, "val")
    engine = infer.segmenter(spec, backend)
    dataset.transforms = engine.transforms
    metrics = evaluate(engine, dataset, EvalOptions(), spec.test_config, masks=masks)
    return {"backend": backend, "metrics": metrics}


def _row(spec: DeploySpec, judged: dict[str, Any], photo: np.ndarray) -> dict[str, Any]:
    weights = (spec.folder / str(spec.openvino)).with_suffix(".bin")
    return {
        "mIoU": judged["metrics"]["mIoU"],
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
