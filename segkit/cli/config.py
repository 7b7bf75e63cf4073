"""Print the resolved config; with --check, only check it."""

from __future__ import annotations

import argparse
from typing import Any

from segkit.config import Config
from segkit.runtime import require_paddle


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of `segkit config`."""
    parser.add_argument("config", metavar="FILE", help="the YAML config")
    parser.add_argument("--check", action="store_true", help="only check; exit code 2 when something is wrong")
    parser.add_argument("--opts", nargs="*", action="extend", default=[], metavar="KEY=VALUE", help="overrides")


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Check, and print unless told not to."""
    require_paddle()
    cfg = Config(args.config, args.opts)
    if args.check:
        if not args.quiet and not args.json:
            print(f"{args.config}: no problems found")
    elif not args.json and not args.quiet:
        print(cfg.to_yaml(), end="")
    return {"config": cfg.data, "problems": []}
