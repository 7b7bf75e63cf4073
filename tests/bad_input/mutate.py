"""Random mistakes: configs, deploy.yaml, lists and pictures changed at random, and what may come of them.

Allowed are a result and a message (`InputError`, exit code 2). Anything else, and anything that takes too long, is a bug.
"""

from __future__ import annotations

import contextlib
import copy
import datetime
import signal
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from segkit import io
from segkit.errors import InputError
from tests.bad_input import world
from tests.bad_input.pictures import FORMATS, encoded

SECONDS = 30
_JUNK = (None, True, False, -1, 0, 1, 2, 3, 7, 255, 0.5, -0.1, 1e30, float("nan"), float("inf"), "", "x", "UNet", "256",
         "data", ".", "../x", "a b", "ü", [], [1], [1, 2], [16, 16], [[1, 2, 3]], ["x"], [None], {}, {"type": "Normalize"},
         {"type": None}, {"a": 1}, {1: 2}, {"type": "Resize", "target_size": [8, 8]},
         datetime.date(2024, 1, 2), datetime.datetime(2024, 1, 2, 3), b"bytes", 2**31, 2**63, 10**30, -(2**31), 10**12,
         [100_000, 100_000], [40_000, 1], [10**9, 10**9], {"type": "Resize", "target_size": [100_000, 100_000]},
         {"type": "ResizeByLong", "long_size": 10**6}, {"type": "Padding", "target_size": [10**5, 10**5]})  # fmt: skip
_PIECES = (
    "\t",
    ":",
    "- ",
    "[",
    "}",
    "&a ",
    "*a",
    "!!x ",
    "\0",
    '"',
    "#",
    "\n",
    "  ",
    "é",
    "%",
    "|",
    ">",
    "? ",
    "---\n",
    "2024-13-45",
    "9" * 5000,
    "9" * 25,
    "!!int x",
    "!!bool x",
    "!!timestamp x",
    "!!binary x",
    "!!set {}",
    "? [a]\n",
    "<<: ",
    "[" * 2000,
    "{a: " * 300,
    "- " * 300,
    "\nx: &x1 [0,0,0,0,0,0,0,0,0,0]"
    + "".join(f"\nx{n}: &x{n} [{','.join([f'*x{n - 1}'] * 10)}]" for n in range(2, 9))
    + "\n",
)


class Hang(BaseException):
    """No `Exception`, so that nothing on its way takes it for a mistake of the input."""


@contextlib.contextmanager
def limited(seconds: int = SECONDS) -> Iterator[None]:
    """`Hang` where the block takes longer, also where something within swallowed the alarm."""

    def late(*_: Any) -> None:
        raise Hang(f"takes longer than {seconds} s")

    before, begin = signal.signal(signal.SIGALRM, late), time.monotonic()
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
        if time.monotonic() - begin > seconds:
            raise Hang(f"took longer than {seconds} s")


def tree(content: Any, rng: np.random.Generator) -> Any:
    """A copy of a YAML tree with one to three keys or items dropped, doubled, renamed, moved or given another value."""
    content = copy.deepcopy(content)
    for _ in range(int(rng.integers(1, 4))):
        places = list(_places(content))
        if not places:
            break
        node, key = places[int(rng.integers(len(places)))]
        how, value = rng.integers(10), node[key]
        if how > 4 and isinstance(value, (bool, int, float)):
            node[key] = type(value)(rng.choice([-1, 0, 1, 2, 3, 0.3, 0.9, 8, 17, 60, 255]))
        elif how > 4 and not isinstance(value, (dict, list)):
            continue
        elif how == 0:
            del node[key]
        elif how == 1 and isinstance(node, dict):
            text = str(key)
            at = int(rng.integers(len(text))) if text else 0
            node[text[:at] + text[at + 1 :]] = node.pop(key)
        elif how == 2 and isinstance(node, list):
            node.insert(key, copy.deepcopy(node[key]))
        elif how == 3:
            other, where = places[int(rng.integers(len(places)))]
            with contextlib.suppress(KeyError, IndexError):
                node[key] = copy.deepcopy(other[where])
        else:
            node[key] = copy.deepcopy(_JUNK[int(rng.integers(len(_JUNK)))])
    return content


def _places(node: Any) -> Iterator[tuple[Any, Any]]:
    items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, value in list(items):
        yield node, key
        yield from _places(value)


def text(content: str, rng: np.random.Generator) -> str:
    """A text with pieces put in, taken out or exchanged."""
    for _ in range(int(rng.integers(1, 4))):
        at, length = int(rng.integers(len(content) + 1)), int(rng.integers(0, 12))
        piece = _PIECES[int(rng.integers(len(_PIECES)))] if rng.integers(2) else ""
        content = content[:at] + piece + content[at + length :]
    return content


def data(content: bytes, rng: np.random.Generator) -> bytes:
    """Bytes cut short, with flipped bits, with a piece of zeros or a huge number, or with one doubled or left out."""
    how, at = rng.integers(6), int(rng.integers(len(content)))
    length = int(rng.integers(1, 40))
    if how == 0:
        return content[:at]
    if how == 1:
        return content[:at] + bytes(length) + content[at + length :]
    if how == 2:
        return content[:at] + content[at : at + length] * 2 + content[at + length :]
    if how == 3:
        return content[:at] + content[at + length :]
    flipped = bytearray(content)
    if how == 4:  # a large number, such as a width, among the first bytes
        at = int(rng.integers(min(len(content), 200)))
        flipped[at : at + 4] = b"\x7f\xff\xff\xff" if rng.integers(2) else b"\xff\xff\xff\x7f"
        return bytes(flipped[: len(content)])
    for _ in range(int(rng.integers(1, 4))):
        flipped[int(rng.integers(min(len(content), 10 ** int(rng.integers(1, 5)))))] ^= 1 << int(rng.integers(8))
    return bytes(flipped)


def config(folder: Path, seed: int) -> str:
    """Check a mutated config in a copy of the world; where nothing is found, train with it for an iteration."""
    rng = np.random.default_rng(seed)
    source = (folder / "config.yml").read_text(encoding="utf-8")
    changed = folder / "changed.yml"
    wrong = (
        text(source, rng)
        if rng.integers(3) == 0
        else yaml.safe_dump(tree(yaml.safe_load(source), rng), sort_keys=False)
    )
    changed.write_text(wrong, encoding="utf-8")
    with limited():
        code, said = world.run(["config", "changed.yml", "--check"])
        _judge(code, said)
        if code:
            return "refused by the check"
        argv = [
            "train",
            "--config",
            "changed.yml",
            "--iters",
            "1",
            "--num_workers",
            "0",
            "--device",
            "cpu",
            "--do_eval",
        ]
        code, said = world.run([*argv, "--save_dir", f"out-{seed}"])
    _judge(code, said)
    return "refused by training" if code else "trained"


def deploy(folder: Path, seed: int) -> str:
    """Segment a photo with a mutated deploy.yaml."""
    rng = np.random.default_rng(seed)
    file = folder / "exported" / "deploy.yaml"
    kept = file.read_text(encoding="utf-8")
    wrong = (
        text(kept, rng) if rng.integers(3) == 0 else yaml.safe_dump(tree(yaml.safe_load(kept), rng), sort_keys=False)
    )
    file.write_text(wrong, encoding="utf-8")
    try:
        with limited():
            argv = ["infer", "--config", "exported", "--image_path", "data/images/000.png", "--backend", "paddle"]
            code, said = world.run([*argv, "--save_dir", f"out-{seed}"])
    finally:
        file.write_text(kept, encoding="utf-8")
    _judge(code, said)
    return "refused" if code else "segmented"


def _judge(code: int, said: str) -> None:
    if code not in (0, 2) or "Traceback" in said or (code and "error:" not in said):
        raise AssertionError(f"exit {code}: {said}")


def listing(folder: Path, seed: int) -> str:
    """Read a mutated list: what comes out are files of the list's lines, or a message."""
    from segkit.datasets.lists import read_list

    rng = np.random.default_rng(seed)
    path = folder / "changed.txt"
    source = (folder / "data" / "train.txt").read_text(encoding="utf-8")
    path.write_bytes(text(source, rng).encode() if rng.integers(2) else data(source.encode(), rng))
    try:
        with limited():
            pairs = read_list(str(path), str(folder / "data"))
    except InputError as error:
        if "changed.txt" not in str(error):
            raise AssertionError(f"names no file: {error}") from error
        return "refused"
    lines = path.read_text(encoding="utf-8-sig")
    if not pairs or any(Path(part).name not in lines for pair in pairs for part in pair):
        raise AssertionError(f"{pairs} of {lines!r}")
    return "read"


def picture(folder: Path, seed: int) -> str:
    """Read a mutated picture, or one that claims to be huge, as photo, label and size. One that is only cut short, or that has check sums (PNG), is
    refused or read as it was."""
    rng = np.random.default_rng(seed)
    kind = FORMATS[seed % len(FORMATS)]
    whole = encoded(kind)
    changed = data(whole, rng)
    path = folder / "changed"
    path.write_bytes(changed)
    outcome = "refused"
    for read in (io.read_image, io.read_label, io.image_size):
        with contextlib.suppress(InputError), limited():
            found = read(path)
            if read is not io.image_size:
                outcome = "read"
                sound = changed == whole[: len(changed)] or kind.startswith("png")
                (folder / "whole").write_bytes(whole)
                if sound and not np.array_equal(found, read(folder / "whole")):
                    raise AssertionError(f"{kind}: {len(changed)} of {len(whole)} bytes: other pixels, and no message")
    return outcome


KINDS = {"configs": config, "deploys": deploy, "lists": listing, "images": picture}


def many(kind: str, count: int, folder: Path, first: int = 0) -> Counter:
    """So many seeds of one kind; the outcomes, `bug: ...` among them with its seed, which is printed too."""
    found: Counter = Counter()
    begin = time.monotonic()
    for seed in range(first, first + count):
        try:
            found[KINDS[kind](folder, seed)] += 1
        except (Exception, Hang) as error:
            found["bugs"] += 1
            print(f"{kind} {seed}: {type(error).__name__}: {str(error)[-600:]}", flush=True)
    outcomes = ", ".join(f"{number} {what}" for what, number in found.most_common())
    print(
        f"{count} mutated {kind} (from seed {first}): {outcomes}; {found['bugs']} bugs; {time.monotonic() - begin:.0f} s"
    )
    return found
