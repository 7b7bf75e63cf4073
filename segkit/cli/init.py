"""Look at a folder of photos and labels and write a config that trains on them: segkit init DIR, segkit train
DIR/segkit.yml."""

from __future__ import annotations

import argparse
from shlex import quote
from typing import Any

from segkit.cli.flags import add_options, options_from
from segkit.data.convert import ConvertOptions
from segkit.data.init import init
from segkit.log import logger


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of `segkit init`."""
    parser.add_argument(
        "folder", metavar="DIR", help="the folder of the photos, and of the labels beside or below them"
    )
    parser.add_argument("--labels", help="folder or file of the labels, where they are not in DIR")
    add_options(parser, ConvertOptions)


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Write the config and say what it chose."""
    made = init(args.folder, args.labels, options_from(args, ConvertOptions))
    for title, reason in made.recipe.why.items():
        logger.info("%s: %s", title, reason)
    logger.info("%s is ready. Train with: segkit train %s --do_eval", made.config, quote(str(made.config)))
    facts = made.facts
    return {
        "config": str(made.config),
        "data": str(made.data),
        "class_names": facts.class_names,
        "photos": facts.photos,
    }
