"""The older `.pdmodel` format: a flag that Paddle reads once, at its start, so a process of its own."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Optional

import paddle

from segkit.build import build_model
from segkit.config import Config
from segkit.engine import old_ir
from segkit.engine.graph import Exported, Normalization, save_graph
from segkit.engine.segmenter import is_multilabel
from segkit.engine.weights import load_weights, save_state
from segkit.errors import InputError


def save_paddle2(
    cfg: Config,
    model: paddle.nn.Layer,
    folder: Path,
    shape: list[int],
    output_op: str,
    normalization: Optional[Normalization] = None,
) -> None:
    """`model.pdmodel` and `model.pdiparams` in `folder`; `InputError` where this Paddle cannot write them."""
    work = folder / "paddle2"
    work.mkdir()
    cfg.save(work / "config.yml")
    save_state(model.state_dict(), work / "model.pdparams")
    root = str(Path(__file__).resolve().parents[2])
    paths = os.pathsep.join([root, *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run(
        [sys.executable, "-m", "segkit.engine.paddle2", str(work), json.dumps([shape, output_op, normalization])],
        env={**os.environ, "FLAGS_enable_pir_api": "0", "PYTHONPATH": paths},
        capture_output=True,
        text=True,
        check=False,
    )
    if not (work / "model.pdmodel").is_file():
        said = [line.strip() for line in done.stderr.splitlines() if line.strip()]
        reason = said[-1] if said and done.returncode else "it wrote model.json instead"
        raise InputError(
            f"--format paddle2: Paddle {paddle.__version__} cannot write model.pdmodel ({reason}). Use --format "
            "paddle, or export with Paddle 3.0."
        )
    for name in ("model.pdmodel", "model.pdiparams"):
        shutil.move(str(work / name), str(folder / name))
    shutil.rmtree(work)


def main(work: str, what: str) -> None:
    """In the process with the flag: load the model again and write its graph. `what`: the rest of the arguments of
    `save_paddle2`, as JSON."""
    folder = Path(work)
    shape, output_op, normalization = json.loads(what)
    old_ir.restore()
    cfg = Config(folder / "config.yml", check=False, trust=True)
    model = build_model(cfg)
    load_weights(model, folder / "model.pdparams")
    save_graph(Exported(model, output_op, is_multilabel(cfg), normalization), folder, shape)


if __name__ == "__main__":
    main(*sys.argv[1:])
