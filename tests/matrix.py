"""Versions of Python, Paddle, numpy and OpenCV tried with each other: `python -m tests.matrix --table docs/versions.md`.

A virtual environment for each Python, and in it one set of versions after another: a training of five iterations with a
worker process, val, predict, export and infer by the command line, then some of the tests. pip needs the network.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import re
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import NamedTuple, Optional

ROOT = Path(__file__).resolve().parents[1]
PYTHONS = ("3.9", "3.10", "3.11", "3.12", "3.13")
PACKAGES = {
    "paddlepaddle": {"3.0.0": "==3.0.0", "newest": ">3.0.0"},
    "numpy": {"1.26": "==1.26.*", "2": ">=2"},
    "opencv-python": {"4": "<5", "5": ">=5"},
}
"""package -> name of a version in `Corner` -> what pip is asked for"""
FOR_TESTS = ("pytest", "pytest-timeout", "pytest-xdist", "hypothesis", "safetensors", "scikit-learn")
TESTS = ("config", "io", "loader", "optim", "weights", "resizing")
HEAD = "| Python | Paddle | numpy | OpenCV | train, val, predict, export, infer | tests | seconds |"
BEGIN, END = "<!-- versions: written by tests/matrix.py -->", "<!-- end -->"
DATA = """
from pathlib import Path
from tests.tiny import make_data, tiny_config
tiny_config(make_data(Path("data"), 8, 3), Path("c.yml"), iters=5)
"""
COMMANDS = (
    "train --config c.yml --device cpu --num_workers 1 --do_eval --use_vdl --save_dir out",
    "val --model_path out/best_model --device cpu --num_workers 1",
    "predict --model_path out/best_model --image_path data/images --save_dir masks --device cpu",
    "export --model_path out/best_model --save_dir exported",
    "infer --config exported --image_path data/images --save_dir again",
)


class Corner(NamedTuple):
    """One set of versions, by the names above."""

    python: str
    paddle: str
    numpy: str
    opencv: str

    def __str__(self) -> str:
        return "/".join(self)


def corners(every: bool) -> list[Corner]:
    """All sets of versions; or for each Python the oldest and the newest of everything, and for 3.11 all."""
    found = [Corner(*names) for names in itertools.product(PYTHONS, *PACKAGES.values())]
    ends = [tuple(list(names)[end] for names in PACKAGES.values()) for end in (0, -1)]
    return [corner for corner in found if every or corner.python == "3.11" or corner[1:] in ends]


def interpreter(version: str) -> Optional[str]:
    """A Python of that version, pyenv's first."""
    pyenv = sorted(map(str, Path.home().glob(f".pyenv/versions/{version}.*/bin/python")))
    return pyenv[-1] if pyenv else shutil.which(f"python{version}")


def run(*command: object, cwd: Path = ROOT) -> tuple[bool, str]:
    """Whether a command ended well, and the last line of what it said."""
    environment = {"PYTHONPATH": str(ROOT), "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    done = subprocess.run(
        [str(item) for item in command], cwd=cwd, capture_output=True, text=True, check=False,
        env={**os.environ, **environment},
    )  # fmt: skip
    lines = (done.stdout + done.stderr).strip().splitlines()
    return done.returncode == 0, lines[-1].strip() if lines else ""


def install(corner: Corner, work: Path) -> tuple[Path, str]:
    """The environment's Python, and why it could not be had (empty where it could)."""
    found = interpreter(corner.python)
    if found is None:
        return Path(), "no such Python here"
    python = work / corner.python / "bin" / "python"
    if not python.is_file():
        good, said = run(found, "-m", "venv", work / corner.python)
        if not good:
            return python, said
    wanted = [name + versions[which] for (name, versions), which in zip(PACKAGES.items(), corner[1:])]
    uv = shutil.which("uv")  # several times faster
    pip = (uv, "pip", "install", "--python", python) if uv else (python, "-m", "pip", "install", "--no-cache-dir")
    good, said = run(*pip, "-q", "--upgrade", *wanted, "-r", "requirements.txt", *FOR_TESTS)
    return python, "" if good else f"does not install: {said.removeprefix('ERROR: ')}"


def versions(python: Path) -> list[str]:
    """What is really installed: of Python and the packages."""
    code = "import platform as p, sys; from importlib.metadata import version as v; print(p.python_version(), *map(v, sys.argv[1:]))"
    return run(python, "-c", code, *PACKAGES)[1].split()


def commands(python: Path) -> str:
    """Runs `COMMANDS` on a made-up data set: "good", or the one that failed and what it said last."""
    with tempfile.TemporaryDirectory() as folder:
        steps = [("-c", DATA), *(("-m", "segkit", *command.split()) for command in COMMANDS)]
        for step in steps:
            good, said = run(python, *step, cwd=Path(folder))
            if not good:
                return f"{step[2] if step[0] == '-m' else 'the data'}: {said}"
    return "good"


def attempt(corner: Corner, work: Path) -> list[str]:
    """The row of a set of versions."""
    begin = time.monotonic()
    python, problem = install(corner, work)
    if problem:
        return [*corner, problem, "-", "-"]
    names = [f"tests/test_{name}.py" for name in TESTS]
    outcome = commands(python)
    _, tests = run(python, "-m", "pytest", "-p", "no:cacheprovider", "-n", "0", "--no-header", *names)
    return [*versions(python), outcome, re.split(",| in ", tests)[0], f"{time.monotonic() - begin:.0f}"]


def table(rows: dict[str, list[str]]) -> str:
    """The rows as Markdown, in the order of `corners`."""
    order = [str(corner) for corner in corners(True)]
    lines = ["| " + " | ".join(rows[name]) + " |" for name in sorted(rows, key=order.index)]
    return "\n".join([HEAD, "|---" * (HEAD.count("|") - 1) + "|", *lines])


def main() -> int:
    """Try the corners, keep their rows, and write the table where asked."""
    parser = argparse.ArgumentParser(prog="python -m tests.matrix", description=__doc__)
    parser.add_argument("--all", action="store_true", help="all 40 sets of versions, not the corners alone")
    parser.add_argument("--only", default="", help="of all 40, those whose name begins so, such as 3.9/3.0.0")
    parser.add_argument("--work", type=Path, help="keep the environments and rows.json in this folder, and go on there")
    parser.add_argument("--table", type=Path, help="write the table into this file, between its marks")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        work = args.work or Path(folder)
        record = work / "rows.json"
        rows = json.loads(record.read_text(encoding="utf-8")) if record.is_file() else {}
        for corner in corners(args.all or bool(args.only)):
            if str(corner).startswith(args.only):
                rows[str(corner)] = attempt(corner, work)
                print(f"{corner}: {' | '.join(rows[str(corner)])}", flush=True)
                record.write_text(json.dumps(rows, indent=1), encoding="utf-8")
    if args.table:
        text = args.table.read_text(encoding="utf-8")
        before, after = text[: text.index(BEGIN) + len(BEGIN)], text[text.index(END) :]
        args.table.write_text(f"{before}\n{table(rows)}\n{after}", encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
