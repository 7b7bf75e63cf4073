"""Pickles read without running their code: arrays and plain containers alone."""

from __future__ import annotations

import codecs
import collections
import pickle
from typing import Any

import numpy as np


def _latin1(text: str, encoding: str = "latin1") -> bytes:
    """How Python 2's pickles write bytes; other codecs are refused."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"codec {encoding}")
    return codecs.encode(text, "latin1")


# Taken from numpy objects, because the module that holds them has moved between numpy versions.
_ARRAY = np.zeros(1).__reduce__()[0]
_SCALAR = np.float32(0).__reduce__()[0]
_BUFFER = np.zeros(1).__reduce_ex__(5)[0]
_ALLOWED: dict[tuple[str, str], Any] = {
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    ("_codecs", "encode"): _latin1,
    ("collections", "OrderedDict"): collections.OrderedDict,
}
for _core in ("numpy.core", "numpy._core"):
    _ALLOWED[f"{_core}.multiarray", "_reconstruct"] = _ARRAY
    _ALLOWED[f"{_core}.multiarray", "scalar"] = _SCALAR
    _ALLOWED[f"{_core}.numeric", "_frombuffer"] = _BUFFER
for _kind in (tuple, list, dict, set, frozenset, bytearray, complex, int, float, str, bool):
    _ALLOWED["builtins", _kind.__name__] = _kind


class Refused(Exception):
    """The file asks for a class that is neither an array nor a plain container; the text is its name."""


class Unpickler(pickle.Unpickler):
    """Makes arrays and plain containers, and raises `Refused` at anything else. `extra` admits more by name."""

    extra: dict[tuple[str, str], Any] = {}

    def find_class(self, module: str, name: str) -> Any:
        found = self.extra.get((module, name), _ALLOWED.get((module, name)))
        if found is None:
            raise Refused(f"{module}.{name}")
        return found
