"""Inference engines behind one interface. A new engine is a class with `run` and a line in `open_backend`."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Optional, Protocol

import numpy as np

from segkit import runtime
from segkit.deploy.spec import DeploySpec
from segkit.errors import InputError
from segkit.log import logger
from segkit.options import InferOptions

_TUNING_PHOTOS = 10


class Backend(Protocol):
    """Runs an exported graph."""

    name: str

    def run(self, batch: np.ndarray) -> np.ndarray:
        """Batch float32 [N, C, H, W] -> scores float32 [N, classes, h, w], or class numbers int [N, h, w]."""
        ...


def open_backend(spec: DeploySpec, options: InferOptions, tune_on: Optional[list[np.ndarray]] = None) -> Backend:
    """The engine that `--backend` names. `tune_on`: inputs to collect TensorRT's shape ranges on."""
    if options.backend not in ("auto", "paddle"):
        raise InputError(
            f"--backend {options.backend}: {spec.folder} holds a Paddle model ({spec.model}), which this version runs "
            "with Paddle Inference alone. Leave --backend out, or use --backend paddle."
        )
    return PaddleBackend(spec, options, tune_on)


class PaddleBackend:
    """Paddle Inference on the CPU or an NVIDIA GPU.

    In its default settings the masks are those of predict: the graph runs with the very kernels of
    training. oneDNN, TensorRT and low precision are faster and round differently.
    """

    name = "paddle"

    def __init__(self, spec: DeploySpec, options: InferOptions, tune_on: Optional[list[np.ndarray]] = None):
        _check(options)
        runtime.require_paddle()
        runtime.prepare()
        from paddle import inference

        if options.device == "gpu":
            _require_gpu()
        self._spec = spec
        if options.use_trt and options.enable_auto_tune and tune_on:
            _collect_shapes(inference, spec, options, tune_on)
        self._predictor = _create(inference, _config(inference, spec, options), spec)
        self._input = self._predictor.get_input_handle(self._predictor.get_input_names()[0])
        self._output = self._predictor.get_output_handle(self._predictor.get_output_names()[0])

    def run(self, batch: np.ndarray) -> np.ndarray:
        """See `Backend`. Probabilities of a softmax become scores again: their logarithm differs from the scores
        by a number per pixel, so that resizing and argmax give the same mask."""
        self._check_shape(batch)
        fixed = self._spec.input_shape[0]
        if fixed <= 0 or fixed == len(batch):
            return self._scores(self._run(batch))
        found = []
        for start in range(0, len(batch), fixed):
            part = batch[start : start + fixed]
            filler = np.zeros((fixed - len(part), *part.shape[1:]), np.float32)
            found.append(self._run(np.concatenate([part, filler]))[: len(part)])
        return self._scores(np.concatenate(found))

    def _run(self, batch: np.ndarray) -> np.ndarray:
        self._input.copy_from_cpu(np.ascontiguousarray(batch))
        self._predictor.run()
        return self._output.copy_to_cpu()

    def _check_shape(self, batch: np.ndarray) -> None:
        for axis, word in ((1, "channels"), (2, "rows"), (3, "columns")):
            expected = self._spec.input_shape[axis]
            if expected > 0 and batch.shape[axis] != expected:
                raise InputError(
                    f"{self._spec.path}: the model takes inputs of shape {self._spec.input_shape} (N, C, H, W), but "
                    f"the transforms give {batch.shape[axis]} {word} (got {list(batch.shape)}). Resize in the "
                    "transforms, or export with --input_shape -1 C -1 -1."
                )

    def _scores(self, output: np.ndarray) -> np.ndarray:
        if output.dtype.kind in "iu":
            return output
        output = output.astype(np.float32, copy=False)
        if self._spec.output_op != "softmax":
            return output
        tiny = np.finfo(np.float32).tiny
        scores = np.log(np.maximum(output, tiny))
        if output.shape[1] == 1 or self._spec.multilabel:
            scores -= np.log(np.maximum(1 - output, tiny))
        return scores


def _check(options: InferOptions) -> None:
    """Flags that contradict one another."""
    on_gpu = options.device == "gpu"
    wrong = [
        (options.use_trt and not on_gpu, "--use_trt needs a GPU (got --device cpu). Add --device gpu"),
        (options.use_int8 and not options.use_trt, "--use_int8 works with TensorRT only. Add --use_trt"),
        (options.enable_mkldnn and on_gpu, "--enable_mkldnn is for the CPU (got --device gpu). Leave it out"),
        (
            options.precision == "bf16" and not on_gpu and not options.enable_mkldnn,
            "--precision bf16 on the CPU means oneDNN's. Add --enable_mkldnn",
        ),
        (
            options.precision in ("fp16", "int8") and not options.use_trt and not on_gpu,
            f"--precision {options.precision} needs a GPU (got --device cpu). Use fp32, or bf16 with --enable_mkldnn",
        ),
        (
            options.precision == "int8" and on_gpu and not options.use_trt,
            "--precision int8 works with TensorRT only. Add --use_trt",
        ),
        (options.cpu_threads is not None and options.cpu_threads < 1, "--cpu_threads: expected at least 1"),
    ]
    for bad, text in wrong:
        if bad:
            raise InputError(f"{text}.")


def _create(inference: Any, config: Any, spec: DeploySpec) -> Any:
    try:
        return inference.create_predictor(config)
    except (RuntimeError, ValueError, OSError, NotImplementedError) as error:
        raise InputError(
            f"{spec.folder / spec.model}: Paddle Inference cannot load this model ({_last_line(error)}). "
            "Copy it again, or export it with the Paddle that runs it."
        ) from error


def _last_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    said = [line for line in lines if "Error" in line or line.startswith("(")]
    return (said or lines or ["no reason"])[0 if said else -1]


def _config(inference: Any, spec: DeploySpec, options: InferOptions) -> Any:
    config = inference.Config(str(spec.folder / spec.model), str(spec.folder / spec.params))
    config.disable_glog_info()
    if options.device == "gpu":
        _use_gpu(inference, config, options)
    else:
        config.disable_gpu()
        config.set_cpu_math_library_num_threads(options.cpu_threads or runtime.physical_cores())
        _use_onednn(config, options)
    return config


def _use_onednn(config: Any, options: InferOptions) -> None:
    if not options.enable_mkldnn:
        # Newer Paddle turns oneDNN on by itself, and then fails on any interpolation.
        if hasattr(config, "disable_mkldnn"):
            config.disable_mkldnn()
        return
    config.enable_mkldnn()
    config.set_mkldnn_cache_capacity(10)
    # This pass places single operators on oneDNN and fails on interpolation; the fused convolutions stay without it.
    config.delete_pass("onednn_placement_pass")
    if options.precision == "bf16":
        config.enable_mkldnn_bfloat16()


def _precision(inference: Any, options: InferOptions) -> Any:
    kinds = inference.PrecisionType
    name = "int8" if options.use_int8 else options.precision
    if name == "auto":
        name = "fp16"
    return {"fp32": kinds.Float32, "fp16": kinds.Half, "bf16": kinds.Bfloat16, "int8": kinds.Int8}[name]


def _use_gpu(inference: Any, config: Any, options: InferOptions) -> None:
    precision = _precision(inference, options)
    plain = inference.PrecisionType.Float32 if options.use_trt else precision
    config.enable_use_gpu(256, 0, plain)
    if not options.use_trt:
        return
    config.enable_tensorrt_engine(
        workspace_size=1 << 30,
        max_batch_size=max(1, options.batch_size),
        min_subgraph_size=options.min_subgraph_size,
        precision_mode=precision,
        use_static=False,
        use_calib_mode=options.use_int8,
    )
    if Path(options.auto_tuned_shape_file).is_file():
        config.enable_tuned_tensorrt_dynamic_shape(options.auto_tuned_shape_file, True)
    elif options.enable_auto_tune:
        raise InputError(f"{options.auto_tuned_shape_file}: TensorRT's shape ranges were not written there.")


def _require_gpu() -> None:
    import paddle

    if not paddle.is_compiled_with_cuda():
        hint = f"Install the GPU one: {runtime.GPU_LINE}" if runtime.has_nvidia_gpu() else "Use --device cpu."
        raise InputError(f"--device gpu: the installed Paddle is for the CPU. {hint}")
    if paddle.device.cuda.device_count() == 0:
        raise InputError("--device gpu: Paddle sees no GPU on this machine. Use --device cpu.")


def _collect_shapes(inference: Any, spec: DeploySpec, options: InferOptions, batches: list[np.ndarray]) -> None:
    """Write the shape ranges that TensorRT needs, from runs on the user's own photos."""
    config = inference.Config(str(spec.folder / spec.model), str(spec.folder / spec.params))
    config.disable_glog_info()
    config.enable_use_gpu(256, 0)
    config.collect_shape_range_info(options.auto_tuned_shape_file)
    predictor = _create(inference, config, spec)
    handle = predictor.get_input_handle(predictor.get_input_names()[0])
    for batch in batches[:_TUNING_PHOTOS]:
        handle.copy_from_cpu(np.ascontiguousarray(batch))
        predictor.run()
    logger.info("TensorRT's shape ranges: %s", options.auto_tuned_shape_file)
