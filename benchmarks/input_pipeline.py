"""Samples per second of one reading process, segkit against PaddleSeg and albumentations.

`python -m benchmarks.input_pipeline --paddleseg PYTHON`, where PYTHON is the interpreter of an environment with
paddleseg 2.8.0 (without the flag that side is left out; so is albumentations where it is not installed). Seeded
photos (JPEG) and labels (PNG) are drawn into a temporary folder. Every side is a process of its own with one thread;
the sides take turns, round after round. A sample goes from its files to float32 CHW in a batch of 4; the side
"segkit, uint8" ends with what a worker process of segkit hands over, bytes that the training process normalises.

crop: scale by 0.5 to 2, crop 512, flip, colours, normalise. resize: to 512, flip, normalise.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from benchmarks.input_pipeline_peer import BATCH, CLASSES

RECIPES = ("crop", "resize")


def draw(folder: str, size: tuple[int, int], count: int = 24, seed: int = 7) -> int:
    """`count` photo-like JPEGs of `size` (width, height) with labels and list.txt. Their mean number of bytes.

    Shapes of even colour on a soft background, with texture of several scales and sensor noise: about as many bytes
    a pixel as a photo of the same JPEG quality.
    """
    rng, lines, sizes = np.random.default_rng(seed), [], []
    width, height = size
    for number in range(count):
        image = np.zeros((height, width, 3), np.float32)
        for cells, strength in ((3, 60), (12, 30), (48, 14), (160, 6)):
            coarse = rng.standard_normal((cells * height // width + 2, cells + 2, 3)).astype(np.float32)
            image += strength * cv2.resize(coarse, size, interpolation=cv2.INTER_CUBIC)
        image += 120 + rng.normal(0, 3, image.shape)
        label = np.zeros((height, width), np.uint8)
        for value in range(1, CLASSES):
            center = (int(rng.integers(width)), int(rng.integers(height)))
            axes = (int(width * rng.uniform(0.1, 0.3)), int(height * rng.uniform(0.1, 0.3)))
            shape = np.zeros_like(label)
            cv2.ellipse(shape, center, axes, float(rng.uniform(0, 180)), 0, 360, 1, -1)
            image[shape > 0] += rng.uniform(-70, 70, 3)
            label[shape > 0] = value
            label[cv2.dilate(shape, np.ones((3, 3), np.uint8)) != shape] = 255
        photo = cv2.imencode(".jpg", np.clip(image, 0, 255).astype(np.uint8), [cv2.IMWRITE_JPEG_QUALITY, 90])[1]
        Path(folder, f"{number}.jpg").write_bytes(photo.tobytes())
        Path(folder, f"{number}.png").write_bytes(cv2.imencode(".png", label)[1].tobytes())
        lines.append(f"{number}.jpg {number}.png\n")
        sizes.append(len(photo))
    Path(folder, "list.txt").write_text("".join(lines), encoding="utf-8")
    return int(np.mean(sizes))


class Side:
    """A process that reads batches when told."""

    def __init__(self, name: str, python: str, recipe: str, folder: str, workers: int | None = None):
        root = Path(__file__).resolve().parent
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(root.parent)}
        loader = [] if workers is None else ["--loader", str(workers)]
        self.process = subprocess.Popen(
            [python, "-W", "ignore", str(root / "input_pipeline_peer.py"), name, recipe, folder, *loader],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL if "INPUT_VERBOSE" not in os.environ else None,
            text=True,
            env=environment,
        )
        answer = self.process.stdout.readline().strip()
        if answer != "ready":
            raise RuntimeError(f"{name}: did not start; set INPUT_VERBOSE=1 to see why")

    def rate(self, batches: int) -> float:
        """Samples a second over so many batches."""
        print(batches, file=self.process.stdin, flush=True)
        return batches * BATCH / float(self.process.stdout.readline())

    def close(self) -> None:
        self.process.stdin.close()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()


def measure(sides: dict[str, str], recipe: str, folder: str, rounds: int, batches: int, workers: int | None) -> dict:
    """Side -> samples a second of each round, the sides taking turns."""
    started = {name: Side(name, python, recipe, folder, workers) for name, python in sides.items()}
    rates: dict[str, list[float]] = {name: [] for name in sides}
    for side in started.values():
        side.rate(max(2, batches // 3))
    for _ in range(rounds):
        for name, side in started.items():
            rates[name].append(side.rate(batches))
    for side in started.values():
        side.close()
    return rates


def rows(title: str, rates: dict[str, list[float]]) -> list[str]:
    """Lines of the Markdown table of one measurement: median, spread, and segkit's ratio to each side, by round."""
    lines = []
    for name, values in rates.items():
        ratio = statistics.median(a / b for a, b in zip(rates["segkit"], values))
        shown = "-" if name == "segkit" else f"{ratio:.2f}"
        middle = statistics.median(values)
        lines.append(f"| {title} | {name} | {middle:.0f} | {min(values):.0f}-{max(values):.0f} | {shown} |")
    return lines


def machine() -> str:
    """Processor, cores and versions of this environment."""
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        names = [line.split(":", 1)[1].strip() for line in file if line.startswith("model name")]
    name = names[0] if names else platform.processor()
    return f"{name}, {os.cpu_count()} cores; Python {platform.python_version()}, OpenCV {cv2.__version__}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--paddleseg", metavar="PYTHON", help="interpreter of an environment with paddleseg")
    parser.add_argument("--cache", nargs="*", default=[], choices=["ram", "disk"], help="segkit with a cache too")
    parser.add_argument("--recipes", nargs="+", default=list(RECIPES), choices=RECIPES)
    parser.add_argument("--sizes", nargs="+", default=["480x360"], metavar="WxH")
    parser.add_argument("--workers", nargs="+", type=int, metavar="N", help="time the loaders with N processes instead")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batches", type=int, default=15, help="batches a round")
    args = parser.parse_args()
    sides: dict[str, Any] = {"segkit": sys.executable}
    if not args.workers:
        sides["segkit, uint8"] = sys.executable
    sides.update({f"segkit, cache: {kind}": sys.executable for kind in args.cache})
    if args.paddleseg:
        sides["PaddleSeg"] = args.paddleseg
    if importlib.util.find_spec("albumentations") and not args.workers:
        sides["albumentations"] = sys.executable
    print(f"{machine()}; {args.rounds} rounds of {args.batches} batches of {BATCH}\n")
    print("| photos, recipe | side | samples/s (median) | lowest-highest | segkit / this |\n|---|---|---|---|---|")
    for size in args.sizes:
        with tempfile.TemporaryDirectory() as folder:
            kilobytes = draw(folder, tuple(int(n) for n in size.split("x"))) / 1000
            for recipe in args.recipes:
                for workers in args.workers or [None]:
                    rates = measure(sides, recipe, folder, args.rounds, args.batches, workers)
                    title = f"{size} ({kilobytes:.0f} kB), {recipe}" + (
                        "" if workers is None else f", {workers} workers"
                    )
                    print("\n".join(rows(title, rates)), flush=True)


if __name__ == "__main__":
    main()
