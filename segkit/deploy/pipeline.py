"""From a photo to its mask around any engine: the one way that val, predict and infer all take."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Optional, Union

import numpy as np

from segkit import postprocess
from segkit._cv2 import cv2
from segkit.bands import as_picture, fill_missing
from segkit.deploy import windows
from segkit.errors import InputError, enough_memory
from segkit.io import decode_image, read_image
from segkit.transforms import Compose, late

# Batch float32 [N, C, H, W] -> scores float [N, classes, h, w], or class numbers int [N, h, w].
Run = Callable[[np.ndarray], np.ndarray]
Image = Union[str, "os.PathLike[str]", bytes, np.ndarray]


@dataclass
class Photo:
    """`image`: as read, uint8 or float32 [H0, W0, C]. `x`: the network's input, float32 [C, H, W] or, where the graph
    normalises, uint8 [H, W, C]; `geometry`: the way back. For sliding windows `x` is [C, H, W] always, uint8 where
    `table`, float32 [256, C], turns it into the network's input."""

    path: str
    image: np.ndarray
    x: np.ndarray
    geometry: list[dict[str, Any]]
    table: Optional[np.ndarray] = None


class Segmenter:
    """A model with all that it takes to segment a photo. `run` is the engine, applied whole or in sliding `windows`;
    the rest is as in deploy.yaml."""

    def __init__(
        self,
        run: Run,
        transforms: list[Any],
        class_names: list[str],
        palette: Optional[np.ndarray],
        img_channels: int = 3,
        threshold: Optional[float] = None,
        multilabel: bool = False,
        nodata: Optional[float] = None,
        input_layout: str = "NCHW",
        windows: Optional[windows.Windows] = None,
        scores_are: postprocess.ScoresAre = "logits",
    ):
        check_threshold(threshold)
        self.run = run
        self.transforms = Compose(transforms)
        self.class_names = class_names
        self.palette = palette
        self.img_channels = img_channels
        self.threshold = threshold
        self.multilabel = multilabel
        self.nodata = nodata
        self.input_layout = input_layout
        self.windows = windows
        self.scores_are = scores_are

    def prepare(self, image: Image, name: str = "") -> Photo:
        """Read and transform one photo: a path, the bytes of a file, or an array [H, W] or [H, W, channels], RGB.
        `name`: what messages call it that has no path."""
        kind = "array" if isinstance(image, np.ndarray) else "image" if isinstance(image, bytes) else os.fspath(image)
        path = name or kind
        with _told(path):
            return self._prepare(image, path)

    def _prepare(self, image: Image, path: str) -> Photo:
        if isinstance(image, np.ndarray):
            pixels = _as_photo(image, self.img_channels)
        elif isinstance(image, bytes):
            pixels = decode_image(image, path, self.img_channels)
        else:
            pixels = read_image(image, self.img_channels)
        pixels, _ = fill_missing(pixels, self.nodata)
        sample = {"image": pixels, "path": path, "geometry": []}
        with late.postponed() if self.windows else contextlib.nullcontext():
            sample = self.transforms(sample, np.random.default_rng(0))
        table = sample.get("normalize")
        if self.windows is None:
            x = network_input(sample["image"], self.input_layout)
        else:
            x = planes(sample["image"], as_it_is=table is not None or self.input_layout == "NHWC")
        return Photo(path, pixels, x, sample["geometry"], table)

    def output(self, photo: Photo, scores: bool = False) -> np.ndarray:
        """What the engine says of one photo, see `outputs`."""
        return self.outputs([photo], scores)[0]

    def outputs(self, photos: list[Photo], scores: bool = False) -> list[np.ndarray]:
        """What the engine says of photos of one size: scores [classes, h, w] each, or class numbers [h, w].

        With windows the classes are decided strip by strip, so that the scores of a whole photo are never held,
        unless they are wanted as `scores`, or the way back to the photo's own size goes by them.
        """
        if self.windows is None:
            return list(self.run(np.stack([photo.x for photo in photos])))
        return [self._slide(photo, self.windows, scores or postprocess.is_resized(photo.geometry)) for photo in photos]

    def _slide(self, photo: Photo, over: windows.Windows, scores: bool) -> np.ndarray:
        decided: Optional[np.ndarray] = None
        for top, strip in windows.strips(
            lambda crops: self.run(self._laid_out(crops)), photo.x[None], over, photo.table
        ):
            part = strip[0] if scores else self._classes(strip[0], [])
            if decided is None:
                decided = np.empty((*part.shape[:-2], *photo.x.shape[1:]), part.dtype)
            decided[..., top : top + part.shape[-2], :] = part
        assert decided is not None  # a photo has a pixel
        return decided

    def _classes(self, output: np.ndarray, geometry: list[dict[str, Any]]) -> np.ndarray:
        return mask_of(output, geometry, self.threshold, self.multilabel, self.scores_are)

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """`run` for batches as the loaders of data sets give them, float32 [N, C, H, W], whatever the graph takes."""
        if self.input_layout == "NHWC":
            bytes_ = x.astype(np.uint8)  # where that is exact; other photos are told by the engine
            x = self._laid_out(bytes_ if np.array_equal(bytes_, x) else x)
        return self.run(x)

    def first_batch(self, photo: Photo, at: float = 0.0) -> np.ndarray:
        """What the engine gets first of a photo: the whole of it, or its first window, or that at the share `at` of the
        way to the last."""
        if self.windows is None:
            return photo.x[None]
        return self._laid_out(windows.one(photo.x[None], self.windows, photo.table, at))

    def _laid_out(self, crops: np.ndarray) -> np.ndarray:
        """Windows [N, C, h, w] in the layout that the graph takes."""
        return np.ascontiguousarray(crops.transpose(0, 2, 3, 1)) if self.input_layout == "NHWC" else crops

    def mask(self, output: np.ndarray, geometry: list[dict[str, Any]]) -> np.ndarray:
        """The mask at the photo's own size for one output: scores go through `class_map`, class numbers through
        `label_map`."""
        if self.windows is None or output.dtype.kind not in "iu":
            return self._classes(output, geometry)
        if output.ndim == 2:
            return postprocess.label_map(output, geometry)
        return np.stack([postprocess.label_map(plane, geometry) for plane in output])

    def probabilities(self, output: np.ndarray, geometry: list[dict[str, Any]]) -> np.ndarray:
        """float32 [classes, H0, W0] for one output; `InputError` where the graph gives class numbers only."""
        check_scores(output)
        return postprocess.probabilities(output, geometry, self.multilabel, self.scores_are)

    def predict(self, image: Image) -> np.ndarray:
        """The mask of one photo (a path or an RGB array) at its own size: uint8 [H, W], int32 above 255 classes;
        with several labels a pixel uint8 [classes, H, W] of 0 and 1."""
        photo = self.prepare(image)
        return self.mask(self.output(photo), photo.geometry)

    def predict_proba(self, image: Image) -> np.ndarray:
        """Probabilities of one photo at its own size, float32 [num_classes, H, W]; a single-channel model gives
        background and foreground."""
        photo = self.prepare(image)
        return self.probabilities(self.output(photo, scores=True), photo.geometry)


@contextlib.contextmanager
def _told(path: str) -> Iterator[None]:
    """Within the block, memory that does not suffice, and what OpenCV refuses, is an `InputError` about the photo."""
    too_big = f"{path}: the memory does not suffice to read it. Cut it into tiles, or make it smaller."
    try:
        with enough_memory(lambda: too_big):
            yield
    except cv2.error as error:
        raise InputError(f"{path}: OpenCV cannot transform it ({str(error).strip()}). Leave it out.") from error


def network_input(image: np.ndarray, layout: str = "NCHW") -> np.ndarray:
    """[H, W, C] -> contiguous float32 [C, H, W]; with NHWC as it is: the graph does the rest."""
    return np.ascontiguousarray(image) if layout == "NHWC" else planes(image)


def planes(image: np.ndarray, as_it_is: bool = False) -> np.ndarray:
    """[H, W, C] -> contiguous float32 [C, H, W], or of the image's own type."""
    return np.ascontiguousarray(image.transpose(2, 0, 1), dtype=None if as_it_is else np.float32)


def mask_of(
    output: np.ndarray,
    geometry: list[dict[str, Any]],
    threshold: Optional[float] = None,
    multilabel: bool = False,
    scores_are: postprocess.ScoresAre = "logits",
) -> np.ndarray:
    """The mask at the photo's own size: scores go through `class_map`, class numbers through `label_map`."""
    if output.dtype.kind not in "iu":
        return postprocess.class_map(output, geometry, threshold, multilabel, scores_are)
    if threshold is not None:
        raise InputError(
            "a threshold needs scores, but the model was exported with --output_op argmax. Export it with "
            "--output_op none or softmax."
        )
    return postprocess.label_map(output, geometry)


def check_scores(output: np.ndarray) -> None:
    """`InputError` for an output of class numbers, where probabilities are wanted."""
    if output.dtype.kind in "iu":
        raise InputError(
            "this model was exported with --output_op argmax, which keeps no probabilities. Export it with "
            "--output_op none or softmax."
        )


def check_threshold(threshold: Optional[float]) -> None:
    """`InputError` unless it is None or a probability."""
    if threshold is not None and not 0 <= threshold <= 1:
        raise InputError(f"--threshold: got {threshold}, expected a probability from 0 to 1. Give such a number.")


def _as_photo(image: np.ndarray, channels: int) -> np.ndarray:
    pixels = as_picture(image, "array")
    pixels = pixels[:, :, None] if pixels.ndim == 2 else pixels
    if channels == 3 and image.dtype.kind == "f" and image.max() <= 1:
        raise InputError(
            f"array: got values of type {image.dtype} of at most {image.max():g}, expected 0..255, as of a photo. "
            "Multiply it by 255."
        )
    if pixels.shape[2] not in (1, channels):
        raise InputError(
            f"array: got the shape {list(image.shape)}, expected [height, width, {channels}] or [height, width]."
        )
    return np.repeat(pixels, channels, axis=2) if pixels.shape[2] != channels else pixels
