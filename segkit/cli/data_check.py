"""Decode a whole data set and report everything that is wrong with it, each finding with its files and its remedy.

Exit code 2 where training would fail or be wrong, 0 otherwise.
"""

from __future__ import annotations

import argparse
import json

from segkit.log import logger


def add_source(parser: argparse.ArgumentParser) -> None:
    """CONFIG_OR_DIR and `--opts`."""
    parser.add_argument("source", metavar="CONFIG_OR_DIR", help="a YAML config, or the folder of a data set")
    parser.add_argument(
        "--opts", nargs="*", action="extend", default=[], metavar="KEY=VALUE", help="override keys of the config"
    )


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of `segkit data check`."""
    add_source(parser)
    parser.add_argument("--html", metavar="FILE", help="also write a page with a histogram, sizes and examples")


def run(args: argparse.Namespace) -> int:
    """Check, print the report, and return the exit code."""
    from segkit.data.check import check_dataset

    report = check_dataset(args.source, args.opts)
    if args.html:
        from segkit.data.page import write_page

        write_page(report, args.html)
        logger.info("the page is %s", args.html)
    if args.json:
        print(json.dumps(report.to_dict()))
    elif not args.quiet:
        print(report.text())
    return report.exit_code
