"""Show the curves and pictures that `train --use_vdl` wrote: starts VisualDL and prints its address."""

from __future__ import annotations

import argparse

from segkit.cli.flags import add_options, options_from
from segkit.options import DashboardOptions


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of `segkit dashboard`."""
    parser.add_argument("folder", metavar="DIR", help="the save_dir of a run, or a folder of several runs")
    add_options(parser, DashboardOptions)


def run(args: argparse.Namespace) -> int:
    """Serve until SIGTERM or Ctrl-C."""
    from segkit.engine.dashboard_server import serve

    return serve(args.folder, options_from(args, DashboardOptions))
