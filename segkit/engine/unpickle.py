"""Pickles read without running their code: arrays and plain containers alone."""

from __future__ import annotations

import codecs
import collections
import contextlib
import math
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


class Refused(Exception):
    """The file asks for a class that is neither an array nor a plain container; the text is its name."""


def _dtype(name: str, *_: Any) -> np.dtype:
    """A number or text type of its own, so that its byte order may be set. Objects and structures are refused."""
    kind = np.dtype(name, copy=True) if isinstance(name, str) else np.dtype("V")
    if kind.kind not in _KINDS:
        raise Refused(f"an array of {name!r}")
    return kind


def _scalar(kind: np.dtype, data: bytes | str) -> np.generic:
    return np.frombuffer(data.encode("latin1") if isinstance(data, str) else data, kind, 1)[0]


def _empty(*_: Any) -> np.ndarray:
    """What an array is before its type, shape and bytes are set."""
    return np.empty(0, np.uint8)


_KINDS = "biufcSU"
_BUFFER = np.zeros(1).__reduce_ex__(5)[0]  # from an array: the module that holds it has moved between numpy's versions
_ALLOWED: dict[tuple[str, str], Any] = {
    ("numpy", "ndarray"): _empty,
    ("numpy", "dtype"): _dtype,
    ("_codecs", "encode"): _latin1,
    ("collections", "OrderedDict"): collections.OrderedDict,
}
for _core in ("numpy.core", "numpy._core"):
    _ALLOWED[f"{_core}.multiarray", "_reconstruct"] = _empty
    _ALLOWED[f"{_core}.multiarray", "scalar"] = _scalar
    _ALLOWED[f"{_core}.numeric", "_frombuffer"] = _BUFFER
for _module in ("builtins", "__builtin__"):  # the second of Python 2, and of protocols that it reads
    _ALLOWED[_module, "bytes"] = lambda: b""  # only written of none
    for _kind in (tuple, list, dict, set, frozenset, complex, int, float, str, bool):
        _ALLOWED[_module, _kind.__name__] = _kind


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


class Unpickler(pickle._Unpickler):
    """Makes arrays and plain containers, and raises `Refused` at anything else. `extra` admits more by name.

    It is Python's own in Python, because that in C sets the inner state of any object as the file says; numpy takes it
    at its word, and a forged one reads and writes anywhere in memory.
    """

    dispatch = dict(pickle._Unpickler.dispatch)
    extra: dict[tuple[str, str], Any] = {}

    def find_class(self, module: str, name: str) -> Any:
        found = self.extra.get((module, name), _ALLOWED.get((module, name)))
        if found is None:
            raise Refused(f"{module}.{name}")
        return found

    def load_build(self) -> None:
        """Sets the state of an array or of its type; attributes of a dict (torch writes some) are left out."""
        state, made = self.stack.pop(), self.stack[-1]
        if isinstance(made, np.dtype) and made.kind in _KINDS:
            if state != made.newbyteorder(state[1]).__reduce__()[2]:
                raise Refused(f"a forged type of array, {state!r:.80}")
        elif type(made) is np.ndarray:
            _check_array(*state)
        elif isinstance(made, collections.OrderedDict):
            return
        else:
            raise Refused(f"a state for {type(made).__name__}")
        made.__setstate__(state)

    dispatch[pickle.BUILD[0]] = load_build


def _check_array(version: int, shape: tuple[int, ...], kind: np.dtype, by_columns: bool, data: bytes | str) -> None:
    """The state of an array: its bytes (text in Python 2's files) fill its shape."""
    if not isinstance(kind, np.dtype) or min(shape, default=0) < 0:
        raise Refused(f"an array of {kind!r:.40} and shape {shape!r:.40}")
    if len(data) != math.prod(shape) * kind.itemsize:
        raise ValueError(f"{len(data)} bytes for shape {shape!r:.40} of {kind}")
