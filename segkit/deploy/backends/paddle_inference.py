"""Paddle Inference: `model.json` or `model.pdmodel` with `model.pdiparams`, on the CPU or an NVIDIA GPU."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, Optional

import numpy as np

from segkit import runtime
from segkit.deploy.backends.base import Backend, cannot_load, gpu_number, last_line, low_precision_obstacle
from segkit.deploy.spec import DeploySpec
from segkit.errors import InputError
from segkit.log import logger
from segkit.options import InferOptions

_TUNING_PHOTOS = 10
_POOL = 256  # MiB of GPU memory taken at first


class PaddleBackend(Backend):
    """On the CPU with oneDNN's fused convolutions, or with Paddle's own (`--enable_mkldnn False`): then the graph runs
    with the kernels of `predict --no_onednn`."""

    name = "paddle"
    package = "paddle"
    install = runtime.CPU_LINE
    spins = 0.25  # Intel's OpenMP waits for more work for 0.2 s

    def __init__(self, spec: DeploySpec, options: InferOptions, tune_on: Optional[list[np.ndarray]] = None):
        runtime.require_paddle()
        from paddle import inference

        super().__init__(spec, "int8" if options.use_int8 else options.precision)
        if options.use_trt and options.enable_auto_tune and tune_on:
            _collect_shapes(inference, spec, options, tune_on)
        self._inference, self._options, self._ran = inference, options, False
        try:
            self._open()
        except InputError as error:
            self._open_without_onednn(error)

    def _open(self) -> None:
        self._predictor = _create(self._inference, _config(self._inference, self.spec, self._options), self.spec)
        self._input = self._predictor.get_input_handle(self._predictor.get_input_names()[0])
        self._output = self._predictor.get_output_handle(self._predictor.get_output_names()[0])

    @classmethod
    def file(cls, spec: DeploySpec) -> Optional[str]:
        return spec.model if spec.params else None

    @classmethod
    def obstacle(cls, spec: DeploySpec, options: InferOptions) -> Optional[str]:
        if gpu_number(options) is not None:
            if options.precision == "int8" and not options.use_trt:
                return "--precision int8 works with TensorRT only. Add --use_trt"
            if options.use_trt and not str(spec.model).endswith(".pdmodel"):
                return (
                    f"--use_trt: Paddle's TensorRT wants the older format (got {spec.model}). Export --format paddle2"
                )
            return _gpu_obstacle(options)
        if options.precision == "bf16" and options.enable_mkldnn is False:
            return "--precision bf16 on the CPU means oneDNN's kernels. Leave --enable_mkldnn False out"
        if options.precision == "bf16" and "avx512_bf16" not in runtime.cpu_facts().get("flags", "").split():
            return "--precision bf16: this CPU has no bf16 instructions. Use fp32"
        if options.precision == "fp16":
            return "--precision fp16 needs a GPU (got --device cpu). Use fp32 or bf16"
        return low_precision_obstacle(spec, options)

    def _open_without_onednn(self, error: Exception) -> None:
        """Open the model for Paddle's own kernels; raises `error` where oneDNN's were asked for, or are not in play."""
        if self._options.device != "cpu" or self._options.enable_mkldnn is not None or self.precision != "fp32":
            raise error
        self._options = dataclasses.replace(self._options, enable_mkldnn=False)
        self._open()
        logger.warning("oneDNN's kernels fail on this model (%s): Paddle's own are used.", last_line(error))

    def _infer(self, batch: np.ndarray) -> np.ndarray:
        try:
            output = self._once(batch)
        except (RuntimeError, ValueError) as error:
            if self._ran:
                raise
            self._open_without_onednn(error)
            output = self._once(batch)
        self._ran = True
        return output

    def _once(self, batch: np.ndarray) -> np.ndarray:
        self._input.copy_from_cpu(batch)
        self._predictor.run()
        return self._output.copy_to_cpu()


def _create(inference: Any, config: Any, spec: DeploySpec) -> Any:
    try:
        return inference.create_predictor(config)
    except (RuntimeError, ValueError, OSError) as error:
        raise cannot_load(spec, str(spec.model), "Paddle Inference", error) from error


def _config(inference: Any, spec: DeploySpec, options: InferOptions) -> Any:
    config = inference.Config(str(spec.folder / spec.model), str(spec.folder / spec.params))
    config.disable_glog_info()
    if str(spec.model).endswith(".pdmodel"):
        config.delete_pass("repeated_fc_relu_fuse_pass")  # ends the process on some models of the older format
    if gpu_number(options) is not None:
        _use_gpu(inference, config, options)
    else:
        config.disable_gpu()
        config.set_cpu_math_library_num_threads(options.cpu_threads or runtime.physical_cores())
        _use_onednn(config, spec, options)
    return config


def _use_onednn(config: Any, spec: DeploySpec, options: InferOptions) -> None:
    if options.enable_mkldnn is False:
        # Newer Paddle turns oneDNN on by itself, and then fails on any interpolation.
        if hasattr(config, "disable_mkldnn"):
            config.disable_mkldnn()
        return
    config.enable_mkldnn()
    config.set_mkldnn_cache_capacity(10)
    # This pass places single operators on oneDNN and fails on interpolation; the fused convolutions stay without it.
    config.delete_pass("onednn_placement_pass")
    if b"leaky_relu" in (spec.folder / spec.model).read_bytes():
        config.delete_pass("conv_activation_onednn_fuse_pass")  # it crashes for want of the slope
    if options.precision == "bf16":
        config.enable_mkldnn_bfloat16()


def _precision(inference: Any, options: InferOptions) -> Any:
    kinds = inference.PrecisionType
    name = "int8" if options.use_int8 else options.precision
    return {"fp32": kinds.Float32, "fp16": kinds.Half, "bf16": kinds.Bfloat16, "int8": kinds.Int8}[name]


def _use_gpu(inference: Any, config: Any, options: InferOptions) -> None:
    precision = _precision(inference, options)
    plain = inference.PrecisionType.Float32 if options.use_trt else precision
    config.enable_use_gpu(_POOL, gpu_number(options), plain)
    if not options.use_trt:
        return
    config.enable_tensorrt_engine(
        workspace_size=1 << 30,
        max_batch_size=max(1, options.batch_size),
        min_subgraph_size=options.min_subgraph_size,
        precision_mode=precision,
        use_static=False,
        use_calib_mode=precision == inference.PrecisionType.Int8,
    )
    if Path(options.auto_tuned_shape_file).is_file():
        config.enable_tuned_tensorrt_dynamic_shape(options.auto_tuned_shape_file, True)
    elif options.enable_auto_tune:
        raise InputError(f"{options.auto_tuned_shape_file}: TensorRT's shape ranges were not written there.")


def _gpu_obstacle(options: InferOptions) -> Optional[str]:
    import paddle

    if not paddle.is_compiled_with_cuda():
        hint = f"Install the GPU one: {runtime.GPU_LINE}" if runtime.has_nvidia_gpu() else "Use --device cpu"
        return f"--device {options.device}: the installed Paddle is for the CPU. {hint}"
    count = paddle.device.cuda.device_count()
    if count == 0:
        return f"--device {options.device}: Paddle sees no GPU on this machine. Use --device cpu"
    if gpu_number(options) >= count:
        return f"--device {options.device}: no such GPU (Paddle sees {count}, counted from 0). Use another"
    return None


def _collect_shapes(inference: Any, spec: DeploySpec, options: InferOptions, batches: list[np.ndarray]) -> None:
    """Write the shape ranges that TensorRT needs, from runs on the user's own photos."""
    config = inference.Config(str(spec.folder / spec.model), str(spec.folder / spec.params))
    config.disable_glog_info()
    config.enable_use_gpu(_POOL, gpu_number(options))
    config.collect_shape_range_info(options.auto_tuned_shape_file)
    predictor = _create(inference, config, spec)
    handle = predictor.get_input_handle(predictor.get_input_names()[0])
    for batch in batches[:_TUNING_PHOTOS]:
        handle.copy_from_cpu(np.ascontiguousarray(batch))
        predictor.run()
    logger.info("TensorRT's shape ranges: %s", options.auto_tuned_shape_file)
