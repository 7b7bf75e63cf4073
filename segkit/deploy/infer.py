"""Segment photos with an exported folder. Needs numpy, OpenCV, pyyaml, Pillow and an inference engine."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path
from typing import Any, Union

import numpy as np

from segkit import io
from segkit.deploy.backends import Backend, open_backend
from segkit.deploy.inputs import Item, collect
from segkit.deploy.outputs import draw_overlay, full_palette, write_mask
from segkit.deploy.pipeline import Photo, Segmenter, batched, prefetched
from segkit.deploy.spec import DeploySpec
from segkit.errors import InputError, list_problems
from segkit.log import logger
from segkit.options import InferOptions

_WARM_UP = 3


def segmenter(spec: DeploySpec, backend: Backend) -> Segmenter:
    """The exported model with its transforms, classes and palette."""
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
    )


def infer(options: InferOptions) -> dict[str, Any]:
    """Write `save_dir/<sub-path>.png` for every photo, a palette PNG whose indices are the classes.

    Returns the numbers of photos and, with `benchmark`, the mean milliseconds of each stage. A photo that
    cannot be read does not stop the others; all of them are named in an `InputError` at the end.
    """
    if options.batch_size < 1:
        raise InputError(f"--batch_size: got {options.batch_size}, expected at least 1.")
    spec = DeploySpec.load(options.config)
    items = collect(options.image_path, options.save_dir, videos=False)
    backend = open_backend(spec, options, _tuning_inputs(spec, items, options))
    model = segmenter(spec, backend)
    run = _Run(model, options)
    if options.print_detail:
        logger.info("%s, %s on %s: %d photos", spec.folder, backend.name, options.device, len(items))
    for batch in batched(run.photos(items), lambda found: found[1].x.shape, options.batch_size):
        run.segment(batch)
    return run.finish(len(items))


def _tuning_inputs(spec: DeploySpec, items: list[Item], options: InferOptions) -> list[np.ndarray]:
    """A few of the photos, each as a batch of its own; what cannot be read is left for the run itself to name."""
    model = Segmenter(
        lambda batch: batch, spec.build_transforms(), [], None, spec.img_channels, input_layout=spec.input_layout
    )
    found: list[np.ndarray] = []
    for item in items[:10]:
        with contextlib.suppress(InputError):
            found.append(model.prepare(item.path).x[None])
        if found and not (options.use_trt and options.enable_auto_tune):
            break
    return found


class _Run:
    """One run over the photos: what failed, and the seconds of each stage."""

    def __init__(self, model: Segmenter, options: InferOptions):
        self.model = model
        self.options = options
        self.palette = full_palette(model.palette)
        self.failed: list[str] = []
        self.done = 0
        self.warm_up = _WARM_UP if options.benchmark else 0
        self.seconds = {"preprocess": 0.0, "run": 0.0, "postprocess": 0.0}

    def photos(self, items: list[Item]) -> Any:
        """(item, photo) of each photo that can be read."""

        def load(item: Item) -> tuple[Item, Union[Photo, InputError], float]:
            start = time.perf_counter()
            try:
                return item, self.model.prepare(item.path), time.perf_counter() - start
            except InputError as error:
                return item, error, 0.0

        # Timing one stage at a time needs the threads out of the way.
        for item, photo, seconds in prefetched(load, items, 0 if self.options.benchmark else None):
            if isinstance(photo, InputError):
                self.failed.append(str(photo))
                continue
            self.seconds["preprocess"] += seconds
            yield item, photo

    def segment(self, batch: list[tuple[Item, Photo]]) -> None:
        """Run the engine on photos of one size and write their masks."""
        x = np.stack([photo.x for _, photo in batch])
        for _ in range(self.warm_up):
            self.model.run(x)
        self.warm_up = 0
        start = time.perf_counter()
        outputs = self.model.run(x)
        ran = time.perf_counter()
        masks = [self.model.mask(output, photo.geometry) for output, (_, photo) in zip(outputs, batch)]
        self.seconds["run"] += ran - start
        self.seconds["postprocess"] += time.perf_counter() - ran
        folder = Path(self.options.save_dir)
        for (item, photo), mask in zip(batch, masks):
            write_mask(folder, item.name, mask, self.palette, self.model.class_names)
            if self.options.added:
                io.write_png(
                    folder / "added_prediction" / f"{item.name}.png", draw_overlay(photo.image, mask, self.palette)
                )
            self.done += 1

    def finish(self, count: int) -> dict[str, Any]:
        """The summary; raises when photos could not be read."""
        result: dict[str, Any] = {"images": self.done, "save_dir": self.options.save_dir}
        if self.options.benchmark and self.done:
            latency = {name: 1000 * seconds / self.done for name, seconds in self.seconds.items()}
            latency["total"] = sum(latency.values())
            result["milliseconds"] = latency
            logger.info(
                "latency per photo, batch size %d: %s",
                self.options.batch_size,
                ", ".join(f"{name} {value:.2f} ms" for name, value in latency.items()),
            )
        if self.options.print_detail:
            logger.info("%d masks are in %s", self.done, self.options.save_dir)
        if self.failed:
            title = f"{len(self.failed)} of {count} photos could not be segmented, the others are done:"
            raise InputError(list_problems(title, self.failed))
        return result
