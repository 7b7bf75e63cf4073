"""From a trained model to a folder that inference engines run, checked against the model before it appears."""

from __future__ import annotations

import dataclasses
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Optional

import numpy as np
import paddle

from segkit.build import build_transforms, data_info
from segkit.config import Config
from segkit.deploy.backends import choice, say_unused
from segkit.deploy.spec import FILE, DeploySpec
from segkit.deploy.windows import Windows, kept, windows_as
from segkit.engine import apply
from segkit.engine.agreement import check_agreement, sample_photos, trained_scores, worst
from segkit.engine.convert import require_converters, to_onnx, to_openvino
from segkit.engine.graph import Exported, Normalization, save_graph
from segkit.engine.paddle2 import save_paddle2
from segkit.engine.segmenter import is_multilabel
from segkit.engine.weights import save_state
from segkit.errors import InputError
from segkit.log import logger
from segkit.models import scores_are
from segkit.options import ExportOptions, InferOptions
from segkit.postprocess import ScoresAre
from segkit.transforms import Compose

# What each format leaves in the folder; they build on one another in this order.
_FORMATS = {
    "paddle": ("paddle",),
    "paddle2": ("paddle2",),
    "onnx": ("onnx",),
    "openvino": ("openvino",),
    "all": ("paddle", "onnx", "openvino"),
    "safetensors": (),
}
_FILES = {
    "paddle": ("model.json", "model.pdiparams"),
    "paddle2": ("model.pdmodel", "model.pdiparams"),
    "onnx": ("model.onnx",),
    "openvino": ("model.xml", "model.bin"),
}
_ENGINES = {"paddle": "paddle", "paddle2": "paddle", "onnx": "onnxruntime", "openvino": "openvino"}
_WEIGHTS = "model.safetensors"
_OURS = {FILE, choice.FILE, "config.yml", _WEIGHTS, *(name for names in _FILES.values() for name in names)}
# Two photos of different sizes: where the transforms bring both to one size, the graph gets that size.
_PROBES = ((90, 130), (300, 200))


def check(cfg: Config, options: ExportOptions) -> None:
    """`InputError` for what cannot be exported, before anything is loaded."""
    require_converters(_FORMATS[options.format])
    if options.output_op == "argmax" and is_multilabel(cfg):
        raise InputError(
            "--output_op argmax: a pixel may have several labels here, and argmax keeps one. Use none or softmax (the "
            "sigmoid of each class)."
        )
    _shape(cfg, options)
    _normalization(cfg, options)
    folder = Path(options.save_dir)
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder}: this is a file. Choose another --save_dir.")
    ours = any((folder / name).is_file() for name in (FILE, _WEIGHTS))
    if folder.is_dir() and any(folder.iterdir()) and not ours:
        raise InputError(
            f"{folder}: there are other files in this folder, and it would be replaced. Choose a new or an exported "
            "folder as --save_dir."
        )


def export(cfg: Config, model: paddle.nn.Layer, options: Optional[ExportOptions] = None) -> dict[str, Any]:
    """Write the model in each format, deploy.yaml and config.yml to `options.save_dir`, whole or not at all.

    Returns the file names and the agreement, the worst of all formats: the largest difference of the scores and the
    share of agreeing pixels on photos of the val set. `RuntimeError` when an exported graph disagrees with the model.
    The format safetensors is the weights alone: `val`, `predict` and `model.pretrained` take that folder too.
    """
    options = options or ExportOptions()
    check(cfg, options)
    if options.format == "safetensors":
        return _weights_alone(cfg, model, Path(options.save_dir))
    test_config = _windows(cfg, options)
    windows = windows_as(InferOptions(), test_config)
    shape = _shape(cfg, options, windows)
    photos = sample_photos(cfg, shape, windows)
    for photo in photos:
        _check_photo(photo.x, shape, options, photo.path)
    formats = _FORMATS[options.format]
    with apply.evaluation_mode(model), output_folder(Path(options.save_dir)) as folder:
        _write(cfg, model, options, folder, formats, shape)
        expected = trained_scores(model, photos)
        spec = _spec(cfg, options, folder, shape, scores_are(model))
        spec.test_config = test_config
        spec.path.write_text(spec.text(), encoding="utf-8")
        cfg.save(folder / "config.yml")
        spec = DeploySpec.load(folder)
        agreement = worst(check_agreement(expected, spec, _ENGINES[name]) for name in formats)
    files = [name for kind in formats for name in _FILES[kind]]
    logger.info("exported to %s: %s", options.save_dir, ", ".join([*files, FILE]))
    if formats == _FORMATS["paddle"]:
        say_unused(dataclasses.replace(spec, folder=Path(options.save_dir)))
    return {"save_dir": options.save_dir, "files": files, **agreement}


def _write(
    cfg: Config,
    model: paddle.nn.Layer,
    options: ExportOptions,
    folder: Path,
    formats: tuple[str, ...],
    shape: list[int],
) -> None:
    """The model's files of all `formats`, and no others."""
    normalization = _normalization(cfg, options)
    if "paddle2" in formats:
        save_paddle2(cfg, model, folder, shape, options.output_op, normalization)
    else:
        save_graph(Exported(model, options.output_op, is_multilabel(cfg), normalization), folder, shape)
    if "onnx" in formats or "openvino" in formats:
        to_onnx(folder)
    if "openvino" in formats:
        to_openvino(folder)
    wanted = {name for kind in formats for name in _FILES[kind]}
    for name in _OURS - wanted:
        (folder / name).unlink(missing_ok=True)


def _weights_alone(cfg: Config, model: paddle.nn.Layer, target: Path) -> dict[str, Any]:
    with output_folder(target) as folder:
        save_state(model.state_dict(), folder / _WEIGHTS)
        cfg.save(folder / "config.yml")
    logger.info("exported to %s: %s", target, _WEIGHTS)
    return {"save_dir": str(target), "files": [_WEIGHTS]}


def _spec(cfg: Config, options: ExportOptions, folder: Path, shape: list[int], kind: ScoresAre) -> DeploySpec:
    info = data_info(cfg)
    there = {name for names in _FILES.values() for name in names if (folder / name).is_file()}
    small = "uint8" if info.num_classes <= 256 else "int32"
    folded = options.fold_preprocess
    return DeploySpec(
        folder=folder,
        model=next((name for name in ("model.json", "model.pdmodel") if name in there), None),
        params="model.pdiparams" if "model.pdiparams" in there else None,
        onnx="model.onnx" if "model.onnx" in there else None,
        openvino="model.xml" if "model.xml" in there else None,
        transforms=_nodes(cfg)[:-1] if folded else _nodes(cfg),
        input_shape=shape,
        input_dtype="uint8" if folded else "float32",
        input_layout="NHWC" if folded else "NCHW",
        output_op=options.output_op,
        output_dtype=small if options.output_op == "argmax" else "float32",
        num_classes=info.num_classes,
        classes=list(map(str, info.class_names)),
        palette=np.asarray(info.palette).tolist(),
        img_channels=info.img_channels,
        multilabel=is_multilabel(cfg),
        nodata=info.nodata,
        scores_are=kind,
    )


def _windows(cfg: Config, options: ExportOptions) -> Optional[dict[str, Any]]:
    """What of `test_config` deployment does too: the sliding windows of predict."""
    if cfg.test_config.get("aug_pred"):
        logger.warning("test_config.aug_pred: an exported model is applied once, so its masks will not be predict's.")
    if not cfg.test_config.get("is_slide"):
        return None
    if options.output_op == "argmax":
        logger.warning(
            "test_config.is_slide: windows average scores, which --output_op argmax does not keep. This export is "
            "applied to whole photos, and its masks will not be predict's."
        )
        return None
    return kept(cfg.test_config)


def _nodes(cfg: Config) -> list[dict[str, Any]]:
    """The transforms that deployment applies: `export.transforms`, else those of val."""
    val = (cfg.data.get("val_dataset") or {}).get("transforms") or []
    own = (cfg.data.get("export") or {}).get("transforms")
    if own is not None and own != val:
        logger.warning(
            "export.transforms differ from val_dataset.transforms: the exported model will not give predict's masks. "
            "Leave export.transforms out where that is not meant."
        )
    return val if own is None else own


def _normalization(cfg: Config, options: ExportOptions) -> Optional[Normalization]:
    """What `--fold_preprocess` puts into the graph, None without it."""
    if not options.fold_preprocess:
        return None
    transforms = build_transforms(cfg, "export")
    names = [type(transform).__name__ for transform in transforms]
    if names.count("Normalize") != 1 or names[-1] != "Normalize":
        raise InputError(
            f"{cfg.path}: --fold_preprocess needs Normalize as the last of the transforms (got {', '.join(names)}). "
            "Export without it, or put Normalize last in export.transforms."
        )
    last = transforms[-1]
    return last.mean.tolist(), last.std.tolist()


def _shape(cfg: Config, options: ExportOptions, windows: Optional[Windows] = None) -> list[int]:
    """[N, C, H, W] of the graph's input, of a window where there are some, -1 where it may vary."""
    channels = data_info(cfg).img_channels
    if options.input_shape is None:
        size = _fixed_size(cfg, channels)
        return [-1, channels, *(map(min, size, windows.size[::-1]) if windows else size)]
    shape = [int(value) for value in options.input_shape]
    if any(value == 0 or value < -1 for value in shape):
        raise InputError(
            f"--input_shape: got {shape}, expected N C H W, each above 0, or -1 where it may vary. Give four "
            "such numbers."
        )
    if shape[1] not in (-1, channels):
        raise InputError(
            f"--input_shape: got {shape[1]} channels, but the data set has img_channels: {channels}. "
            f"Give {shape[0]} {channels} {shape[2]} {shape[3]}."
        )
    return [shape[0], channels, *shape[2:]]


def _fixed_size(cfg: Config, channels: int) -> tuple[int, int]:
    """(height, width) that the transforms give every photo, or -1 for both."""
    compose = Compose(build_transforms(cfg, "export"))
    sizes = set()
    for height, width in _PROBES:
        sample = {"image": np.zeros((height, width, channels), np.uint8), "path": "probe", "geometry": []}
        try:
            sizes.add(compose(sample, np.random.default_rng(0))["image"].shape[:2])
        except InputError:
            return -1, -1
    return sizes.pop() if len(sizes) == 1 else (-1, -1)


def _check_photo(x: np.ndarray, shape: list[int], options: ExportOptions, path: str) -> None:
    if any(fixed > 0 and fixed != got for fixed, got in zip(shape[2:], x.shape[1:])):
        raise InputError(
            f"--input_shape {' '.join(map(str, options.input_shape or shape))}: the transforms bring {path} to "
            f"{x.shape[1]} x {x.shape[2]} (height x width). Give these numbers, -1 -1, or add a Resize to "
            "val_dataset.transforms; for sliding windows of this size, --opts test_config.is_slide=true "
            f"test_config.crop_size=[{shape[3]},{shape[2]}]."
        )


def _swap(work: Path, target: Path) -> None:
    """`work` takes the place of the folder `target`, whose files of others go along. `InputError` where it cannot be
    moved, with everything as it was."""
    old = Path(tempfile.mkdtemp(prefix=f".{target.name}.old.", dir=target.parent))
    try:
        os.replace(target, old)
    except OSError as error:
        old.rmdir()
        raise InputError(f"{target}: cannot be replaced ({error.strerror}). Choose another --save_dir.") from error
    os.replace(work, target)
    for entry in old.iterdir():
        if entry.name not in _OURS:
            shutil.move(str(entry), str(target / entry.name))
    shutil.rmtree(old)


@contextmanager
def output_folder(target: Path) -> Iterator[Path]:
    """A folder beside `target` that takes its place when all went well. Files of others in it are kept."""
    target = Path(os.path.abspath(target))
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    except OSError as error:
        raise InputError(
            f"{target}: cannot be written ({error.strerror}). Make it writable or choose another --save_dir."
        ) from error
    try:
        yield work
        work.chmod(0o755)
        if target.is_dir():
            _swap(work, target)
        else:
            os.replace(work, target)
    finally:
        if work.exists():
            shutil.rmtree(work, ignore_errors=True)
