"""Checks of a label map, and what a wrong one probably means."""

from __future__ import annotations

from typing import Any

import numpy as np

from segkit._cv2 import cv2
from segkit.errors import InputError
from segkit.palette import voc_palette


def check_map(label_map: Any, num_classes: int, ignore_index: int) -> dict[int, int]:
    """`label_map` as given in a config, {} for None; `InputError` for what is no {value: class}."""
    found = label_map or {}
    numbers = [*found, *found.values()] if isinstance(found, dict) else [None]
    whole = all(isinstance(number, int) and not isinstance(number, bool) for number in numbers)
    outside = [value for value in found.values() if not 0 <= value < num_classes] if whole else [found]
    if any(value != ignore_index for value in outside):
        raise InputError(
            f"label_map: got {label_map}, expected {{value in the file: class}}, where a class is 0..{num_classes - 1} "
            f"or {ignore_index}, the ignored one. Write for example label_map: {{255: 1}}."
        )
    return found


def remap(label: np.ndarray, label_map: dict[int, int], reduce_zero: bool, ignore_index: int) -> np.ndarray:
    """Label [H, W] with the values of `label_map` exchanged, all at once, and then, with `reduce_zero`, 0 ignored and
    every other class one less. Negative and large values keep their meaning: int32 where uint8 cannot hold them."""
    if not label_map and not reduce_zero:
        return label
    values = np.arange(256) if label.dtype == np.uint8 else label.astype(np.int64)
    table = values.copy()
    for value, target in label_map.items():
        table[values == value] = target
    if reduce_zero:
        table = np.where((table == 0) | (table == ignore_index), ignore_index, table - 1)
    fits = table.size == 0 or (table.min() >= 0 and table.max() <= 255)
    table = table.astype(np.uint8 if fits else np.int32)
    return table[label] if label.dtype == np.uint8 else table


def check_range(label: np.ndarray, num_classes: int, ignore_index: int, path: str) -> None:
    """`InputError` when a value of `label` (any shape, integer) is neither a class nor `ignore_index`."""
    if label.size == 0 or (label.max() < num_classes and label.min() >= 0):
        return
    good = (label < num_classes) | (label == ignore_index)
    if label.dtype.kind == "i":
        good &= (label >= 0) | (label == ignore_index)
    if good.all():
        return
    values, counts = np.unique(label, return_counts=True)
    wrong = [(int(v), int(n)) for v, n in zip(values, counts) if not 0 <= v < num_classes and v != ignore_index]
    shown = ", ".join(f"{value} ({count} px)" for value, count in wrong[:10])
    more = f" and {len(wrong) - 10} more values" if len(wrong) > 10 else ""
    raise InputError(
        f"{path}: label values out of range (got {shown}{more}, expected 0..{num_classes - 1} or {ignore_index}, "
        f"the ignored one). {likely_reason([int(v) for v in values], num_classes, ignore_index)}"
    )


def likely_reason(values: list[int], num_classes: int, ignore_index: int) -> str:
    """What masks with just these `values` (sorted, one out of range at least) probably are, and the remedy."""
    classes = [value for value in values if value != ignore_index]
    if classes[0] < 0:
        return f"Negative values are legal only as `ignore_index`: set `ignore_index: {classes[0]}`?"
    if classes in ([0, 255], [255]):
        return (
            "The mask is 0/255, black and white: set `label_map: {255: 1}` on the data set, so that the foreground "
            "is class 1, or divide the masks by 255."
        )
    if len(classes) > 1 and set(classes) <= _gray_of_palette(max(num_classes, 2)):
        return (
            "These are the gray values of palette colours: a palette PNG was opened as gray somewhere, and its class "
            "numbers are lost. Take the palette PNGs themselves, whose indices are the classes."
        )
    if len(classes) > max(32, 2 * num_classes):
        return (
            "So many values look like a mask saved as JPEG, resized with interpolation, or a photo: "
            "save masks as PNG, resize them with nearest neighbour, and check the list file."
        )
    if num_classes == 1 and classes == [0, 1]:
        return "The background counts as a class too: set `num_classes: 2`, and give both a name where names are given."
    if classes == [0, num_classes] or (classes[0] >= 1 and classes[-1] == num_classes):
        return (
            f"The class ids seem to be shifted by one (1..{num_classes}): set `reduce_zero_label: True` (1 becomes 0, "
            f"and 0 is ignored), or `num_classes: {num_classes + 1}` if 0 is a class of its own."
        )
    steps = {b - a for a, b in zip(classes, classes[1:])}
    if len(steps) == 1 and min(steps) > 1 and len(classes) <= num_classes:
        return f"The ids are stretched to gray levels {steps.pop()} apart, for the eye: divide them by that."
    top = classes[-1] + 1
    return f"Either the mask is wrong or `num_classes` is: {top} would admit these values."


def _gray_of_palette(count: int) -> set[int]:
    """Luminances (ITU-R 601, as Pillow and OpenCV round them) of the first VOC colours."""
    red, green, blue = voc_palette(count).astype(np.int64).T
    exact = red * 0.299 + green * 0.587 + blue * 0.114
    return {0, *np.floor(exact).astype(int).tolist(), *np.ceil(exact).astype(int).tolist()}


def check_size(image: np.ndarray, label: np.ndarray, image_path: str, label_path: str, planes: int = 1) -> None:
    """`InputError` when `label` [H, planes*W] does not cover `image` [H, W, C]."""
    height, width = image.shape[:2]
    if label.shape == (height, planes * width):
        return
    expected = f"{planes} planes side by side, {planes * width}x{height}" if planes > 1 else f"{width}x{height}"
    text = (
        f"{label_path}: the label's size differs from its image's (got {label.shape[1]}x{label.shape[0]}, "
        f"expected {expected}, width x height, as {image_path}). "
    )
    if label.shape == (width, height):
        raise InputError(
            text + "They are transposed: the photo's EXIF orientation (which is applied on reading) turns it by 90 "
            "degrees and the mask was drawn without it. Turn the mask, or bake the orientation into the photo."
        )
    raise InputError(text + "Check that they belong together, and resize masks with nearest neighbour only.")


def edge_map(label: np.ndarray, radius: int = 2) -> np.ndarray:
    """uint8 [H, W] of an index map: 1 where another value, or the picture's end, lies within `radius` pixels."""
    y, x = np.ogrid[-radius : radius + 1, -radius : radius + 1]
    disc = (x * x + y * y <= radius * radius).astype(np.uint8)
    values = label if label.dtype == np.uint8 else label.astype(np.float32)
    padded = np.pad(values, radius, constant_values=0)
    inside = np.pad(np.ones(label.shape, np.uint8), radius, constant_values=0)
    differs = cv2.dilate(padded, disc) != cv2.erode(padded, disc)
    return (differs | (cv2.erode(inside, disc) == 0))[radius:-radius, radius:-radius].astype(np.uint8)
