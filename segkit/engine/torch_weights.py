"""State dicts as torch.save writes them, read without torch: the zip archive of today, and the format before 1.6.
And torch's names and orientations, in whatever format, brought to Paddle's."""

from __future__ import annotations

import pickle
import zipfile
from pathlib import Path
from typing import Any, BinaryIO, Callable

import numpy as np
import paddle

from segkit.engine.unpickle import Unpickler, told

_ZIP = b"PK\x03\x04"
_OLD = pickle.dumps(0x1950A86A20F9469CFC6C, protocol=2)  # torch's magic number, a pickle by itself
_TYPES = {
    "Double": "<f8", "Float": "<f4", "Half": "<f2", "Long": "<i8", "Int": "<i4", "Short": "<i2", "Char": "i1",
    "Byte": "u1", "Bool": "?",
    "BFloat16": "<u2",  # the upper half of a float32, as in Paddle's files
}  # fmt: skip


_RUNNING = {"running_mean": "_mean", "running_var": "_variance"}  # a BatchNorm's buffers, torch's name -> Paddle's
_COUNTER = "num_batches_tracked"  # which Paddle's BatchNorm does not have


def as_paddle(
    state: dict[str, np.ndarray], model: paddle.nn.Layer, from_torch: bool
) -> tuple[dict[str, np.ndarray], list[str]]:
    """(`state` in Paddle's terms, the keys of the matrices that were turned for it).

    A BatchNorm's running values get Paddle's names. The matrix of a torch Linear is [out, in], of Paddle's [in, out]:
    all of the file are turned where more of the oblong ones fit so than as they are. Where no oblong one tells, those
    of a torch file are (`from_torch`, or torch's names in it).
    """
    own = model.state_dict()
    renamed = {}
    for key, value in state.items():
        layer, dot, name = key.rpartition(".")
        if key in own or name not in (*_RUNNING, _COUNTER):
            renamed[key] = value
        elif name != _COUNTER:
            renamed[f"{layer}{dot}{_RUNNING[name]}"] = value
    linear = {id(layer.weight) for layer in model.sublayers(include_self=True) if isinstance(layer, paddle.nn.Linear)}
    matrices = [key for key, value in own.items() if id(value) in linear and key in renamed and renamed[key].ndim == 2]
    shapes = [(list(renamed[key].shape), list(own[key].shape)) for key in matrices]
    turned = sum(got == want[::-1] != want for got, want in shapes)
    straight = sum(got == want != want[::-1] for got, want in shapes)
    if turned < straight or (turned == straight and not from_torch and renamed.keys() == state.keys()):
        return renamed, []
    return {**renamed, **{key: renamed[key].T for key in matrices}}, matrices


def is_torch(path: Path) -> bool:
    """Whether a file begins as torch's do (any zip archive does)."""
    try:
        with path.open("rb") as file:
            start = file.read(len(_OLD))
    except OSError:  # told by whoever reads it
        return False
    return start.startswith(_ZIP) or start == _OLD


def load_torch(path: Path) -> Any:
    """The dicts and arrays of a file of torch.save; bfloat16 as uint16. A damaged file, or one that holds more than
    arrays and plain containers, is an `InputError`."""
    with told(path, "weights of PyTorch", "torch.save"), path.open("rb") as file:
        if file.read(len(_ZIP)) == _ZIP:
            return _from_zip(path)
        file.seek(0)
        return _from_stream(file, path.stat().st_size)


def _from_zip(path: Path) -> Any:
    with zipfile.ZipFile(path) as archive:
        if any(member.compress_type != zipfile.ZIP_STORED for member in archive.infolist()):
            raise ValueError("a compressed archive, as torch writes none: it could unfold to any size")
        names = [name for name in archive.namelist() if name.endswith("data.pkl")]
        if len(names) != 1:
            raise ValueError("a zip archive without data.pkl")
        top = names[0][: -len("data.pkl")]
        if f"{top}byteorder" in archive.namelist() and archive.read(f"{top}byteorder") != b"little":
            raise ValueError("numbers of big-endian machines")
        storages: dict[str, np.ndarray] = {}

        def storage(dtype: np.dtype, key: str, count: int) -> np.ndarray:
            if key not in storages:
                if archive.getinfo(f"{top}data/{key}").file_size > count * dtype.itemsize:
                    raise ValueError(f"storage {key} is longer than it says")
                storages[key] = np.frombuffer(archive.read(f"{top}data/{key}"), dtype, count)
            return storages[key]

        with archive.open(names[0]) as file:
            return _read(file, storage)


def _from_stream(file: BinaryIO, size: int) -> Any:
    """The old format: some pickles, then the numbers of each storage after their count."""
    for _ in range(3):  # magic number, version, what machine wrote it
        Unpickler(file).load()
    storages: dict[str, np.ndarray] = {}

    def storage(dtype: np.dtype, key: str, count: int) -> np.ndarray:
        if count * dtype.itemsize > size:
            raise ValueError("more numbers than the file holds")
        return storages.setdefault(key, np.zeros(count, dtype))  # filled below

    content = _read(file, storage)
    for key in Unpickler(file).load():
        count = int.from_bytes(file.read(8), "little")
        array = storages[key]
        if count != array.size:
            raise ValueError(f"storage {key} has {count} numbers, expected {array.size}")
        array[:] = np.frombuffer(file.read(array.nbytes), array.dtype, count)
    return content


def _read(file: Any, storage: Callable[[np.dtype, str, int], np.ndarray]) -> Any:
    class Reader(Unpickler):
        extra = {
            ("torch._utils", "_rebuild_tensor_v2"): _tensor,
            ("torch._utils", "_rebuild_parameter"): lambda tensor, *_: tensor,
            **{("torch", f"{name}Storage"): np.dtype(code) for name, code in _TYPES.items()},
        }

        def persistent_load(self, pid: Any) -> np.ndarray:
            kind, dtype, key, _, count = pid[:5]
            if kind != "storage" or not isinstance(dtype, np.dtype):
                raise ValueError(f"unknown part {kind}")
            return storage(dtype, key, count)

    return Reader(file).load()


def _tensor(storage: np.ndarray, offset: int, shape: tuple, strides: tuple, *_: Any) -> np.ndarray:
    """A view of `storage`; `offset` and `strides` count elements. It must lie inside, whatever the file says."""
    reach = sum((length - 1) * stride for length, stride in zip(shape, strides))
    if len(shape) != len(strides) or min((offset, *shape, *strides)) < 0 or len(shape) > 32:
        raise ValueError("an impossible tensor")
    if 0 in shape:
        return np.zeros(shape, storage.dtype)
    if offset + reach >= storage.size:
        raise ValueError("a tensor beyond its storage")
    step = storage.itemsize
    return np.lib.stride_tricks.as_strided(storage[offset:], shape, [stride * step for stride in strides])
