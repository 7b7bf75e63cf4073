"""Weights & Biases: a run on its server, or in files below save_dir where `WANDB_MODE=offline` says so."""

from __future__ import annotations

import os
import secrets
import sys
from pathlib import Path
from typing import Any

import numpy as np

from segkit.engine.writers.base import Setting, Writer
from segkit.errors import InputError
from segkit.io import write_bytes_atomic
from segkit.log import logger

_ID = "wandb_id.txt"  # the run's id and the last iterations logged: a resumed run goes on from there
_KINDS = ("Train", "Evaluate")  # beginnings of tags


class WeightsAndBiases(Writer):
    """A run of project `$WANDB_PROJECT` (segkit), named after `folder`; see `Dashboard` for the arguments.

    A resumed run goes on in its own curves. What was logged after its checkpoint stays, and is not logged again: wandb
    rewinds runs on its server alone, and cannot shorten the files of a run offline.
    """

    @staticmethod
    def require() -> Any:
        """See `Writer`. Errors: also, nobody is logged in."""
        try:
            import wandb
        except ImportError as error:
            raise InputError(
                f"--use_wandb needs Weights & Biases ({error}). Install it: pip install 'segkit[wandb]' "
                "(or: pip install wandb)."
            ) from None
        if not _offline():
            try:
                wandb.login()
            except wandb.errors.Error as error:
                raise _refused(error) from None
        return wandb

    def __init__(self, folder: Path, trained: int, evaluated: int):
        wandb = self.require()
        self._mark = folder / _ID
        words = self._mark.read_text(encoding="ascii").split() if trained and self._mark.is_file() else []
        self._id, there = words[0] if words else secrets.token_hex(4), dict(zip(_KINDS, map(int, words[1:])))
        try:
            self._run = wandb.init(
                project=os.environ.get("WANDB_PROJECT", "segkit"), name=os.environ.get("WANDB_NAME", folder.name),
                dir=str(folder), id=self._id, resume="allow", settings=wandb.Settings(silent=True, console="off"),
            )  # fmt: skip
        except wandb.errors.Error as error:
            raise _refused(error) from None
        if not _offline():  # the server knows what reached it
            there = {kind: int(self._run.summary.get(f"{kind}/iteration") or 0) for kind in _KINDS}
        self._before = {kind: there.get(kind, 0) for kind in _KINDS}
        self._logged = dict(self._before)
        self._write_mark()
        self._picture = wandb.Image
        for kind in _KINDS:
            self._run.define_metric(f"{kind}/iteration", hidden=True)
            self._run.define_metric(f"{kind}/*", step_metric=f"{kind}/iteration")
        where = f"offline in {folder / 'wandb'} (wandb sync sends it)" if _offline() else self._run.url
        logger.info("Weights & Biases: run %s, %s", self._id, where)

    def _write_mark(self) -> None:
        words = [self._id, *(str(self._logged[kind]) for kind in _KINDS)]
        write_bytes_atomic(self._mark, f"{' '.join(words)}\n".encode())

    def _log(self, values: dict[str, Any], iteration: int) -> bool:
        """Whether it had not been logged yet."""
        kind = _kind(values)
        new = iteration > self._before[kind]
        if new:
            self._run.log({**values, f"{kind}/iteration": iteration})
        return new

    def scalars(self, values: dict[str, float], iteration: int) -> None:
        """See `Writer`."""
        if self._log(values, iteration):
            self._logged[_kind(values)] = iteration
            self._write_mark()

    def image(self, tag: str, picture: np.ndarray, iteration: int) -> None:
        """See `Writer`."""
        self._log({tag: self._picture(picture)}, iteration)

    def settings(self, values: dict[str, Setting]) -> None:
        """See `Writer`."""
        self._run.config.update(values, allow_val_change=True)

    def graph(self, model: Any, input_shape: list[int]) -> None:
        """Nothing: Weights & Biases shows no graph of Paddle's."""

    def flush(self) -> None:
        """A process of its own keeps what is logged."""

    def close(self) -> None:
        """End the run; it is told whether an error ended it."""
        self._run.finish(exit_code=int(isinstance(sys.exc_info()[1], Exception)))


def _kind(values: dict[str, Any]) -> str:
    return next(iter(values)).partition("/")[0]


def _offline() -> bool:
    return os.environ.get("WANDB_MODE", "online") != "online"


def _refused(error: Exception) -> InputError:
    return InputError(
        f"--use_wandb: Weights & Biases says: {error} Log in with `wandb login`, or set WANDB_MODE=offline, which "
        "writes files below save_dir."
    )
