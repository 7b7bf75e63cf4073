"""Ctrl-C and SIGTERM as a request that the loop answers at the end of an iteration."""

from __future__ import annotations

import signal
from types import FrameType
from typing import Any

import paddle

from segkit.dist import world_size
from segkit.log import logger


class Stopped(SystemExit):
    """Ends the process with 128 + the signal's number, after the checkpoint was written."""

    def __init__(self, number: int):
        super().__init__(128 + number)


class StopRequest:
    """Within the block SIGINT and SIGTERM only set `number`; a second SIGINT interrupts at once."""

    def __init__(self) -> None:
        self.number = 0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> StopRequest:
        for number in (signal.SIGINT, signal.SIGTERM):
            try:
                self._before[number] = signal.signal(number, self._ask)
            except ValueError:  # not the main thread: signals stay as they are
                break
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _ask(self, number: int, _frame: FrameType | None) -> None:
        if self.number and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.number = number
        logger.info("stopping after this iteration (%s) ...", signal.Signals(number).name)

    def agreed(self, may_sync: bool) -> int:
        """The signal that some rank got, the same on all ranks; several ranks ask each other only where `may_sync`."""
        if world_size() == 1:
            return self.number
        if not may_sync:
            return 0
        flag = paddle.to_tensor([self.number])
        paddle.distributed.all_reduce(flag, op=paddle.distributed.ReduceOp.MAX)
        return int(flag.item())
