"""A model's parts that configs describe."""

from __future__ import annotations

import inspect
from typing import Any

from paddle import nn

from segkit.errors import InputError


def made(cls: type, params: dict[str, Any], where: str, *arguments: Any) -> nn.Layer:
    """`cls(*arguments, **params)`; an unknown key among `params`, which stand at `where`, is an `InputError`."""
    known = list(inspect.signature(cls).parameters)[len(arguments) :]
    for key in params:
        if key not in known:
            raise InputError(f"{where}.{key}: unknown key (got {key}, expected {', '.join(known)}). Correct it.")
    return cls(*arguments, **params)
