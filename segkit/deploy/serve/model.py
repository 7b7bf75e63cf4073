"""An exported model made ready to serve, and the list of those that are."""

from __future__ import annotations

import asyncio
import dataclasses
import re
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from segkit.deploy.backends import open_backend
from segkit.deploy.infer import segmenter
from segkit.deploy.outputs import full_palette
from segkit.deploy.pipeline import Photo
from segkit.deploy.serve.batching import Batcher
from segkit.deploy.serve.limits import Limits, Refused, Room
from segkit.deploy.serve.metrics import Metrics
from segkit.deploy.serve.results import Classes, Wanted, encode
from segkit.deploy.spec import DeploySpec
from segkit.deploy.windows import windows_as
from segkit.errors import InputError
from segkit.log import logger
from segkit.options import EngineOptions, InferOptions, ServeOptions
from segkit.transforms import base

_PIXELS = 40_000_000  # of decoded photos together, about 1.5 GB with all that becomes of them
_WARM_UP_SIZE = 256  # pixels, where the graph takes any size


class ServedModel:
    """One exported folder behind its name: reads photos, runs them in batches, writes replies.

    Photos are decoded as far as there is `room`; further ones wait as the bytes that were sent.
    """

    def __init__(self, name: str, folder: str, options: ServeOptions, metrics: Metrics, threads: int):
        self.name, self.metrics = name, metrics
        self._room_for = max(options.max_pixels, _PIXELS)
        self._least = self._room_for // (2 * options.max_batch + threads)
        self.spec = DeploySpec.load(folder)
        shared = {field.name: getattr(options, field.name) for field in dataclasses.fields(EngineOptions)}
        engine = InferOptions(config=folder, batch_size=options.max_batch, **shared)
        self.backend = open_backend(self.spec, engine)
        self.segmenter = segmenter(self.spec, self.backend, windows_as(InferOptions(), self.spec.test_config))
        self.classes = Classes(self.segmenter.class_names, full_palette(self.segmenter.palette), self.spec.num_classes)
        self.batcher = Batcher(self.backend.run, options.max_batch, options.max_wait_ms / 1000, self._report)
        self.segmenter.run = self._in_turns
        self._slides = ThreadPoolExecutor(threads, "windows")  # they wait for the engine, which no reading shall
        self._warm = self._warm_up()

    @cached_property
    def room(self) -> Room:
        """For the pixels of decoded photos, made at first use, in the loop that it belongs to."""
        return Room(self._room_for)

    async def weigh(self, data: bytes, limits: Limits, pool: ThreadPoolExecutor) -> int:
        """The room that a photo needs, see `Limits.check_pixels`; no less than lets two batches and those being read
        or written in."""
        run = asyncio.get_running_loop().run_in_executor
        pixels = await run(pool, limits.check_pixels, data, self.spec.img_channels)
        return max(pixels, self._least)

    @property
    def ready(self) -> bool:
        """Whether the engine has run once: its first run may take long."""
        return self._warm.done() and self._warm.exception() is None

    def about(self) -> dict[str, Any]:
        """What a client may want to know."""
        count = self.spec.num_classes or len(self.classes.names)
        return {
            "name": self.name,
            "ready": self.ready,
            "backend": self.backend.name,
            "classes": [self.classes.row(number) for number in range(count)],
            "img_channels": self.spec.img_channels,
            "input_shape": self.spec.input_shape,
            "multilabel": self.spec.multilabel,
        }

    async def answer(self, data: bytes, wanted: Wanted, limits: Limits, pool: ThreadPoolExecutor) -> bytes:
        """The reply's body for the bytes of an image file. Call it within `room`."""
        run = asyncio.get_running_loop().run_in_executor
        with self.batcher.coming():
            with self._timed("read"):
                photo = await run(pool, self._read, data, limits)
            del data
            whole = None if self.segmenter.windows else self.batcher.submit(photo.x)
        with self._timed("engine"):
            output = await (
                run(self._slides, self.segmenter.output, photo) if whole is None else asyncio.wrap_future(whole)
            )
        with self._timed("write"):
            body = await run(pool, self._write, output, photo, wanted)
        self.metrics.photos.labels(self.name, wanted.format).inc()
        return body

    def close(self) -> None:
        """Finish what waits and end the threads."""
        self._slides.shutdown()
        self.batcher.close()

    def _in_turns(self, windows: np.ndarray) -> np.ndarray:
        """Several windows of one photo, which share the engine with those of others."""
        return np.stack([found.result() for found in [self.batcher.submit(window) for window in windows]])

    def _read(self, data: bytes, limits: Limits) -> Photo:
        try:
            with base.at_most(limits.pixels):
                photo = self.segmenter.prepare(data)
        except base.TooLarge as error:
            raise Refused(413, str(error)) from error
        if self.segmenter.windows is None and min(self.spec.input_shape[2:]) < 0:
            limits.check_input(*(photo.x.shape[1:] if self.spec.input_layout == "NCHW" else photo.x.shape[:2]))
        return photo

    def _write(self, output: np.ndarray, photo: Photo, wanted: Wanted) -> bytes:
        mask = self.segmenter.mask(output, photo.geometry)
        return encode(wanted, mask, photo.image, self.classes, self.name)

    def _timed(self, stage: str) -> Any:
        return self.metrics.stages.labels(self.name, stage).time()

    def _report(self, photos: int, seconds: float) -> None:
        self.metrics.batches.labels(self.name).observe(photos)
        self.metrics.engine.labels(self.name).inc(seconds)

    def _warm_up(self) -> Future:
        shape = [size if size > 0 else _WARM_UP_SIZE for size in self.spec.input_shape[2:]]
        gray = np.full((*shape, self.spec.img_channels), 127, np.uint8)
        future = self.batcher.submit(self.segmenter.first_batch(self.segmenter.prepare(gray))[0])
        future.add_done_callback(self._say_warm)
        return future

    def _say_warm(self, future: Future) -> None:
        error = future.exception()
        if error is None:
            logger.info("model %s is ready: %s on %s", self.name, self.spec.folder, self.backend.name)
        else:
            logger.error("model %s is not ready, its first run failed: %s", self.name, error)


def named_folders(texts: list[str]) -> dict[str, str]:
    """{name: folder} of `NAME=FOLDER`, or `FOLDER`, which is called as the folder is. Errors: bad or equal names."""
    found: dict[str, str] = {}
    for text in texts:
        name, equals, folder = text.partition("=")
        if not equals or Path(text).exists():
            path = Path(text).resolve()
            name, folder = (path.parent if path.is_file() else path).name, text
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
            raise InputError(
                f"segkit serve: '{name}' cannot be a model's name (expected letters, digits, '.', '_' and '-'). "
                f"Give it one: NAME={folder}."
            )
        if name in found:
            raise InputError(
                f"segkit serve: two models are called '{name}' ({found[name]} and {folder}). Give them names: "
                f"a={found[name]} b={folder}."
            )
        found[name] = folder
    return found
