"""Write one HTML page about trained weights: curves, scores, calibration and pictures; or compare two runs."""

from __future__ import annotations

import argparse
from typing import Any

from segkit.cli.flags import add_config, add_options, config_from, options_from
from segkit.options import ReportOptions
from segkit.runtime import require_paddle


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of `segkit report`."""
    parser.add_argument("runs", nargs="*", metavar="RUN", help="two run folders, or folders of reports, to compare")
    add_config(parser)
    add_options(parser, ReportOptions)


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Write the page; the metrics, or the differences, are returned."""
    require_paddle()
    from segkit.report.compare import compare, two
    from segkit.report.run import report

    options = options_from(args, ReportOptions)
    if args.runs:
        return compare(*two(args.runs, args.config or args.model_path), options, args.opts, args.trust)
    return report(config_from(args), options, args.model_path)
