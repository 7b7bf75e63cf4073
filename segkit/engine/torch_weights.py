"""State dicts as torch.save writes them, read without torch: the zip archive of today, and the format before 1.6."""

from __future__ import annotations

import pickle
import zipfile
from pathlib import Path
from typing import Any, BinaryIO, Callable

import numpy as np

from segkit.engine.unpickle import Unpickler, told

_ZIP = b"PK\x03\x04"
_OLD = pickle.dumps(0x1950A86A20F9469CFC6C, protocol=2)  # torch's magic number, a pickle by itself
_TYPES = {
    "Double": "<f8", "Float": "<f4", "Half": "<f2", "Long": "<i8", "Int": "<i4", "Short": "<i2", "Char": "i1",
    "Byte": "u1", "Bool": "?",
    "BFloat16": "<u2",  # the upper half of a float32, as in Paddle's files
}  # fmt: skip


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
