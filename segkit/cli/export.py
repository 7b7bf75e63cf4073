"""Write a trained model for deployment: model, weights and deploy.yaml in one folder."""

from __future__ import annotations

import argparse
from typing import Any

from segkit.cli.flags import add_config, add_options, config_from, options_from
from segkit.options import ExportOptions
from segkit.runtime import require_paddle


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of `segkit export`."""
    add_config(parser)
    add_options(parser, ExportOptions)


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Export, and check that the result agrees with the trained model."""
    require_paddle()
    cfg = config_from(args)
    options = options_from(args, ExportOptions)
    from segkit.engine import segmenter
    from segkit.engine.export import check, export

    check(cfg, options)
    segmenter.set_up_device("cpu")
    return export(cfg, segmenter.load_model(cfg, args.model_path), options)
