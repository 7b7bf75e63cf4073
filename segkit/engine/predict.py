"""Masks, colours and overlays of a user's own photos and videos, from trained weights."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Union

import numpy as np

from segkit import io
from segkit.deploy.geo import write_georeferenced
from segkit.deploy.inputs import Item, collect
from segkit.deploy.outputs import draw_overlay, full_palette, write_array, write_mask
from segkit.deploy.pipeline import Photo, Segmenter, check_threshold, prefetched
from segkit.dist import rank, world_size
from segkit.engine.apply import together
from segkit.engine.background import Background
from segkit.engine.progress import progress
from segkit.engine.segmenter import held
from segkit.engine.video import OverlayWriter, UnreadableVideo, frames
from segkit.errors import InputError, list_problems
from segkit.log import logger
from segkit.options import PredictOptions
from segkit.palette import parse_custom_color

OVERLAYS, COLOURS, MASKS, PROBABILITIES = "added_prediction", "pseudo_color_prediction", "mask", "prob"
_WRITERS = 2  # threads that compute masks and pictures and write them


def predict(model: Segmenter, options: PredictOptions) -> dict[str, Any]:
    """Write the results of `options.image_path` below `options.save_dir`, this rank's share of them.

    `mask/` holds class numbers, `pseudo_color_prediction/` palette PNGs, `added_prediction/` overlays, `prob/`
    (with `save_prob`) float32 arrays, all at the photo's size. GeoTIFFs also get
    `mask/<name>.tif` with their coordinates. Of a video every frame is written as
    `<name>/frame_000001.png`, and its overlay as one .mp4. Inputs that cannot be read are named in an
    `InputError` at the end, when all others are done.
    """
    items = collect(options.image_path, options.save_dir)
    mine = items[rank() :: world_size()]
    failed: list[str] = []
    with held(model) as pixels, progress(len(mine), "predict") as bar, Background(_WRITERS) as background:
        writer = _Writer(model, options, background)
        for batch in together(_loaded(model, mine, options.num_workers), _shape, pixels):
            item, photo = batch[0]
            if isinstance(photo, Photo):
                writer.write([(item.name, photo) for item, photo in batch])
            elif isinstance(photo, InputError):
                failed.append(str(photo))
            else:
                failed += writer.write_video(item)
            for _ in batch:
                bar.update()
    failed = _over_ranks(failed)
    done = len(items) - len(failed)
    logger.info("%d of %d inputs are segmented, results are in %s", done, len(items), options.save_dir)
    if failed:
        others = ", the others are done" if done else ""
        title = f"{len(failed)} of {len(items)} inputs could not be segmented{others}:"
        raise InputError(list_problems(title, failed))
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
    if options.custom_color is not None:
        parse_custom_color(options.custom_color, num_classes)
    collect(options.image_path, options.save_dir)


def _loaded(
    model: Segmenter, items: list[Item], workers: int | None
) -> Iterator[tuple[Item, Union[Photo, InputError, None]]]:
    """Each item with its photo, the reason why it cannot be read, or None for a video."""

    def load(item: Item) -> tuple[Item, Union[Photo, InputError, None]]:
        try:
            return item, None if item.is_video else model.prepare(item.path)
        except InputError as error:
            return item, error

    return prefetched(load, items, workers)


def _shape(loaded: tuple[Item, Union[Photo, InputError, None]]) -> tuple[int, ...] | None:
    return loaded[1].x.shape if isinstance(loaded[1], Photo) else None


class _Writer:
    """Segments photos, and writes what was asked for in the background."""

    def __init__(self, model: Segmenter, options: PredictOptions, background: Background):
        self.model = model
        self.background = background
        self.folder = Path(options.save_dir)
        self.save_prob = options.save_prob
        colours = model.palette
        if options.custom_color is not None:
            colours = parse_custom_color(options.custom_color, len(model.class_names))
        self.palette = full_palette(colours)
        # Values outside the classes (below the threshold, say) show the photo as it is.
        self.overlay_palette = self.palette if colours is None else colours

    def write(self, batch: list[tuple[str, Photo]]) -> None:
        """Have the results of photos of one size written under their names."""
        outputs = self.model.run(np.stack([photo.x for _, photo in batch]))
        for output, (name, photo) in zip(outputs, batch):
            self.background.submit(_size(output, photo), self._write, name, photo, output, True)

    def _write(self, name: str, photo: Photo, output: np.ndarray, overlay: bool) -> np.ndarray:
        """Write the results of one photo; its mask is returned."""
        mask = self.model.mask(output, photo.geometry)
        write_mask(self.folder / MASKS, name, mask, None, self.model.class_names)
        write_georeferenced(self.folder / MASKS / f"{name}.tif", mask, photo.path)
        write_mask(self.folder / COLOURS, name, mask, self.palette, self.model.class_names)
        if overlay:
            picture = draw_overlay(photo.image, mask, self.overlay_palette)
            io.write_png(self.folder / OVERLAYS / f"{name}.png", picture)
        if self.save_prob:
            found = self.model.probabilities(output, photo.geometry)
            write_array(self.folder / PROBABILITIES / f"{name}.npy", found)
        return mask

    def write_video(self, item: Item) -> list[str]:
        """Every frame's results, and the overlays as one video. Returns what is wrong with the video, if anything."""
        try:
            # One thread for the frames, which must come in order; it ends before the video is closed.
            with OverlayWriter(self.folder / OVERLAYS / f"{item.name}.mp4") as video, Background() as background:
                for number, frame, rate in frames(item.path, self.model.img_channels):
                    photo = self.model.prepare(frame)
                    output = self.model.output(photo)
                    name = f"{item.name}/frame_{number:06d}"
                    background.submit(_size(output, photo), self._write_frame, name, photo, output, video, rate)
        except UnreadableVideo as error:
            return [str(error)]
        return []

    def _write_frame(self, name: str, photo: Photo, output: np.ndarray, video: OverlayWriter, rate: float) -> None:
        mask = self._write(name, photo, output, overlay=False)
        video.add(draw_overlay(photo.image, mask, self.overlay_palette), rate)


def _size(output: np.ndarray, photo: Photo) -> int:
    return output.nbytes + photo.image.nbytes + photo.x.nbytes
