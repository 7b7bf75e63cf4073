"""`segkit data COMMAND ...`: labels in, and a doctor for data sets; a command is a file segkit/cli/data_NAME.py."""

from __future__ import annotations

from segkit.errors import InputError
from segkit.registry import nearest

COMMANDS = {
    "convert": "make a data set that trains of labels as people have them (labelme, COCO, VOC, colour masks, ...)",
    "split": "divide a data set into train, val and test, or into folds",
    "check": "find everything that is wrong with a data set",
    "stats": "classes, sizes, mean and std of a data set",
    "preview": "a contact sheet of what the model will be fed",
}


def usage() -> str:
    """The text of `segkit data --help`."""
    rows = "\n".join(f"  {name:9} {text}" for name, text in COMMANDS.items())
    return f"usage: segkit data COMMAND [flags]\n\ncommands:\n{rows}\n\nsegkit data COMMAND --help lists its flags."


def subcommand(argv: list[str]) -> tuple[str | None, list[str]]:
    """The command that `argv` names, and the other arguments; None where help is asked for.

    Errors: an unknown command.
    """
    at = next((index for index, text in enumerate(argv) if not text.startswith("-")), None)
    if at is None:
        return None, argv
    name = argv[at]
    if name not in COMMANDS:
        raise InputError(
            f"segkit data: unknown command '{name}'.{nearest(name, list(COMMANDS))} Commands: {', '.join(COMMANDS)}. "
            "See segkit data --help."
        )
    return name, argv[:at] + argv[at + 1 :]
