"""Photos and videos through a model as on an assembly line: read ahead, run, finish, each in threads of its own."""

from __future__ import annotations

import contextlib
import itertools
import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional, Protocol, TypeVar, Union

import numpy as np

from segkit import io
from segkit.deploy.background import LIMIT, Background
from segkit.deploy.inputs import Item
from segkit.deploy.pipeline import Photo, Segmenter
from segkit.deploy.timing import TOTAL, Clock
from segkit.deploy.video import OverlayWriter, Source, UnreadableVideo
from segkit.errors import EngineError, InputError, enough_memory, list_problems
from segkit.log import logger
from segkit.progress import progress

T = TypeVar("T")
R = TypeVar("R")
WRITERS = 2  # threads that compute masks and pictures and write them
# Bytes a pixel that a photo takes until it has gone through the network: decoded, being normalised, normalised.
_BYTES_A_PIXEL = 32
_NAMED = 20  # inputs with the same mistake that a message names
_END: Any = object()


@dataclass
class Loaded:
    """A photo on its way, and when its reading began. `name`: of its results, without a suffix."""

    name: str
    photo: Photo
    began: float


Tried = tuple[list[Loaded], Union[list[np.ndarray], InputError]]


class Writer(Protocol):
    """What becomes of each mask; called by several threads at a time."""

    scores: bool
    """whether `write` needs scores, and not only classes"""
    overlays: Optional[Path]
    """the folder of the overlays of videos, None where none are wanted"""

    def write(self, name: str, photo: Photo, output: np.ndarray, mask: np.ndarray, is_frame: bool) -> None:
        """Write the results of one photo or video frame."""
        ...

    def overlay(self, photo: Photo, mask: np.ndarray) -> np.ndarray:
        """The picture of a video's overlay, RGB uint8 [H, W, 3]."""
        ...


class Stages:
    """`model` on everything that comes. `group` makes batches of photos of one size; `readers`: threads that read,
    `engines`: how many batches the engine takes side by side."""

    def __init__(
        self,
        model: Segmenter,
        writer: Writer,
        group: Callable[[Iterable[Loaded]], Iterator[list[Loaded]]],
        readers: Optional[int] = None,
        engines: int = 1,
    ):
        self.model, self.writer, self.group, self.engines = model, writer, group, engines
        self.readers = reader_threads() if readers is None else readers
        self.clock = Clock()
        self.failed: list[str] = []

    @property
    def done(self) -> int:
        """Photos and frames whose results are written."""
        return len(self.clock.seconds[TOTAL])

    def run(self, items: list[Item], title: str) -> None:
        """Segment photos, then videos. What cannot be read does not stop the others: `failed` says why."""
        photos = [item for item in items if not item.is_video]
        with progress(len(items), title) as bar, Background(WRITERS) as background:
            read = self._good(prefetched(self._read, photos, self.readers, _size_of), bar)
            for batch, outputs in self._segmented(read):
                if isinstance(outputs, InputError):
                    self.failed += [_named(loaded.photo.path, outputs) for loaded in batch]
                else:
                    self._submit(batch, outputs, background)
            for item in items:
                if item.is_video:
                    self._video(item, background)
                    bar.update()
            with self.clock.waiting("finish"):
                background.wait()

    def alone(self, item: Item) -> None:
        """One photo from file to file with nothing beside it, for the clock."""
        found = self._read(item)
        if isinstance(found, Loaded):
            _, outputs = self._tried([found])
            if not isinstance(outputs, InputError):
                self._finish(found, outputs[0], False)

    def _read(self, item: Item) -> Union[Loaded, InputError]:
        began = time.perf_counter()
        try:
            with self.clock.stage("read"):
                return Loaded(item.name, self.model.prepare(item.path), began)
        except InputError as error:
            return error

    def _good(self, found: Iterable[Union[Loaded, InputError]], bar: Any) -> Iterator[Loaded]:
        for loaded in self._awaited(found):
            if isinstance(loaded, InputError):
                self.failed.append(str(loaded))
            else:
                yield loaded
            bar.update()

    def _awaited(self, found: Iterable[T]) -> Iterator[T]:
        """The same, with the time that they let the engine wait counted."""
        items = iter(found)
        while True:
            with self.clock.waiting("read"):
                item = next(items, _END)
            if item is _END:
                return
            yield item

    def _outputs(self, batch: list[Loaded]) -> list[np.ndarray]:
        photo = batch[0].photo

        def too_big() -> str:
            size = "{1}x{0}".format(*photo.image.shape)
            fewer = "a smaller --batch_size" + (" or --hint latency" if self.engines > 1 else "")
            return (
                f"the memory does not suffice ({size} pixels, {len(batch)} at a time). "
                f"Go over it in windows, with --is_slide --crop_size 512 512, or take {fewer}."
            )

        with enough_memory(too_big), self.clock.stage("run", len(batch)):
            return self.model.outputs([loaded.photo for loaded in batch], self.writer.scores)

    def _segmented(self, photos: Iterable[Loaded]) -> Iterator[Tried]:
        """Batches with what the engine says of them, or why it cannot take them, in order; in this thread unless it
        takes several side by side."""
        workers = self.engines if self.engines > 1 else 0
        return prefetched(self._tried, self.group(photos), workers)

    def _tried(self, batch: list[Loaded]) -> Tried:
        try:
            return batch, self._outputs(batch)
        except EngineError:  # of the model, not of these photos
            raise
        except InputError as error:
            return batch, error

    def _submit(
        self, batch: list[Loaded], outputs: list[np.ndarray], background: Background, is_frame: bool = False
    ) -> list[Future]:
        """Have the rest done. Each future gives (photo, mask)."""
        with self.clock.waiting("finish"):
            return [
                background.submit(_held(loaded.photo, output), self._finish, loaded, output, is_frame)
                for loaded, output in zip(batch, outputs)
            ]

    def _finish(self, loaded: Loaded, output: np.ndarray, is_frame: bool) -> tuple[Photo, np.ndarray]:
        with self.clock.stage("mask"):
            mask = self.model.mask(output, loaded.photo.geometry)
        with self.clock.stage("write"):
            self.writer.write(loaded.name, loaded.photo, output, mask, is_frame)
        self.clock.add(TOTAL, time.perf_counter() - loaded.began)
        return loaded.photo, mask

    def _video(self, item: Item, background: Background) -> None:
        """The results of every frame, and the overlays as one video. Ctrl-C ends a camera, which has no other end."""
        overlays = self.writer.overlays
        try:
            with contextlib.ExitStack() as stack:
                source = stack.enter_context(Source(item, self.model.img_channels))
                video = stack.enter_context(OverlayWriter(_mp4(overlays, item)))
                # One more thread, as frames must come in order; it ends before the video is closed.
                in_order = stack.enter_context(Background())
                bar = stack.enter_context(progress(source.count, item.name))
                try:
                    self._frames(item, source, background, in_order, video if overlays else None, bar)
                except KeyboardInterrupt:
                    if not item.is_camera:
                        raise
                    logger.info("%s is stopped", item.name)
        except UnreadableVideo as error:
            self.failed.append(str(error))

    def _frames(
        self, item: Item, source: Source, background: Background, in_order: Background, video: Any, bar: Any
    ) -> None:
        called = f"camera {item.path}" if item.is_camera else item.path

        def load(frame: tuple[int, np.ndarray]) -> Loaded:
            began = time.perf_counter()
            try:
                with self.clock.stage("read"):
                    photo = self.model.prepare(frame[1], f"{called}, frame {frame[0]}")
            except InputError as error:
                raise UnreadableVideo(str(error)) from error
            return Loaded(f"{item.name}/frame_{frame[0]:06d}", photo, began)

        def add(found: Future) -> None:
            video.add(self.writer.overlay(*found.result()), source.rate)

        for batch, outputs in self._segmented(self._awaited(prefetched(load, ahead(source.frames()), self.readers))):
            if isinstance(outputs, InputError):
                raise UnreadableVideo(_named(batch[0].photo.path, outputs))
            for loaded, future in zip(batch, self._submit(batch, outputs, background, is_frame=True)):
                if video is not None:
                    in_order.submit(2 * loaded.photo.image.nbytes, add, future)
                bar.update()


def check_failed(failed: list[str], total: int) -> None:
    """`InputError` that names the inputs which could not be segmented, of `total` in all, if there are any. What is
    wrong with several in the same words is said once. `failed`: "INPUT: what is wrong"."""
    if not failed:
        return
    others = ", the others are done" if len(failed) < total else ""
    named: dict[str, list[str]] = {}
    for text in failed:
        name, _, reason = text.partition(": ")
        named.setdefault(reason, []).append(name)
    rows = []
    for reason, names in named.items():
        more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
        rows.append(f"{', '.join(names[:_NAMED])}{more}: {reason}")
    raise InputError(list_problems(f"{len(failed)} of {total} inputs could not be segmented{others}:", rows))


def reader_threads() -> int:
    """How many threads read photos unless told otherwise."""
    return min(4, os.cpu_count() or 1)


def _named(name: str, error: InputError) -> str:
    """The error's text, which begins with the input's name."""
    return str(error) if str(error).startswith(name) else f"{name}: {error}"


def _mp4(folder: Optional[Path], item: Item) -> Path:
    return (folder or Path()) / f"{item.name}.mp4"


def _held(photo: Photo, output: np.ndarray) -> int:
    return output.nbytes + photo.image.nbytes + photo.x.nbytes


def _size_of(item: Item) -> int:
    """Bytes that a photo will take, by its header."""
    try:
        height, width = io.image_size(item.path)
    except (InputError, OSError, ValueError):  # the reading itself says what is wrong with it
        return 0
    return _BYTES_A_PIXEL * height * width


def prefetched(
    load: Callable[[T], R],
    items: Iterable[T],
    workers: Optional[int] = None,
    size: Optional[Callable[[T], int]] = None,
    limit: int = LIMIT,
) -> Iterator[R]:
    """`load(item)` of each item in order, computed ahead by threads: decoding and resizing leave Python's lock.

    With `size` the results ahead are of `limit` bytes at most, unless a single one is larger.
    """
    workers = reader_threads() if workers is None else workers
    if workers <= 0:
        yield from map(load, items)
        return
    with ThreadPoolExecutor(workers) as pool:
        waiting: deque[tuple[int, Future]] = deque()
        held = 0
        try:
            for item in items:
                weight = size(item) if size else 0
                while waiting and (len(waiting) > workers or held + weight > limit):
                    held -= waiting[0][0]
                    yield waiting.popleft()[1].result()
                waiting.append((weight, pool.submit(load, item)))
                held += weight
            while waiting:
                yield waiting.popleft()[1].result()
        finally:
            for _, future in waiting:
                future.cancel()


def ahead(items: Iterator[T]) -> Iterator[T]:
    """The same items, the next ones fetched by a thread of its own."""
    fetched = prefetched(lambda _: next(items, _END), itertools.repeat(None), 1)
    yield from itertools.takewhile(lambda item: item is not _END, fetched)


def batched(items: Iterable[T], key: Callable[[T], Any], size: int) -> Iterator[list[T]]:
    """Lists of up to `size` items of one key. At most four times as many wait for a full batch at any time."""
    waiting: dict[Any, list[T]] = {}
    for item in items:
        group = waiting.setdefault(key(item), [])
        group.append(item)
        if len(group) == size:
            yield waiting.pop(key(item))
        elif sum(map(len, waiting.values())) >= 4 * size:
            yield waiting.pop(max(waiting, key=lambda name: len(waiting[name])))
    yield from waiting.values()
