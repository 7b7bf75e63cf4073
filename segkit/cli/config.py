"""Print the resolved config; with --check, only check it, or every config of a PaddleSeg checkout; with --explain, tell
what keys something takes."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path
from typing import Any

from segkit.cli.flags import add_trust
from segkit.config import Config
from segkit.errors import InputError
from segkit.runtime import require_paddle


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of `segkit config`."""
    parser.add_argument("config", metavar="FILE", nargs="?", help="the YAML config")
    parser.add_argument("--check", action="store_true", help="only check; exit code 2 when something is wrong")
    parser.add_argument("--paddleseg", metavar="DIR", help="with --check: which configs of this checkout build here")
    parser.add_argument("--explain", metavar="NAME", help="the keys of a model, loss, transform, data set, ... instead")
    add_trust(parser)
    parser.add_argument("--opts", nargs="*", action="extend", default=[], metavar="KEY=VALUE", help="overrides")


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Check, and print unless told not to."""
    require_paddle()
    if args.paddleseg:
        return _survey(args)
    if args.explain:
        return _explain(args)
    if not args.config:
        raise InputError("config: no file is given. Give the YAML config, such as segkit config configs/unet_dove.yml.")
    cfg = Config(args.config, args.opts, trust=args.trust)
    if args.check:
        if not args.quiet and not args.json:
            print(f"{args.config}: no problems found")
    elif not args.json and not args.quiet:
        print(cfg.to_yaml(), end="")
    return {"config": cfg.data, "problems": []}


def _explain(args: argparse.Namespace) -> dict[str, Any]:
    from segkit.config.reference import explain

    if args.config:
        Config(args.config, args.opts, trust=args.trust)  # registers the components of its `imports:`
    text = explain(args.explain)
    if not args.quiet and not args.json:
        print(text)
    return {"name": args.explain, "text": text}


def _survey(args: argparse.Namespace) -> dict[str, Any]:
    if args.config or not args.check:
        raise InputError("--paddleseg goes with --check and no file. Say segkit config --check --paddleseg DIR.")
    from segkit.engine.paddleseg import print_survey

    quiet = args.quiet or args.json
    findings = print_survey(Path(args.paddleseg), (lambda line: None) if quiet else print)
    return {"configs": [dataclasses.asdict(found) for found in findings], "builds": sum(f.builds for f in findings)}
