"""Segment photos with an exported model."""

from __future__ import annotations

import argparse
from typing import Any

from segkit.cli.flags import add_options, options_from
from segkit.deploy.infer import infer
from segkit.options import InferOptions


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of `segkit infer`."""
    add_options(parser, InferOptions)


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Segment everything that `--image_path` names."""
    return infer(options_from(args, InferOptions))
