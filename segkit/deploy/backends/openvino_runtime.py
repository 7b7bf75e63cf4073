"""OpenVINO: `model.xml` with `model.bin`, or `model.onnx`, on the CPU or an Intel GPU."""

from __future__ import annotations

import queue
from typing import Any, Optional

import numpy as np

from segkit import runtime
from segkit.deploy.backends.base import Backend, cannot_load, gpu_number, low_precision_obstacle
from segkit.deploy.spec import DeploySpec
from segkit.options import InferOptions

_HINTS = {"fp32": "f32", "bf16": "bf16", "fp16": "f16", "int8": "f32"}


class OpenVinoBackend(Backend):
    """float32 unless told otherwise: left alone, OpenVINO computes in bf16 where the CPU can."""

    name = "openvino"
    package = "openvino"
    install = "pip install openvino (the extra openvino)"

    def __init__(self, spec: DeploySpec, options: InferOptions, tune_on: Optional[list[np.ndarray]] = None):
        import openvino

        settings: dict[str, Any] = {
            "INFERENCE_PRECISION_HINT": _HINTS[options.precision],
            "PERFORMANCE_HINT": "THROUGHPUT" if options.hint == "throughput" else "LATENCY",
        }
        if gpu_number(options) is None:
            settings["INFERENCE_NUM_THREADS"] = options.cpu_threads or runtime.physical_cores()
        file = str(self.file(spec))
        try:
            with runtime.signal_stack_kept():
                core = openvino.Core()
                compiled = core.compile_model(str(spec.folder / file), _device(options), settings)
            count = compiled.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS")
        except RuntimeError as error:
            raise cannot_load(spec, file, "OpenVINO", error) from error
        super().__init__(spec, options.precision, parallel=max(1, count))
        self._requests: queue.SimpleQueue[Any] = queue.SimpleQueue()
        for _ in range(self.parallel):
            self._requests.put(compiled.create_infer_request())

    @classmethod
    def file(cls, spec: DeploySpec) -> Optional[str]:
        return spec.openvino or spec.onnx

    @classmethod
    def obstacle(cls, spec: DeploySpec, options: InferOptions) -> Optional[str]:
        import openvino

        if options.use_trt:
            return "--use_trt: OpenVINO has no TensorRT. Use --backend paddle or onnxruntime"
        with runtime.signal_stack_kept():
            return _lacking(openvino.Core(), options) or low_precision_obstacle(spec, options)

    def _infer(self, batch: np.ndarray) -> np.ndarray:
        request = self._requests.get()
        try:
            request.infer([batch], share_inputs=True)
            return np.array(request.get_output_tensor(0).data)
        finally:
            self._requests.put(request)


def _lacking(core: Any, options: InferOptions) -> Optional[str]:
    """What this machine's devices lack for what the flags ask."""
    device = _device(options)
    if device not in (name for found in core.available_devices for name in (found, found.split(".")[0])):
        return f"--device {options.device}: OpenVINO finds none here (it has {', '.join(core.available_devices)})"
    able = core.get_property(device, "OPTIMIZATION_CAPABILITIES")
    if options.precision in ("bf16", "fp16") and options.precision.upper() not in able:
        return f"--precision {options.precision}: this {device} has no such instructions. Use fp32"
    return None


def _device(options: InferOptions) -> str:
    """OpenVINO's name of the device: the first GPU has no number where it is the only one."""
    number = gpu_number(options)
    return "CPU" if number is None else f"GPU.{number}" if number else "GPU"
