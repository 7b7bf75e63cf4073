"""Classes and their weights, mean and std of each band, sizes, and the crop and batch that follow from them."""

from __future__ import annotations

import argparse
from typing import Any

from segkit.cli.data_check import add_source


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of `segkit data stats`."""
    add_source(parser)


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Print the statistics as text, or return them for --json."""
    from segkit.data.stats import as_text, statistics

    found = statistics(args.source, args.opts)
    if not (args.json or args.quiet):
        print(as_text(found))
    return found
