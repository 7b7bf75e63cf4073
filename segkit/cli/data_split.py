"""Divide a data set into train, val and test parts, or into folds, by writing its list files anew."""

from __future__ import annotations

import argparse
from typing import Any

from segkit.data.split_folder import split_folder
from segkit.log import logger


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of `segkit data split`."""
    parser.add_argument(
        "folder", metavar="DIR", help="the data set: photos, labels, and list files where there are some"
    )
    for part, share in (("train", 0.7), ("val", 0.15), ("test", 0.15)):
        parser.add_argument(f"--{part}", type=float, default=share, help=f"share of the photos (default: {share})")
    parser.add_argument("--stratify", action="store_true", help="give every part its share of each class's pixels")
    parser.add_argument(
        "--group_by", metavar="REGEX", help="photos whose names give the same match stay together: '(video\\d+)_'"
    )
    parser.add_argument(
        "--folds", type=int, default=0, metavar="K", help="K folds for cross-validation instead of parts"
    )
    parser.add_argument("--seed", type=int, default=0, help="seed (default: 0)")


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Split and say what came out."""
    result = split_folder(
        args.folder, (args.train, args.val, args.test), args.seed, args.stratify, args.group_by, args.folds
    )
    for line in result.pop("said"):
        logger.info("%s", line)
    return result
