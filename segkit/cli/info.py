"""Versions and device; with --config, the model's layers, parameters and FLOPs."""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import platform
import shutil
from typing import Any

from segkit import __version__, runtime
from segkit.cli.flags import add_config, config_from
from segkit.errors import InputError

_PACKAGES = (
    *("paddlepaddle", "paddlepaddle-gpu", "numpy", "opencv-python", "opencv-python-headless", "pillow", "visualdl"),
    *("onnxruntime", "openvino", "albumentations", "tifffile"),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of `segkit info`."""
    add_config(parser, model_path=False)
    parser.add_argument(
        "--input_shape", nargs=4, type=int, default=[1, 0, 224, 224], metavar=("N", "C", "H", "W"),
        help="shape the layers are shown for (default: 1, the config's channels, 224 224)",
    )  # fmt: skip


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Print what was asked for, and return it."""
    runtime.require_paddle()
    found = model_info(args) if args.config else machine_info()
    if not args.json:
        print(found.pop("table"))
    found.pop("table", None)
    return found


def model_info(args: argparse.Namespace) -> dict[str, Any]:
    """The layer table of the config's model."""
    from segkit.build import build_model, data_info
    from segkit.engine.summary import describe

    cfg = config_from(args)
    batch, channels, height, width = args.input_shape
    wanted = data_info(cfg).img_channels
    shape = [batch, channels or wanted, height, width]
    if shape[1] != wanted or min(shape) < 1:
        raise InputError(
            f"--input_shape: got {shape}, expected N {wanted} H W, all above 0, as the config's data set is."
        )
    found = describe(build_model(cfg), shape)
    return {
        "model": cfg.data["model"]["type"], "input_shape": shape, "params": found.params,
        "trainable": found.trainable, "flops": found.flops, "table": found.table(),
    }  # fmt: skip


def machine_info() -> dict[str, Any]:
    """Versions, device, cores and shared memory of this machine."""
    import paddle

    rows = {
        "segkit": __version__,
        "place": os.path.dirname(os.path.dirname(__file__)),
        "Python": platform.python_version(),
    }
    for name in _PACKAGES:
        try:
            rows[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    gpus = paddle.device.cuda.device_count() if paddle.is_compiled_with_cuda() else 0
    rows["GPUs for Paddle"] = gpus
    rows["CPU cores"] = runtime.physical_cores()
    if os.path.isdir("/dev/shm"):
        rows["shared memory"] = f"{shutil.disk_usage('/dev/shm').free / 2**30:.1f} GB free"
    if not gpus and runtime.has_nvidia_gpu():
        rows["to do"] = f"this machine has an NVIDIA GPU that Paddle cannot use: {runtime.GPU_LINE}"
    width = max(map(len, rows))
    return {**rows, "table": "\n".join(f"{name:{width}}  {value}" for name, value in rows.items())}
