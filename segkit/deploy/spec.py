"""deploy.yaml: what an exported folder says about itself. PaddleSeg's format, with classes and colours added."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Optional, get_args

import yaml

from segkit.build import build
from segkit.config.signature import fields_of
from segkit.config.source import plain, read_file
from segkit.deploy.windows import KEYS
from segkit.errors import InputError, shown
from segkit.postprocess import ScoresAre
from segkit.registry import TRANSFORMS, nearest

FILE = "deploy.yaml"
OUTPUT_OPS = ("none", "softmax", "argmax")
INPUT_DTYPES = ("float32", "uint8")
INPUT_LAYOUTS = ("NCHW", "NHWC")
PRECISIONS = ("fp32", "int8")


@dataclass
class DeploySpec:
    """An exported model. `model` and `params` (Paddle's), `onnx`, `openvino`: file names in `folder`, None where the
    model was not written for that engine; `input_shape`: [N, C, H, W] whatever the layout, -1 = any.

    `input_dtype`, `input_layout`: what the graph takes: float32 NCHW that went through all of `transforms`, or uint8
    NHWC where normalisation is in the graph. `precision`: fp32, or int8 of a quantized graph. `output_op`: what the
    graph ends in: none (scores), softmax (probabilities; a sigmoid with one channel or several labels a pixel) or
    argmax (class numbers). `scores_are`: what the model's own scores are, see `segkit.postprocess`. `palette`: RGB a
    class. `test_config`: the sliding windows `is_slide`, `crop_size`, `stride` of the config that it was exported with.
    `num_classes` and what follows are absent in PaddleSeg's own files.
    """

    folder: Path
    transforms: list[dict[str, Any]]
    model: Optional[str] = None
    params: Optional[str] = None
    onnx: Optional[str] = None
    openvino: Optional[str] = None
    input_shape: list[int] = field(default_factory=lambda: [-1, 3, -1, -1])
    input_dtype: str = "float32"
    input_layout: str = "NCHW"
    precision: str = "fp32"
    output_op: str = "none"
    output_dtype: str = "float32"
    num_classes: Optional[int] = None
    classes: list[str] = field(default_factory=list)
    palette: Optional[list[list[int]]] = None
    img_channels: int = 3
    threshold: Optional[float] = None
    multilabel: bool = False
    nodata: Optional[float] = None
    scores_are: ScoresAre = "logits"
    test_config: Optional[dict[str, Any]] = None

    @property
    def path(self) -> Path:
        """The deploy.yaml itself."""
        return self.folder / FILE

    def text(self) -> str:
        """The file's text."""
        names = ("input_shape", "input_dtype", "input_layout", "precision", "output_op", "output_dtype", "num_classes",
                 "scores_are", "classes", "palette", "img_channels", "threshold", "multilabel", "nodata",
                 "test_config", "transforms")  # fmt: skip
        content = {name: getattr(self, name) for name in _FILES if getattr(self, name) is not None}
        content.update({name: getattr(self, name) for name in names})
        return yaml.safe_dump(
            {"Deploy": content}, sort_keys=False, allow_unicode=True, default_flow_style=None, width=110
        )

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> DeploySpec:
        """Read a deploy.yaml, or the one in a folder; `InputError` for whatever is wrong with it or missing."""
        file = Path(path)
        file = file / FILE if file.is_dir() else file
        if not file.is_file():
            raise InputError(
                f"{file}: there is no such file. Give the {FILE} of an exported folder (segkit export writes one)."
            )
        node = _deploy_node(file)
        known = {name: node[name] for name in _KINDS if node.get(name) is not None}
        _check_files(file, known)
        shape = known.get("input_shape", [-1, 3, -1, -1])
        known.setdefault("img_channels", shape[1] if shape[1] > 0 else 3)
        return cls(folder=file.parent, **known)

    def build_transforms(self) -> list[Any]:
        """The transforms as objects; an `InputError` names the one that cannot be built."""
        built = []
        for index, node in enumerate(self.transforms):
            try:
                for key in node.keys() - {"type"} - fields_of(TRANSFORMS.get(node["type"])).keys():
                    takes = sorted(fields_of(TRANSFORMS.get(node["type"])))
                    hint = nearest(str(key), takes)
                    raise InputError(f"unknown key '{key}' of {node['type']}.{hint} It takes {', '.join(takes)}.")
                built.append(build(TRANSFORMS, node))
            except (InputError, TypeError) as error:
                raise InputError(f"{self.path}: Deploy.transforms.{index}: {error}") from error
        return built


def _is_shape(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 4 and all(isinstance(item, int) for item in value)


def _is_file_name(value: Any) -> bool:
    return isinstance(value, str) and not {"/", "\\"} & set(value) and value.strip(".") != ""


def _is_palette(value: Any) -> bool:
    return isinstance(value, list) and all(
        isinstance(row, list) and len(row) == 3 and all(isinstance(item, int) and 0 <= item <= 255 for item in row)
        for row in value
    )


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value <= 1


_FILES = ("model", "params", "onnx", "openvino")
# Key -> (test of its value, what to say was expected).
_KINDS = {
    **dict.fromkeys(_FILES, (_is_file_name, "a file name")),
    "transforms": (
        lambda value: isinstance(value, list) and all(isinstance(node, dict) and "type" in node for node in value),
        "a list of transforms, each with its type",
    ),
    "input_shape": (_is_shape, "four integers N, C, H, W, -1 for any"),
    "input_dtype": (lambda value: value in INPUT_DTYPES, " or ".join(INPUT_DTYPES)),
    "input_layout": (lambda value: value in INPUT_LAYOUTS, " or ".join(INPUT_LAYOUTS)),
    "precision": (lambda value: value in PRECISIONS, " or ".join(PRECISIONS)),
    "output_op": (lambda value: value in OUTPUT_OPS, " or ".join(OUTPUT_OPS)),
    "scores_are": (lambda value: value in get_args(ScoresAre), " or ".join(get_args(ScoresAre))),
    "output_dtype": (lambda value: isinstance(value, str), "a type name"),
    "num_classes": (lambda value: isinstance(value, int) and value > 0, "an integer above 0"),
    "classes": (lambda value: isinstance(value, list), "a list of names"),
    "palette": (_is_palette, "a list of [r, g, b], each 0..255"),
    "img_channels": (lambda value: isinstance(value, int) and value > 0, "an integer above 0"),
    "threshold": (_is_number, "a number from 0 to 1"),
    "multilabel": (lambda value: isinstance(value, bool), "true or false"),
    "test_config": (
        lambda value: isinstance(value, dict) and value.keys() <= set(KEYS),
        f"a mapping of {', '.join(KEYS)}",
    ),
    "nodata": (lambda value: isinstance(value, (int, float)) and not isinstance(value, bool), "a number"),
}


def _check_files(file: Path, known: dict[str, Any]) -> None:
    """`InputError` unless there is a model, and every file that is named."""
    if "onnx" not in known and "openvino" not in known:
        for name in ("model", "params"):
            if name not in known:
                raise InputError(f"{file}: Deploy.{name} is missing. Export the model again.")
    named = {f"Deploy.{name}": known[name] for name in _FILES if name in known}
    if "openvino" in known:
        named["Deploy.openvino with its weights"] = str(Path(known["openvino"]).with_suffix(".bin"))
    for key, name in named.items():
        if not (file.parent / name).is_file():
            raise InputError(
                f"{file}: {key} names {name}, which is not in {file.parent}. "
                "Copy the whole exported folder, or export again."
            )


def _deploy_node(file: Path) -> dict[str, Any]:
    node = plain(read_file(file, str(file))).get("Deploy")
    if not isinstance(node, dict):
        raise InputError(f"{file}: there is no section 'Deploy:'. Give the {FILE} of an exported folder.")
    if node.get("transforms") is None:
        raise InputError(f"{file}: Deploy.transforms is missing. Export the model again.")
    for name, (test, expected) in _KINDS.items():
        if node.get(name) is not None and not test(node[name]):
            raise InputError(
                f"{file}: Deploy.{name}: got {shown(node[name])}, expected {expected}. Mend it, or export again."
            )
    return node
