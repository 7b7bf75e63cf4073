"""A contact sheet of what the model will be fed: samples after augmentation, their labels laid over them."""

from __future__ import annotations

import os
from typing import Any, Optional, Union

import numpy as np

from segkit.data.picture import overlay, sheet, thumbnail
from segkit.data.source import Source, open_source
from segkit.deploy.outputs import as_rgb
from segkit.errors import InputError
from segkit.io import write_png
from segkit.transforms.color import Normalize

SIDE = 240


def preview(
    source: Union[str, Source], path: str, count: int = 16, part: str = "train", seed: int = 42, columns: int = 4,
    opts: Optional[list[str]] = None,
) -> list[str]:  # fmt: skip
    """Write a PNG of `count` samples of a part, as drawn for the first epoch with `seed`: each the picture after the
    transforms, Normalize undone, and beside it the same under its label. Returns the samples' paths.

    Errors: a part that is not there, files that cannot be read, a count below 1.
    """
    if count < 1 or columns < 1:
        raise InputError(f"-n: got {count} samples in {columns} columns, expected at least 1. Give -n 16, say.")
    if not path.lower().endswith(".png"):
        raise InputError(
            f"--out {path}: the sheet is a PNG (expected a name that ends in .png). Give preview.png, say."
        )
    if not isinstance(source, Source):
        source = open_source(source, opts)
    own = {os.path.realpath(name) for item in source.parts for pair in item.dataset.files for name in pair if name}
    if os.path.realpath(path) in own:
        raise InputError(f"--out {path}: it is a file of the data set, and is not overwritten. Give another name.")
    found = {item.name: item for item in source.parts}
    if part not in found and len(found) == 1:
        part = next(iter(found))
    if part not in found or not found[part].dataset.files:
        problems = "; ".join(found[part].problems[:3]) if part in found else f"it has {', '.join(found)}"
        raise InputError(
            f"{source.path}: there is no sample in the part {part} ({problems}). Mend it, or name another."
        )
    dataset = found[part].dataset
    dataset.training = True  # labels move with the photos, in val as well
    rng = np.random.default_rng(seed)
    chosen = rng.permutation(len(dataset.files))[:count]
    tiles, paths = [], []
    for index in chosen.tolist():
        sample = dataset.get(index, np.random.default_rng(np.random.SeedSequence([seed, 0, index])))
        photo = as_rgb(undo_normalize(sample["image"], dataset.transforms.transforms))
        paths.append(sample["path"])
        tiles.append(_tile(photo, sample.get("label"), dataset, source))
    write_png(path, sheet(tiles, columns))
    return paths


def undo_normalize(image: np.ndarray, transforms: list[Any]) -> np.ndarray:
    """The image before Normalize: uint8 where all of it is a photo's 0..255, else float32."""
    for transform in transforms:
        if isinstance(transform, Normalize):
            image = (image * transform.std + transform.mean) * 255
    if image.dtype != np.uint8 and image.size and image.min() > -1 and image.max() < 256:
        return np.clip(np.rint(image), 0, 255).astype(np.uint8)
    return image.astype(np.float32) if image.dtype != np.uint8 else image


def _tile(photo: np.ndarray, label: Optional[np.ndarray], dataset: Any, source: Source) -> np.ndarray:
    if label is None:
        return thumbnail(photo, SIDE)
    if label.ndim == 3:  # planes: the last class of a pixel is shown
        label = np.where(label.any(2), label.shape[2] - 1 - label[..., ::-1].argmax(2), 0)
    both = [thumbnail(photo, SIDE), thumbnail(overlay(photo, label, dataset, source.declared), SIDE)]
    return np.concatenate(both, axis=1)
