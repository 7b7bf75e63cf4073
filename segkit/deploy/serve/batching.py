"""Dynamic batching: photos of one size that wait at the same time go through the engine together."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Optional

import numpy as np

from segkit.deploy.pipeline import Run

Report = Callable[[int, float], None]


_NUMBERS = 3 * 2**22  # of the inputs of a batch


@dataclass
class _Waiting:
    x: np.ndarray
    future: Future
    since: float = field(default_factory=time.monotonic)


class Batcher:
    """One thread around an engine, which is never entered by two at a time.

    A batch is of up to `max_batch` network inputs of one shape, fewer of large ones. It starts as soon as it is full,
    no other photo is on its way (see `coming`), or its first one has waited for `max_wait` seconds.

    Args:
        run: the engine, see `pipeline.Run`.
        report: told the size and the seconds of each batch, in the engine's thread.
    """

    def __init__(self, run: Run, max_batch: int, max_wait: float, report: Optional[Report] = None):
        self._run, self._max_batch, self._max_wait, self._report = run, max_batch, max_wait, report
        self._waiting: list[_Waiting] = []
        self._coming = 0
        self._closed = False
        self._changed = threading.Condition()
        self.seconds_a_photo = 0.0
        self._thread = threading.Thread(target=self._work, name="engine", daemon=True)
        self._thread.start()

    def submit(self, x: np.ndarray) -> Future:
        """Have one network input computed, as in `Photo.x`; the future gives its own output, without a batch axis."""
        item = _Waiting(x, Future())
        with self._changed:
            if self._closed:
                raise RuntimeError("this engine is closed")
            self._waiting.append(item)
            self._changed.notify()
        return item.future

    @contextlib.contextmanager
    def coming(self) -> Iterator[None]:
        """While a photo is being read: a batch that is not full may wait for it."""
        with self._changed:
            self._coming += 1
        try:
            yield
        finally:
            with self._changed:
                self._coming -= 1
                self._changed.notify()

    def close(self) -> None:
        """Compute what is waiting, then end the thread."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()

    def _work(self) -> None:
        while True:
            batch = self._next()
            if not batch:
                return
            live = [item for item in batch if item.future.set_running_or_notify_cancel()]
            if live:
                self._compute(live)
            del batch, live  # else the last batch is held until the next one comes

    def _next(self) -> list[_Waiting]:
        """The next batch; none when the engine is closed."""
        with self._changed:
            while not self._waiting and not self._closed:
                self._changed.wait()
            if not self._waiting:
                return []
            deadline = self._waiting[0].since + self._max_wait
            while self._coming and not self._closed and len(self._alike()) < self._most():
                left = deadline - time.monotonic()
                if left <= 0:
                    break
                self._changed.wait(left)
            batch = self._alike()[: self._most()]
            self._waiting = [item for item in self._waiting if not any(item is taken for taken in batch)]
            return batch

    def _most(self) -> int:
        """How many inputs like the first one go together."""
        return min(self._max_batch, max(1, _NUMBERS // self._waiting[0].x.size))

    def _alike(self) -> list[_Waiting]:
        first = self._waiting[0].x
        return [item for item in self._waiting if item.x.shape == first.shape and item.x.dtype == first.dtype]

    def _compute(self, batch: list[_Waiting]) -> None:
        begin = time.perf_counter()
        try:
            outputs = self._run(np.stack([item.x for item in batch]))
        except Exception as error:  # the engine's own kinds too: whoever asked is told, and the thread lives on
            if len(batch) == 1:
                batch[0].future.set_exception(error)
                return
            for item in batch:  # one photo must not spoil the others
                self._compute([item])
            return
        seconds = time.perf_counter() - begin
        recent = seconds / len(batch)
        self.seconds_a_photo = 0.8 * self.seconds_a_photo + 0.2 * recent if self.seconds_a_photo else recent
        if self._report is not None:
            self._report(len(batch), seconds)
        for item, output in zip(batch, outputs):
            item.future.set_result(output)
