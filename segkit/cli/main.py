"""`segkit COMMAND ...`: finds the command, runs it, and turns mistakes into one message and an exit code."""

from __future__ import annotations

import errno
import importlib
import json
import logging
import sys
from typing import Any

from segkit import __version__, log
from segkit.errors import InputError
from segkit.terminal import coloured, has_colours

COMMANDS = {
    "train": "train a model from a config",
    "val": "evaluate trained weights",
    "predict": "segment photos with trained weights",
    "export": "write a trained model for deployment",
    "quantize": "make an exported model int8, and judge it",
    "infer": "segment photos with an exported model",
    "serve": "answer over HTTP with exported models",
    "dashboard": "show the curves and pictures of train --use_vdl",
    "config": "print or check a resolved config",
    "init": "look at photos and labels, write a config that trains",
    "data": "convert, split and check data sets",
    "report": "one HTML page about a run, or about two compared",
    "info": "what this machine has and lacks, or a model's layers, parameters and FLOPs",
}
_DISK = {
    errno.ENOSPC: "the disk is full",
    errno.EFBIG: "a file may not grow so large there",
    errno.EROFS: "the file system is read-only",
    errno.EDQUOT: "the quota is used up",
    errno.EACCES: "permission is denied",
}


def usage() -> str:
    """The text of `segkit --help`."""
    rows = "\n".join(f"  {name:9} {text}" for name, text in COMMANDS.items())
    return (
        "usage: segkit COMMAND [flags]\n\nSemantic segmentation on PaddlePaddle, from a YAML config.\n\n"
        f"commands:\n{rows}\n\n"
        "segkit COMMAND --help lists the flags of a command; segkit --version prints the version."
    )


def main(argv: list[str] | None = None) -> int:
    """Run one command. Exit codes: 0 done, 2 the input is wrong, 130/143 stopped; a bug keeps its traceback."""
    argv = list(sys.argv[1:] if argv is None else argv)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a terminal that cannot show a character gets its number
            stream.reconfigure(errors="backslashreplace")
    first = next((index for index, text in enumerate(argv) if not text.startswith("-")), 0)
    argv = [*argv[first : first + 1], *argv[:first], *argv[first + 1 :]]
    if not argv or argv[0] in ("-h", "--help", "help"):
        print(usage())
        return 0
    if "--version" in argv:
        print(f"segkit {__version__}")
        return 0
    log.setup(quiet="--quiet" in argv)
    try:
        return _run(argv[0], argv[1:])
    except InputError as error:
        _complain(str(error))
        return 2
    except OSError as error:
        if error.errno not in _DISK:
            raise
        _complain(
            f"{error.filename or 'the output folder'}: cannot be written, {_DISK[error.errno]}. "
            "Free space or choose another folder."
        )
        return 2
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130


def _complain(text: str) -> None:
    head = "segkit: error:"
    if has_colours(sys.stderr):
        head = coloured(head, logging.ERROR)
    print(f"{head} {text}", file=sys.stderr)


def _run(command: str, argv: list[str]) -> int:
    if command not in COMMANDS:
        from segkit.registry import nearest

        raise InputError(
            f"unknown command '{command}'.{nearest(command, list(COMMANDS))} Commands: {', '.join(COMMANDS)}. "
            "See segkit --help."
        )
    title = command
    if command == "data":
        from segkit.cli import data

        name, argv = data.subcommand(argv)
        if name is None:
            print(data.usage())
            return 0
        title, command = f"data {name}", f"data_{name}"
    from segkit.cli.flags import Parser, add_common

    module = importlib.import_module(f"segkit.cli.{command}")
    parser = Parser(prog=f"segkit {title}", description=module.__doc__, allow_abbrev=False)
    module.add_arguments(parser)
    add_common(parser)
    parser.add_argument("--version", action="store_true", help="print the version")
    args = parser.parse(argv)
    result: Any = module.run(args)
    if args.json and isinstance(result, dict):
        print(json.dumps(result))
    return result if isinstance(result, int) else 0


if __name__ == "__main__":
    sys.exit(main())
