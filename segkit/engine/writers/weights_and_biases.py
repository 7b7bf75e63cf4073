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

_ID = "wandb_id.txt"  # by which a resumed run goes on where it was


class WeightsAndBiases(Writer):
    """A run of project `$WANDB_PROJECT` (segkit), named after `folder`; see `Dashboard` for the arguments.

    A resumed run goes on in its own curves: what its server has already is not sent again.
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
        mark = folder / _ID
        known = mark.read_text(encoding="ascii").strip() if trained and mark.is_file() else ""
        number = known or secrets.token_hex(4)
        try:
            self._run = wandb.init(
                project=os.environ.get("WANDB_PROJECT", "segkit"), name=os.environ.get("WANDB_NAME", folder.name),
                dir=str(folder), id=number, resume="allow", settings=wandb.Settings(silent=True, console="off"),
            )  # fmt: skip
        except wandb.errors.Error as error:
            raise _refused(error) from None
        write_bytes_atomic(mark, f"{number}\n".encode())
        self._picture = wandb.Image
        for kind in ("Train", "Evaluate"):
            self._run.define_metric(f"{kind}/iteration", hidden=True)
            self._run.define_metric(f"{kind}/*", step_metric=f"{kind}/iteration")
        self._sent = {kind: int(self._run.summary.get(f"{kind}/iteration") or 0) for kind in ("Train", "Evaluate")}
        where = f"offline in {folder / 'wandb'} (wandb sync sends it)" if _offline() else self._run.url
        logger.info("Weights & Biases: run %s, %s", number, where)

    def _log(self, values: dict[str, Any], iteration: int) -> None:
        kind = next(iter(values)).partition("/")[0]
        if iteration > self._sent[kind]:
            self._run.log({**values, f"{kind}/iteration": iteration})

    def scalars(self, values: dict[str, float], iteration: int) -> None:
        """See `Writer`."""
        self._log(values, iteration)

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


def _offline() -> bool:
    return os.environ.get("WANDB_MODE", "online") != "online"


def _refused(error: Exception) -> InputError:
    return InputError(
        f"--use_wandb: Weights & Biases says: {error} Log in with `wandb login`, or set WANDB_MODE=offline, which "
        "writes files below save_dir."
    )
