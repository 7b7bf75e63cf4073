"""What this machine has and whether it is set up well; with --config, the model's layers, parameters and FLOPs."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from typing import Any

from segkit import __version__, terminal
from segkit.cli.flags import add_config, config_from
from segkit.errors import InputError, counted
from segkit.runtime import require_paddle


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of `segkit info`."""
    add_config(parser, model_path=False)
    parser.add_argument(
        "--input_shape", nargs=4, type=int, default=[1, 0, 224, 224], metavar=("N", "C", "H", "W"),
        help="shape the layers are shown for (default: 1, the config's channels, 224 224)",
    )  # fmt: skip


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Print what was asked for, and return it."""
    found = model_info(args) if args.config else machine_info()
    if not args.json:
        print(found.pop("table"))
    found.pop("table", None)
    return found


def model_info(args: argparse.Namespace) -> dict[str, Any]:
    """The layer table of the config's model."""
    require_paddle()
    from segkit.build import build_model, data_info
    from segkit.engine.summary import describe

    cfg = config_from(args)
    batch, channels, height, width = args.input_shape
    wanted = data_info(cfg).img_channels
    shape = [batch, channels or wanted, height, width]
    if shape[1] != wanted or min(shape) < 1:
        raise InputError(
            f"--input_shape: got {shape}, expected N {wanted} H W, all above 0, as the config's data set is. "
            "Give four such numbers."
        )
    found = describe(build_model(cfg), shape)
    width = terminal.columns(sys.stdout) if terminal.is_terminal(sys.stdout) else None
    return {
        "model": cfg.data["model"]["type"], "input_shape": shape, "params": found.params,
        "trainable": found.trainable, "flops": found.flops, "table": found.table(width),
    }  # fmt: skip


def machine_info() -> dict[str, Any]:
    """Versions and hardware of this machine, the extras that are there, and what is not as it should be."""
    from segkit.engine import machine

    seen = machine.look()
    rows, found = machine.rows(seen), machine.problems(seen)
    width = max(map(len, rows))
    lines = [f"{name:{width}}  {value}" for name, value in rows.items()]
    lines += ["", f"{counted(len(found), 'problem')}:" if found else "This machine is set up as it should be."]
    for number, problem in enumerate(found, start=1):
        lines += [f"{number}. {problem.what}.", f"   Mend: {problem.mend}"]
    return {
        "segkit": __version__,
        **dataclasses.asdict(seen),
        "problems": [dataclasses.asdict(item) for item in found],
        "table": "\n".join(lines),
    }
