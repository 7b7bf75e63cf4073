"""Where and how a run computes: device, seeds, generator states, ranks."""

from __future__ import annotations

import os
import random
from typing import Optional

import numpy as np
import paddle

from segkit.dist import world_size
from segkit.errors import InputError
from segkit.log import warn_once
from segkit.runtime import GPU_LINE, has_nvidia_gpu

DEVICES = "cpu, gpu or gpu:N"
MAX_SEED = 2**32 - 1


def set_up_device(device: Optional[str] = None, precision: str = "fp32", deterministic: bool = False) -> str:
    """Make `device` (cpu, gpu, gpu:N; None: a GPU when Paddle sees one) Paddle's own, and return its full name.

    Under paddle.distributed.launch, gpu is the GPU that the launcher gave to this rank. `InputError` where the
    device is not there or cannot compute in `precision`. `deterministic`: GPU kernels whose sums have a fixed order.
    """
    gpus = paddle.device.cuda.device_count() if paddle.is_compiled_with_cuda() else 0
    if device is None:
        if not gpus and not paddle.is_compiled_with_cuda() and has_nvidia_gpu():
            warn_once(
                "device: this machine has an NVIDIA GPU, but the installed Paddle computes on the CPU only: running "
                f"on the CPU. To use the GPU: pip uninstall paddlepaddle, then {GPU_LINE}"
            )
        device = "gpu" if gpus else "cpu"
    name, _, number = str(device).lower().partition(":")
    if name not in ("cpu", "gpu") or (number and (name == "cpu" or not number.isdigit())):
        raise InputError(
            f"--device: unknown device (got '{device}', expected {DEVICES}). Leave it out to choose by itself."
        )
    if name == "cpu":
        _check_cpu_precision(precision)
        paddle.set_device("cpu")
        return "cpu"
    _check_gpu(device, number, gpus, precision)
    if deterministic:
        paddle.set_flags({"FLAGS_cudnn_deterministic": True, "FLAGS_embedding_deterministic": 1})
    if not number:
        number = "0"
        if world_size() > 1:
            number = os.environ.get("FLAGS_selected_gpus", number).split(",")[0]  # noqa: SIM112 (the launcher's name)
    paddle.set_device(f"gpu:{number}")
    return f"gpu:{number}"


def _check_cpu_precision(precision: str) -> None:
    if precision == "fp16":
        raise InputError(
            "--precision: fp16 needs a GPU (got device cpu, expected fp32 or bf16 there). Use --precision bf16 or fp32."
        )


def _check_gpu(device: str, number: str, gpus: int, precision: str) -> None:
    """`InputError` where the GPU asked for is not there."""
    if not paddle.is_compiled_with_cuda():
        seen = "has an NVIDIA GPU" if has_nvidia_gpu() else "shows no NVIDIA driver"
        raise InputError(
            f"--device {device}: the installed Paddle computes on the CPU only (and this machine {seen}). For a GPU: "
            f"pip uninstall paddlepaddle, then {GPU_LINE}. Or run with --device cpu."
        )
    if not gpus:
        raise InputError(
            f"--device {device}: Paddle sees no GPU (got 0, expected at least 1; CUDA_VISIBLE_DEVICES is "
            f"{os.environ.get('CUDA_VISIBLE_DEVICES', 'not set')}). Check nvidia-smi and the driver, or run with "
            "--device cpu."
        )
    if number and int(number) >= gpus:
        raise InputError(
            f"--device {device}: no such GPU (got number {number}, expected 0 to {gpus - 1}). Use one of these, "
            "counted among CUDA_VISIBLE_DEVICES."
        )
    if precision == "bf16" and not paddle.amp.is_bfloat16_supported(f"gpu:{number or 0}"):
        raise InputError(
            f"--precision: this GPU cannot compute in bf16 (got {device}, expected compute capability 8.0 or more). "
            "Use --precision fp16 or fp32."
        )


def check_seed(seed: int) -> int:
    """`seed` where it lies between 0 and 2**32 - 1 (numpy's range)."""
    if not 0 <= seed <= MAX_SEED:
        raise InputError(f"--seed: out of range (got {seed}, expected 0 to {MAX_SEED}). Choose another number.")
    return seed


def seed_everything(seed: int) -> None:
    """Seed Python's, numpy's and Paddle's global generators."""
    check_seed(seed)
    random.seed(seed)
    np.random.seed(seed)
    paddle.seed(seed)


def init_distributed() -> None:
    """Join the other ranks of paddle.distributed.launch (nccl on GPUs, gloo on the CPU); nothing without them.

    Call it after `set_up_device`. Calling it twice is harmless.
    """
    if world_size() == 1 or paddle.distributed.is_initialized():
        return
    if paddle.get_device() == "cpu":
        # A CPU run of a GPU Paddle, or a launch without --backend, would look for nccl.
        os.environ["PADDLE_DISTRI_BACKEND"] = "gloo"
    paddle.distributed.init_parallel_env()
