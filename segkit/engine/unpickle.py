"""Pickles read without running their code: arrays and plain containers alone."""

from __future__ import annotations

import codecs
import collections
import contextlib
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from segkit.errors import InputError


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


@contextlib.contextmanager
def told(path: Path, kind: str, saved_with: str) -> Iterator[None]:
    """Whatever goes wrong inside is an `InputError` about the file. `kind`: what it should be; `saved_with`: the call
    that writes one."""
    try:
        yield
    except InputError:
        raise
    except Refused as refused:
        raise InputError(
            f"{path}: refused, because loading it would run code (got {refused}, expected arrays and plain "
            f"containers). Save it again with {saved_with}(model.state_dict(), ...)."
        ) from None
    except Exception as error:  # a damaged pickle may raise anything
        if isinstance(error, OSError) and error.filename is not None:
            raise cannot_be_read(path, error) from error
        raise InputError(
            f"{path}: truncated or not {kind} ({type(error).__name__}: {error}). Copy or save it again."
        ) from error


def cannot_be_read(path: Path, error: OSError) -> InputError:
    """The message for a file that the system does not give."""
    return InputError(f"{path}: cannot be read ({error.strerror}). Check the path and its permissions.")


class Unpickler(pickle.Unpickler):
    """Makes arrays and plain containers, and raises `Refused` at anything else. `extra` admits more by name."""

    extra: dict[tuple[str, str], Any] = {}

    def find_class(self, module: str, name: str) -> Any:
        found = self.extra.get((module, name), _ALLOWED.get((module, name)))
        if found is None:
            raise Refused(f"{module}.{name}")
        return found
