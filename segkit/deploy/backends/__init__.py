"""Inference engines behind one interface. A new engine is a file with a `Backend` and a place in `ENGINES`."""

from __future__ import annotations

import re
from typing import Optional

import numpy as np

from segkit.deploy.backends.base import Backend, gpu_number
from segkit.deploy.backends.choice import choose
from segkit.deploy.backends.onnx_runtime import OnnxBackend
from segkit.deploy.backends.openvino_runtime import OpenVinoBackend
from segkit.deploy.backends.paddle_inference import PaddleBackend
from segkit.deploy.spec import DeploySpec
from segkit.errors import InputError, list_problems
from segkit.log import logger
from segkit.options import InferOptions

__all__ = ["ENGINES", "Backend", "open_backend", "say_unused"]

# In the order in which they are tried: the first one's masks are what the others are compared with.
ENGINES: dict[str, type[Backend]] = {kind.name: kind for kind in (PaddleBackend, OpenVinoBackend, OnnxBackend)}


def open_backend(spec: DeploySpec, options: InferOptions, tune_on: Optional[list[np.ndarray]] = None) -> Backend:
    """The engine that `--backend` names; with auto the fastest of those that are there, see `choose`.

    `tune_on`: batches of the user's photos, as `Backend.run` takes them, to try engines and to collect TensorRT's
    shape ranges on; a made-up photo without them. `InputError` where no engine can do what is asked.
    """
    check_flags(options)
    if options.backend != "auto":
        kind = ENGINES[options.backend]
        reason = _missing(kind, spec) or kind.obstacle(spec, options)
        if reason:
            raise InputError(f"{reason}.")
        kinds = [kind]
    else:
        kinds = _able(spec, options)
        if kinds == [PaddleBackend] and gpu_number(options) is None:
            say_unused(spec)
    return choose(kinds, spec, options, tune_on)


def _able(spec: DeploySpec, options: InferOptions) -> list[type[Backend]]:
    """The engines that can serve; `InputError` with every engine's reason where there is none."""
    written = [kind for kind in ENGINES.values() if kind.file(spec)]
    reasons = {kind: _missing(kind, spec) or kind.obstacle(spec, options) for kind in written}
    able = [kind for kind, reason in reasons.items() if reason is None]
    if not able:
        title = f"{spec.path}: no inference engine here can run this model as asked:"
        raise InputError(list_problems(title, [f"{kind.name}: {reason}." for kind, reason in reasons.items()]))
    return able


def say_unused(spec: DeploySpec) -> None:
    """Say which installed engines, faster than Paddle on most models, have no model in the folder."""
    names = [name for name, kind in ENGINES.items() if kind.installed() and kind.file(spec) is None]
    if names:
        are, them = ("is", "it") if len(names) == 1 else ("are", "them")
        text = "%s %s installed and mostly faster, but %s has no model for %s: export with --format all"
        logger.info(text, " and ".join(names), are, spec.folder, them)


def _missing(kind: type[Backend], spec: DeploySpec) -> Optional[str]:
    """What an engine lacks to be opened at all: its model file, or its package."""
    if kind.file(spec) is None:
        there = [name for name, other in ENGINES.items() if other.file(spec)]
        return (
            f"--backend {kind.name}: {spec.folder} has no model for it (it has one for {' and '.join(there)}). Export "
            "again with --format all, or use another --backend"
        )
    if not kind.installed():
        return f"--backend {kind.name}: the package is not installed. {kind.install}"
    return None


def check_flags(options: InferOptions) -> None:
    """`InputError` for flags that contradict one another, whatever the engine."""
    if not re.fullmatch(r"cpu|gpu(:\d+)?", options.device):
        raise InputError(f"--device: unknown device (got '{options.device}', expected cpu, gpu or gpu:N).")
    on_gpu = gpu_number(options) is not None
    wrong = [
        (options.use_trt and not on_gpu, "--use_trt needs a GPU (got --device cpu). Add --device gpu"),
        (options.use_int8 and not options.use_trt, "--use_int8 works with TensorRT only. Add --use_trt"),
        (options.enable_mkldnn and on_gpu, "--enable_mkldnn is for the CPU (got --device gpu). Leave it out"),
        (options.cpu_threads is not None and options.cpu_threads < 1, "--cpu_threads: expected at least 1"),
    ]
    for bad, text in wrong:
        if bad:
            raise InputError(f"{text}.")
