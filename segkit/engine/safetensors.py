"""The safetensors format, read and written with numpy alone: arrays behind a JSON header, and nothing that could run.

Format: 8 bytes, the header's size (little-endian); the header, JSON of name -> {dtype, shape, data_offsets} and
`__metadata__`; the arrays, row by row, little-endian, without gaps (https://huggingface.co/docs/safetensors).
"""

from __future__ import annotations

import json
import math
import struct
from pathlib import Path
from typing import Any, Mapping

import numpy as np

from segkit.engine.unpickle import cannot_be_read
from segkit.errors import InputError
from segkit.io import write_bytes_atomic

_TYPES = {
    "BOOL": "?", "U8": "u1", "I8": "i1", "I16": "<i2", "U16": "<u2", "I32": "<i4", "U32": "<u4", "I64": "<i8",
    "U64": "<u8", "F16": "<f2", "BF16": "<u2", "F32": "<f4", "F64": "<f8",
}  # fmt: skip
_NAMES = {np.dtype(kind): name for name, kind in _TYPES.items() if name != "BF16"}
_LARGEST_HEADER = 100_000_000  # as the format's own readers have it


def read(path: Path) -> dict[str, np.ndarray]:
    """Name -> array; bfloat16 comes as float32. What is wrong with the file is an `InputError`."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise cannot_be_read(path, error) from error
    try:
        header, body = _header(data)
        return {name: _array(node, body) for name, node in header.items() if name != "__metadata__"}
    except (ValueError, TypeError, KeyError, RecursionError, struct.error) as error:
        raise InputError(
            f"{path}: not a readable safetensors file ({type(error).__name__}: {error}). It is cut short, damaged or "
            "of another format: copy it again."
        ) from error


def _header(data: bytes) -> tuple[dict[str, Any], memoryview]:
    size = struct.unpack_from("<Q", data)[0]
    if size > min(_LARGEST_HEADER, len(data) - 8):
        raise ValueError(f"a header of {size} bytes in a file of {len(data)}")
    header = json.loads(data[8 : 8 + size])
    if not isinstance(header, dict):
        raise ValueError("a header that is no mapping")
    body = memoryview(data)[8 + size :]
    spans = sorted(node["data_offsets"] for name, node in header.items() if name != "__metadata__")
    ends = [0, *(end for _, end in spans)]
    if any(begin != end for (begin, _), end in zip(spans, ends)) or ends[-1] != len(body):
        raise ValueError(f"arrays that do not fill its {len(body)} bytes of data")
    return header, body


def _array(node: dict[str, Any], body: memoryview) -> np.ndarray:
    shape, (begin, end) = node["shape"], node["data_offsets"]
    kind = np.dtype(_TYPES[node["dtype"]])
    if end - begin != math.prod(shape) * kind.itemsize:
        raise ValueError(f"{end - begin} bytes for shape {shape} of {node['dtype']}")
    array = np.frombuffer(body[begin:end], kind).reshape(shape)
    if node["dtype"] == "BF16":
        return from_bfloat16(array)
    return array.copy()  # aligned, and free of the file's bytes


def from_bfloat16(upper: np.ndarray) -> np.ndarray:
    """float32 of its upper halves, uint16, as every format stores bfloat16."""
    return (upper.astype(np.uint32) << 16).view(np.float32)


def write(arrays: Mapping[str, np.ndarray], path: Path) -> None:
    """Write arrays beside `path` and rename it into place."""
    header: dict[str, Any] = {"__metadata__": {"format": "paddle"}}
    parts, end = [], 0
    for name, array in sorted(arrays.items(), key=lambda item: -item[1].dtype.itemsize):  # so that all are aligned
        array = np.ascontiguousarray(array, array.dtype.newbyteorder("<")).reshape(array.shape)
        header[name] = {
            "dtype": _NAMES[array.dtype],
            "shape": list(array.shape),
            "data_offsets": [end, end + array.nbytes],
        }
        parts.append(array.tobytes())
        end += array.nbytes
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    write_bytes_atomic(path, b"".join((struct.pack("<Q", len(text)), text, *parts)), sync=True)
