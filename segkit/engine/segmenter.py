"""Trained or exported models made ready: what `segkit.load` and the tools share."""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Optional, Union

import paddle

from segkit.build import build_dataset, build_model, build_transforms, data_info
from segkit.config import Config
from segkit.deploy import infer
from segkit.deploy.backends import open_backend
from segkit.deploy.pipeline import Segmenter
from segkit.deploy.spec import FILE, DeploySpec
from segkit.deploy.windows import kept
from segkit.engine import apply
from segkit.engine.accelerate import channels_last
from segkit.engine.device import init_distributed, set_up_device
from segkit.engine.memory import tune_malloc
from segkit.engine.weights import load_weights, weights_file
from segkit.errors import InputError, list_problems
from segkit.io import prepare_folder
from segkit.log import logger
from segkit.models import scores_are
from segkit.options import EvalOptions, InferOptions, PredictOptions, TestTimeOptions

PathLike = Union[str, "os.PathLike[str]"]


def load(path: PathLike, device: Optional[str] = None, trust: bool = False) -> Segmenter:
    """A model that segments photos, from a folder with weights and config.yml (best_model, iter_N, a run folder)
    or an exported one. `device`: cpu, gpu or gpu:N; None takes a GPU when Paddle sees one. `trust`: as in `Config`."""
    device = set_up_device(device)
    if is_exported(path):
        return load_exported(path, device)
    cfg = Config.from_model_path(path, trust=trust)
    return from_model(cfg, load_model(cfg, path))


def is_exported(path: Optional[PathLike]) -> bool:
    """Whether it is an exported folder or its deploy.yaml."""
    return path is not None and (Path(path).name == FILE or (Path(path) / FILE).is_file())


def load_exported(
    path: PathLike,
    device: str = "cpu",
    options: Optional[TestTimeOptions] = None,
    test_config: Optional[Mapping[str, Any]] = None,
) -> Segmenter:
    """An exported folder, run by the fastest engine there is unless `options.backend` names one, whole or in sliding
    windows as the options say, or else `test_config`, by default the folder's own. A `threshold` of the options counts
    more than the folder's; `no_onednn` are Paddle's own kernels."""
    options = options or PredictOptions()
    spec = DeploySpec.load(path)
    windows = apply.windows_alone(apply.test_time(options, spec.test_config if test_config is None else test_config))
    threshold = getattr(options, "threshold", None)
    if threshold is not None:
        spec = dataclasses.replace(spec, threshold=threshold)
    chosen = InferOptions(
        config=os.fspath(path),
        device=device,
        backend=options.backend or ("paddle" if options.no_onednn else "auto"),
        precision=options.precision,
        enable_mkldnn=False if options.no_onednn else None,
    )
    return infer.segmenter(spec, open_backend(spec, chosen), windows)


def check_backend(options: TestTimeOptions, exported: bool) -> None:
    """`InputError` for an engine of exported folders where the weights are trained ones."""
    if options.backend is not None and not exported:
        raise InputError(
            f"--backend {options.backend} runs an exported folder (got trained weights, which Paddle runs). Export "
            "them and give that folder as --model_path, or leave --backend out."
        )


def load_model(cfg: Config, model_path: Optional[PathLike]) -> paddle.nn.Layer:
    """The config's model with these weights, in evaluation mode. Weights that do not fill it are an `InputError`;
    what they hold beyond it is named in the log."""
    if not model_path:
        raise InputError(
            "--model_path is missing: without trained weights the result would be noise. Give the folder or the "
            ".pdparams file, such as --model_path output/best_model."
        )
    path = Path(model_path)
    if path.is_dir() and not (path / "model.pdparams").is_file() and (path / "best_model").is_dir():
        path = path / "best_model"
    path = weights_file(path)
    model = build_model(cfg)
    report = load_weights(model, path)
    if report.missing or report.shape_mismatch:
        name = cfg.data["model"]["type"]
        raise InputError(
            list_problems(
                f"{path}: these weights are not those of the config's {name} ({len(report.matched)} of its entries "
                "fit). Give its own weights, or the config that they were trained with:",
                report.problems(),
                limit=12,
            )
        )
    if report.unexpected:
        logger.warning("%s", report)
    model.eval()
    return model


def for_evaluation(
    cfg: Config, options: EvalOptions, model_path: Optional[PathLike]
) -> tuple[Any, Any, Mapping[str, Any]]:
    """(model or engine, val data set, test_config) for `evaluate`, from trained weights or an exported folder; sets up
    the device."""
    exported = is_exported(model_path)
    check_backend(options, exported)
    apply.test_time(options, cfg.test_config)
    device = set_up(options)
    if not exported:
        model = load_model(cfg, model_path)
        return model, build_dataset(cfg, "val", use_multilabel=options.use_multilabel), cfg.test_config
    # Windows average scores, which a graph that ends in classes has not: it is for whole photos, as `export` says.
    windows = {} if DeploySpec.load(model_path or "").output_op == "argmax" else kept(cfg.test_config)
    engine = load_exported(os.fspath(model_path or ""), device, options, windows)
    dataset = build_dataset(cfg, "val", use_multilabel=options.use_multilabel)
    dataset.transforms = engine.transforms
    return engine, dataset, windows


def from_model(
    cfg: Config,
    model: paddle.nn.Layer,
    options: Optional[TestTimeOptions] = None,
    test_config: Optional[Mapping[str, Any]] = None,
) -> Segmenter:
    """A trained model with the val transforms, classes and palette of its config."""
    options = options or PredictOptions()
    how = apply.test_time(options, cfg.test_config if test_config is None else test_config)
    info = data_info(cfg)
    windows = None
    if how.scales == (1.0,) and len(how.flips) == 1:  # else the engine cuts the windows, from photos of each scale
        how, windows = dataclasses.replace(how, windows=None), how.windows
    return Segmenter(
        _Engine(model, how),
        build_transforms(cfg, "val"),
        info.class_names,
        info.palette,
        info.img_channels,
        getattr(options, "threshold", None),
        options.use_multilabel or is_multilabel(cfg),
        info.nodata,
        windows=windows,
        scores_are=scores_are(model),
    )


class _Engine:
    """A model as a Segmenter's engine."""

    def __init__(self, model: paddle.nn.Layer, how: apply.TestTime):
        self._model, self._how = model, how
        self._open: Optional[apply.Applied] = None

    def __call__(self, x: Any) -> Any:
        if self._open is not None:
            return self._open.scores(x)
        with apply.evaluation_mode(self._model):
            return apply.scores(self._model, x, self._how)

    @contextlib.contextmanager
    def held(self) -> Iterator[int]:
        """Inside, the model stays ready for one photo after another; gives `pixels_together`."""
        with apply.Applied(self._model, self._how) as applied:
            self._open = applied
            try:
                yield self._how.pixels_together
            finally:
                self._open = None


def held(model: Segmenter) -> contextlib.AbstractContextManager[int]:
    """A context for applying the model to many photos: what can be prepared once is prepared once. It gives the
    number of pixels up to which photos of one size had better go through the network together."""
    return model.run.held() if isinstance(model.run, _Engine) else contextlib.nullcontext(0)


def is_multilabel(cfg: Config) -> bool:
    """Whether the config's data sets give a pixel several labels."""
    return any(bool((cfg.data.get(f"{part}_dataset") or {}).get("use_multilabel")) for part in ("train", "val"))


def set_up(options: TestTimeOptions) -> str:
    """Device and ranks for val and predict; returns the device."""
    device = set_up_device(options.device, options.precision)
    init_distributed()
    channels_last(options.data_format, options.precision, device)
    if device == "cpu":
        tune_malloc()
    if getattr(options, "save_dir", None):  # known before the work, not after it
        prepare_folder(Path(options.save_dir))
    return device
