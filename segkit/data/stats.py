"""Numbers of a data set that a config needs: classes and their weights, mean and std of each band, sizes, and what crop
and batch follow from them."""

from __future__ import annotations

import os
import subprocess
from typing import Any, Optional, Union

import numpy as np

from segkit.data.findings import class_table
from segkit.data.scan import Scan, counts, scan
from segkit.data.source import Source, open_source
from segkit.errors import InputError
from segkit.log import logger

PERCENTILES = (0, 5, 25, 50, 75, 95, 100)
# Bytes a pixel of the crop that a training step of batch 1 took beyond the model (RSS, float32, on the CPU):
# UNet 128x128 and BiSeNetV2 256x256, batch 2.
BYTES = {"UNet": 15200, "BiSeNetV2": 1820}
LARGEST_CROP, STEP, SHARE = 512, 32, 0.6


def statistics(source: Union[str, Source], opts: Optional[list[str]] = None) -> dict[str, Any]:
    """Of the train part (all parts where there is none) of a config or folder:

    `classes` (see `class_table`, with `share` of all labelled pixels), `weights` (`median_frequency`,
    `effective_number`, a number a class), `ignored` (share), `mean` and `std` (a number a band, as the files hold
    them) and `normalize` (the same over 255, as Normalize takes them), `sizes` (percentiles of width and height),
    `crop` [width, height] and `batch` (how many such crops fit, by model).
    """
    if not isinstance(source, Source):
        source = open_source(source, opts)
    scans = scan(source.parts, "stats")
    first = [item for item in scans if item.part == "train"] or scans
    read = [item for item in first if item.mean is not None]
    if not read:
        raise InputError(f"{source.path}: no photo can be read. Run segkit data check on it.")
    if len(read) < len(first):
        logger.warning(
            "%s: photos that cannot be read, and are not counted: %d of %d. Run segkit data check on it.",
            source.path, len(first) - len(read), len(first),
        )  # fmt: skip
        first = read
    table = class_table(source, first)
    rows = [row for row in table if row["is_class"]]
    labelled = sum(sum(row["pixels"].values()) for row in rows)
    every = sum(sum(item.counts.values()) for item in first)
    for row in rows:
        row["share"] = sum(row["pixels"].values()) / max(labelled, 1)
    mean, std = band_totals(read)
    crop = suggest_crop([item.image_size for item in read])
    return {
        "source": source.path,
        "photos": {part.name: len(part.dataset.files) for part in source.parts},
        "classes": rows,
        "ignored": 1 - labelled / every if every else 0.0,
        "weights": {
            "median_frequency": median_frequency(first, len(rows)),
            "effective_number": effective_number([sum(row["pixels"].values()) for row in rows]),
        },
        "mean": mean.tolist(),
        "std": std.tolist(),
        "normalize": {"mean": (mean / 255).tolist(), "std": (std / 255).tolist()},
        "sizes": size_percentiles([item.image_size for item in read]),
        "crop": list(crop),
        "batch": {name: batch_that_fits(crop, cost) for name, cost in BYTES.items()},
    }


def band_totals(scans: list[Scan]) -> tuple[np.ndarray, np.ndarray]:
    """(mean, standard deviation), float64 [bands], of all pixels of all photos, from those of each photo."""
    counts = np.array([item.pixels for item in scans], float)[:, None]
    means, stds = np.stack([item.mean for item in scans]), np.stack([item.std for item in scans])
    total = max(float(counts.sum()), 1.0)
    mean = (counts * means).sum(0) / total
    return mean, np.sqrt((counts * (stds**2 + (means - mean) ** 2)).sum(0) / total)


def class_weights(dataset: Any, seed: int, most: int = 200) -> tuple[list[float], int]:
    """(`median_frequency` of the labels, how many were read): of at most `most` labels of a data set, drawn by `seed`.

    Errors: no labels; labels of several planes, in which a pixel has no one class.
    """
    labelled = [index for index, (_, label) in enumerate(dataset.files) if label is not None]
    if getattr(dataset, "use_multilabel", False) or not labelled:
        reason = "its labels are planes (use_multilabel)" if labelled else "it has no labels"
        raise InputError(
            f"weight: auto needs one class a pixel, but of {dataset.dataset_root} {reason}. Give numbers instead."
        )
    drawn = np.random.default_rng(seed).permutation(labelled)[:most]
    scans = []
    for index in sorted(drawn.tolist()):
        image, label = dataset.files[index]
        scans.append(Scan(dataset.mode, image, label, counts=counts(dataset.mapped_label(index))))
    return median_frequency(scans, dataset.num_classes), len(scans)


def median_frequency(scans: list[Scan], classes: int) -> list[float]:
    """A weight a class: the median of the classes' frequencies over its own, where a frequency is a class's share of
    the pixels of the photos that show it (Eigen and Fergus, Predicting Depth, Surface Normals and Semantic Labels,
    ICCV 2015). 1 for a class that never occurs."""
    own, around = np.zeros(classes), np.zeros(classes)
    for item in scans:
        counts = np.array([item.counts.get(value, 0) for value in range(classes)], float)
        own += counts
        around += np.where(counts > 0, counts.sum(), 0)
    seen = own > 0
    if not seen.any():
        return [1.0] * classes
    frequency = own[seen] / around[seen]
    weights = np.ones(classes)
    weights[seen] = np.median(frequency) / frequency
    return weights.round(4).tolist()


def effective_number(pixels: list[int]) -> list[float]:
    """A weight a class: one over the effective number of its pixels, (1 - b^n) / (1 - b) with b = (N - 1) / N of all N
    labelled pixels (Cui et al., Class-Balanced Loss, CVPR 2019); their mean is 1. 1 for a class that never occurs."""
    counts = np.array(pixels, float)
    seen = counts > 0
    if not seen.any():
        return [1.0] * len(pixels)
    total = max(counts.sum(), 2.0)
    effective = -np.expm1(counts[seen] * np.log1p(-1 / total)) * total
    weights = np.ones(len(counts))
    weights[seen] = (1 / effective) / (1 / effective).mean()
    return weights.round(4).tolist()


def size_percentiles(sizes: list[tuple[int, int]]) -> dict[str, dict[str, int]]:
    """`width` and `height` at the percentiles, of (height, width) pairs."""
    table = np.array(sizes)
    return {
        name: {f"{p}%": int(v) for p, v in zip(PERCENTILES, np.percentile(table[:, column], PERCENTILES))}
        for name, column in (("width", 1), ("height", 0))
    }


def suggest_crop(sizes: list[tuple[int, int]]) -> tuple[int, int]:
    """(width, height) of a training crop: the median photo, at most 512 a side, in steps of 32."""
    height, width = np.median(np.array(sizes), axis=0)
    return tuple(int(max(STEP, min(LARGEST_CROP, side) // STEP * STEP)) for side in (width, height))


def batch_that_fits(crop: tuple[int, int], bytes_a_pixel: int) -> int:
    """How many crops a training step may take in 60 % of the memory of the GPU, or of the machine; at most 32."""
    return int(max(1, min(32, SHARE * memory() // (crop[0] * crop[1] * bytes_a_pixel))))


def memory() -> int:
    """Bytes of the first NVIDIA GPU, or free bytes of the machine where there is none."""
    try:
        text = subprocess.run(
            ["nvidia-smi", "--query-gpu=memory.total", "--format=csv,noheader,nounits"],
            capture_output=True, text=True, timeout=10, check=True,
        ).stdout  # fmt: skip
        return int(text.split()[0]) << 20
    except (OSError, subprocess.SubprocessError, ValueError, IndexError):
        pass
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_AVPHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # no such call on Windows
        return 4 << 30


def as_text(found: dict[str, Any]) -> str:
    """The statistics as a table and lines that a config takes over."""
    from prettytable import PrettyTable

    weights = found["weights"]
    table = PrettyTable(["class", "share", "photos", "median-frequency weight", "effective-number weight"], align="r")
    table.align["class"] = "l"
    for number, row in enumerate(found["classes"]):
        photos = sum(row["images"].values())
        own = [weights[name][number] for name in ("median_frequency", "effective_number")]
        table.add_row([f"{row['value']} {row['name']}", f"{row['share']:.4%}", photos, *(f"{w:.4g}" for w in own)])
    rows = [
        f"{found['source']}: " + ", ".join(f"{name} {count}" for name, count in found["photos"].items()) + " photos",
        table.get_string(),
        f"ignored: {found['ignored']:.3%} of all pixels",
    ]
    for name, values in found["sizes"].items():
        rows.append(f"{name:6} " + ", ".join(f"{key} {value}" for key, value in values.items()))
    fits = ", ".join(f"{count} for {name}" for name, count in found["batch"].items())
    rows += [
        f"crop: {found['crop']}; a batch that fits here, roughly: {fits}",
        "for the config:",
        f"  {{type: Normalize, mean: {_numbers(found['normalize']['mean'])}, "
        f"std: {_numbers(found['normalize']['std'])}}}",
        f"  {{type: CrossEntropyLoss, weight: {_numbers(weights['effective_number'])}}}",
    ]
    return "\n".join(rows)


def _numbers(values: list[float]) -> str:
    return "[" + ", ".join(f"{value:.4g}" for value in values) + "]"
