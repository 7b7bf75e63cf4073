"""Checkpoints that appear whole or not at all, and finding the one to go on from."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import warnings
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import paddle

from segkit.config import Config
from segkit.dist import is_main
from segkit.engine.weights import load_objects, load_weights, not_finite, save_state
from segkit.errors import InputError
from segkit.io import write_bytes_atomic
from segkit.log import logger

WEIGHTS, OPTIMIZER, EMA, TRAINER, CONFIG = (
    "model.pdparams", "model.pdopt", "ema_model.pdparams", "trainer.json", "config.yml",
)  # fmt: skip
_MASTER = "master_weights/"
_REMEDY = "Nothing needs to be done: the newest whole one is taken, if there is one. Or copy this one here again."
_RECORDS = (
    *("train.log", "metrics.jsonl", "vdlrecords.*", "vdlgraph.*", "events.out.tfevents.*.segkit"),
    *("wandb", "wandb_id.txt"),
)


@dataclass
class Progress:
    """What the next iteration depends on beside weights and optimizer.

    Everything random is drawn from (seed, epoch, index) or (seed, iteration), so that no generator's state
    need be kept. `position`: the sampler's epoch and batch to go on from.
    """

    iteration: int = 0
    position: list[int] = field(default_factory=lambda: [0, 0])
    global_batch: int = 0
    """samples of all ranks together in a batch that `position` counts; 0 before the first one"""
    seed: int = 42
    optimizer: str = ""
    evaluated: int = 0
    """the last iteration whose evaluation is done and written down"""
    best_score: float | None = None
    best_iteration: int = 0
    evaluations_without_gain: int = 0
    scaler: dict[str, Any] = field(default_factory=dict)
    trained_on: list[str] = field(default_factory=list)
    """devices and precisions, in the order of their use"""
    files: dict[str, list[int]] = field(default_factory=dict)
    """name -> size and CRC-32 of what lies beside it in a checkpoint"""

    def start(self, global_batch: int) -> tuple[int, int]:
        """Where batches of so many samples go on: with another number of ranks, or another batch size, at the batch
        that holds the first sample of this epoch that was not used."""
        epoch, batch = self.position
        if self.global_batch:
            batch = batch * self.global_batch // global_batch
        self.position, self.global_batch = [epoch, batch], global_batch
        return epoch, batch


def publish(folder: Path, write: Callable[[Path], None]) -> None:
    """Fill a folder beside `folder` with `write(path)`, flush it to the disk and rename it into place."""
    beside = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(beside, ignore_errors=True)
    try:
        beside.mkdir(parents=True)
        write(beside)
        for path in beside.iterdir():
            _sync(path)
        _sync(beside)
        _swap(beside, folder)
    except (OSError, InputError) as error:
        shutil.rmtree(beside, ignore_errors=True)
        cause = error.__cause__ if isinstance(error, InputError) else error
        if not isinstance(cause, OSError):
            raise
        raise InputError(
            f"{folder}: cannot be written ({cause.strerror or cause}). Free space or choose another --save_dir; "
            "the last whole checkpoint is untouched."
        ) from error
    except BaseException:
        shutil.rmtree(beside, ignore_errors=True)
        raise


def _swap(beside: Path, folder: Path) -> None:
    """Give `beside` the name of `folder`, whose old content goes; where that fails it stays."""
    old = folder.with_name(f".{folder.name}.old")
    if folder.exists():
        shutil.rmtree(old, ignore_errors=True)
        folder.rename(old)
    try:
        beside.rename(folder)
    except OSError:
        if old.exists():
            old.rename(folder)
        raise
    _sync(folder.parent)
    shutil.rmtree(old, ignore_errors=True)


def _remove(folder: Path) -> None:
    """A folder that is half gone must not look whole: it loses its name first."""
    old = folder.with_name(f".{folder.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    with contextlib.suppress(OSError):
        folder.rename(old)
        shutil.rmtree(old, ignore_errors=True)


def tidy(save_dir: Path) -> None:
    """What a killed run left: half-written folders go, and a best model that was about to be replaced gets its name
    back."""
    if not is_main():
        return
    old = save_dir / ".best_model.old"
    if old.is_dir() and not (save_dir / "best_model").exists():
        old.rename(save_dir / "best_model")
    for left in (*save_dir.glob(".iter_*.*"), *save_dir.glob(".best_model.*")):
        if left.suffix in (".part", ".old"):
            shutil.rmtree(left, ignore_errors=True)


def _sync(path: Path) -> None:
    if path.is_dir() and os.name == "nt":
        return
    # Windows flushes only what is open for writing.
    handle = os.open(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


class Checkpointer:
    """Writes `save_dir/iter_N` every `interval` iterations, keeping the newest `keep`, and `save_dir/best_model`.

    Only the main rank writes.
    """

    def __init__(self, save_dir: Path, cfg: Config, interval: int, keep: int):
        self.save_dir = save_dir
        self.cfg = cfg
        self.interval = interval
        self.keep = keep

    def due(self, iteration: int) -> bool:
        """Whether this iteration ends an interval or the run."""
        return iteration % self.interval == 0 or iteration == self.cfg.iters

    def folder(self, iteration: int) -> Path:
        """Where the checkpoint of an iteration is."""
        return self.save_dir / f"iter_{iteration}"

    def save(self, state: TrainState, progress: Progress) -> Path:
        """Write `iter_N` for where `progress` stands and delete the oldest beyond `keep`. Errors: weights that are not
        finite, no room."""
        folder = self.folder(progress.iteration)
        if not is_main():
            return folder
        bad = not_finite(state.model)
        if bad:  # of a finite loss whose gradients are not
            raise InputError(
                f"{folder}: not written: not finite after iteration {progress.iteration}: {bad}. Lower the learning "
                "rate, or add warmup_iters or grad_clip"
                + "".join(f", and go on with --resume_model {last}" for last in iterations(self.save_dir)[-1:])
                + "."
            )

        def write(path: Path) -> None:
            save_state(state.model.state_dict(), path / WEIGHTS)
            save_state(_flat(state.optimizer.state_dict()), path / OPTIMIZER)
            if state.ema is not None:
                save_state(state.ema.state_dict(), path / EMA)
            self.cfg.save(path / CONFIG)
            arrays = [file for file in path.iterdir() if file.name != CONFIG]
            progress.files = {file.name: [file.stat().st_size, _crc(file)] for file in arrays}
            (path / TRAINER).write_bytes(_encoded(progress))

        publish(folder, write)
        for old in iterations(self.save_dir)[: -self.keep]:
            _remove(old)
        return folder

    def save_best(self, weights: dict[str, Any], progress: Progress) -> None:
        """Write `best_model` from a state dict, and of which iteration it is."""
        if not is_main():
            return

        def write(path: Path) -> None:
            save_state(weights, path / WEIGHTS)
            self.cfg.save(path / CONFIG)
            (path / TRAINER).write_bytes(_encoded(replace(progress, files={})))

        publish(self.save_dir / "best_model", write)


@dataclass
class TrainState:
    """The objects that a checkpoint is made of. `ema` is None without `--use_ema`."""

    model: Any
    optimizer: Any
    ema: Any | None = None


def iterations(save_dir: Path) -> list[Path]:
    """The whole `iter_N` folders of a run, oldest first."""
    found = [path for path in save_dir.glob("iter_*") if re.fullmatch(r"iter_\d+", path.name) and is_whole(path)]
    return sorted(found, key=lambda path: int(path.name[5:]))


def is_whole(folder: Path) -> bool:
    """Whether a folder holds what a run can go on from: every file, at the size that it was written with."""
    if not all((folder / name).is_file() for name in (WEIGHTS, OPTIMIZER, TRAINER)):
        return False
    try:
        files = read_progress(folder / TRAINER).files
        return all((folder / name).stat().st_size == size for name, (size, _) in files.items())
    except (InputError, OSError):
        return False


def damaged(folder: Path) -> list[str]:
    """The files of a whole checkpoint whose bytes are not those that were written."""
    files = read_progress(folder / TRAINER).files
    return [name for name, (_, crc) in files.items() if _crc(folder / name) != crc]


def _crc(path: Path) -> int:
    found = 0
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            found = zlib.crc32(chunk, found)
    return found


def _newest(save_dir: Path) -> Path | None:
    """The newest undamaged checkpoint of a run; the log names those that were passed over."""
    for path in save_dir.glob("iter_*"):
        if re.fullmatch(r"iter_\d+", path.name) and not is_whole(path):
            logger.warning(
                "%s: torn, and passed over: a file is missing, or not as long as it was written. %s", path, _REMEDY
            )
    for path in reversed(iterations(save_dir)):
        bad = damaged(path)
        if not bad:
            return path
        logger.warning("%s: damaged, and passed over: %s changed on the disk. %s", path, ", ".join(bad), _REMEDY)
    return None


def find(resume_model: str, save_dir: Path) -> Path | None:
    """The iter folder that `--resume_model` means: a run folder's newest, an iter folder, or `auto` (None when
    save_dir holds none yet)."""
    if resume_model == "auto":
        return _newest(save_dir)
    path = Path(resume_model)
    if path.is_file():
        path = path.parent
    if not path.is_dir():
        raise InputError(
            f"--resume_model {resume_model}: there is no such folder. Give a run folder, an iter_N folder or auto."
        )
    if is_whole(path):
        bad = damaged(path)
        if bad:
            raise InputError(
                f"--resume_model {resume_model}: damaged: {', '.join(bad)} changed on the disk since it was written. "
                "Copy it again, or resume from another iter folder."
            )
        return path
    found = _newest(path)
    if found:
        return found
    missing = [name for name in (WEIGHTS, OPTIMIZER, TRAINER) if not (path / name).is_file()]
    if not missing:
        read_progress(path / TRAINER)
        raise InputError(
            f"--resume_model {resume_model}: torn: a file is missing or not as long as it was written. Copy it again, "
            "or resume from another iter folder."
        )
    raise InputError(
        f"--resume_model {resume_model}: this is no checkpoint to go on from: it has neither iter_N folders nor "
        f"{', '.join(missing)}. Give output/iter_N, the run's folder, or auto; "
        "to start from weights alone set model.pretrained."
    )


def restore(folder: Path, state: TrainState) -> Progress:
    """Put a checkpoint back and return where it stood."""
    progress = read_progress(folder / TRAINER)
    kind = type(state.optimizer).__name__
    if progress.optimizer != kind:
        raise InputError(
            f"{folder}: was trained with {progress.optimizer}, the config says {kind}. Resume with the same optimizer, "
            "or start anew from the weights with model.pretrained."
        )
    load_weights(state.model, folder / WEIGHTS, strict=True)
    saved = load_objects(folder / OPTIMIZER)
    # Paddle takes its float32 copies of the weights as tensors only.
    master = {key[len(_MASTER) :]: paddle.to_tensor(saved.pop(key)) for key in list(saved) if key.startswith(_MASTER)}
    saved["LR_Scheduler"] = state.optimizer.state_dict()["LR_Scheduler"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about the inner schedule of a warm-up, whose state is not used
        state.optimizer.set_state_dict({**saved, "master_weights": master} if master else saved)
    if state.ema is None and (folder / EMA).is_file():
        raise InputError(f"{folder}: was trained with --use_ema. Resume with it, or the average would be lost.")
    if state.ema is not None:
        if not (folder / EMA).is_file():
            raise InputError(f"{folder}: has no {EMA}: it was trained without --use_ema. Resume without it.")
        state.ema.load(load_objects(folder / EMA))
    return progress


def _encoded(progress: Progress) -> bytes:
    return json.dumps(vars(progress), indent=1).encode()


def update(folder: Path, progress: Progress) -> None:
    """Write what an evaluation has changed into a checkpoint that is already there."""
    if is_main():
        write_bytes_atomic(folder / TRAINER, _encoded(progress), sync=True)


def read_progress(path: Path) -> Progress:
    """What a checkpoint's trainer.json says. Errors: it cannot be read."""
    try:
        progress = Progress(**json.loads(path.read_text(encoding="utf-8")))
        progress.files = {str(name): [int(size), int(crc)] for name, (size, crc) in progress.files.items()}
        return progress
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise InputError(f"{path}: cannot be read ({error}). Resume from another iter folder.") from error


def _flat(state: dict[str, Any]) -> dict[str, Any]:
    """The optimizer's arrays under plain keys. The schedule is left out: it is replayed, which is exact for all."""
    arrays = {key: value for key, value in state.items() if key not in ("LR_Scheduler", "master_weights")}
    return {**arrays, **{_MASTER + key: value for key, value in state.get("master_weights", {}).items()}}


def _new_previous(save_dir: Path) -> Path:
    """The folder `previous_N`, newly made."""
    number = 1
    while (save_dir / f"previous_{number}").exists():
        number += 1
    target = save_dir / f"previous_{number}"
    target.mkdir()
    return target


def _move(paths: Iterable[Path], target: Path) -> None:
    for path in paths:
        path.rename(target / path.name)


def go_on_from(resume: Path, iteration: int, save_dir: Path) -> None:
    """Before a run that goes on from `resume`: what is of another course goes into `previous_N`. In the run's own
    folder these are the checkpoints beyond that iteration, with a copy of the best model, which may be theirs; in
    another one it is all that is there, and the best model comes along."""
    if not is_main():
        return
    best = save_dir / "best_model"
    if resume.parent.resolve() != save_dir.resolve():
        move_aside(save_dir)
        own = resume.parent / best.name
        if own.is_dir():
            publish(best, lambda path: shutil.copytree(own, path, dirs_exist_ok=True))
        return
    newer = [path for path in save_dir.glob("iter_*") if re.fullmatch(r"iter_\d+", path.name)
             and int(path.name[5:]) > iteration]  # fmt: skip
    if newer:
        target = _new_previous(save_dir)
        if best.is_dir():
            publish(target / best.name, lambda path: shutil.copytree(best, path, dirs_exist_ok=True))
        _move(newer, target)
        logger.info("%s: checkpoints beyond iteration %d are moved to %s", save_dir, iteration, target)


def move_aside(save_dir: Path) -> None:
    """Before a run that starts anew: what an earlier one left in `save_dir` goes into `previous_N`, losing nothing."""
    weights = [path for path in (*save_dir.glob("iter_*"), save_dir / "best_model") if path.exists()]
    if not weights or not is_main():
        return
    records = (path for pattern in _RECORDS for path in save_dir.glob(pattern))
    target = _new_previous(save_dir)
    _move([*weights, *records], target)
    logger.info("%s held an earlier run: moved to %s. (To go on from it: --resume_model %s.)", save_dir, target, target)
