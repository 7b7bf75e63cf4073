"""Flags from the settings' dataclasses, and the few that every command shares."""

from __future__ import annotations

import argparse
import dataclasses
import typing
from typing import Any, Literal, Optional, TypeVar

from segkit.config import Config
from segkit.errors import InputError
from segkit.log import logger
from segkit.registry import nearest

T = TypeVar("T")

# Flags of PaddleSeg that have no use here: accepted, with a notice.
OBSOLETE = ("--profiler_options", "--model_name", "--device_id", "--for_fd")


class Parser(argparse.ArgumentParser):
    """argparse whose complaints are `InputError`s with the nearest flag."""

    def error(self, message: str) -> typing.NoReturn:
        raise InputError(f"{self.prog}: {message}. See {self.prog} --help.")

    def parse(self, argv: list[str]) -> argparse.Namespace:
        """Parse with `--some-flag` and `--some_flag` alike."""
        argv = [_underscored(text) for text in argv]
        args, unknown = self.parse_known_args(argv)
        if unknown:
            flags = [flag for action in self._actions for flag in action.option_strings if flag.startswith("--")]
            hint = nearest(unknown[0].partition("=")[0], flags)
            raise InputError(f"{self.prog}: unknown argument '{unknown[0]}'.{hint} See {self.prog} --help.")
        for flag in OBSOLETE:
            if getattr(args, f"obsolete_{flag[2:]}", None) is not None:
                logger.info("%s is an obsolete flag of PaddleSeg: accepted, without effect.", flag)
        return args


def _underscored(text: str) -> str:
    if not text.startswith("--") or text == "--":
        return text
    name, equals, value = text.partition("=")
    return "--" + name[2:].replace("-", "_") + equals + value


def _boolean(text: str) -> bool:
    """`--flag`, `--flag True`, `--flag False`: PaddleSeg's infer takes a value, its other tools none."""
    value = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}.get(text.lower())
    if value is None:
        raise argparse.ArgumentTypeError(f"got '{text}', expected True or False")
    return value


def add_common(parser: argparse.ArgumentParser) -> None:
    """`--quiet`, `--json` and the obsolete flags that this command does not have itself."""
    parser.add_argument("--quiet", action="store_true", help="print errors only")
    parser.add_argument("--json", action="store_true", help="print the result as one JSON line on the standard output")
    taken = {flag for action in parser._actions for flag in action.option_strings}
    for flag in OBSOLETE:
        if flag not in taken:
            parser.add_argument(flag, dest=f"obsolete_{flag[2:]}", nargs="?", const=True, help=argparse.SUPPRESS)


def add_options(parser: argparse.ArgumentParser, options: type) -> None:
    """A flag for each field of an options dataclass."""
    hints = typing.get_type_hints(options)
    for field in dataclasses.fields(options):
        meta = dict(field.metadata)
        names = (f"--{field.name}", *meta.pop("aliases", ()))
        text = meta.pop("help")
        if field.default not in (None, False, "") and "default" not in text:
            text += f" (default: {field.default})"
        parser.add_argument(
            *names, dest=field.name, default=field.default, help=text, **_kind(hints[field.name]), **meta
        )


def _kind(hint: Any) -> dict[str, Any]:
    """argparse's arguments for a field's type."""
    if typing.get_origin(hint) is typing.Union:  # Optional[X]
        hint = next(item for item in typing.get_args(hint) if item is not type(None))
    if typing.get_origin(hint) is Literal:
        return {"choices": typing.get_args(hint)}
    if typing.get_origin(hint) is list:
        return {"type": typing.get_args(hint)[0]}
    if hint is bool:
        return {"type": _boolean, "nargs": "?", "const": True, "metavar": "True|False"}
    return {"type": hint}


def options_from(args: argparse.Namespace, options: type[T]) -> T:
    """The options dataclass that the parsed flags say."""
    return options(**{field.name: getattr(args, field.name) for field in dataclasses.fields(options)})


def add_config(parser: argparse.ArgumentParser, model_path: bool = True) -> None:
    """`--config`, `--model_path` and `--opts`."""
    otherwise = "; default: the config.yml beside --model_path" if model_path else ""
    parser.add_argument("--config", "--cfg", help="YAML config" + otherwise)
    add_trust(parser)
    if model_path:
        parser.add_argument(
            "--model_path",
            help="trained weights: a .pdparams file or a folder such as output/best_model; val, predict and quantize "
            "take an exported folder",
        )
    parser.add_argument(
        "--opts", nargs="*", action="extend", default=[], metavar="KEY=VALUE",
        help="override keys of the config, list items by index: train_dataset.transforms.0.target_size=[256,256]",
    )  # fmt: skip


def add_trust(parser: argparse.ArgumentParser) -> None:
    """`--trust`."""
    parser.add_argument(
        "--trust", action="store_true",
        help="run the code that `imports:` names also where the config lies outside the working directory or came "
        "with weights; said once",
    )  # fmt: skip


def config_from(args: argparse.Namespace) -> Config:
    """The config that `--config`, or else `--model_path`, names, with `--opts` over it."""
    if args.config:
        return Config(args.config, args.opts, trust=args.trust)
    model_path: Optional[str] = getattr(args, "model_path", None)
    if model_path:
        return Config.from_model_path(model_path, args.opts, args.trust)
    raise InputError("--config is missing. Give the YAML config, such as --config configs/unet_dove.yml.")
