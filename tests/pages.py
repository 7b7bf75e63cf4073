"""The fenced blocks of README, docs and deploy: found, and run as written in a copy of the checkout.

Comments right above a block say what it is, visible in the page's source:
`<!-- slow -->` run with --slow only; `<!-- not run: REASON -->`; `<!-- file: PATH -->` the page tells to save it there;
`<!-- merged into CONFIG -->` a fragment of a config; `<!-- serves: URL -->` a server, stopped at the end of the page.
"""

from __future__ import annotations

import fcntl
import os
import re
import shlex
import shutil
import signal
import site
import subprocess
import sys
import time
import urllib.request
import venv
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from segkit import io
from segkit.cli import main as cli
from segkit.config import Config
from segkit.datasets.doves import SEED, draw_set
from segkit.polygons import write_labelme

ROOT = Path(__file__).resolve().parents[1]
PAGES = [
    *("README.md", "README.zh-CN.md"),
    *sorted(
        p.relative_to(ROOT).as_posix() for p in [*(ROOT / "docs").rglob("*.md"), *(ROOT / "deploy").glob("*/*.md")]
    ),
]
KINDS = ("slow", "not run", "file", "merged into", "serves")
_BLOCK = re.compile(r"((?:^ *<!-- .*? -->\n)*)^( *)```(\w*)\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
_MARK = re.compile(rf"<!-- ({'|'.join(KINDS)})(?:: | )?(.*?) ?-->")
QUICK, LONG = 120, 3000  # seconds


@dataclass(frozen=True)
class Block:
    """One fenced block: its language and text, where it stands, and what the comments above it say."""

    page: str
    line: int
    kind: str
    text: str
    marks: dict[str, str] = field(default_factory=dict)

    @property
    def place(self) -> str:
        return f"{self.page}:{self.line}"


def blocks(page: str) -> list[Block]:
    """The fenced blocks of a page in order; those without a language are output, and left out."""
    text = (ROOT / page).read_text(encoding="utf-8")
    found = []
    for match in _BLOCK.finditer(text):
        comments, _, kind, body = match.groups()
        if kind:
            line = text.count("\n", 0, match.start(2)) + 1
            found.append(Block(page, line, kind, body, dict(_MARK.findall(comments))))
    return found


def commands(block: Block) -> list[list[str]]:
    """The words of each command in a bash block: of `a && b` and lines continued by a backslash, without comments."""
    found = []
    for line in block.text.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        starts = [-1, *(index for index, word in enumerate(words) if word in ("&&", ";")), len(words)]
        found += [words[a + 1 : b] for a, b in zip(starts, starts[1:]) if words[a + 1 : b]]
    return found


def build(base: Path, doves: int) -> None:
    """A clone with what the pages take for granted: `doves` pictures, labelled photos, a trained and an exported model.

    The model has seen two iterations: that commands work is tested here, not what a training reaches.
    """
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    )
    for name in listed.stdout.decode().split("\0"):
        if name and (ROOT / name).is_file():
            (base / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, base / name)
    (base / "data" / "doves").mkdir(parents=True)
    draw_set(base / "data" / "doves", doves, SEED)
    _photos(base)
    _bands(base / "data" / "bands")
    here = os.getcwd()
    os.chdir(base)
    try:
        train = ["train", "configs/unet_dove.yml", "--iters", "2", "--do_eval", "--num_workers", "0", "--device", "cpu"]
        assert cli.main([*train, "--quiet"]) == 0
        assert cli.main(["export", "--model_path", "output/best_model", "--quiet"]) == 0
    finally:
        os.chdir(here)


def _photos(base: Path) -> None:
    """photo.jpg, and photos/ with labelme's JSON files beside them."""
    names = ["_background_", "dove"]
    (base / "photos").mkdir()
    for folder in sorted((base / "data" / "doves").iterdir())[:8]:
        photo = base / "photos" / f"{folder.name}.png"
        shutil.copy2(folder / "img.png", photo)
        write_labelme(photo.with_suffix(".json"), io.read_label(folder / "label.png"), names, photo.name)
    import cv2

    cv2.imwrite(str(base / "photo.jpg"), cv2.imread(str(base / "photos" / "000.png")))


def _bands(root: Path) -> None:
    """Two 16-bit photos of four bands, and their labels."""
    rng = np.random.default_rng(0)
    for name in ("a", "b"):
        (root / "images").mkdir(parents=True, exist_ok=True)
        np.save(root / "images" / f"{name}.npy", rng.integers(1, 4000, (160, 160, 4)).astype(np.uint16))
        io.write_png(root / "labels" / f"{name}.png", rng.integers(0, 2, (160, 160)).astype(np.uint8))
    for part, name in (("train", "a"), ("val", "b")):
        (root / f"{part}.txt").write_text(f"images/{name}.npy labels/{name}.png\n", encoding="utf-8")


def shared_base(folder: Path, doves: int) -> Path:
    """`build`, once for all processes of a test run."""
    with open(folder / "docs.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        base = folder / "docs_clone"
        if not (folder / "docs.ready").exists():
            shutil.rmtree(base, ignore_errors=True)
            base.mkdir()
            build(base, doves)
            (folder / "docs.ready").touch()
    return base


class Reader:
    """Somebody who types what a page says, block after block, in a clone of their own. `limit`: seconds for a block."""

    def __init__(self, base: Path, folder: Path, limit: int = QUICK):
        self.clone, self.env, self.limit = folder / "clone", folder / "env", limit
        # Pictures are linked, not copied: no command changes one in place.
        copy = lambda source, target: (os.link if source.endswith(".png") else shutil.copy2)(source, target)  # noqa: E731
        shutil.copytree(base, self.clone, copy_function=copy)
        self.environment = {
            **{key: value for key, value in os.environ.items() if not key.startswith(("PYTEST", "PYTHONPATH"))},
            "PATH": f"{self.env / 'bin'}{os.pathsep}{os.environ['PATH']}",
            "VIRTUAL_ENV": str(self.env),
            "SEGKIT_HOME": str(folder / "home"),
            "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        }
        self._make_environment()
        self.modules: list[str] = []
        self.servers: list[subprocess.Popen] = []

    def _make_environment(self) -> None:
        """A Python where all packages of this one are there, and what pip installs stays in `env`."""
        venv.create(self.env)
        inner = next((self.env / "lib").glob("python*/site-packages"))
        (inner / "outer.pth").write_text("".join(f"{path}\n" for path in site.getsitepackages()), encoding="utf-8")
        for name in ("pip", "segkit"):
            script = self.env / "bin" / name
            script.write_text(f'#!/bin/sh\nexec "{self.env}/bin/python" -m {name} "$@"\n', encoding="utf-8")
            script.chmod(0o755)

    def do(self, block: Block) -> None:
        """Run a block; fails with its output."""
        path = self.clone / block.marks["file"] if "file" in block.marks else None
        if path is not None:
            path.write_text(block.text, encoding="utf-8")
        if block.kind == "bash":
            self._bash(block)
        elif block.kind == "yaml":
            self._check(block, path)
        elif path is not None:
            self.modules.append(path.stem)
        else:
            self._run(block, [self.env / "bin" / "python", "-c", block.text])

    def _run(self, block: Block, command: list) -> None:
        done = subprocess.run(
            command, cwd=self.clone, env=self.environment, capture_output=True, text=True, timeout=self.limit,
            stdin=subprocess.DEVNULL,
        )  # fmt: skip
        told = f"{done.stdout[-2000:]}{done.stderr[-2000:]}"
        assert done.returncode == 0, f"{block.place}: exit code {done.returncode}\n{block.text}\n{told}"

    def _bash(self, block: Block) -> None:
        command = ["bash", "-euo", "pipefail", "-c", block.text]
        if "serves" not in block.marks:
            self._run(block, command)
            return
        with open(self.clone.parent / f"server_{block.line}.log", "wb") as log:
            self.servers.append(
                subprocess.Popen(
                    command, cwd=self.clone, env=self.environment, stdout=log, stderr=log, start_new_session=True
                )
            )
        end = time.monotonic() + QUICK
        while not _answers(block.marks["serves"]):
            assert self.servers[-1].poll() is None and time.monotonic() < end, Path(log.name).read_text()[-2000:]
            time.sleep(0.2)

    def _check(self, block: Block, path: Path | None) -> None:
        """A config or a fragment of one. One that imports code is checked by the command, in a process of its own."""
        if path is None:
            path = self.clone / f"fragment_{block.line}.yml"
            path.write_text(f"_base_: {block.marks['merged into']}\n{block.text}", encoding="utf-8")
        if "imports:" in block.text:
            self._run(block, ["segkit", "config", str(path), "--check"])
            return
        problems = Config(path, check=False).problems()
        assert problems == [], f"{block.place}: {problems}"

    def close(self) -> None:
        """Import what the page wrote as Python files, all together, and stop the servers."""
        for server in self.servers:
            os.killpg(server.pid, signal.SIGTERM)
        for server in self.servers:
            server.wait(60)
        if self.modules:
            names = ", ".join(self.modules)
            self._run(Block("Python files", 0, "python", names), [self.env / "bin" / "python", "-c", f"import {names}"])


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as reply:
            return reply.status == 200
    except OSError:
        return False


assert sys.platform != "win32", "these tests run bash"
