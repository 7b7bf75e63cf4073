"""ONNX Runtime: `model.onnx` on the CPU, or on an NVIDIA GPU with CUDA or TensorRT."""

from __future__ import annotations

from typing import Any, Optional

import numpy as np

from segkit import runtime
from segkit.deploy.backends.base import Backend, cannot_load, gpu_number, low_precision_obstacle
from segkit.deploy.spec import DeploySpec
from segkit.errors import InputError
from segkit.options import InferOptions

_ERRORS_ONLY = 3


class OnnxBackend(Backend):
    """The CPU's own kernels in float32 (and int8 in a quantized model); TensorRT also in fp16 and int8."""

    name = "onnxruntime"
    package = "onnxruntime"
    install = "pip install onnxruntime (of the extra onnx)"

    def __init__(self, spec: DeploySpec, options: InferOptions, tune_on: Optional[list[np.ndarray]] = None):
        import onnxruntime

        threads = options.cpu_threads or runtime.physical_cores()
        parallel = threads if options.hint == "throughput" and gpu_number(options) is None else 1
        super().__init__(spec, options.precision, parallel)
        settings = onnxruntime.SessionOptions()
        settings.intra_op_num_threads = threads // parallel
        settings.log_severity_level = _ERRORS_ONLY
        try:
            self._session = onnxruntime.InferenceSession(
                str(spec.folder / str(spec.onnx)), settings, providers=_providers(options)
            )
        except Exception as error:  # its error classes share no base of their own
            raise cannot_load(spec, str(spec.onnx), "ONNX Runtime", error) from error
        self._check_providers(options)
        self._input = self._session.get_inputs()[0].name

    def _check_providers(self, options: InferOptions) -> None:
        """ONNX Runtime leaves out a provider whose libraries it cannot load, and computes on the CPU instead."""
        taken = self._session.get_providers()
        wanted = [name if isinstance(name, str) else name[0] for name in _providers(options)]
        if wanted[0] not in taken:
            raise InputError(
                f"--device {options.device}: ONNX Runtime cannot start its {wanted[0]} here and would compute with "
                f"{taken[0]}. Install the CUDA, cuDNN (and TensorRT) libraries that this onnxruntime-gpu is built "
                "for, or use another --backend or --device cpu."
            )

    @classmethod
    def file(cls, spec: DeploySpec) -> Optional[str]:
        return spec.onnx

    @classmethod
    def obstacle(cls, spec: DeploySpec, options: InferOptions) -> Optional[str]:
        import onnxruntime

        found = onnxruntime.get_available_providers()
        if gpu_number(options) is not None:
            wanted = "TensorrtExecutionProvider" if options.use_trt else "CUDAExecutionProvider"
            if wanted not in found:
                return (
                    f"--device {options.device}: the installed ONNX Runtime has no {wanted} (it has "
                    f"{', '.join(found)}). Install onnxruntime-gpu, or use --device cpu"
                )
            if options.use_trt and (options.use_int8 or options.precision == "int8") and spec.precision != "int8":
                return "--use_int8: ONNX Runtime's TensorRT needs ranges of int8, which are not made here. Use fp16"
            if options.precision in ("bf16", "fp16") and not options.use_trt:
                return f"--precision {options.precision}: ONNX Runtime computes so with TensorRT only. Add --use_trt"
        elif options.precision in ("bf16", "fp16"):
            return f"--precision {options.precision}: ONNX Runtime has none on the CPU. Use OpenVINO or fp32"
        return low_precision_obstacle(spec, options)

    def _infer(self, batch: np.ndarray) -> np.ndarray:
        try:
            return self._session.run(None, {self._input: batch})[0]
        except Exception as error:  # its error classes share no base of their own
            raise RuntimeError(str(error)) from error


def _providers(options: InferOptions) -> list[Any]:
    """Execution providers, the wanted one first; what it cannot run goes to the next."""
    number = gpu_number(options)
    if number is None:
        return ["CPUExecutionProvider"]
    providers: list[Any] = [("CUDAExecutionProvider", {"device_id": number}), "CPUExecutionProvider"]
    if options.use_trt:
        precision = "int8" if options.use_int8 else options.precision
        settings = {
            "device_id": number,
            "trt_fp16_enable": precision == "fp16",
            "trt_bf16_enable": precision == "bf16",
            "trt_int8_enable": precision == "int8",
            "trt_min_subgraph_size": options.min_subgraph_size,
        }
        providers.insert(0, ("TensorrtExecutionProvider", settings))
    return providers
