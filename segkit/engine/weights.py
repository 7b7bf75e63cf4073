"""Weights files: read without running their code, loaded with a report, written whole or not at all."""

from __future__ import annotations

import os
import pickle
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Mapping, Union

import numpy as np
import paddle

from segkit.engine import safetensors
from segkit.engine.torch_weights import as_paddle, is_torch, load_torch
from segkit.engine.unpickle import Unpickler, told
from segkit.errors import InputError, list_problems
from segkit.io import write_bytes_atomic

PathLike = Union[str, "os.PathLike[str]"]

_OURS = ("a weights file", "paddle.save")
_NAMES_KEY = "StructuredToParameterName@@"  # paddle.save adds it: state_dict key -> Paddle's own parameter name
_SLICES_KEY = "UnpackBigParamInfor@@"  # and this to protocol 2 files with arrays beyond 1 GB, which it cuts up
_ANOTHER_WIDTH = 0.5  # share of arrays of another shape from which on it is not only another head
_WRAPPERS = ("state_dict", "model", "params")


def weights_file(path: PathLike) -> Path:
    """The file behind what a user gives: a file, a folder with `model.pdparams`, or a name without its ending."""
    text = os.fspath(path)
    if "://" in text:
        raise InputError(f"{text}: weights are not downloaded. Download the file and give its path.")
    given = Path(text).expanduser()
    tried = [given / "model.pdparams", given / "model.safetensors"] if given.is_dir() else [given]
    if not given.is_dir() and given.suffix not in (".pdparams", ".safetensors"):
        tried.append(Path(f"{given}.pdparams"))
    for found in tried:
        if found.is_file():
            return found
    names = " or ".join(str(name) for name in tried)
    raise InputError(f"{given}: no weights there (looked for {names}). Give a .pdparams file or the folder it is in.")


def load_objects(path: PathLike) -> Any:
    """What a file of paddle.save or `save_state` holds: arrays, numbers and plain containers, without the table of
    names that those add. Anything else is an `InputError` that names it, and is not run; so are a truncated file
    and one of another format."""
    path = Path(path)
    with told(path, *_OURS), path.open("rb") as file:
        content = Unpickler(file, encoding="latin1").load()
    if isinstance(content, dict):
        content.pop(_NAMES_KEY, None)
    return content


def load_state(path: PathLike) -> dict[str, np.ndarray]:
    """Key -> array of a `.pdparams` or `.safetensors` file (or the folder it is in), or of a state_dict that torch.save
    wrote; bfloat16 comes as float32."""
    path = weights_file(path)
    if path.suffix == ".safetensors":
        return safetensors.read(path)
    content = load_torch(path) if is_torch(path) else load_objects(path)
    wrapped = [content.get(key) for key in _WRAPPERS] if isinstance(content, dict) else []
    with told(path, *_OURS):  # the parts of a large array may not fit
        state = next(filter(None, map(_arrays, [content, *wrapped])), {})
    if not state:
        raise InputError(f"{path}: holds no arrays. Give a file made by paddle.save(model.state_dict(), ...).")
    return state


def _arrays(content: Any) -> dict[str, np.ndarray]:
    """The numeric arrays of a state_dict; a Tensor that was saved by itself is a pair (name, array)."""
    if not isinstance(content, dict):
        return {}
    found = {}
    for key, value in _joined(content).items():
        if isinstance(value, tuple) and len(value) == 2 and isinstance(value[0], str):
            value = value[1]
        if isinstance(value, (np.ndarray, np.generic)) and value.dtype.kind in "biufc":
            value = np.asarray(value)
            if value.dtype == np.uint16:  # Paddle's way of saving bfloat16
                value = safetensors.from_bfloat16(value)
            found[str(key)] = value
    return found


def _joined(content: dict[str, Any]) -> dict[str, Any]:
    cut = content.get(_SLICES_KEY)
    if not isinstance(cut, dict):
        return content
    content = dict(content)
    for key, how in cut.items():
        content[key] = np.concatenate([content.pop(part) for part in how["slices"]]).reshape(how["OriginShape"])
    return content


@dataclass
class LoadReport:
    """What became of each key."""

    path: str
    matched: list[str] = field(default_factory=list)
    shape_mismatch: list[tuple[str, list[int], list[int]]] = field(default_factory=list)
    """(key, shape in the file, shape in the model)"""
    missing: list[str] = field(default_factory=list)
    """In the model, not in the file."""
    unexpected: list[str] = field(default_factory=list)
    """In the file, not in the model."""
    turned: list[str] = field(default_factory=list)
    """Matrices that lay in the file as torch's do, [out, in]."""
    refitted: list[str] = field(default_factory=list)
    """Learned for photos of another size, and interpolated."""

    @property
    def most(self) -> bool:
        """Whether at least half of the model's keys matched."""
        return len(self.matched) >= len(self.missing) + len(self.shape_mismatch)

    @property
    def complete(self) -> bool:
        """Whether every key of both sides matched."""
        return not (self.shape_mismatch or self.missing or self.unexpected)

    def problems(self) -> list[str]:
        """A line for each key that did not match."""
        return [
            *(f"shape    {key}: got {got}, expected {want}" for key, got, want in self.shape_mismatch),
            *(f"missing  {key}" for key in self.missing),
            *(f"unknown  {key}" for key in self.unexpected),
        ]

    def __str__(self) -> str:
        head = (
            f"{self.path}: {len(self.matched)} loaded, {len(self.shape_mismatch)} skipped by shape, "
            f"{len(self.missing)} missing in the file, {len(self.unexpected)} unknown to the model"
            + (f", {len(self.turned)} matrices turned: they lie as torch's do" if self.turned else "")
            + (f", {len(self.refitted)} interpolated from photos of another size" if self.refitted else "")
        )
        return head if self.complete else list_problems(head, self.problems(), limit=12)


def load_weights(model: paddle.nn.Layer, path: PathLike, strict: bool = False, any_size: bool = False) -> LoadReport:
    """Copy what fits by key and shape into the model, and say what did not.

    Keys go through the model's `key_map` where it has one: a dict of prefixes (file's -> model's) or a method
    key -> key, None for what is left out. torch's names and matrices become Paddle's. Nothing fitting is an
    `InputError`, and so are another width (more than a head of another shape) and another depth; with `strict`,
    anything not fitting is. The model is unchanged then. With `any_size`, what a transformer has learned for photos of
    another size goes through its layer's `refit(name, array)`, which gives the array of this size or None.
    """
    file = weights_file(path)
    state = _renamed(load_state(file), getattr(model, "key_map", None))
    state, turned = as_paddle(state, model, from_torch=is_torch(file))
    own = model.state_dict()
    report = LoadReport(str(file), turned=turned, refitted=_refit(model, state, own) if any_size else [])
    for key, value in state.items():
        if key not in own:
            report.unexpected.append(key)
        elif _shape(value) == _shape(own[key]):
            report.matched.append(key)
        else:
            report.shape_mismatch.append((key, list(value.shape), list(own[key].shape)))
    filled = {id(own[key]) for key in report.matched}  # a layer under two names needs only one of them
    report.missing = [key for key in own if key not in state and id(own[key]) not in filled]
    name = type(model).__name__
    if not report.matched:
        raise InputError(_another_model(report, name, state, own))
    if _is_another_width(report, own):
        title = (
            f"{file}: weights of a {name} of another width, nothing was loaded (got "
            f"{len(report.shape_mismatch)} arrays of another shape, expected a head's at most). Mend the model's "
            "arguments, or give weights of its own size."
        )
        raise InputError(list_problems(title, report.problems(), limit=5))
    other = _of_another_depth(state, own)
    if other:
        title = (
            f"{file}: weights of a {name} of another depth, nothing was loaded (these blocks are in one of the two "
            "alone). Choose the model that they are of, or give its own weights."
        )
        raise InputError(list_problems(title, other, limit=5))
    if strict and not report.complete:
        title = f"{file}: the weights are not those of this {name}. Give its own weights, or correct the config."
        raise InputError(list_problems(title, report.problems()))
    for key in report.matched:
        value = paddle.to_tensor(state[key].reshape(own[key].shape))
        own[key].set_value(value.astype(own[key].dtype))
    return report


def _refit(model: paddle.nn.Layer, state: dict[str, np.ndarray], own: Mapping[str, Any]) -> list[str]:
    """Keys of the arrays of another shape that their layers could refit; they are replaced in `state`."""
    keys, layers = [], dict(model.named_sublayers(include_self=True))
    for key in [key for key, value in state.items() if key in own and _shape(value) != _shape(own[key])]:
        parent, _, name = key.rpartition(".")
        layer = layers.get(parent)
        array = layer.refit(name, state[key]) if hasattr(layer, "refit") else None
        if array is not None and _shape(array) == _shape(own[key]):
            state[key] = array
            keys += [key] if array.dtype.kind == "f" else []  # an index is none that was learned
    return keys


def _is_another_width(report: LoadReport, own: Mapping[str, Any]) -> bool:
    """Told by matrices and kernels: BatchNorms may fit by chance, as many of ResNet50's do in ResNet18."""
    wrong = sum(len(want) > 1 for _, _, want in report.shape_mismatch)
    return wrong > _ANOTHER_WIDTH * (wrong + sum(own[key].ndim > 1 for key in report.matched))


def _of_another_depth(state: Mapping[str, Any], own: Mapping[str, Any]) -> list[str]:
    """The numbered blocks that only the file or only the model has, where both have others of the same make: so is a
    deeper ResNet told from a mere classification head."""
    theirs, ours = _blocks(state), _blocks(own)
    both = theirs.keys() & ours.keys()
    same = {block for block in both if theirs[block] == ours[block]}
    makes = {(stack, frozenset(ours[stack, number])) for stack, number in same}
    return [
        f"{where} {stack}.{number}"
        for where, blocks in (("file ", theirs), ("model", ours))
        for (stack, number), kernels in blocks.items()
        if (stack, number) not in both and len(kernels) > 1 and (stack, frozenset(kernels)) in makes
    ]


def _blocks(arrays: Mapping[str, Any]) -> dict[tuple[str, int], set[str]]:
    """(name of a list of layers, number in it) -> the names of the kernels and matrices in there."""
    found: dict[tuple[str, int], set[str]] = {}
    for key, array in arrays.items():
        parts = key.split(".")
        for place, part in enumerate(parts if array.ndim > 1 else ()):
            if part.isdigit():
                found.setdefault((".".join(parts[:place]), int(part)), set()).add(".".join(parts[place + 1 :]))
    return found


def _shape(array: Any) -> list[int]:
    """[] and [1] are the same thing to different versions of Paddle."""
    return list(array.shape) or [1]


def _renamed(state: dict[str, np.ndarray], rule: Any) -> dict[str, np.ndarray]:
    if rule is None:
        return state
    if callable(rule):
        return {new: value for key, value in state.items() if (new := rule(key)) is not None}

    def rename(key: str) -> str:
        return next((new + key[len(old) :] for old, new in rule.items() if key.startswith(old)), key)

    return {rename(key): value for key, value in state.items()}


def _another_model(report: LoadReport, name: str, state: Mapping[str, Any], own: Mapping[str, Any]) -> str:
    title = (
        f"{report.path}: weights of another model, nothing was loaded (got {len(state)} arrays of which none fits "
        f"{name}'s {len(own)}). Correct model.type or give the weights of a {name}."
    )
    examples = report.problems()[: len(report.shape_mismatch)] or [
        "the file has      " + ", ".join(f"{key} {list(value.shape)}" for key, value in list(state.items())[:3]),
        "the model expects " + ", ".join(f"{key} {list(value.shape)}" for key, value in list(own.items())[:3]),
    ]
    return list_problems(title, examples, limit=5)


def save_state(state: Mapping[str, Any], path: PathLike) -> None:
    """Write a state_dict as paddle.save would, beside `path` and then renamed into place. Values: Tensors, arrays,
    plain values, and dicts of such. A `path` that ends in .safetensors gets that format, which holds arrays alone.

    A full disk or a folder that cannot be written is an `InputError`.
    """
    content = _plain(state)
    if Path(path).suffix == ".safetensors":
        safetensors.write(_arrays(content), Path(path))
        return
    names = {key: value.name for key, value in state.items() if isinstance(value, paddle.Tensor)}
    if names:
        content[_NAMES_KEY] = names
    write_bytes_atomic(path, pickle.dumps(content, protocol=4), sync=True)


def _plain(value: Any) -> Any:
    if isinstance(value, paddle.Tensor):
        return value.numpy()
    return {key: _plain(item) for key, item in value.items()} if isinstance(value, Mapping) else value


def not_finite(model: paddle.nn.Layer) -> str:
    """`a.weight, b.weight`: parameters with an infinity or NaN in them, the first three; empty where there is none."""
    bad = [name for name, value in model.named_parameters() if not bool(paddle.isfinite(value).all())]
    return ", ".join(bad[:3]) + (f" and {len(bad) - 3} more" if len(bad) > 3 else "")
