"""Segment photos and videos with an exported folder. Needs numpy, OpenCV, pyyaml and an inference engine."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Optional

import numpy as np

from segkit import io, runtime
from segkit.deploy import pictures, timing
from segkit.deploy.backends import Backend, open_backend
from segkit.deploy.backends.base import check_input
from segkit.deploy.backends.choice import COMPARED
from segkit.deploy.geo import write_georeferenced
from segkit.deploy.inputs import OVERLAYS, Item, collect
from segkit.deploy.outputs import full_palette, write_mask
from segkit.deploy.pipeline import Photo, Segmenter
from segkit.deploy.spec import DeploySpec
from segkit.deploy.stages import WRITERS, Loaded, Stages, batched, check_failed
from segkit.deploy.windows import Windows, windows_as
from segkit.errors import InputError
from segkit.log import logger
from segkit.options import InferOptions, check_idle
from segkit.progress import progress

_WARM_UP, _TUNING = 3, 10  # photos
_MANY = 8  # photos a core
_AT_ONCE = 1 << 27  # numbers of inputs and scores together that photos run side by side may hold: 512 MiB
_ALONE, _ALONE_SECONDS = 100, 15.0  # photos, and seconds at most, that are timed one by one


def segmenter(spec: DeploySpec, backend: Backend, windows: Optional[Windows] = None) -> Segmenter:
    """The exported model with its transforms, classes and palette, applied whole or in sliding windows."""
    palette = np.array(spec.palette, np.uint8) if spec.palette else None
    return Segmenter(
        backend.run,
        spec.build_transforms(),
        list(map(str, spec.classes)),
        palette,
        spec.img_channels,
        spec.threshold,
        spec.multilabel,
        spec.nodata,
        spec.input_layout,
        windows,
        spec.scores_are,
    )


def infer(options: InferOptions) -> dict[str, Any]:
    """Write `save_dir/<sub-path>.png` for every photo, a palette PNG whose indices are the classes, and of GeoTIFFs
    `<sub-path>.tif` with their coordinates; of a video or camera every frame as `<name>/frame_000001.png`.

    Returns the number of photos and frames and, with `benchmark`, what `timing.table` prints. A photo that cannot
    be read does not stop the others; all of them are named in an `InputError` at the end.
    """
    if options.batch_size < 1:
        raise InputError(f"--batch_size: got {options.batch_size}, expected at least 1. Give such a number.")
    check_idle(options, "added", options.added or options.figures is not None, ("style", "opacity"))
    check_idle(options, "added", options.added, ("legend",))
    spec = DeploySpec.load(options.config)
    windows = windows_as(options, spec.test_config)
    pictures.check(options, spec.multilabel)
    items = collect(options.image_path, options.save_dir, ("", OVERLAYS, pictures.FIGURES))
    tune_on = _tuning_inputs(spec, items, options, windows)
    options = dataclasses.replace(options, hint=_hint(options, spec, items, windows))
    backend = open_backend(spec, options, tune_on)
    model = segmenter(spec, backend, windows)
    io.prepare_folder(Path(options.save_dir))
    if options.print_detail:
        logger.info("%s, %s on %s: %s", spec.folder, backend.name, options.device, _counted(items))
    writer = _Writer(model, options)
    stages = Stages(model, writer, _grouping(options.batch_size), engines=backend.parallel)
    result: dict[str, Any] = {"images": 0, "save_dir": options.save_dir}
    if options.benchmark:
        one_by_one = stages
        if options.hint == "throughput" and backend.parallel > 1:
            # How long one photo takes is asked of an engine that has all cores for it.
            own = dataclasses.replace(options, hint="latency", backend=backend.name, precision=backend.precision)
            alone = segmenter(spec, open_backend(spec, own, tune_on), windows)
            one_by_one = Stages(alone, writer, _grouping(options.batch_size))
        result["benchmark"] = _benchmark(one_by_one, stages, items, options)
    else:
        stages.run(items, "infer")
    writer.pictures.finish()
    result["images"] = stages.done
    if options.print_detail:
        logger.info("%d masks are in %s", stages.done, options.save_dir)
    check_failed(stages.failed, len(items))
    return result


def _counted(items: list[Item]) -> str:
    videos = sum(item.is_video for item in items)
    photos = len(items) - videos
    said = [f"{number} {word}{'s' * (number > 1)}" for number, word in ((photos, "photo"), (videos, "video")) if number]
    return " and ".join(said)


def _hint(options: InferOptions, spec: DeploySpec, items: list[Item], windows: Optional[Windows]) -> str:
    """What `--hint auto` means: with many photos and a graph of one size several of them side by side, on a core each.
    The cores then never wait for each other, nor for the threads that read and write, which take turns with them."""
    if options.hint != "auto":
        return options.hint
    cores = options.cpu_threads or runtime.physical_cores()
    many = len(items) >= _MANY * cores and not any(item.is_video for item in items)
    height, width = spec.input_shape[2:]
    numbers = height * width * (spec.img_channels + (spec.num_classes or 0)) * options.batch_size * cores
    fits = min(height, width) > 0 and windows is None and numbers <= _AT_ONCE
    return "throughput" if options.device == "cpu" and cores > 1 and many and fits else "latency"


def _grouping(size: int) -> Any:
    """Batches of up to `size` photos whose network inputs are of one shape."""

    def group(photos: Iterable[Loaded]) -> Iterator[list[Loaded]]:
        return batched(photos, lambda loaded: loaded.photo.x.shape, size)

    return group


def _tuning_inputs(
    spec: DeploySpec, items: list[Item], options: InferOptions, windows: Optional[Windows]
) -> list[np.ndarray]:
    """A few of the photos, each as a batch of its own, or the first window of each; what cannot be read or does not
    fit the graph is left for the run itself to name."""
    transforms, layout = spec.build_transforms(), spec.input_layout
    model = Segmenter(
        lambda x: x, transforms, [], None, spec.img_channels, input_layout=layout, windows=windows, nodata=spec.nodata
    )
    found: list[np.ndarray] = []
    for item in [item for item in items if not item.is_video][:_TUNING]:
        with contextlib.suppress(InputError):
            batch = model.first_batch(model.prepare(item.path))
            check_input(spec, batch)
            found.append(batch)
        if len(found) == (_TUNING if options.use_trt and options.enable_auto_tune else COMPARED):
            break
    return found


class _Writer:
    """Masks, and what was asked for beside them. See `segkit.deploy.stages.Writer`."""

    scores = False

    def __init__(self, model: Segmenter, options: InferOptions):
        self.classes = model.class_names
        self.folder = Path(options.save_dir)
        self.palette = full_palette(model.palette)
        self.overlays = self.folder / OVERLAYS if options.added else None
        self.pictures = pictures.Pictures(self.folder, options, self.classes, self.palette)

    def write(self, name: str, photo: Photo, output: np.ndarray, mask: np.ndarray, is_frame: bool) -> None:
        """See `Writer`."""
        write_mask(self.folder, name, mask, self.palette, self.classes)
        if not is_frame:
            write_georeferenced(self.folder / f"{name}.tif", mask, photo.path)
        if self.overlays and not is_frame:
            self.pictures.write_overlay(self.overlays / f"{name}.png", photo, mask)
        self.pictures.write(name, photo, mask, is_frame)

    def overlay(self, photo: Photo, mask: np.ndarray) -> np.ndarray:
        """See `Writer`."""
        return self.pictures.overlay(photo.image, mask)


def _benchmark(one_by_one: Stages, stages: Stages, items: list[Item], options: InferOptions) -> dict[str, Any]:
    """Latencies of photos `one_by_one`, then the whole run with all stages at once: throughput and busy shares."""
    photos = [item for item in items if not item.is_video]
    for item in photos[:1] * _WARM_UP:
        one_by_one.alone(item)
        stages.alone(item)
    begin = time.perf_counter()
    alone = one_by_one.clock = timing.Clock()
    with progress(_ALONE, "one by one") as bar:
        for item in itertools.islice(itertools.cycle(photos), _ALONE if photos else 0):
            one_by_one.alone(item)
            bar.update()
            if time.perf_counter() - begin > _ALONE_SECONDS:
                break
    clock = stages.clock = timing.Clock()
    begin = time.perf_counter()
    stages.run(items, "infer")
    wall = time.perf_counter() - begin
    threads = {"read": stages.readers, "run": stages.engines, "mask": WRITERS, "write": WRITERS}
    busy = timing.busy_shares(clock, wall, threads)
    alone = alone if photos else clock
    found = {
        "latency": timing.latencies(alone),
        "latency_photos": len(alone.seconds[timing.TOTAL]),
        "seconds_by_stage": {name: round(sum(clock.seconds[name]), 4) for name in timing.STAGES},
        "threads": threads,
        "busy": busy,
        "waits": {name: round(seconds / wall, 4) for name, seconds in clock.waits.items()},
        "bound_by": timing.bound_by(clock, wall),
        "images": stages.done,
        "batch_size": options.batch_size,
        "seconds": round(wall, 4),
        "images_per_second": round(stages.done / wall, 3),
        "peak_memory_mib": timing.peak_memory(),
    }
    if stages.done:
        text = "latency of %d photos one by one, warm; busy: share of its threads' time in the whole run\n%s"
        logger.info(text, found["latency_photos"], timing.table(found))
    return found
