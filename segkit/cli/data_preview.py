"""A contact sheet PNG of samples after augmentation with their labels over them: what the model will be fed."""

from __future__ import annotations

import argparse
from typing import Any

from segkit.cli.data_check import add_source
from segkit.log import logger


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of `segkit data preview`."""
    add_source(parser)
    parser.add_argument("-n", "--count", type=int, default=16, help="how many samples (default: 16)")
    parser.add_argument("--part", default="train", help="train or val (default: train)")
    parser.add_argument("--seed", type=int, default=42, help="seed of the choice and of the augmentation (default: 42)")
    parser.add_argument("--columns", type=int, default=3, help="samples beside each other (default: 3)")
    parser.add_argument("--out", default="preview.png", metavar="PNG", help="the sheet (default: preview.png)")


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Write the sheet."""
    from segkit.data.preview import preview

    paths = preview(args.source, args.out, args.count, args.part, args.seed, args.columns, args.opts)
    logger.info("%s: samples: %d", args.out, len(paths))
    return {"path": args.out, "samples": paths}
