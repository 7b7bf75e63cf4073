"""Serve exported models over HTTP, with a page to drop a photo on. Listens on this machine alone unless --host."""

from __future__ import annotations

import argparse
import importlib

from segkit.cli.flags import add_options, options_from
from segkit.errors import InputError
from segkit.options import ServeOptions

_EXTRA = ("fastapi", "uvicorn", "python_multipart", "prometheus_client")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of `segkit serve`."""
    parser.add_argument(
        "models", nargs="+", metavar="[NAME=]FOLDER", help="exported folders; the first is the default model"
    )
    add_options(parser, ServeOptions)


def run(args: argparse.Namespace) -> int:
    """Serve until SIGTERM or Ctrl-C."""
    for name in _EXTRA:
        try:
            importlib.import_module(name)
        except ImportError as error:
            raise InputError(
                f"segkit serve needs the extra serve, which cannot be loaded ({error}). Install it: pip install "
                "fastapi uvicorn python-multipart prometheus-client"
            ) from error
    from segkit.deploy.serve.server import serve

    return serve(args.models, options_from(args, ServeOptions))
