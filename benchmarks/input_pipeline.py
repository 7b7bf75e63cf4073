"""Samples per second of the reading processes, segkit against PaddleSeg and albumentations.

Seeded photos (JPEG) and labels (PNG) are drawn into a temporary folder. Every side is a process of its own with one
thread; the sides take turns, round after round. A sample goes from its files to float32 CHW in a batch of 4; the side
"segkit, uint8" ends with what a worker process of segkit hands over, bytes that the training process normalises.
With --workers the data loaders are timed instead, up to the tensors that a training step gets, by so many processes.

crop: scale by 0.5 to 2, crop 512, flip, colours, normalise. resize: to 512, flip, normalise.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Optional

import cv2
import numpy as np

from benchmarks import harness
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

    def __init__(self, name: str, python: str, recipe: str, folder: str, workers: Optional[int]):
        variables = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(harness.ROOT)}
        loader = [] if workers is None else ["--loader", str(workers)]
        script = str(harness.ROOT / "benchmarks" / "input_pipeline_peer.py")
        self.workers = workers
        self.errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 (closed in `close`)
        self.process = subprocess.Popen(
            [python, "-W", "ignore", script, name, recipe, folder, *loader],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.errors,
            text=True,
            env=variables,
        )
        if self.process.stdout.readline().strip() != "ready":
            self.errors.seek(0)
            raise RuntimeError(f"{name}: did not start:\n{self.errors.read()[-3000:]}")

    def read(self, batches: int) -> harness.Result:
        """Seconds a sample, samples a second, and GiB of it and its workers after so many batches."""
        before, begin = harness.cpu_seconds(), time.perf_counter()
        print(batches, file=self.process.stdin, flush=True)
        seconds, own = (float(part) for part in self.process.stdout.readline().split())
        others = harness.taken_by_others(before, harness.cpu_seconds(), own, time.perf_counter() - begin)
        count = batches * BATCH
        memory = harness.memory_of(harness.tree(self.process.pid))
        # the processor time of a loader's own workers is not known here
        others = None if self.workers else others
        return {"seconds": seconds / count, "rate": count / seconds, "memory": memory, "others": others}

    def close(self) -> None:
        """End it."""
        self.process.stdin.close()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
        self.errors.close()


def measure(sides: dict, recipe: str, folder: str, rounds: int, batches: int, workers: Optional[int]) -> dict:
    """Side -> its results of each round, the sides taking turns after one untimed go."""
    started = {name: Side(name, python, recipe, folder, workers) for name, python in sides.items()}
    for side in started.values():
        side.read(max(6, batches // 3))  # a cache of 24 photos is full after that
    results = harness.alternate({name: lambda side=side: side.read(batches) for name, side in started.items()}, rounds)
    for side in started.values():
        side.close()
    return results


def main() -> None:
    parser = harness.parser(__doc__, rounds=5, peers=["paddleseg"])
    parser.add_argument("--cache", nargs="*", default=[], choices=["ram", "disk"], help="segkit with a cache too")
    parser.add_argument("--recipes", nargs="+", default=list(RECIPES), choices=RECIPES)
    parser.add_argument("--sizes", nargs="+", default=["480x360"], metavar="WxH", help="of the photos")
    parser.add_argument("--workers", nargs="+", type=int, metavar="N", help="time the loaders with N processes instead")
    parser.add_argument("--batches", type=int, default=15, help="batches a round (default %(default)s)")
    args = parser.parse_args()
    sides = {"segkit": sys.executable}
    if not args.workers:
        sides["segkit, uint8"] = sys.executable
    sides.update({f"segkit, cache: {kind}": sys.executable for kind in args.cache})
    if args.paddleseg:
        sides["PaddleSeg"] = harness.require_python(args.paddleseg, "paddleseg", "--paddleseg")
    if importlib.util.find_spec("albumentations") and not args.workers:
        sides["albumentations"] = sys.executable
    about = harness.machine("paddlepaddle", "numpy", "opencv-python-headless", "pillow", "albumentations")
    print(f"{about}; {args.rounds} rounds of {args.batches} batches of {BATCH}", flush=True)
    everything = {}
    for size in args.sizes:
        with tempfile.TemporaryDirectory() as folder:
            kilobytes = draw(folder, tuple(int(n) for n in size.split("x"))) / 1000
            for recipe in args.recipes:
                for workers in args.workers or [None]:
                    title = f"{size} ({kilobytes:.0f} kB), {recipe}" + (f", {workers} workers" if args.workers else "")
                    results = measure(sides, recipe, folder, args.rounds, args.batches, workers)
                    print(f"\n{title}\n\n{harness.compared(results, 'segkit', 'samples/s', 'rate')}", flush=True)
                    everything[title] = results
    harness.write_json(args.json, everything, about)
    for number, (title, results) in enumerate(everything.items()):
        path = args.plot and args.plot.with_stem(f"{args.plot.stem}_{number}")
        harness.bars(path, results, f"a sample, {title}")


if __name__ == "__main__":
    main()
