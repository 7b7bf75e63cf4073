"""Write one HTML page about trained weights: curves, scores, calibration and pictures."""

from __future__ import annotations

import argparse
from typing import Any

from segkit.cli.flags import add_config, add_options, config_from, options_from
from segkit.options import ReportOptions
from segkit.runtime import require_paddle


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of `segkit report`."""
    add_config(parser)
    add_options(parser, ReportOptions)


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Write the page; the metrics, or the differences, are returned."""
    require_paddle()
    from segkit.report.run import report

    return report(config_from(args), options_from(args, ReportOptions), args.model_path)
