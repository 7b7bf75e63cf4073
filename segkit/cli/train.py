"""Train a model from a config."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from segkit.cli.flags import add_config, add_options, config_from, options_from
from segkit.errors import InputError
from segkit.options import TrainOptions
from segkit.runtime import require_paddle


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of `segkit train`."""
    parser.add_argument("config_file", nargs="?", metavar="CONFIG", help="the YAML config, as with --config")
    add_config(parser, model_path=False)
    add_options(parser, TrainOptions)


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Train, and say where the outcome is; a stop by a signal ends the process with its own code."""
    require_paddle()
    if args.config_file and args.config:
        raise InputError(f"two configs: {args.config_file} and --config {args.config}. Give one of them.")
    args.config = args.config or args.config_file
    cfg = config_from(args)
    from segkit.engine import checkpoint
    from segkit.engine.train import train

    options = options_from(args, TrainOptions)
    train(cfg, options)
    newest = checkpoint.iterations(Path(options.save_dir))[-1:]
    found: dict[str, Any] = {"save_dir": options.save_dir, "checkpoint": str(newest[0]) if newest else None}
    if newest and options.do_eval:
        progress = checkpoint.read_progress(newest[0] / checkpoint.TRAINER)
        found |= {options.best_metric: progress.best_score, "best_iteration": progress.best_iteration}
    return found
