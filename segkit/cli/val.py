"""Evaluate trained weights, or an exported folder, on the config's val_dataset."""

from __future__ import annotations

import argparse
from typing import Any

from segkit.cli.flags import add_config, add_options, config_from, options_from
from segkit.options import EvalOptions
from segkit.runtime import require_paddle


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of `segkit val`."""
    add_config(parser)
    add_options(parser, EvalOptions)


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Evaluate; the metrics are returned and logged."""
    require_paddle()
    from segkit.build import build_dataset
    from segkit.engine import segmenter
    from segkit.engine.apply import test_time
    from segkit.engine.evaluate import evaluate

    exported = segmenter.is_exported(args.model_path)
    options = options_from(args, EvalOptions)
    segmenter.check_backend(options, exported)
    cfg = config_from(args)
    test_time(options, cfg.test_config)
    device = segmenter.set_up(options)
    if exported:
        engine = segmenter.load_exported(args.model_path, device, options)
        dataset = build_dataset(cfg, "val", use_multilabel=options.use_multilabel)
        dataset.transforms = engine.transforms
        windows = {key: cfg.test_config[key] for key in ("is_slide", "crop_size", "stride") if key in cfg.test_config}
        return evaluate(engine.run, dataset, options, windows)
    model = segmenter.load_model(cfg, args.model_path)
    dataset = build_dataset(cfg, "val", use_multilabel=options.use_multilabel)
    return evaluate(model, dataset, options, cfg.test_config)
