"""Train a model from a config."""

from __future__ import annotations

import argparse

from segkit.cli.flags import add_config, add_options, config_from, options_from
from segkit.options import TrainOptions
from segkit.runtime import require_paddle


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of `segkit train`."""
    add_config(parser, model_path=False)
    add_options(parser, TrainOptions)


def run(args: argparse.Namespace) -> dict[str, str]:
    """Train; a stop by a signal ends the process with its own code."""
    require_paddle()
    cfg = config_from(args)
    from segkit.engine.train import train

    options = options_from(args, TrainOptions)
    train(cfg, options)
    return {"save_dir": options.save_dir}
