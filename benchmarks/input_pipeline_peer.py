"""One side of `benchmarks.input_pipeline`, in a process of its own: it reads batches as often as it is told.

Runs in any environment that has the side's library: `python input_pipeline_peer.py SIDE RECIPE FOLDER`. Then each
line `N` on its input makes it read N batches and print the seconds that took and its processor seconds.
`--loader W` times the side's data loader with W worker processes instead, up to the arrays or tensors that the
training step is handed.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from typing import Any, Callable, Iterator

BATCH, CLASSES, CROP = 4, 4, 512
Next = Callable[[], Any]


def recipe_nodes(name: str) -> list[dict]:
    """The transforms of a recipe, in the words that segkit and PaddleSeg share."""
    if name == "crop":
        return [
            {"type": "ResizeStepScaling", "min_scale_factor": 0.5, "max_scale_factor": 2.0, "scale_step_size": 0.25},
            {"type": "RandomPaddingCrop", "crop_size": [CROP, CROP]},
            {"type": "RandomHorizontalFlip"},
            {"type": "RandomDistort"},
            {"type": "Normalize", "mean": [0.5] * 3, "std": [0.5] * 3},
        ]
    return [
        {"type": "Resize", "target_size": [CROP, CROP]},
        {"type": "RandomHorizontalFlip"},
        {"type": "Normalize", "mean": [0.5] * 3, "std": [0.5] * 3},
    ]


def _order(count: int) -> Iterator[int]:
    """Samples in a seeded order without end, the same for every side."""
    import numpy as np

    rng = np.random.default_rng(1)
    while True:
        yield from (int(i) for i in rng.permutation(count))


def segkit_side(recipe: str, folder: str, workers: int | None, finish: bool = True, **options: Any) -> Next:
    """segkit's data set and collate to float32 (with `finish` False to what a worker hands over, bytes that the
    device normalises); with `workers` its train_loader."""
    from segkit import registry, runtime

    runtime.require_paddle()
    from segkit.engine.collate import Reader, collate, normalised
    from segkit.engine.loader import train_loader
    from segkit.engine.memory import tune_malloc

    nodes = recipe_nodes(recipe)
    chain = [registry.TRANSFORMS.get(n["type"])(**{k: v for k, v in n.items() if k != "type"}) for n in nodes]
    dataset = registry.DATASETS.get("Dataset")(chain, folder, num_classes=CLASSES, train_path="list.txt", **options)
    tune_malloc()  # as `train` and its workers do
    if workers is not None:
        return train_loader(dataset, BATCH, workers, seed=1).__next__
    reader, order = Reader(dataset, 1), _order(len(dataset))

    def read() -> Any:
        batch = collate([reader[0, next(order)] for _ in range(BATCH)])
        batch = normalised(batch) if finish else batch
        assert batch["image"].shape == (BATCH, 3, CROP, CROP)
        assert batch["image"].dtype == ("float32" if finish else "uint8")
        return batch

    return read


def paddleseg_side(recipe: str, folder: str, workers: int | None) -> Next:
    """PaddleSeg's Dataset and transforms, stacked as Paddle's loader does; with `workers` Paddle's DataLoader."""
    import numpy as np
    import paddleseg.transforms as T
    from paddleseg.datasets import Dataset

    chain = [getattr(T, n["type"])(**{k: v for k, v in n.items() if k != "type"}) for n in recipe_nodes(recipe)]
    files = {"train_path": os.path.join(folder, "list.txt")}
    dataset = Dataset("train", folder, chain, CLASSES, **files)
    if workers is not None:
        import paddle

        sampler = paddle.io.DistributedBatchSampler(dataset, BATCH, shuffle=True, drop_last=True)

        def endless() -> Iterator:
            loader = paddle.io.DataLoader(dataset, batch_sampler=sampler, num_workers=workers, return_list=True)
            while True:
                yield from loader

        return endless().__next__
    order = _order(len(dataset))

    def read() -> Any:
        samples = [dataset[next(order)] for _ in range(BATCH)]
        batch = {key: np.stack([np.asarray(s[key]) for s in samples]) for key in ("img", "label")}
        assert batch["img"].shape == (BATCH, 3, CROP, CROP) and batch["img"].dtype == np.float32
        return batch

    return read


def albumentations_side(recipe: str, folder: str, workers: int | None) -> Next:
    """The same operations by albumentations, files read by OpenCV."""
    os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"
    import albumentations as A
    import cv2
    import numpy as np

    end = [A.HorizontalFlip(p=0.5)]
    if recipe == "crop":
        # each of the four colour operations comes in half of the samples, as in the other sides
        end += [A.ColorJitter(brightness=0.5, contrast=0.5, saturation=0.5, hue=18 / 256, p=0.5)]
        start = [
            A.RandomScale(scale_limit=(-0.5, 1.0), p=1),
            A.PadIfNeeded(CROP, CROP, position="top_left", border_mode=cv2.BORDER_CONSTANT, fill=127, fill_mask=255),
            A.RandomCrop(CROP, CROP),
        ]
    else:
        start = [A.Resize(CROP, CROP)]
    chain = A.Compose([*start, *end, A.Normalize(mean=[0.5] * 3, std=[0.5] * 3)])
    with open(os.path.join(folder, "list.txt"), encoding="utf-8") as file:
        pairs = [[os.path.join(folder, part) for part in line.split()] for line in file]

    def sample(index: int) -> tuple:
        image, label = pairs[index]
        image = cv2.cvtColor(cv2.imread(image), cv2.COLOR_BGR2RGB)
        out = chain(image=image, mask=cv2.imread(label, cv2.IMREAD_GRAYSCALE))
        return np.ascontiguousarray(out["image"].transpose(2, 0, 1)), out["mask"]

    order = _order(len(pairs))

    def read() -> Any:
        images, labels = zip(*(sample(next(order)) for _ in range(BATCH)))
        batch = np.stack(images), np.stack(labels)
        assert batch[0].shape == (BATCH, 3, CROP, CROP) and batch[0].dtype == np.float32
        return batch

    return read


def make(side: str, recipe: str, folder: str, workers: int | None) -> Next:
    """What reads the next batch. "segkit, cache: ram" is segkit with that option on the data set, "segkit, uint8"
    without the normalisation."""
    if side.startswith("segkit"):
        options = {"cache": side.rsplit(" ", 1)[1]} if "cache" in side else {}
        return segkit_side(recipe, folder, workers, finish="uint8" not in side, **options)
    return {"PaddleSeg": paddleseg_side, "albumentations": albumentations_side}[side](recipe, folder, workers)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("side")
    parser.add_argument("recipe", choices=["crop", "resize"])
    parser.add_argument("folder")
    parser.add_argument("--loader", type=int, metavar="WORKERS")
    args = parser.parse_args()
    answer, sys.stdout = sys.stdout, sys.stderr  # the libraries' own lines must not come between
    read = make(args.side, args.recipe, args.folder, args.loader)
    import cv2

    cv2.setNumThreads(0)
    read()
    print("ready", file=answer, flush=True)
    for line in sys.stdin:
        start, own = time.perf_counter(), time.process_time()
        for _ in range(int(line)):
            read()
        print(time.perf_counter() - start, time.process_time() - own, file=answer, flush=True)


if __name__ == "__main__":
    main()
