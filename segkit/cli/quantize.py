"""Make an exported OpenVINO model int8, and judge it on the val set."""

from __future__ import annotations

import argparse
from typing import Any

from segkit.cli.flags import add_config, add_options, config_from, options_from
from segkit.errors import InputError
from segkit.options import QuantizeOptions
from segkit.runtime import require_paddle


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of `segkit quantize`."""
    add_config(parser)
    add_options(parser, QuantizeOptions)


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Quantize, and print what it costs and brings."""
    require_paddle()
    if not args.model_path:
        raise InputError("--model_path is missing. Give an exported folder, written with --format openvino or all.")
    from segkit.deploy.spec import DeploySpec
    from segkit.engine.quantize import quantize

    return quantize(config_from(args), DeploySpec.load(args.model_path), options_from(args, QuantizeOptions))
