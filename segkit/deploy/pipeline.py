"""From a photo to its mask around any engine: the one way that val, predict and infer all take."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Optional, TypeVar, Union

import numpy as np

from segkit import postprocess
from segkit.bands import as_picture, fill_missing
from segkit.errors import InputError
from segkit.io import decode_image, read_image
from segkit.transforms import Compose

T = TypeVar("T")
R = TypeVar("R")
# Batch float32 [N, C, H, W] -> scores float [N, classes, h, w], or class numbers int [N, h, w].
Run = Callable[[np.ndarray], np.ndarray]
Image = Union[str, "os.PathLike[str]", bytes, np.ndarray]


@dataclass
class Photo:
    """`image`: as read, uint8 or float32 [H0, W0, C]. `x`: the network's input, float32 [C, H, W] or, where the graph
    normalises, uint8 [H, W, C]; `geometry`: the way back."""

    path: str
    image: np.ndarray
    x: np.ndarray
    geometry: list[dict[str, Any]]


class Segmenter:
    """A model with all that it takes to segment a photo. `run` is the engine; the rest is as in deploy.yaml."""

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

    def prepare(self, image: Image) -> Photo:
        """Read and transform one photo: a path, the bytes of a file, or an array [H, W] or [H, W, channels], RGB."""
        if isinstance(image, np.ndarray):
            path, pixels = "array", _as_photo(image, self.img_channels)
        elif isinstance(image, bytes):
            path, pixels = "image", decode_image(image, "image", self.img_channels)
        else:
            path, pixels = os.fspath(image), read_image(image, self.img_channels)
        pixels, _ = fill_missing(pixels, self.nodata)
        sample = {"image": pixels, "path": path, "geometry": []}
        sample = self.transforms(sample, np.random.default_rng(0))
        return Photo(path, pixels, network_input(sample["image"], self.input_layout), sample["geometry"])

    def output(self, photo: Photo) -> np.ndarray:
        """What the engine says of one photo: scores [classes, h, w], or class numbers [h, w]."""
        return self.run(photo.x[None])[0]

    def mask(self, output: np.ndarray, geometry: list[dict[str, Any]]) -> np.ndarray:
        """The mask at the photo's own size for one output."""
        return mask_of(output, geometry, self.threshold, self.multilabel)

    def probabilities(self, output: np.ndarray, geometry: list[dict[str, Any]]) -> np.ndarray:
        """float32 [classes, H0, W0] for one output; `InputError` where the graph gives class numbers only."""
        if output.dtype.kind in "iu":
            raise InputError(
                "this model was exported with --output_op argmax, which keeps no probabilities. Export it with "
                "--output_op none or softmax."
            )
        return postprocess.probabilities(output, geometry, self.multilabel)

    def predict(self, image: Image) -> np.ndarray:
        """The mask of one photo (a path or an RGB array) at its own size: uint8 [H, W], int32 above 255 classes;
        with several labels a pixel uint8 [classes, H, W] of 0 and 1."""
        photo = self.prepare(image)
        return self.mask(self.output(photo), photo.geometry)

    def predict_proba(self, image: Image) -> np.ndarray:
        """Probabilities of one photo at its own size, float32 [num_classes, H, W]; a single-channel model gives
        background and foreground."""
        photo = self.prepare(image)
        return self.probabilities(self.output(photo), photo.geometry)


def network_input(image: np.ndarray, layout: str = "NCHW") -> np.ndarray:
    """[H, W, C] -> contiguous float32 [C, H, W]; with NHWC as it is: the graph does the rest."""
    if layout == "NHWC":
        return np.ascontiguousarray(image)
    return np.ascontiguousarray(image.transpose(2, 0, 1), dtype=np.float32)


def mask_of(
    output: np.ndarray, geometry: list[dict[str, Any]], threshold: Optional[float] = None, multilabel: bool = False
) -> np.ndarray:
    """The mask at the photo's own size: scores go through `class_map`, class numbers through `label_map`."""
    if output.dtype.kind not in "iu":
        return postprocess.class_map(output, geometry, threshold, multilabel)
    if threshold is not None:
        raise InputError(
            "a threshold needs scores, but the model was exported with --output_op argmax. Export it with "
            "--output_op none or softmax."
        )
    return postprocess.label_map(output, geometry)


def check_threshold(threshold: Optional[float]) -> None:
    """`InputError` unless it is None or a probability."""
    if threshold is not None and not 0 <= threshold <= 1:
        raise InputError(f"--threshold: got {threshold}, expected a probability from 0 to 1.")


def prefetched(load: Callable[[T], R], items: Iterable[T], workers: Optional[int] = None) -> Iterator[R]:
    """`load(item)` of each item in order, computed ahead by threads: decoding and resizing leave Python's lock."""
    workers = min(4, os.cpu_count() or 1) if workers is None else workers
    if workers <= 0:
        yield from map(load, items)
        return
    with ThreadPoolExecutor(workers) as pool:
        ahead: deque[Any] = deque()
        try:
            for item in items:
                ahead.append(pool.submit(load, item))
                if len(ahead) > workers:
                    yield ahead.popleft().result()
            while ahead:
                yield ahead.popleft().result()
        finally:
            for future in ahead:
                future.cancel()


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
