"""Make a data set that trains of labels as people have them: images/, labels/, lists, class names and a config."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path
from shlex import quote
from typing import Any

from segkit.cli.flags import add_options, options_from
from segkit.data.convert import ConvertOptions, convert
from segkit.data.recipe import CONFIG
from segkit.errors import counted
from segkit.log import logger


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of `segkit data convert`."""
    parser.add_argument("source", metavar="SOURCE", help="folder (or file) of the labels, photos beside or below it")
    parser.add_argument("--to", required=True, metavar="OUT", help="folder to write the data set into")
    add_options(parser, ConvertOptions)


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Convert and say what came out."""
    report, _ = convert(args.source, args.to, options_from(args, ConvertOptions))
    counts = ", ".join(f"{part} {count}" for part, count in report.parts.items())
    logger.info(
        "%s: %s (%s), %s; classes: %s",
        report.out,
        counted(report.photos, "photo"),
        counts,
        "linked" if args.link else "copied",
        ", ".join(report.class_names),
    )
    logger.info("Train with: segkit train %s --do_eval", quote(str(Path(report.out) / CONFIG)))
    return dataclasses.asdict(report)
