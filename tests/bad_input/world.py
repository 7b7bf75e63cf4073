"""A small data set, config, trained weights and exported folder, to be spoilt in one way after another."""

from __future__ import annotations

import contextlib
import io
import os
import re
import shutil
from pathlib import Path
from typing import Any, Callable, Iterator

import yaml

from segkit.cli.main import main
from tests.tiny import make_data, tiny_config
from tests.tiny_model import make_weights

Change = Callable[[Path], None]
REPO = Path(__file__).resolve().parents[2]


def build(folder: Path) -> Path:
    """data/, config.yml, best/ (weights) and exported/ below `folder`."""
    data = make_data(folder / "data", train=3, val=1)
    config = tiny_config(data, folder / "config.yml", iters=2)
    content = yaml.safe_load(config.read_text(encoding="utf-8"))
    for part in ("train_dataset", "val_dataset"):
        content[part]["dataset_root"] = "data"
    content["val_dataset"]["transforms"] = [{"type": "Resize", "target_size": [32, 32]}, {"type": "Normalize"}]
    config.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
    with inside(folder):
        make_weights(config, folder / "best")
        code, said = run(["export", "--model_path", "best", "--save_dir", "exported"])
    if code:
        raise RuntimeError(said)
    return folder


@contextlib.contextmanager
def inside(folder: Path) -> Iterator[None]:
    """The working directory is `folder` within the block (contextlib.chdir of Python 3.11)."""
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


def copy(world: Path, target: Path) -> Path:
    """A copy to be spoilt."""
    return Path(shutil.copytree(world, target))


def run(argv: list[str]) -> tuple[int, str]:
    """Exit code and standard error of `segkit ARGV` in this process. What escapes `main` is a bug, and raised."""
    said = io.StringIO()
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
        try:
            code = main(argv)
        except SystemExit as end:
            code = int(end.code or 0)
    return code, said.getvalue()


def message(said: str, world: Path) -> str:
    """What is said after `segkit: error:`, with the folders of this machine left out."""
    text = said[said.find("segkit: error:") :] if "segkit: error:" in said else said
    text = text.replace(f"{world}/", "").replace(str(world), ".").replace(f"{REPO}/", "")
    text = re.sub(r"Known( here)?: [^\n]*", "Known: ...", text)  # lists that grow, and that Python's versions quote
    text = re.sub(r"Commands: [^\n.]*", "Commands: ...", re.sub(r"\(choose from [^)]*\)", "(choose from ...)", text))
    return text.strip().removeprefix("segkit: error: ")


def edit(path: str, value: Any, file: str = "config.yml") -> Change:
    """Set a key, such as `train_dataset.transforms.0.type`, of a YAML file."""

    def change(world: Path) -> None:
        content = yaml.safe_load((world / file).read_text(encoding="utf-8"))
        node, *_ = [content]
        *parents, last = [int(part) if part.isdigit() else part for part in path.split(".")]
        for part in parents:
            node = node[part]
        node[last] = value
        (world / file).write_text(yaml.safe_dump(content, sort_keys=False, allow_unicode=True), encoding="utf-8")

    return change


def drop(path: str, file: str = "config.yml") -> Change:
    """Take a key out of a YAML file."""

    def change(world: Path) -> None:
        content = yaml.safe_load((world / file).read_text(encoding="utf-8"))
        node = content
        *parents, last = path.split(".")
        for part in parents:
            node = node[part]
        del node[last]
        (world / file).write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")

    return change


def write(file: str, content: str | bytes) -> Change:
    """Replace a file."""

    def change(world: Path) -> None:
        (world / file).parent.mkdir(parents=True, exist_ok=True)
        (world / file).write_bytes(content.encode() if isinstance(content, str) else content)

    return change


def remove(file: str) -> Change:
    """Take a file or folder away."""

    def change(world: Path) -> None:
        path = world / file
        shutil.rmtree(path) if path.is_dir() else path.unlink()

    return change


def cut(file: str, share: float = 0.5) -> Change:
    """Keep the first part of a file."""

    def change(world: Path) -> None:
        data = (world / file).read_bytes()
        (world / file).write_bytes(data[: int(len(data) * share)])

    return change


def image(file: str, array: Any) -> Change:
    """Replace a picture by an array."""

    def change(world: Path) -> None:
        from PIL import Image

        Image.fromarray(array).save(world / file)

    return change
