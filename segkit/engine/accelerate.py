"""What makes a GPU faster without a change of the model: cuDNN's search, channels-last, fused updates, compiled graphs.

docs/measurements.md says where each was read and that none was run on a GPU.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import paddle

from segkit import optim
from segkit.errors import InputError
from segkit.log import logger, warn_once

# Paddle updates all tensors in one kernel in these; AdamW and the others have none.
_FUSED = ("Momentum", "Adam")


class Search:
    """cuDNN's measured choice of the fastest convolutions, as long as all training batches have one size.

    Each new size costs a search of its own, so the first batch of another size ends it, and evaluation is outside.
    The choice may differ between runs: `deterministic` leaves it out, as does the CPU, which has no cuDNN.
    """

    def __init__(self, device: str, deterministic: bool):
        self._on = device.startswith("gpu") and not deterministic
        self._shape: list[int] | None = None

    @contextmanager
    def over(self, image: paddle.Tensor) -> Iterator[None]:
        """Searching inside, for a training step on `image` [N, C, H, W]."""
        shape = list(image.shape)
        if self._on and self._shape not in (None, shape):
            self._on = False
            logger.info("the batches differ in size: cuDNN's algorithms are chosen by rule, no longer by search")
        self._shape = shape
        if not self._on:
            yield
            return
        paddle.set_flags({"FLAGS_cudnn_exhaustive_search": True})
        try:
            yield
        finally:
            paddle.set_flags({"FLAGS_cudnn_exhaustive_search": False})


def channels_last(data_format: str, precision: str, device: str) -> None:
    """`--data_format NHWC`: in fp16 and bf16 on a GPU, Paddle's layout tuning computes convolutions channels-last (a
    Paddle that does not tune bf16 leaves them); elsewhere it has no effect, and that is said. Weights stay NCHW."""
    if data_format != "NHWC":
        return
    if device.startswith("gpu") and precision != "fp32":
        paddle.incubate.autotune.set_config({"layout": {"enable": True}})
        return
    warn_once(
        "--data_format NHWC: the models compute in NCHW, results are the same. It acts with --precision fp16 or bf16 "
        "on a GPU."
    )


def fused(node: dict[str, Any], device: str) -> dict[str, Any]:
    """The `optimizer` node; on a GPU with one kernel for all tensors, where Paddle has it and the config is silent."""
    if not device.startswith("gpu") or optim.effective_type(node) not in _FUSED:
        return node
    return {"use_multi_tensor": True, **node}


def check_cinn(cinn: bool, to_static: bool, device: str) -> None:
    """`InputError` where `--cinn` cannot be had."""
    if not cinn:
        return
    if not to_static:
        raise InputError("--cinn compiles the graph of --to_static_training. Add --to_static_training.")
    if not device.startswith("gpu") or not paddle.is_compiled_with_cinn():
        built = "with" if paddle.is_compiled_with_cinn() else "without"
        raise InputError(
            f"--cinn needs a GPU and a Paddle that is built with CINN (got device {device}, a Paddle {built} CINN). "
            "Leave it out."
        )


def compiled(model: paddle.nn.Layer, cinn: bool) -> paddle.nn.Layer:
    """`model` as a static graph; `cinn`: through Paddle's compiler too (Paddle would take it unasked where it is)."""
    return paddle.jit.to_static(model, full_graph=True, backend="CINN" if cinn else None)
