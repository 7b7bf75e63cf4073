"""Reading ahead in a thread of the training process: what the loader does with no worker processes."""

from __future__ import annotations

import ctypes
import queue
import threading
from typing import Any, Callable, Iterable

import numpy as np
import paddle

from segkit.engine.collate import Failure

_COPIED = ("float32", "float64", "uint8", "int8", "int16", "int32", "int64", "bool")


class ReadAhead:
    """Iterator of `collate([read(key) for key in keys])` for each `keys` of `batches`, made up to `depth` ahead.

    Arrays come out as tensors on `place` (None: the current device). Paddle's own single-process reader does the
    same, but takes seconds to stop and can block in it. `TimeoutError` when a batch takes longer than `patience`
    seconds.
    """

    def __init__(
        self, read: Callable, batches: Iterable, collate: Callable, depth: int, patience: float, place: Any = None
    ):
        self._patience = patience
        self._read, self._batches, self._collate, self._place = read, batches, collate, place
        self._ready: queue.SimpleQueue = queue.SimpleQueue()
        self._room = threading.Semaphore(depth)
        self._stop = threading.Event()
        self._hung = False
        self._thread = threading.Thread(target=self._run, name="read-ahead", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            for keys in self._batches:
                self._room.acquire()
                if self._stop.is_set():
                    return
                self._ready.put(self._collate([self._read(key) for key in keys]))
            self._ready.put(None)
        except Exception as error:
            self._ready.put(Failure(error).batch())

    def __iter__(self) -> ReadAhead:
        return self

    def __next__(self) -> dict:
        try:
            batch = self._ready.get(timeout=self._patience)
        except queue.Empty:
            self._hung = True
            raise TimeoutError from None
        self._room.release()
        if batch is None:
            self._ready.put(None)
            raise StopIteration
        return {key: self._tensor(value) for key, value in batch.items()}

    def _tensor(self, value: Any) -> Any:
        if isinstance(value, list):
            return [self._tensor(item) for item in value]
        if isinstance(value, dict):
            return {key: self._tensor(item) for key, item in value.items()}
        return tensor_of(value, self._place) if isinstance(value, np.ndarray) else value

    def close(self) -> None:
        """End the thread, after the sample that it is reading; one that hangs in it is left behind."""
        self._stop.set()
        self._room.release()
        if not self._hung:
            self._thread.join()


def tensor_of(array: np.ndarray, place: Any = None) -> paddle.Tensor:
    """The array as a tensor on `place` (None: the current device).

    On the CPU it is copied into an empty tensor: Paddle 3.3 loses 112 bytes at every tensor that it makes of an
    array itself, which a long training notices.
    """
    wanted = place is None or isinstance(place, paddle.CPUPlace)
    if not wanted or paddle.get_device() != "cpu" or array.dtype.name not in _COPIED:
        return paddle.to_tensor(array, place=place)
    array = np.ascontiguousarray(array)
    made = paddle.empty(array.shape, dtype=array.dtype.name)
    ctypes.memmove(made.data_ptr(), array.ctypes.data, array.nbytes)
    return made
