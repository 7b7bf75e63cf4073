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
    from segkit.engine.evaluate import evaluate
    from segkit.engine.segmenter import for_evaluation

    options = options_from(args, EvalOptions)
    model, dataset, test_config = for_evaluation(config_from(args), options, args.model_path)
    return evaluate(model, dataset, options, test_config)
