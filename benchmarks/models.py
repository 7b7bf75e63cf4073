"""Parameters and FLOPs of every model: `python -m benchmarks models [--time] [--write docs/paddleseg.md]`.

Each model stands with its usual backbone and 19 classes (STFPM with its one), with `--backbones` also with those of
the shipped configs. Parameters include BatchNorm's running values; FLOPs are multiply-adds of convolutions and linear
layers in evaluation, at 512x512. `--time` adds the milliseconds of a forward pass on the CPU, the median of five, or of
what fits into five seconds, after one that does not count; run it on a machine that does nothing else.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Optional

from benchmarks import harness
from segkit import registry

BEGIN, END = "<!-- models: begin -->", "<!-- models: end -->"
CLASSES = 19
SINGLE = {"STFPM"}
"""Models with one output channel."""
_ENOUGH_SECONDS = 5.0


def census(backbones: bool = True) -> dict[str, dict[str, Any]]:
    """Name in the table -> node: every model as its class has it, and with `backbones` those of the shipped configs."""
    import segkit

    found = {name: {"type": name} for name in registry.MODELS.names()}
    if not backbones:
        return found
    for path in sorted((harness.ROOT / "configs").rglob("*.yml")):
        if "_base_" in path.parts:
            continue
        node = segkit.Config(path).data["model"]
        backbone = node.get("backbone")
        if isinstance(backbone, dict):
            kept = {key: value for key, value in node.items() if key not in ("num_classes", "pretrained")}
            kept["backbone"] = {key: value for key, value in backbone.items() if key != "pretrained"}
            found.setdefault(f"{node['type']}, {backbone['type']}", kept)  # variants of a config come after it
    return found


def measure(node: dict[str, Any], side: int, timed: bool) -> dict[str, Any]:
    """One row, in this process."""
    from segkit import runtime

    runtime.require_paddle()
    import paddle

    from segkit.build import build
    from segkit.engine.onednn import convolutions
    from segkit.engine.summary import describe

    classes = 1 if node["type"] in SINGLE else CLASSES
    model = build(registry.MODELS, node, num_classes=classes, in_channels=3)
    told = describe(model, [1, 3, side, side])
    row: dict[str, Any] = {"parameters": told.params, "flops": told.flops}
    if timed:
        model.eval()
        image, seconds = paddle.zeros([1, 3, side, side]), []
        with convolutions(), paddle.no_grad():
            model(image)[0].numpy()
            while not seconds or (len(seconds) < 5 and sum(seconds) < _ENOUGH_SECONDS):
                begin = time.perf_counter()
                model(image)[0].numpy()
                seconds.append(time.perf_counter() - begin)
        row["seconds"] = statistics.median(seconds)
    return row


def in_process(name: str, side: int, timed: bool, limit: Optional[float] = 300) -> dict[str, Any]:
    """`measure` in a new process, so that one model's memory is not the next one's; a failure is a row too."""
    command = [sys.executable, "-m", "benchmarks.models", "--one", name, "--side", str(side)] + ["--time"] * timed
    try:
        done = subprocess.run(command, capture_output=True, text=True, cwd=harness.ROOT, timeout=limit)
    except subprocess.TimeoutExpired:
        return {"error": f"took over {limit:.0f} s"}
    if done.returncode:
        return {"error": (done.stderr.strip().splitlines() or ["failed"])[-1][:120]}
    return json.loads(done.stdout.splitlines()[-1])


def table(rows: dict[str, dict[str, Any]], timed: bool) -> str:
    """The rows as Markdown, sorted by name."""
    header = ["model", "million parameters", "G FLOPs"] + (["CPU, ms"] if timed else [])
    lines = []
    for name in sorted(rows, key=str.lower):
        row = rows[name]
        if "error" in row:
            lines.append([name, row["error"]] + ["-"] * (len(header) - 2))
            continue
        cells = [name, f"{row['parameters'] / 1e6:.2f}", f"{row['flops'] / 1e9:.1f}"]
        if timed:
            cells.append(f"{1000 * row['seconds']:.0f}" if "seconds" in row else "-")
        lines.append(cells)
    return harness.markdown(header, lines)


def put(text: str, made: str) -> str:
    """`text` with what stands between the markers replaced by `made`."""
    if BEGIN not in text or END not in text:
        raise SystemExit(f"the page has no place for the table: put {BEGIN} and {END} there")
    return re.sub(f"{BEGIN}.*{END}", lambda _: f"{BEGIN}\n\n{made}\n\n{END}", text, flags=re.DOTALL)


def main() -> None:
    """Print a row a model, or write the table into a page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", metavar="MODEL", help="names as in the table")
    parser.add_argument("--backbones", action="store_true", help="also with the backbones of the shipped configs")
    parser.add_argument("--side", type=int, default=512, help="height and width of the image (default %(default)s)")
    parser.add_argument("--time", action="store_true", help="also time a forward pass on the CPU")
    parser.add_argument("--write", type=Path, metavar="PAGE", help="put the table between the markers of this page")
    parser.add_argument("--json", type=Path, metavar="FILE", help="keep the rows there, and go on from them")
    parser.add_argument("--one", metavar="MODEL", help="measure in this process, print JSON")
    args = parser.parse_args()
    known = census()
    if args.one:
        print(json.dumps(measure(known[args.one], args.side, args.time)))
        return
    rows: dict[str, dict[str, Any]] = json.loads(args.json.read_text()) if args.json and args.json.exists() else {}
    for name in args.only or census(args.backbones):
        if name not in known:
            parser.error(f"there is no model {name!r}; known: {', '.join(known)}")
        if name in rows and (not args.time or "seconds" in rows[name]):
            continue
        rows[name] = in_process(name, args.side, args.time)
        print(f"{name}: {rows[name]}", file=sys.stderr, flush=True)
        if args.json:
            args.json.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    made = table(rows, args.time)
    if args.time:
        made = f"{harness.machine('paddlepaddle')}\n\n{made}"
    if args.write:
        args.write.write_text(put(args.write.read_text(encoding="utf-8"), made), encoding="utf-8")
    else:
        print(made)


if __name__ == "__main__":
    main()
