"""Reading batches: the order of samples, worker processes, collation.

A sample is asked for by a key (epoch, number); its augmentation's generator is made from (seed, epoch, number)
alone. So the same seed gives the same batches whatever the number of workers, ranks or restarts.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import multiprocessing
import multiprocessing.util  # its exit hook must be registered before ours
import os
import pickle
import shutil
import signal
import sys
import threading
import time
import weakref
from dataclasses import dataclass
from typing import Any, Callable, Dict, List, Optional, Union

import numpy as np
import paddle
from paddle.io import DataLoader

from segkit import dist
from segkit.engine.collate import Failure, Reader, collate, collate_one, normalised
from segkit.engine.memory import tune_malloc
from segkit.engine.read_ahead import ReadAhead, tensor_of
from segkit.engine.sampler import EpochSampler, Position
from segkit.errors import InputError, list_problems
from segkit.log import warn_once

PREFETCH = 2
"""Batches a worker holds ready."""
PATIENCE = 600
"""Seconds that a batch may take before its reader counts as hung."""
NICENESS = 10
"""How far a worker steps back behind the training step, whose threads wait for each other."""
_open: weakref.WeakSet = weakref.WeakSet()


@atexit.register
def _close_open() -> None:
    """Workers ignore SIGTERM, with which multiprocessing would end them at exit: end them first, the proper way."""
    for loader in list(_open):
        loader.close()


@dataclass
class EvalSample:
    """One sample of an evaluation."""

    image: paddle.Tensor
    """float32 `[1, C, H, W]`, on the CPU"""
    label: Optional[np.ndarray]
    """`[H0, W0]` (planes `[C, H0, W0]`) at the photo's own size"""
    geometry: List[dict]
    """what the transforms did, for segkit.postprocess.undo"""
    path: str
    index: int
    """its number in the data set"""


def _start_worker(worker: int) -> None:
    """In a new worker process: one thread, and no life after the parent's.

    Ctrl-C and a SIGTERM for the whole process group are the parent's to answer (it saves a checkpoint and then
    closes its workers). Paddle's worker waits for keys without end, so the kernel is asked to end it with its parent.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
    cv2 = sys.modules.get("cv2")
    if cv2 is not None:
        cv2.setNumThreads(0)
    os.environ["OMP_NUM_THREADS"] = "1"  # for what is loaded later; nothing here computes with Paddle
    tune_malloc(1 << 30)  # a worker needs no more; or every array of every sample is faulted in anew
    with contextlib.suppress(OSError):
        os.nice(NICENESS)


def default_workers() -> int:
    """Reading processes when nobody says: on a GPU two (at most one a core); on the CPU none, for there the training
    step has every core already, and a thread reads ahead anyway (measured: a process gains nothing)."""
    if not sys.platform.startswith("linux") or not paddle.get_device().startswith("gpu"):
        return 0
    return min(2, os.cpu_count() or 1)


def _shared_memory_left() -> int:
    """Free bytes of /dev/shm, through which workers hand over arrays."""
    try:
        return shutil.disk_usage("/dev/shm").free
    except OSError:
        return 0


def _bytes(value: Any) -> int:
    """Of an array, or the arrays in a list or dict."""
    if isinstance(value, dict):
        value = list(value.values())
    return sum(map(_bytes, value)) if isinstance(value, list) else getattr(value, "nbytes", 0)


def _fits_shared_memory(reader: Reader, keys: List[Position], workers: int) -> bool:
    """Whether the batches under way fit into /dev/shm. Reads one sample to know their size, so that a data set
    that cannot be read fails here, at once."""
    sample = reader[keys[0]]
    if isinstance(sample, Failure):
        sample.throw()
    needed = sum(_bytes(value) for value in collate([sample]).values()) * len(keys) * (workers * PREFETCH + 2)
    left = _shared_memory_left()
    if needed < left:
        return True
    warn_once(
        f"/dev/shm: too small for {workers} workers (got {left >> 20} MB free, expected {needed >> 20} MB): arrays go "
        "through pipes, which is slower. Enlarge it (docker run --shm-size 8g) or lower --num_workers."
    )
    return False


def all_bad(dataset: Any, first: InputError, seconds: float = 60) -> InputError:
    """`first`, or one message for all samples of `dataset` that cannot be read, where there are more. Looks at them
    for so many seconds at most."""
    if not hasattr(dataset, "read"):
        return first
    end = time.monotonic() + seconds
    found, looked = [], 0
    for index in range(len(dataset)):
        if time.monotonic() > end:
            break
        looked += 1
        try:
            dataset.read(index)
        except InputError as error:
            found.append(str(error))
    if len(found) < 2:
        return first
    part = "" if looked == len(dataset) else f" (of the first {looked}; the rest was not looked at)"
    title = f"{dataset.dataset_root}: {len(found)} of {len(dataset)} {dataset.mode} samples cannot be used{part}:"
    return InputError(list_problems(title, found))


def normalise(batch: dict) -> dict:
    """A batch of tensors whose normalisation was put off, `image` float32 on its device; any other as it is.

    On the CPU the values are those of `Normalize` bit for bit; elsewhere by a product and a sum, to 1e-6 of them.
    """
    table = batch.pop("normalize", None)
    if table is None:
        return batch
    image = batch["image"]
    if image.place.is_cpu_place():
        done = normalised({"image": image.numpy(), "normalize": table.numpy()})["image"]
        return {**batch, "image": tensor_of(done, paddle.CPUPlace())}
    return {**batch, "image": scaled(image, table)}


def scaled(image: paddle.Tensor, table: paddle.Tensor) -> paddle.Tensor:
    """uint8 `image` [N, C, H, W] through the straight line of `table` [256, C], on their device and unread by the host,
    which would wait there for the step before."""
    low, high = table[0].reshape([1, -1, 1, 1]), table[255].reshape([1, -1, 1, 1])
    return image.astype("float32") * ((high - low) / 255) + low


class _Start:
    """A new worker's first call: it learns its number among the reader's workers."""

    def __init__(self, reader: Reader):
        self.reader = reader

    def __call__(self, worker: int) -> None:
        self.reader.worker = worker
        _start_worker(worker)


class _Loader:
    """A DataLoader with a start, an end, and clear errors. Iterate once; `close` it (or use `with`)."""

    def __init__(self, reader: Reader, batches: Any, workers: Optional[int], collate_fn: Callable, place: Any = None):
        workers = default_workers() if workers is None else workers
        if workers < 0:
            raise InputError(f"num_workers: negative (got {workers}, expected 0 or more). 0 reads in the main process.")
        if workers and not sys.platform.startswith("linux"):
            warn_once(
                f"num_workers: Paddle reads with processes on Linux only (got {workers}): a thread of the main process "
                "reads ahead instead. Nothing needs to be done; with --num_workers 0 this line stays away."
            )
            workers = 0
        self.workers = workers
        self._reader, self._batches, self._collate, self._place = reader, batches, collate_fn, place
        self._iterator: Any = None
        self._hung = ""

    def _start(self) -> None:
        """Start the thread or the processes."""
        _open.add(self)
        if not self.workers:
            on_cpu = self._place is not None or paddle.get_device() == "cpu"
            whole = (lambda samples: normalised(self._collate(samples))) if on_cpu else self._collate
            self._iterator = ReadAhead(self._reader.__getitem__, self._batches, whole, PREFETCH, PATIENCE, self._place)
            return
        self._reader.reading = multiprocessing.RawArray("q", [-1] * self.workers)
        loader = DataLoader(
            self._reader,
            batch_sampler=self._batches,
            num_workers=self.workers,
            use_shared_memory=_fits_shared_memory(self._reader, next(iter(self._batches)), self.workers),
            prefetch_factor=PREFETCH,
            persistent_workers=True,
            timeout=1,  # how often it looks whether they live
            worker_init_fn=_Start(self._reader),
            collate_fn=self._collate,
            places=None if self._place is None else [self._place],
        )
        state = np.random.get_state()  # Paddle draws its workers' seed from the global generator
        before = signal.getsignal(signal.SIGCHLD)
        self._iterator = iter(loader)
        # Or its handler of SIGCHLD raises wherever the training step is when a worker dies.
        paddle.base.core._erase_process_pids(id(self._iterator))
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGCHLD, before)
        np.random.set_state(state)

    def _next(self) -> dict:
        """The next collated batch; a failure inside it is raised here."""
        if self._iterator is None:
            self._start()
        watch = threading.Timer(PATIENCE, self._end_hung)
        if self.workers:
            watch.start()
        try:
            batch = next(self._iterator)
        except (SystemError, TimeoutError) as error:
            raise self._lost(error) from error
        finally:
            watch.cancel()
        if "failure" in batch:
            self.close()
            failure = batch["failure"]
            if isinstance(failure.error, InputError):
                raise all_bad(self._reader.dataset, failure.error)
            failure.throw()
        return normalise(batch)

    def _end_hung(self) -> None:
        """Paddle waits without end for a process that hangs: end them all, and the waiting."""
        self._hung = self._reader.at(range(self.workers)) or "an unknown sample"
        for worker in self._iterator._workers:
            worker.kill()
        self._iterator._exit_thread_unexpectedly()

    def _lost(self, error: Exception) -> InputError:
        """What to say where no batch comes any more."""
        if isinstance(error, TimeoutError):
            self._hung = self._reader.at([0])
        if self._hung:
            return InputError(
                f"{self._hung}: reading hangs (no batch for {PATIENCE} s). Look at that file and at the disk or "
                "network that it is on."
            )
        dead = [number for number, worker in enumerate(self._iterator._workers) if not worker.is_alive()]
        sample = self._reader.at(dead)
        return InputError(
            f"num_workers: a data-reading process died{f' while it read {sample}' if sample else ''} (got: "
            f"{str(error).strip().splitlines()[0]}). Most often the machine was out of memory: lower --num_workers or "
            "--batch_size, or read with --num_workers 0."
        )

    def close(self) -> None:
        """End the workers. Safe to call twice."""
        iterator, self._iterator = self._iterator, None
        if isinstance(iterator, ReadAhead):
            iterator.close()
        elif iterator is not None:
            iterator._try_shutdown_all()

    def __enter__(self) -> _Loader:
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()


class TrainLoader(_Loader):
    """Endless iterator of batches, from `start` on.

    A batch is a dict: `image` float32 `[N, C, H, W]`; `label` `[N, H, W]` or planes `[N, C, H, W]`, uint8 or int32;
    further label-like keys of the samples (`edge`, ...), stacked where they can be, else lists; `path`, the images'
    files.
    """

    def __init__(
        self,
        dataset: Any,
        batch_size: int,
        num_workers: Optional[int] = None,
        seed: int = 42,
        repeats: int = 1,
        start: Union[int, Position] = 0,
    ):
        self.sampler = EpochSampler(len(dataset), batch_size, seed, repeats, start)
        self.position = self.sampler.start
        """where a run that has used all batches so far goes on"""
        super().__init__(Reader(dataset, seed), self.sampler, num_workers, collate)

    @property
    def batches_per_epoch(self) -> int:
        """Batches that this rank reads per epoch."""
        return self.sampler.batches_per_epoch

    def __iter__(self) -> TrainLoader:
        return self

    def __next__(self) -> Dict[str, Any]:
        batch = self._next()
        self.position = self.sampler.following(self.position)
        return batch


def train_loader(
    dataset: Any,
    batch_size: int,
    num_workers: Optional[int] = None,
    seed: int = 42,
    repeats: int = 1,
    start: Union[int, Position] = 0,
) -> TrainLoader:
    """Batches of `dataset` (`len`, `get(index, rng)`) for this rank without end, from `start` on: the number of
    batches already used, or (epoch, batch within the epoch)."""
    return TrainLoader(dataset, batch_size, num_workers, seed, repeats, start)


class EvalLoader(_Loader):
    """Iterator of this rank's `EvalSample`s, in the order of the data set; ranks share them without duplicates."""

    def __init__(self, dataset: Any, num_workers: Optional[int] = None, limit: Optional[int] = None):
        count = len(dataset) if limit is None else min(limit, len(dataset))
        self.indices = list(range(dist.rank(), count, dist.world_size()))
        keys = [[(0, index)] for index in self.indices]
        self._done = 0
        super().__init__(Reader(dataset, 0), keys, num_workers, collate_one, paddle.CPUPlace())

    def __len__(self) -> int:
        return len(self.indices)

    def __iter__(self) -> EvalLoader:
        return self

    def __next__(self) -> EvalSample:
        if self._done == len(self.indices):
            self.close()
            raise StopIteration
        one = self._next()
        label = one.get("label")
        index = self.indices[self._done]
        self._done += 1
        geometry = pickle.loads(one["geometry"])  # nosec B301: made by collate_one
        return EvalSample(one["image"], None if label is None else label.numpy(), geometry, one["path"], index)


def eval_loader(dataset: Any, num_workers: Optional[int] = None, limit: Optional[int] = None) -> EvalLoader:
    """Samples of `dataset`, one by one in order, for this rank; only the first `limit` where given."""
    return EvalLoader(dataset, num_workers, limit)
