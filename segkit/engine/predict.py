"""Masks, colours and overlays of a user's own photos and videos, from trained weights."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from segkit.deploy import pictures
from segkit.deploy.geo import write_georeferenced
from segkit.deploy.inputs import OVERLAYS, collect
from segkit.deploy.outputs import full_palette, write_array, write_mask
from segkit.deploy.pipeline import Photo, Segmenter, check_threshold
from segkit.deploy.stages import Loaded, Stages, check_failed
from segkit.dist import rank, world_size
from segkit.engine.apply import together
from segkit.engine.segmenter import held
from segkit.log import logger
from segkit.options import PredictOptions
from segkit.palette import parse_custom_color

COLOURS, MASKS, PROBABILITIES = "pseudo_color_prediction", "mask", "prob"
_FOLDERS = (OVERLAYS, COLOURS, MASKS, pictures.FIGURES)


def predict(model: Segmenter, options: PredictOptions) -> dict[str, Any]:
    """Write the results of `options.image_path` below `options.save_dir`, this rank's share of them.

    `mask/` holds class numbers, `pseudo_color_prediction/` palette PNGs, `added_prediction/` overlays, `prob/`
    (with `save_prob`) float32 arrays, all at the photo's size. GeoTIFFs also get
    `mask/<name>.tif` with their coordinates; figures and polygons come beside where they are asked for. Of a video
    every frame is written as `<name>/frame_000001.png`, and its overlay as one .mp4. Inputs that cannot be read are
    named in an `InputError` at the end, when all others are done.
    """
    pictures.check(options, model.multilabel)
    items = collect(options.image_path, options.save_dir, _FOLDERS)
    with held(model) as pixels:

        def group(photos: Iterable[Loaded]) -> Iterator[list[Loaded]]:
            return together(photos, lambda loaded: loaded.photo.x.shape, pixels)

        writer = _Writer(model, options)
        stages = Stages(model, writer, group, options.num_workers)
        stages.run(items[rank() :: world_size()], "predict")
    writer.pictures.finish()
    failed = _over_ranks(stages.failed)
    done = len(items) - len(failed)
    logger.info("%d of %d inputs are segmented, results are in %s", done, len(items), options.save_dir)
    check_failed(failed, len(items))
    return {"images": done, "save_dir": options.save_dir}


def _over_ranks(failed: list[str]) -> list[str]:
    """What went wrong on all ranks together."""
    if world_size() == 1:
        return failed
    import paddle

    gathered: list[list[str]] = []
    paddle.distributed.all_gather_object(gathered, failed)
    return [text for part in gathered for text in part]


def check(options: PredictOptions, num_classes: int) -> None:
    """`InputError` for flags that cannot work, before anything is loaded."""
    check_threshold(options.threshold)
    pictures.check(options)
    if options.custom_color is not None:
        parse_custom_color(options.custom_color, num_classes)
    collect(options.image_path, options.save_dir, _FOLDERS)


class _Writer:
    """Masks, colours, overlays and probabilities. See `segkit.deploy.stages.Writer`."""

    def __init__(self, model: Segmenter, options: PredictOptions):
        self.model = model
        self.folder = Path(options.save_dir)
        self.scores = options.save_prob
        self.overlays = self.folder / OVERLAYS
        colours = model.palette
        if options.custom_color is not None:
            colours = parse_custom_color(options.custom_color, len(model.class_names))
        self.palette = full_palette(colours)
        # Values outside the classes (below the threshold, say) show the photo as it is.
        shown = self.palette if colours is None else colours
        self.pictures = pictures.Pictures(self.folder, options, model.class_names, shown)

    def write(self, name: str, photo: Photo, output: np.ndarray, mask: np.ndarray, is_frame: bool) -> None:
        """See `Writer`."""
        write_mask(self.folder / MASKS, name, mask, None, self.model.class_names)
        write_mask(self.folder / COLOURS, name, mask, self.palette, self.model.class_names)
        if not is_frame:
            write_georeferenced(self.folder / MASKS / f"{name}.tif", mask, photo.path)
            self.pictures.write_overlay(self.overlays / f"{name}.png", photo, mask)
        self.pictures.write(name, photo, mask, is_frame)
        if self.scores:
            found = self.model.probabilities(output, photo.geometry)
            write_array(self.folder / PROBABILITIES / f"{name}.npy", found)

    def overlay(self, photo: Photo, mask: np.ndarray) -> np.ndarray:
        """See `Writer`."""
        return self.pictures.overlay(photo.image, mask)
