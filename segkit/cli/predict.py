"""Segment photos or videos with trained weights."""

from __future__ import annotations

import argparse
from typing import Any

from segkit.build import data_info
from segkit.cli.flags import add_config, add_options, config_from, options_from
from segkit.deploy.spec import DeploySpec
from segkit.log import logger
from segkit.options import PredictOptions
from segkit.runtime import require_paddle


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of `segkit predict`."""
    add_config(parser)
    add_options(parser, PredictOptions)


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Segment everything that `--image_path` names."""
    require_paddle()
    options = options_from(args, PredictOptions)
    from segkit.engine import predict, segmenter
    from segkit.engine.apply import test_time

    exported = segmenter.is_exported(args.model_path)
    segmenter.check_backend(options, exported)
    if exported:
        _say_idle(args)
        predict.check(options, len(DeploySpec.load(args.model_path).classes))
        device = segmenter.set_up(options)
        return predict.predict(segmenter.load_exported(args.model_path, device, options), options)
    cfg = config_from(args)
    test_time(options, cfg.test_config)
    predict.check(options, data_info(cfg).num_classes)
    segmenter.set_up(options)
    model = segmenter.load_model(cfg, args.model_path)
    return predict.predict(segmenter.from_model(cfg, model, options), options)


def _say_idle(args: argparse.Namespace) -> None:
    if args.config or args.opts:
        text = "%s is exported: its own transforms and classes count, --config and --opts do not."
        logger.warning(text, args.model_path)
