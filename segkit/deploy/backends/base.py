"""What every inference engine shares: the check of the input, batches of a fixed size, scores."""

from __future__ import annotations

import importlib.util
import threading
from abc import ABC, abstractmethod
from typing import Optional

import numpy as np

from segkit.deploy.spec import DeploySpec
from segkit.errors import EngineError, InputError, out_of_memory
from segkit.options import InferOptions


class Backend(ABC):
    """An exported graph in an inference engine. `run` may be called by several threads at once.

    A subclass opens the graph in `__init__(spec, options)`, calls `super().__init__(spec, precision)` and implements
    `_infer`; `name` is what `--backend` calls it, `package` the Python package that it needs, `install` how to get it.
    """

    name: str
    package: str
    install: str
    spins: float = 0.0
    """seconds for which its threads keep their cores busy after a run"""

    def __init__(self, spec: DeploySpec, precision: str = "fp32", parallel: int = 1):
        """`parallel`: how many calls of `run` really go side by side; others wait."""
        self.spec = spec
        self.precision = precision
        self.parallel = parallel
        self._turns = threading.Semaphore(parallel)

    @classmethod
    @abstractmethod
    def file(cls, spec: DeploySpec) -> Optional[str]:
        """The model file for this engine in the exported folder, None where there is none."""

    @classmethod
    @abstractmethod
    def obstacle(cls, spec: DeploySpec, options: InferOptions) -> Optional[str]:
        """Why this engine, which is installed, cannot do on this machine what the flags ask for; None if it can."""

    @classmethod
    def installed(cls) -> bool:
        """Whether the engine's package is there."""
        try:
            return importlib.util.find_spec(cls.package) is not None
        except (ImportError, ValueError):  # it is being kept out
            return False

    @abstractmethod
    def _infer(self, batch: np.ndarray) -> np.ndarray:
        """The graph's output for a batch that fits it; at most `parallel` threads are in here at once."""

    def run(self, batch: np.ndarray) -> np.ndarray:
        """Scores float32 [N, classes, h, w], or class numbers int [N, h, w], of a batch float32 [N, C, H, W], or
        uint8 [N, H, W, C] as deploy.yaml says.

        What a graph that ends in probabilities gives becomes scores of the model's own kind again: the logarithm of a
        softmax differs from the logits by a number per pixel, so that resizing and argmax give the same mask.
        """
        check_input(self.spec, batch)
        batch = np.ascontiguousarray(batch)
        fixed = self.spec.input_shape[0]
        if fixed <= 0 or fixed == len(batch):
            return self._scores(self._guarded(batch))
        found = []
        for start in range(0, len(batch), fixed):
            part = batch[start : start + fixed]
            filler = np.zeros((fixed - len(part), *part.shape[1:]), part.dtype)
            found.append(self._guarded(np.concatenate([part, filler]))[: len(part)])
        return self._scores(np.concatenate(found))

    def _guarded(self, batch: np.ndarray) -> np.ndarray:
        try:
            with self._turns:
                return self._infer(batch)
        except (ValueError, RuntimeError) as error:  # sizes that do not fit together: each engine has a kind of its own
            if out_of_memory(error):
                raise
            raise EngineError(
                f"{self.spec.path}: the model cannot run an input of shape {list(batch.shape)} ({last_line(error)}). "
                "The transforms there are not those that it was exported with: export it again."
            ) from error

    def _scores(self, output: np.ndarray) -> np.ndarray:
        if output.dtype.kind in "iu":
            return output
        output = output.astype(np.float32, copy=False)
        if self.spec.output_op != "softmax":
            return output
        tiny = np.finfo(np.float32).tiny
        if self.spec.scores_are != "logits":
            return output if self.spec.scores_are == "probabilities" else output / np.maximum(1 - output, tiny)
        scores = np.log(np.maximum(output, tiny))
        if output.shape[1] == 1 or self.spec.multilabel:
            scores -= np.log(np.maximum(1 - output, tiny))
        return scores


def check_input(spec: DeploySpec, batch: np.ndarray) -> None:
    """`InputError` where the graph of `spec` does not take such a batch."""
    axes = {"NCHW": (1, 2, 3), "NHWC": (3, 1, 2)}[spec.input_layout]
    if batch.dtype != spec.input_dtype:
        raise InputError(
            f"{spec.path}: the model takes photos of type {spec.input_dtype} (got {batch.dtype}). "
            "Export it without --fold_preprocess for photos of more than 8 bits."
        )
    for axis, expected, word in zip(axes, spec.input_shape[1:], ("channels", "rows", "columns")):
        if expected > 0 and batch.shape[axis] != expected:
            raise InputError(
                f"{spec.path}: the model takes inputs of shape {spec.input_shape} (N, C, H, W), but "
                f"the transforms give {batch.shape[axis]} {word} (got {list(batch.shape)}). Resize in the "
                "transforms, or export with --input_shape -1 C -1 -1."
            )


def gpu_number(options: InferOptions) -> Optional[int]:
    """Which GPU `--device` names, the first one where it gives no number; None on the CPU."""
    kind, _, number = options.device.partition(":")
    return int(number or 0) if kind == "gpu" else None


def cannot_load(spec: DeploySpec, file: str, engine: str, error: BaseException) -> InputError:
    """The message for a model file that an engine refuses."""
    return InputError(
        f"{spec.folder / file}: {engine} cannot load this model ({last_line(error)}). "
        "Copy it again, or export it with the versions that run it."
    )


def last_line(error: BaseException) -> str:
    """The line of an engine's long message that says what went wrong."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    said = [line for line in lines if ("Error" in line or line.startswith("(")) and "Error Message Summary" not in line]
    return (said or lines or ["no reason"])[0 if said else -1]


def low_precision_obstacle(spec: DeploySpec, options: InferOptions) -> Optional[str]:
    """Why int8 without TensorRT is not possible with this folder, None where it is not asked for or possible."""
    if options.precision == "int8" and not options.use_trt and spec.precision != "int8":
        return (
            f"--precision int8: {spec.folder} holds a float32 model. Quantize it first (segkit quantize), or use "
            "TensorRT on a GPU (--device gpu --use_trt)"
        )
    return None
