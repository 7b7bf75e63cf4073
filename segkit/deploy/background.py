"""Work behind the main thread's back: finishing one photo while the network is at the next."""

from __future__ import annotations

from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Callable

LIMIT = 256 << 20
"""bytes that may wait at a time, unless a single job brings more"""


class Background:
    """Threads that do jobs in the order in which they come. Use it as a context; leaving it waits for all of them.

    The first error of a job is raised by the next `submit`, or when the context ends. When the block itself ends by
    an error or Ctrl-C, jobs that have not begun are dropped.
    """

    def __init__(self, threads: int = 1, limit: int = LIMIT):
        self._pool = ThreadPoolExecutor(threads, "background")
        self._limit = limit
        self._pending: deque[tuple[int, Future]] = deque()
        self._held = 0

    def submit(self, size: int, job: Callable[..., Any], *args: Any) -> Future:
        """Do `job(*args)`, which keeps `size` bytes alive, when a thread is free; waits while too much is held."""
        while self._pending and (self._pending[0][1].done() or self._held + size > self._limit):
            self._collect()
        self._held += size
        future = self._pool.submit(job, *args)
        self._pending.append((size, future))
        return future

    def wait(self) -> None:
        """Until all that was submitted is done."""
        while self._pending:
            self._collect()

    def _collect(self) -> None:
        size, future = self._pending.popleft()
        self._held -= size
        future.result()

    def __enter__(self) -> Background:
        return self

    def __exit__(self, kind: Any, *_: Any) -> None:
        try:
            if kind is None:
                self.wait()
        finally:
            for _, future in self._pending:
                future.cancel()
            self._pool.shutdown(wait=True)
