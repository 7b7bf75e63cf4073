"""The fingerprint of a data set, of which `recipe` makes a config."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

import numpy as np

from segkit.data.split import Sample
from segkit.errors import InputError


@dataclass
class Facts:
    """What is known of a data set in segkit's own layout."""

    root: Path
    class_names: list[str]
    photos: dict[str, int]
    """Photos in train, val and test."""
    sizes: np.ndarray
    """int [photos, 2]: height and width of each."""
    pixels: np.ndarray
    """int [classes]: pixels of each class in the train part."""
    present: np.ndarray
    """int [classes]: train photos that hold the class."""
    objects: np.ndarray
    """float [classes]: median share of the photo that the class covers where it occurs, in the train part."""
    palette: Optional[list[list[int]]] = None
    img_channels: int = 3
    mean: Optional[list[float]] = None
    """Of each band in the train part, over 255 as `Normalize` has it; None for ordinary photos."""
    std: Optional[list[float]] = None
    nodata: Optional[float] = None
    thickness: Optional[np.ndarray] = None
    """float [classes]: of each class's parts, as a share of the photo's long side (`segkit.data.thickness`)."""

    @classmethod
    def of(
        cls,
        root: Path,
        class_names: list[str],
        samples: list[Sample],
        parts: list[str],
        palette: Optional[list[list[int]]] = None,
    ) -> Facts:
        """The facts of samples and their parts. Errors: photos of different numbers of bands."""
        bands = Counter(sample.bands for sample in samples)
        if len(bands) > 1:
            told = [f"{count} of {number}" for number, count in bands.most_common()]
            rare = [sample.image for sample in samples if sample.bands != bands.most_common(1)[0][0]]
            raise InputError(
                f"{root}: photos of different numbers of bands ({', '.join(told)}; {', '.join(rare[:5])} differ from "
                "most). One model reads one number of bands: take some out, or convert them."
            )
        count = len(class_names)
        train = np.stack([s.pixels[:count] for s, part in zip(samples, parts) if part == "train"])
        total = np.array([s.size[0] * s.size[1] for s, part in zip(samples, parts) if part == "train"])[:, None]
        share = np.where(train > 0, train / total, np.nan)
        present = (train > 0).sum(axis=0)
        objects = np.array([np.nanmedian(share[:, k]) if present[k] else 0.0 for k in range(count)])
        photos = {part: parts.count(part) for part in ("train", "val", "test")}
        sizes = np.array([sample.size for sample in samples])
        facts = cls(root, class_names, photos, sizes, train.sum(axis=0), present, objects, palette, samples[0].bands)
        moments = [s.moments for s, part in zip(samples, parts) if part == "train" and s.moments is not None]
        if moments:
            mean, square = np.mean(moments, axis=0)
            facts.mean = [round(float(value) / 255, 4) for value in mean]
            facts.std = [round(max(float(value) / 255, 1e-4), 4) for value in np.sqrt(np.maximum(square - mean**2, 0))]
        values = {sample.nodata for sample in samples}
        facts.nodata = values.pop() if len(values) == 1 else None
        return facts

    @property
    def shares(self) -> np.ndarray:
        """float [classes]: share of the labelled train pixels."""
        return self.pixels / max(int(self.pixels.sum()), 1)
