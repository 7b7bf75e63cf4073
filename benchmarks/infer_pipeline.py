"""Whether infer waits: busy share of its stages, beside a loop: `python -m benchmarks infer_pipeline --data DIR`.

Copies of the photos of cats8 (phone size) and carrot_weed_8mp in DIR go through an exported BiSeNetV2 of random
weights. `stages at once` is segkit's infer. `one by one` is a loop that reads, runs and writes in turn, as PaddleSeg's
deploy/python/infer.py does, on the same engine and with masks of the photo's own size, as segkit's are. `longest stage`
is the time of the stage that takes most, shared among its threads: a run cannot be shorter, and one that is hardly
longer waits for nothing else.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.harness import (
    Result,
    alternate,
    bars,
    child,
    machine,
    markdown,
    parser,
    write_json,
)

PEER = Path(__file__).with_name("infer_pipeline_peer.py")
SETS = {"cats8": "photos", "carrot_weed_8mp": "big"}


def main() -> None:
    """Print the table."""
    flags = parser(__doc__, rounds=1)
    flags.add_argument(
        "--data", type=Path, default=Path("../shared/data"), help="folder with cats8 and carrot_weed_8mp"
    )
    flags.add_argument("--photos", type=int, default=500, help="copies of cats8's photos (default %(default)s)")
    flags.add_argument("--big", type=int, default=60, help="copies of photos of 8 megapixels (default %(default)s)")
    flags.add_argument("--size", type=int, default=256, help="sides of the network's input (default %(default)s)")
    flags.add_argument("--backends", nargs="+", default=["openvino", "paddle"], help="engines (default: %(default)s)")
    flags.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS), help="photos (default: both)")
    flags.add_argument("--work", type=Path, metavar="DIR", help="keep the exported model there, and take it from there")
    args = flags.parse_args()
    with tempfile.TemporaryDirectory() as root:
        folder = args.work or Path(root)
        if not (folder / "exported").is_dir():
            child([sys.executable, "-c", _EXPORT, str(folder.resolve()), str(args.size)])
        for name in args.sets:
            copies(args.data / name / "images", folder / name, getattr(args, SETS[name]))
        results = alternate(sides(args, folder), args.rounds)
    about = machine("paddlepaddle", "openvino", "onnxruntime", "opencv-python", "opencv-python-headless")
    print(f"{about}; BiSeNetV2 at {args.size}x{args.size}, {args.rounds} rounds\n")
    print(markdown(HEADER, [row(name, runs) for name, runs in results.items()]))
    write_json(args.json, results, about)
    bars(args.plot, results, "seconds of a whole run")


_EXPORT = """
import sys
from pathlib import Path
from tests.tiny_model import make_all
from segkit.cli.main import main
root, size = Path(sys.argv[1]), int(sys.argv[2])
resize = [{"type": "Resize", "target_size": [size, size]}, {"type": "Normalize"}]
best = make_all(root / "trained", transforms=resize, model={"type": "BiSeNetV2"})
formats = ["--format", "all", "--input_shape", "1", "3", str(size), str(size)]
sys.exit(main(["export", "--model_path", str(best), "--save_dir", str(root / "exported"), *formats, "--quiet"]))
"""


def copies(source: Path, target: Path, count: int) -> None:
    """`count` copies of the photos in `source`, each a file of its own."""
    photos = sorted(path for path in source.iterdir() if path.suffix.lower() in (".jpg", ".jpeg", ".png"))
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    for number in range(count):
        photo = photos[number % len(photos)]
        shutil.copyfile(photo, target / f"{number:04d}{photo.suffix}")


def sides(args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Every set through every engine, by segkit and by the loop."""
    made: dict[str, Any] = {}
    for name in args.sets:
        for engine in args.backends:

            def at_once(name: str = name, engine: str = engine) -> Result:
                command = [sys.executable, "-m", "segkit", "infer", "--config", str(folder / "exported")]
                flags = ["--image_path", str(folder / name), "--save_dir", str(folder / "out"), "--backend", engine]
                found = child([*command, *flags, "--benchmark", "--json", "--quiet"])
                return {**found, **found["benchmark"]}

            def one_by_one(name: str = name, engine: str = engine) -> Result:
                flags = [str(folder / "exported"), str(folder / name), str(folder / "loop"), engine, str(args.size)]
                return child([sys.executable, str(PEER), *flags])

            made[f"{name}, {engine}, stages at once"] = at_once
            made[f"{name}, {engine}, one by one"] = one_by_one
    return made


HEADER = [
    *("photos, engine, way", "images/s", "whole run s", "longest stage s", "whole / longest"),
    *("busy: read", "run", "finish", "engine waits: read", "finish", "bound by"),
]


def row(name: str, runs: list[Result]) -> list[Any]:
    """One line of the table, of the run with the median time."""
    run = sorted(runs, key=lambda one: one["seconds"])[len(runs) // 2]
    spent, threads, wall = run["seconds_by_stage"], run["threads"], run["seconds"]
    sums = {"read": spent["read"], "run": spent["run"], "write": spent["mask"] + spent["write"]}
    stages = {stage: seconds / threads[stage] for stage, seconds in sums.items()}
    longest = max(stages.values())
    waits = [f"{run['waits'][stage]:.0%}" for stage in ("read", "finish")] if "waits" in run else ["-", "-"]
    busy = [f"{seconds / wall:.0%}" for seconds in stages.values()]
    bound = run.get("bound_by", "their sum")
    return [name, run["images"] / wall, wall, longest, f"{wall / longest:.2f}", *busy, *waits, bound]


if __name__ == "__main__":
    main()
