"""An exported model for ncnn, which runs on phones: `python deploy/lite/convert.py --config DIR --image_path photos`.

Needs the packages pnnx (the converter) and ncnn, and a folder exported with --format onnx or all. What is written is
run by ncnn on the photos given and compared with the exported model: it is kept only where they agree.
"""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np

from segkit import io
from segkit.cli.flags import Parser
from segkit.deploy.backends import open_backend
from segkit.deploy.backends.choice import MIN_AGREEMENT, MIN_AGREEMENT_LOW
from segkit.deploy.infer import segmenter
from segkit.deploy.inputs import collect
from segkit.deploy.spec import FILE, DeploySpec
from segkit.errors import InputError, counted
from segkit.options import InferOptions

LEAST = {"fp32": MIN_AGREEMENT, "fp16": MIN_AGREEMENT_LOW}  # shares of the pixels that must agree
INSTALL = "pip install pnnx ncnn"


class NcnnNetwork:
    """`model.ncnn.param` and `.bin` of a folder, on the CPU in float32, or in float16 where the processor has it."""

    def __init__(self, folder: Path, precision: str):
        import ncnn

        self._ncnn = ncnn
        self._net = ncnn.Net()
        half = precision == "fp16"
        for name in ("use_fp16_packed", "use_fp16_storage", "use_fp16_arithmetic"):
            setattr(self._net.opt, name, half)
        self._net.opt.use_bf16_storage = False
        for load, name in ((self._net.load_param, "model.ncnn.param"), (self._net.load_model, "model.ncnn.bin")):
            if load(str(folder / name)) != 0:
                raise InputError(f"{folder / name}: ncnn cannot load this file. Convert the model again.")

    def run(self, batch: np.ndarray) -> np.ndarray:
        """Scores float32 [N, classes, h, w] of a batch float32 [N, C, H, W]."""
        return np.stack([self._scores(image) for image in batch])

    def _scores(self, image: np.ndarray) -> np.ndarray:
        extractor = self._net.create_extractor()
        extractor.input("in0", self._ncnn.Mat(np.ascontiguousarray(image)))
        code, scores = extractor.extract("out0")
        if code != 0:
            raise InputError("ncnn cannot run this model. Convert it again, or use another model.")
        return np.array(scores)


def load_spec(config: str) -> DeploySpec:
    """The deploy.yaml, if ncnn can do with the model what it says."""
    spec = DeploySpec.load(config)
    wrong = [
        (spec.onnx is None, "this folder holds no ONNX model. Export it with --format onnx (or all)"),
        (spec.input_dtype != "float32", "normalisation is in the graph. Export the model without --fold_preprocess"),
        (spec.scores_are != "logits", f"its scores are {spec.scores_are} (expected logits). Use infer.py"),
        (
            bool((spec.test_config or {}).get("is_slide")),
            "it is applied in sliding windows. Export it with --opts test_config.is_slide=false",
        ),
        (spec.output_op != "none", f"the graph ends in {spec.output_op}. Export the model with --output_op none"),
    ]
    for bad, text in wrong:
        if bad:
            raise InputError(f"{spec.path}: {text}.")
    return spec


def convert(spec: DeploySpec, shape: list[int], precision: str, folder: Path) -> None:
    """`model.ncnn.param` and `model.ncnn.bin` in `folder`, for inputs of `shape` [1, C, H, W]."""
    for package in ("pnnx", "ncnn"):
        if importlib.util.find_spec(package) is None:
            raise InputError(f"the package {package} is missing. Install it: {INSTALL}")
    program = Path(importlib.util.find_spec("pnnx").origin).with_name("pnnx.exe" if sys.platform == "win32" else "pnnx")
    with tempfile.TemporaryDirectory() as work:
        model = Path(work) / "model.onnx"  # pnnx names its many files after this one and puts them beside it
        shutil.copy(spec.folder / str(spec.onnx), model)
        flags = [f"inputshape=[{','.join(map(str, shape))}]f32", f"fp16={int(precision == 'fp16')}"]
        done = subprocess.run([program, model, *flags], cwd=work, capture_output=True, text=True, check=False)
        files = [Path(work) / name for name in ("model.ncnn.param", "model.ncnn.bin")]
        foreign = _foreign_layers(files[0]) if files[0].is_file() else []
        if done.returncode != 0 or foreign or not all(file.is_file() for file in files):
            said = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]
            reason = f"no layers for {', '.join(foreign)}" if foreign else (said or ["nothing said"])[-1]
            raise InputError(f"{spec.folder / str(spec.onnx)}: pnnx cannot convert this model ({reason}). Use another.")
        for file in files:
            shutil.copy(file, folder / file.name)


def _foreign_layers(param: Path) -> list[str]:
    """Operators that pnnx has left as they were: they bear its own or PyTorch's names, with a dot."""
    kinds = {line.split()[0] for line in param.read_text(encoding="utf-8").splitlines()[2:] if line.strip()}
    return sorted(kind for kind in kinds if "." in kind or "::" in kind)


def compare(spec: DeploySpec, folder: Path, precision: str, photos: list[str]) -> dict[str, Any]:
    """ncnn's masks beside those of the exported model: `agreement`, the share of equal pixels, and `max_difference` of
    the scores. `RuntimeError` where fewer agree than must."""
    engine = "paddle" if spec.model else "onnxruntime"
    options = InferOptions(config=str(spec.folder), backend=engine)
    expected = segmenter(spec, open_backend(spec, options))
    found = segmenter(spec, NcnnNetwork(folder, precision))
    same, pixels, difference = 0, 0, 0.0
    for path in photos:
        photo = expected.prepare(path)
        scores = [model.output(photo) for model in (expected, found)]
        masks = [expected.mask(output, photo.geometry) for output in scores]
        same, pixels = same + int((masks[0] == masks[1]).sum()), pixels + masks[0].size
        difference = max(difference, float(np.abs(scores[0] - scores[1]).max()))
    agreement = same / pixels
    count = counted(len(photos), "photo")
    text = f"{count}: {100 * agreement:.4f} % of pixels, largest difference of the scores {difference:.3g}"
    print(f"agreement of ncnn ({precision}) with {engine} on {text}")
    if not agreement >= LEAST[precision]:
        raise RuntimeError(f"ncnn's masks differ: {text}. Nothing was written.")
    return {"agreement": agreement, "max_difference": difference}


def main(argv: list[str]) -> dict[str, Any]:
    """Convert, compare, write `save_dir/{model.ncnn.param, model.ncnn.bin, deploy.yaml}`."""
    parser = Parser(prog="convert.py", description=__doc__, allow_abbrev=False)
    parser.add_argument("--config", required=True, help="deploy.yaml of an exported folder, or the folder")
    parser.add_argument("--image_path", required=True, help="photos to compare on: a photo, folder, glob or .txt list")
    parser.add_argument("--save_dir", default="output/ncnn", help="folder for the converted model")
    parser.add_argument("--input_size", type=int, nargs=2, metavar=("H", "W"), help="where the export left it open")
    parser.add_argument(
        "--precision", choices=("fp32", "fp16"), default="fp32", help="of the weights, and on the phone"
    )
    args = parser.parse(argv)
    spec = load_spec(args.config)
    photos = [item.path for item in collect(args.image_path, args.save_dir) if not item.is_video]
    if not photos:
        raise InputError(
            f"--image_path {args.image_path}: there is no photo to compare on (got videos or cameras alone)."
        )
    size = args.input_size or spec.input_shape[2:]
    if min(size) < 1:
        raise InputError(f"{spec.path}: the model takes any size, ncnn one. Give it: --input_size H W")
    save_dir = Path(args.save_dir)
    io.prepare_folder(save_dir)
    with tempfile.TemporaryDirectory() as work:
        convert(spec, [1, spec.img_channels, *size], args.precision, Path(work))
        result = compare(spec, Path(work), args.precision, photos)
        for file in Path(work).iterdir():
            shutil.copy(file, save_dir / file.name)
    shutil.copy(spec.path, save_dir / FILE)
    print(f"{save_dir}: model.ncnn.param, model.ncnn.bin, {FILE}")
    return result


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except InputError as error:
        print(f"convert.py: error: {error}", file=sys.stderr)
        sys.exit(2)
