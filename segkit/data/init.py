"""`segkit init`: from a folder of photos and labels to a config that trains."""

from __future__ import annotations

import importlib.util
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

from segkit import runtime
from segkit.data.check import check_dataset
from segkit.data.convert import ConvertOptions, convert
from segkit.data.facts import Facts
from segkit.data.formats import find_format
from segkit.data.formats.base import ReadOptions
from segkit.data.formats.files import CONVERTED
from segkit.data.formats.index import NAME as INDEX
from segkit.data.previous import free_name
from segkit.data.recipe import CONFIG, Device, Recipe, choose, write_config
from segkit.data.samples import load_samples
from segkit.data.split import divide, write_lists
from segkit.data.split_folder import keep_old
from segkit.data.thickness import of_labels
from segkit.errors import InputError, list_problems
from segkit.io import write_bytes_atomic
from segkit.log import logger


@dataclass
class Made:
    """What `init` wrote."""

    config: Path
    data: Path
    facts: Facts
    recipe: Recipe


def init(
    folder: str, labels: Optional[str] = None, options: Optional[ConvertOptions] = None, device: Optional[Device] = None
) -> Made:
    """Look at `folder`, convert where needed, divide, and write segkit.yml into it.

    Masks of class numbers with their photos are used where they lie: only lists and class names are added, where
    there are none. Anything else is converted into `folder`/segkit_data. `labels`: the folder (or file) of the labels,
    where they are not in `folder`.
    With `overwrite` an old segkit.yml is kept as segkit.yml.previous_1, and so on.
    Errors: no folder; segkit.yml or segkit_data is there already; all that `convert` refuses.
    """
    root, options = Path(folder), options or ConvertOptions()
    if not root.is_dir():
        raise InputError(f"{folder}: no such folder. Give the folder that holds your photos and labels.")
    config = root / CONFIG
    if config.exists() and not options.overwrite:
        raise InputError(f"{config}: it exists already, and is not overwritten. Use it, move it, or say --overwrite.")
    if labels is not None and not os.path.exists(labels):
        raise InputError(f"--labels {labels}: no such folder or file. Mend the path.")
    facts = None
    if labels is None and options.format in (None, INDEX):
        facts = _in_place(root, options)
    if facts is None:
        source, converted = root if labels is None else Path(labels), root / CONVERTED
        if converted.exists() and not options.overwrite:
            raise InputError(
                f"{converted}: it was converted before, and is not overwritten. Train with what is there, remove it, "
                "or say --overwrite, which keeps it aside."
            )
        if labels is not None:
            options.images = options.images or str(root)
        report, facts = convert(str(source), str(converted), options)
        logger.info("%s: converted into %s, photos: %d", source, converted, report.photos)
    recipe = choose(facts, device or Device.here())
    if config.exists():
        kept = free_name(root / f"{CONFIG}.previous")
        os.rename(config, kept)
        logger.info("%s: the old one is now %s", config, kept)
    write_config(config, facts, recipe)
    _check(config)
    return Made(config, facts.root, facts, recipe)


def _check(config: Path) -> None:
    """What `segkit data check` finds in the data of a config. Errors: findings with which training would fail."""
    if importlib.util.find_spec("paddle") is None:
        return
    runtime.require_paddle()  # the config is checked too, which asks Paddle what its optimizers take
    report = check_dataset(str(config))
    for finding in report.warnings:
        logger.warning("%s", finding.line())
    if report.errors:
        lines = [line for finding in report.errors for line in finding.lines()]
        title = f"{config} is written, but training would fail or be wrong. Mend the data first:"
        raise InputError(list_problems(title, lines, limit=60))


def _in_place(root: Path, options: ConvertOptions) -> Optional[Facts]:
    """The facts of masks of class numbers that need no conversion; None where the folder holds something else."""
    reader, why = find_format(root, options.format)
    if getattr(reader, "NAME", "") != INDEX:
        return None
    logger.info("%s is read as %s", root, why)
    labelled = reader.read(root, ReadOptions(class_names=options.class_names))
    for note in labelled.notes:
        logger.info("%s: %s", root, note)
    samples = load_samples(root)
    own = {sample.part for sample in samples}
    divided = {"train", "val"} <= own
    if divided:
        parts = [sample.part or "train" for sample in samples]
    else:
        parts = divide(samples, options.val, options.test, options.seed)
    facts = Facts.of(root, labelled.class_names, samples, parts)  # refuses before anything is written
    facts.thickness = of_labels(root, samples, parts, len(labelled.class_names))
    if divided:
        if not ((root / "train.txt").is_file() and (root / "val.txt").is_file()):
            write_lists(root, samples, parts)
    else:
        for line in keep_old(root, 0):
            logger.info("%s", line)
        counts = write_lists(root, samples, parts)
        logger.info("%s: divided into %s", root, ", ".join(f"{part} {count}" for part, count in counts.items()))
    if not os.path.exists(root / "classes.txt"):
        write_bytes_atomic(root / "classes.txt", "".join(f"{name}\n" for name in labelled.class_names).encode("utf-8"))
    return facts
