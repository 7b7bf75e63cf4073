"""From Paddle's graph to ONNX, simplified, and on to OpenVINO."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

from segkit.deploy.backends.base import last_line
from segkit.errors import InputError

# 17: all that the models need, and read by every runtime since 2022.
OPSET = 17
_NEEDED = {
    "onnx": ("paddle2onnx", "onnxslim", "onnxruntime"),
    "openvino": ("openvino",),
}


def require_converters(formats: tuple[str, ...]) -> None:
    """`InputError` that names the extras which `formats` need and which are not installed."""
    wanted = ["onnx", "openvino"] if "openvino" in formats else ["onnx"] if "onnx" in formats else []
    missing = {name: [p for p in _NEEDED[name] if importlib.util.find_spec(p) is None] for name in wanted}
    packages = [package for found in missing.values() for package in found]
    if packages:
        extras = " and ".join(name for name, found in missing.items() if found)
        raise InputError(
            f"--format {wanted[-1]}: not installed: {', '.join(packages)}. Install the extra {extras}: "
            f"pip install {' '.join(packages)}. "
            "(paddle2onnx has no wheel for Python 3.13 yet.)"
        )
    if wanted and int(version("paddle2onnx").split(".")[0]) < 2:
        raise InputError(
            f"--format {wanted[-1]}: paddle2onnx does not know the models of Paddle 3 (got {version('paddle2onnx')}, "
            "expected 2.0 or newer). pip install -U 'paddle2onnx>=2.0'."
        )


def to_onnx(folder: Path) -> None:
    """`model.onnx` from the `model.json` or `model.pdmodel` in `folder`; `InputError` where it cannot be made.

    In a process of its own: what paddle2onnx does not know ends the process that asked.
    """
    paths = os.pathsep.join([str(Path(__file__).resolve().parents[2]), *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run(
        [sys.executable, "-m", "segkit.engine.convert", str(folder)],
        env={**os.environ, "PYTHONPATH": paths},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode or not (folder / "model.onnx").is_file():
        reason = last_line(RuntimeError(done.stdout + done.stderr))
        raise InputError(
            f"--format onnx: paddle2onnx {version('paddle2onnx')} cannot convert this model ({reason}). "
            "Fix the shape with --input_shape 1 C H W, or use --format paddle."
        )


def to_openvino(folder: Path) -> None:
    """`model.xml` and `model.bin`, float32, from the `model.onnx` in `folder`."""
    import openvino

    try:
        model = openvino.Core().read_model(str(folder / "model.onnx"))  # convert_model would report to its makers
        openvino.save_model(model, str(folder / "model.xml"), compress_to_fp16=False)
    except RuntimeError as error:
        raise InputError(
            f"--format openvino: OpenVINO {version('openvino')} cannot convert this model ({last_line(error)}). "
            "Use --format onnx or paddle."
        ) from error


def main(work: str) -> None:
    """In the process of its own: convert and simplify."""
    folder = Path(work)
    from segkit.runtime import require_paddle

    require_paddle()
    import onnx
    import onnxslim
    import paddle2onnx

    name = next(name for name in ("model.json", "model.pdmodel") if (folder / name).is_file())
    made = paddle2onnx.export(str(folder / name), str(folder / "model.pdiparams"), None, opset_version=OPSET)
    onnx.save(onnxslim.slim(onnx.load_model_from_string(made)), str(folder / "model.onnx"))


if __name__ == "__main__":
    main(*sys.argv[1:])
