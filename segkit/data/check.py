"""The doctor of data sets: `check_dataset` decodes everything and reports all that is wrong with it; `quick_check` is
the part that costs nothing, before a training."""

from __future__ import annotations

from typing import Any, Optional, Union

import numpy as np

from segkit.data import classes, rules
from segkit.data.findings import Finding, Report
from segkit.data.scan import Scan, counts, scan
from segkit.data.source import Part, Source, open_source
from segkit.datasets import Dataset
from segkit.errors import InputError, list_problems
from segkit.io import image_size
from segkit.log import logger

QUICK_SIZES, QUICK_LABELS, QUICK_PIXELS = 200, 16, 4_000_000
RULES = (
    *(rules.files, rules.sizes, rules.values, rules.pictures, rules.names),
    *(classes.classes, classes.masks, classes.copies, classes.scale),
)


def check_dataset(source: Union[str, Source], opts: Optional[list[str]] = None) -> Report:
    """Every finding about the data sets of a config or folder (see `open_source`), errors first.

    Errors: only where there is nothing to check; what is wrong with the data is in the report.
    """
    if not isinstance(source, Source):
        source = open_source(source, opts)
    scans = scan(source.parts)
    found = [finding for rule in RULES for finding in rule(source, scans)]
    return Report(source, scans, sorted(found, key=lambda finding: finding.severity != "error"))


def quick_check(**datasets: Any) -> list[Scan]:
    """What can be seen without decoding everything, before a training: the sizes of up to 200 photos and labels a
    part by their headers, the values of a few labels, names that would collide. Parts by name: `train=dataset`.
    Returns what was seen, those labels counted.

    Errors: what would make the training fail or be wrong, all of it. The rest is said as warnings.
    """
    parts = [Part(name, dataset) for name, dataset in datasets.items() if isinstance(dataset, Dataset)]
    if not parts:  # a user's own class, of which only reading and length are known
        return []
    source = Source(parts[0].dataset.dataset_root, parts, True)
    scans = []
    pixels = 0
    for part in parts:
        for index, with_label in _chosen(len(part.dataset)):
            scans.append(_glance(part, index, with_label and pixels < QUICK_PIXELS))
            pixels += sum(scans[-1].counts.values())
    found = [finding for rule in (rules.sizes, rules.values, rules.names) for finding in rule(source, scans)]
    for finding in found:
        if finding.severity == "warning":
            logger.warning("%s", finding.line())
    errors = [finding for finding in found if finding.severity == "error"]
    if errors:
        lines = [line for finding in errors for line in (f"{finding.text}. {finding.remedy}", *_indented(finding))]
        title = f"{source.path}: a look at the data set shows what would fail (segkit data check tells all):"
        raise InputError(list_problems(title, lines, limit=60))
    return scans


def _indented(finding: Finding) -> list[str]:
    return [line[2:] for line in finding.lines()[2:]]


def _chosen(count: int) -> list[tuple[int, bool]]:
    """(number, whether its label is read) of the samples to look at, spread over the list."""
    sizes = np.unique(np.linspace(0, count - 1, min(count, QUICK_SIZES)).astype(int))
    labels = set(sizes[np.unique(np.linspace(0, len(sizes) - 1, min(len(sizes), QUICK_LABELS)).astype(int))].tolist())
    return [(int(index), int(index) in labels) for index in sizes]


def _glance(part: Part, index: int, with_label: bool) -> Scan:
    """A sample by its headers; files that cannot be opened are left to whoever reads them."""
    dataset = part.dataset
    result = Scan(part.name, *dataset.files[index])
    if result.label is None:
        return result
    try:
        result.image_size, result.label_size = image_size(result.image), image_size(result.label)
        if with_label:
            result.counts = counts(dataset.mapped_label(index))
    except InputError:
        return Scan(part.name, result.image, result.label)
    return result
