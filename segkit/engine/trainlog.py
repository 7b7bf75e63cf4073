"""What training says: lines in the log, a live bar on a terminal, and metrics.jsonl for machines."""

from __future__ import annotations

import contextlib
import json
import logging
import sys
import time
from pathlib import Path
from typing import Any

from segkit.dist import is_main, world_size
from segkit.errors import InputError
from segkit.io import write_bytes_atomic
from segkit.log import log_to_file, logger, stop_file, talks
from segkit.terminal import is_terminal

_BAR = "{percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt}{desc} ETA {remaining}"


class TrainLog:
    """Times the iterations and reports the averages every `log_iters`.

    `start`: the last iteration that is trained already and the last that is evaluated; what metrics.jsonl says of later
    ones is dropped. `close` ends the bar and the files. On other ranks than the main one it only keeps time.
    """

    def __init__(
        self,
        save_dir: Path,
        iters: int,
        start: tuple[int, int],
        batches_per_epoch: float,
        samples_per_iteration: int,
    ):
        self.iters = iters
        self.batches_per_epoch = batches_per_epoch
        self.samples = samples_per_iteration * world_size()
        self.jsonl = save_dir / "metrics.jsonl"
        self._bar: Any = None
        self._handler: logging.Handler | None = None
        if is_main():
            _drop_after(self.jsonl, *start)
            self._handler = log_to_file(save_dir / "train.log")
            if talks() and is_terminal(sys.stderr):
                from tqdm import tqdm

                self._bar = tqdm(
                    total=iters, initial=start[0], dynamic_ncols=True, leave=False, smoothing=0.1, bar_format=_BAR
                )
        self._numbers = self._best = ""
        self._since = time.perf_counter()
        self._reader = 0.0
        self._count = 0
        self._total_cost = 0.0
        self._total_count = 0

    def read(self, seconds: float) -> None:
        """Add time spent waiting for data."""
        self._reader += seconds

    def pause(self, seconds: float) -> None:
        """Leave out time that was spent on evaluation or saving."""
        self._since += seconds

    def step(self) -> None:
        """One iteration is done."""
        self._count += 1
        if self._bar is not None:
            self._bar.update(1)

    def best(self, name: str, score: float | None) -> None:
        """The best score so far, if there is one, for the bar."""
        self._best = "" if score is None else f" best {name} {score:.4f}"
        self._describe()

    def _describe(self) -> None:
        if self._bar is not None:
            self._bar.set_description_str(self._numbers + self._best, refresh=False)

    def report(self, iteration: int, losses: dict[str, float], lr: float) -> dict[str, float]:
        """Log the averages since the last report, and return them as a flat dict."""
        cost = (time.perf_counter() - self._since) / max(self._count, 1)
        reader = self._reader / max(self._count, 1)
        self._total_cost += cost * self._count
        self._total_count += self._count
        remaining = int((self.iters - iteration) * self._total_cost / self._total_count)
        eta = f"{remaining // 3600:02d}:{remaining // 60 % 60:02d}:{remaining % 60:02d}"
        ips = self.samples / cost
        epoch = int((iteration - 1) / self.batches_per_epoch) + 1
        logger.info(
            f"[TRAIN] epoch: {epoch}, iter: {iteration}/{self.iters}, loss: {losses['loss']:.4f}, lr: {lr:.6f}, "
            f"batch_cost: {cost:.4f}, reader_cost: {reader:.4f}, ips: {ips:.1f} samples/sec | ETA {eta}"
        )
        self._numbers = f" loss {losses['loss']:.4f} lr {lr:.1e} {ips:.1f} images/s"
        self._describe()
        self._since, self._reader, self._count = time.perf_counter(), 0.0, 0
        row = {**losses, "lr": lr, "batch_cost": cost, "reader_cost": reader, "ips": ips}
        self.write("train", iteration, {"epoch": epoch, **row})
        return row

    def write(self, kind: str, iteration: int, row: dict[str, Any]) -> None:
        """Append one line to metrics.jsonl. Errors: it cannot be written."""
        if not is_main():
            return
        try:
            with self.jsonl.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"kind": kind, "iter": iteration, **row}) + "\n")
        except OSError as error:
            raise InputError(
                f"{self.jsonl}: cannot be written ({error.strerror or error}). Free space or make it writable; then go "
                "on with --resume_model auto."
            ) from error

    def close(self) -> None:
        """End the bar and the log file."""
        if self._bar is not None:
            self._bar.close()
        if self._handler is not None:
            stop_file(self._handler)


def _drop_after(path: Path, trained: int, evaluated: int) -> None:
    """A resumed run writes its points anew: those after the checkpoint, and a torn last line, go."""
    if not path.exists():
        return
    kept = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        with contextlib.suppress(ValueError, KeyError, TypeError):
            row = json.loads(line)
            if row["iter"] <= (evaluated if row["kind"] == "eval" else trained):
                kept.append(line + "\n")
    write_bytes_atomic(path, "".join(kept).encode("utf-8"))
