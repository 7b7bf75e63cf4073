"""The choice among engines: a short timed trial that also checks that they agree, remembered beside the model."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import statistics
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Optional

import numpy as np

from segkit import runtime
from segkit._cv2 import cv2
from segkit.deploy.backends.base import Backend, gpu_number, last_line
from segkit.deploy.spec import DeploySpec
from segkit.errors import InputError
from segkit.io import write_bytes_atomic
from segkit.log import logger
from segkit.options import InferOptions
from segkit.postprocess import score_of

FILE = "engine_choice.json"
# Shares of equal pixels below which an engine is not taken; the lower one for bf16, fp16 and int8 by the user's wish.
MIN_AGREEMENT, MIN_AGREEMENT_LOW = 0.999, 0.99
_TURNS, _TURN_SECONDS = 3, 0.2
_PIXELS = 2**20  # of the photos that are timed together
_KEPT = 20  # choices in the file, the newest
_MADE_UP_SIZE, _COARSE, _NOISE = 512, 16, 8
COMPARED = 3  # photos on which masks are compared, where so many are at hand
_FAILURES = (RuntimeError, ValueError, OSError)  # InputError among them
_REMEDY = "Nothing needs to be done while another one runs the model."
_FLAGS = ("device", "precision", "cpu_threads", "use_trt", "use_int8", "enable_mkldnn")
Candidate = tuple[type[Backend], str]
Inputs = Optional[list[np.ndarray]]


@dataclass
class Trial:
    """One engine at one precision: median milliseconds of a batch, and the share of pixels that agree with the first
    float32 engine's."""

    backend: str
    precision: str
    milliseconds: float
    agreement: float


def choose(kinds: list[type[Backend]], spec: DeploySpec, options: InferOptions, tune_on: Inputs = None) -> Backend:
    """The fastest of `kinds` whose masks agree, opened. One line in the log says what was chosen and why.

    Where there is a choice, a trial decides: agreement on the first batches of `tune_on` (or a made-up photo), and time
    on the first of them, as many photos at once as `options.batch_size` says. It is remembered in the exported folder
    for this model, CPU, shape and these versions; a folder that cannot be written is no obstacle.
    """
    wanted = _precisions(options)
    candidates = [
        (kind, precision)
        for precision in wanted
        for kind in kinds
        if len(wanted) == 1 or kind.obstacle(spec, dataclasses.replace(options, precision=precision)) is None
    ]
    if len(wanted) > 1 and all(precision == "fp32" for _, precision in candidates):
        logger.info("--precision auto: no engine here computes in %s: float32", wanted[1])
    if len(candidates) == 1:
        kind, precision = candidates[0]
        return kind(spec, dataclasses.replace(options, precision=precision), tune_on)
    batches = tune_on[:COMPARED] if tune_on else [made_up(spec)]
    timed = _filled(batches[0], options.batch_size)
    key = _key(candidates, spec, options, timed)
    remembered = _recall(spec, key)
    if remembered is not None:
        kind = next(kind for kind, _ in candidates if kind.name == remembered.backend)
        logger.info("engine: %s %s, as remembered in %s", remembered.backend, remembered.precision, spec.folder / FILE)
        return kind(spec, dataclasses.replace(options, precision=remembered.precision), tune_on)
    best, trials, backend = _compare(candidates, spec, options, batches, tune_on)
    rows = ", ".join(
        f"{trial.backend} {trial.precision} {trial.milliseconds:.3g} ms and {100 * trial.agreement:.3f} % equal"
        for trial in trials
    )
    logger.info("engine: %s %s, the fastest on %s (%s)", best.backend, best.precision, list(timed.shape), rows)
    _remember(spec, key, best, trials)
    return backend


def made_up(spec: DeploySpec) -> np.ndarray:
    """A batch of one smooth random photo in the shape that the graph takes."""
    count, channels, height, width = (
        fixed if fixed > 0 else default for fixed, default in zip(spec.input_shape, (1, 3, *(2 * (_MADE_UP_SIZE,))))
    )
    photos = np.stack([made_up_photo(height, width, channels, seed) for seed in range(count)])
    if spec.input_dtype == "uint8":
        return photos
    return np.ascontiguousarray(photos.transpose(0, 3, 1, 2), np.float32) / 127.5 - 1


def made_up_photo(height: int, width: int, channels: int, seed: int = 0) -> np.ndarray:
    """A random photo, uint8 [height, width, channels]: colours that run into each other, and noise."""
    rng = np.random.default_rng(seed)
    coarse = rng.uniform(0, 255, (channels, height // _COARSE + 2, width // _COARSE + 2)).astype(np.float32)
    smooth = np.stack([cv2.resize(plane, (width, height), interpolation=cv2.INTER_CUBIC) for plane in coarse], axis=-1)
    return np.clip(smooth + rng.normal(0, _NOISE, smooth.shape), 0, 255).astype(np.uint8)


def agreement(first: np.ndarray, second: np.ndarray, spec: DeploySpec) -> float:
    """Share of pixels with the same class in two outputs of `Backend.run`."""
    masks = [_classes(output, spec) for output in (first, second)]
    return float((masks[0] == masks[1]).mean())


def _classes(output: np.ndarray, spec: DeploySpec) -> np.ndarray:
    if output.dtype.kind in "iu":
        return output
    alone = spec.multilabel or output.shape[1] == 1
    return output > score_of(0.5, spec.scores_are) if alone else output.argmax(axis=1)


def _precisions(options: InferOptions) -> list[str]:
    if options.precision != "auto":
        return [options.precision]
    return ["fp32", "bf16" if gpu_number(options) is None else "fp16"]


def _compare(
    candidates: list[Candidate], spec: DeploySpec, options: InferOptions, batches: list[np.ndarray], tune_on: Inputs
) -> tuple[Trial, list[Trial], Backend]:
    """Try every candidate. An engine that fails or disagrees on one of `batches` is left out, and said."""
    expected = None if candidates[0][1] == "fp32" else _reference(candidates, spec, options, batches)
    rows: list[tuple[Trial, Backend]] = []
    for kind, precision in candidates:
        try:
            backend = kind(spec, dataclasses.replace(options, precision=precision), tune_on)
            outputs = [backend.run(batch) for batch in batches]
        except _FAILURES as error:
            logger.warning(
                "engine %s %s is left out: %s. %s", kind.name, precision, last_line(error).rstrip("."), _REMEDY
            )
            continue
        expected = outputs if expected is None else expected
        share = min(agreement(*pair, spec) for pair in zip(expected, outputs))
        if share < _least(options, precision):
            said = "engine %s %s is left out: only %.3f %% of a photo's pixels agree with the others'. %s"
            logger.warning(said, kind.name, precision, 100 * share, _REMEDY)
            continue
        rows.append((Trial(kind.name, precision, 0.0, share), backend))
    if not rows:
        raise InputError(f"{spec.path}: no inference engine can run this model (see above). Export it again.")
    timed = _filled(batches[0], options.batch_size)
    for (trial, _), milliseconds in zip(rows, _race([backend for _, backend in rows], timed)):
        trial.milliseconds = milliseconds
    best, opened = min(rows, key=lambda row: row[0].milliseconds)
    return best, [trial for trial, _ in rows], opened


def _least(options: InferOptions, precision: str) -> float:
    low = precision != "fp32" and options.precision != "auto"
    return MIN_AGREEMENT_LOW if low else MIN_AGREEMENT


def _reference(
    candidates: list[Candidate], spec: DeploySpec, options: InferOptions, batches: list[np.ndarray]
) -> Optional[list[np.ndarray]]:
    """What the first engine that works says in float32."""
    plain = dataclasses.replace(options, precision="fp32", use_trt=False, use_int8=False)
    for kind, _ in candidates:
        try:
            backend = kind(spec, plain)
            return [backend.run(batch) for batch in batches]
        except _FAILURES:
            continue
    return None


def _filled(batch: np.ndarray, size: int) -> np.ndarray:
    """The batch repeated until it is of `size` photos, or of `_PIXELS` pixels."""
    size = min(size, len(batch) * max(1, 3 * _PIXELS // batch.size))
    return np.repeat(batch, max(1, size // len(batch)), axis=0)


def _race(backends: list[Backend], batch: np.ndarray) -> list[float]:
    """Milliseconds of a batch in each: of its turns the median, of the runs in a turn the fastest. They take turns, so
    that what else the machine does falls on all; who is twice as slow as the best gets no further turn."""
    times: list[list[float]] = [[] for _ in backends]
    racing = list(range(len(backends)))
    for _ in range(_TURNS):
        for index in racing:
            times[index].append(_turn(backends[index], batch))
            if len(racing) > 1:
                time.sleep(backends[index].spins)
        best = min(map(statistics.median, times))
        racing = [index for index in racing if statistics.median(times[index]) <= 2 * best]
    return [statistics.median(found) for found in times]


def _turn(backend: Backend, batch: np.ndarray) -> float:
    """Milliseconds a batch of the fastest run, of as many side by side as the engine takes."""
    fastest, begin, now = float("inf"), time.perf_counter(), 0.0
    with ThreadPoolExecutor(backend.parallel) as pool:
        run = map if backend.parallel == 1 else pool.map
        while now - begin < _TURN_SECONDS:
            start = time.perf_counter()
            list(run(backend.run, [batch] * backend.parallel))
            now = time.perf_counter()
            fastest = min(fastest, 1000 * (now - start) / backend.parallel)
    return fastest


def _key(candidates: list[Candidate], spec: DeploySpec, options: InferOptions, batch: np.ndarray) -> str:
    """What the choice depends on: the files, the engines' versions, the machine, the flags and the input's shape."""
    files = sorted({str(kind.file(spec)) for kind, _ in candidates})
    stats = [os.stat(spec.folder / file) for file in files]
    facts = [
        [[file, stat.st_size, stat.st_mtime_ns] for file, stat in zip(files, stats)],
        [[kind.name, _version(kind.package), precision] for kind, precision in candidates],
        [*(runtime.cpu_facts().get(name) for name in ("model name", "flags")), runtime.physical_cores()],
        {name: getattr(options, name) for name in _FLAGS},
        options.hint == "throughput",
        list(batch.shape),
    ]
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]


def _version(package: str) -> str:
    for name in (package, f"{package}paddle", f"{package}-gpu", f"{package}paddle-gpu"):
        try:
            return version(name)
        except PackageNotFoundError:
            continue
    return "unknown"


def _load(spec: DeploySpec) -> dict[str, Any]:
    try:
        content = json.loads((spec.folder / FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _recall(spec: DeploySpec, key: str) -> Optional[Trial]:
    try:
        return Trial(**_load(spec)[key]["chosen"])
    except (KeyError, TypeError):
        return None


def _remember(spec: DeploySpec, key: str, best: Trial, trials: list[Trial]) -> None:
    content = dict([item for item in _load(spec).items() if item[0] != key][1 - _KEPT :])
    content[key] = {"chosen": dataclasses.asdict(best), "trials": [dataclasses.asdict(trial) for trial in trials]}
    try:
        write_bytes_atomic(spec.folder / FILE, json.dumps(content, indent=1).encode())
    except InputError:
        logger.debug("%s cannot be written: engines are tried again next time", spec.folder / FILE)
