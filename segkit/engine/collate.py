"""From samples to batches, inside the processes that read."""

from __future__ import annotations

import os
import pickle
import traceback
from contextlib import nullcontext
from typing import Any, Iterable, List

import numpy as np

from segkit.datasets.dataset import Dataset
from segkit.engine.sampler import Position
from segkit.errors import InputError
from segkit.transforms import late

_NOT_LABELS = ("image", "path", "geometry", "normalize")


class Failure:
    """An exception on its way out of a worker."""

    def __init__(self, error: Exception):
        self.error = error
        self.text = traceback.format_exc()

    def __reduce__(self) -> tuple:
        try:
            pickle.loads(pickle.dumps(self.error))  # nosec B301: made in this very line
        except Exception:
            self.error = RuntimeError(str(self.error))
        return _rebuild, (self.error, self.text)

    def batch(self) -> dict:
        """The failure as a collated batch (Paddle's queue wants at least one array in it)."""
        return {"failure": self, "none": np.zeros(1, np.float32)}

    def throw(self) -> None:
        """Raise it, the worker's traceback given as its cause unless it is the user's mistake."""
        if isinstance(self.error, InputError) or self.error.__traceback__ is not None:
            raise self.error
        raise self.error from RuntimeError(f"in a data-reading process:\n{self.text}")


def _rebuild(error: Exception, text: str) -> Failure:
    failure = Failure(error)
    failure.text = text
    return failure


class Reader:
    """The map-style data set that Paddle's DataLoader sees: key -> sample, or the failure to make it."""

    def __init__(self, dataset: Any, seed: int):
        self.dataset = dataset
        self.seed = seed
        self.worker = 0
        self.reading: Any = [-1]
        """the sample that each worker is at, -1 between two; its `worker`s share it"""
        # A `get` of the user's own may look at the pixels that the transforms gave it.
        self._late = getattr(type(dataset), "get", None) is Dataset.get

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, key: Position) -> Any:
        epoch, number = key
        self.reading[self.worker] = number % len(self.dataset)
        try:
            with late.postponed() if self._late else nullcontext():
                return self.dataset.get(number % len(self.dataset), np.random.default_rng([self.seed, epoch, number]))
        except Exception as error:
            return Failure(error)
        finally:
            self.reading[self.worker] = -1

    def at(self, workers: Iterable[int]) -> str:
        """The samples that these workers are at, as a message names them; empty where they are between two."""
        found = sorted({self.reading[worker] for worker in workers if self.reading[worker] >= 0})
        files = getattr(self.dataset, "files", None)
        return ", ".join(os.fspath(files[index][0]) if files else f"sample {index}" for index in found)


def to_chw(image: np.ndarray) -> np.ndarray:
    """HWC (or HW) image of any number type as contiguous float32 CHW."""
    if image.ndim == 2:
        image = image[..., None]
    return np.ascontiguousarray(image.transpose(2, 0, 1), dtype=np.float32)


def images_of(samples: List[dict]) -> dict:
    """`image` [N, C, H, W] of samples of one size. uint8 where the images are and their normalisation is still to be
    done, with `normalize` [256, C] (see segkit.transforms.late and `normalised`); else float32."""
    images, tables = [sample["image"] for sample in samples], [sample.get("normalize") for sample in samples]
    table = tables[0]
    if table is None or any(other is not table for other in tables):
        return {"image": np.stack([_finished(sample) for sample in samples])}
    batch = np.empty((len(images), images[0].shape[2], *images[0].shape[:2]), np.uint8)
    for image, planes in zip(images, batch):
        late.planes_first(image, planes)
    return {"image": batch, "normalize": table}


def _finished(sample: dict) -> np.ndarray:
    """The float32 CHW image of one sample, normalised."""
    if sample.get("normalize") is None:
        return to_chw(sample["image"])
    return normalised(images_of([sample]))["image"][0]


def normalised(batch: dict) -> dict:
    """A batch of arrays whose normalisation was put off, as float32; any other as it is."""
    table = batch.pop("normalize", None)
    if table is not None:
        image = batch["image"]
        batch["image"] = np.empty(image.shape, np.float32)
        for planes, out in zip(image, batch["image"]):
            late.look_up(planes, table, out)
    return batch


def _planes_first(label: np.ndarray) -> np.ndarray:
    """A label as HW, planes HWC as CHW, contiguous."""
    return np.ascontiguousarray(label.transpose(2, 0, 1) if label.ndim == 3 else label)


def collate(samples: List[Any]) -> dict:
    """Samples (dicts as in segkit.transforms) as stacked arrays. `InputError` for images of different sizes."""
    for sample in samples:
        if isinstance(sample, Failure):
            return sample.batch()
    try:
        _check_same_size(samples)
        batch = images_of(samples)
        for key in samples[0]:
            if key in _NOT_LABELS:
                continue
            values = [sample[key] for sample in samples]
            if isinstance(values[0], np.ndarray) and len({value.shape for value in values}) == 1:
                values = np.stack([_planes_first(value) for value in values])
            batch[key] = values
        batch["path"] = [str(sample.get("path", "")) for sample in samples]
        return batch
    except Exception as error:
        return Failure(error).batch()


def _check_same_size(samples: List[dict]) -> None:
    """`InputError` naming the first two samples whose images, or an image and its label, differ in size."""
    first = samples[0]
    for other in samples[1:]:
        if other["image"].shape != first["image"].shape:
            one, two = (f"{s.get('path')} is {_size(s['image'])}" for s in (first, other))
            raise InputError(
                f"{other.get('path')}: images of one batch differ in size (got: {one}, {two} (height x width x "
                "channels); expected one size). Add Resize or RandomPaddingCrop with a fixed size to the training "
                "transforms, or set batch_size: 1."
            )
    for sample in samples:
        label = sample.get("label")
        if label is not None and label.shape[:2] != sample["image"].shape[:2]:
            got = f"{_size(sample['image'])} and {_size(label)}"
            raise InputError(
                f"{sample.get('path')}: after the transforms, image and label differ in size (got {got}, expected the "
                "same height and width). Check the transforms of the config."
            )


def _size(array: np.ndarray) -> str:
    return "x".join(map(str, array.shape))


def collate_one(samples: List[Any]) -> dict:
    """One evaluation sample: the image as `[1, C, H, W]`, the label as it is."""
    (sample,) = samples
    if isinstance(sample, Failure):
        return sample.batch()
    one = {
        "image": _finished(sample)[None],
        "geometry": pickle.dumps(sample.get("geometry", [])),
        "path": str(sample.get("path", "")),
    }
    if sample.get("label") is not None:
        one["label"] = _planes_first(sample["label"])
    return one
