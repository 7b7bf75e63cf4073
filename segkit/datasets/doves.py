"""Photos of doves, a folder each; drawn where there are none."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal, Optional

import numpy as np

from segkit.datasets.dataset import Dataset
from segkit.datasets.lists import Pair, read_text
from segkit.dist import is_main
from segkit.errors import InputError
from segkit.io import overlay, write_png
from segkit.log import logger
from segkit.palette import voc_palette
from segkit.registry import DATASETS

COUNT, SEED = 124, 2024
NAMES = ["_background_", "dove"]
TRAIN_SHARE = 0.85
STALE = 3600.0  # seconds after which an unfinished drawing is nobody's any more
PATIENCE = 300.0  # seconds that other ranks wait for the main one before they draw for themselves


@DATASETS.register
class DoveDataset(Dataset):
    """`dataset_root`/<folder>/img.png and label.png, as labelme's json_to_dataset writes them; 2 classes.

    In the order of the folders' names the first 85 % are the train part, the rest the val part (and the test part).
    label_names.txt of a folder says what its label numbers mean; without it they are 0 background, 1 dove. Where
    `dataset_root` is absent or empty, 124 pictures are drawn there first.
    """

    NUM_CLASSES = 2
    CLASS_NAMES = ["background", "dove"]

    def __init__(
        self,
        transforms: Optional[list],
        dataset_root: str = "data/doves",
        num_classes: Optional[int] = None,
        mode: Literal["train", "val", "test"] = "train",
        ignore_index: Optional[int] = None,
        img_channels: int = 3,
        edge: bool = False,
        label_map: Optional[dict[int, int]] = None,
        reduce_zero_label: bool = False,
        nodata: Optional[float] = None,
        cache: Literal["none", "ram", "disk"] = "none",
    ):
        draw_if_absent(dataset_root)
        super().__init__(
            transforms,
            dataset_root,
            num_classes,
            mode,
            ignore_index=ignore_index,
            img_channels=img_channels,
            edge=edge,
            label_map=label_map,
            reduce_zero_label=reduce_zero_label,
            nodata=nodata,
            cache=cache,
        )

    def find_files(self) -> list[Pair]:
        root = Path(self.dataset_root)
        folders = sorted(folder for folder in root.iterdir() if folder.is_dir() and not folder.name.startswith("."))
        folders = [f for f in folders if (f / "img.png").exists() or (f / "label.png").exists()]
        if len(folders) < 2:
            raise InputError(
                f"{root}: {len(folders)} folders with img.png and label.png in it (expected 2 or more). "
                "Set dataset_root to the folder that holds one folder a photo, or to one that does not exist yet: "
                "then pictures are drawn there."
            )
        count = min(max(int(len(folders) * TRAIN_SHARE), 1), len(folders) - 1)
        chosen = folders[:count] if self.training else folders[count:]
        return [(str(folder / "img.png"), str(folder / "label.png")) for folder in chosen]

    def read_label(self, index: int) -> np.ndarray:
        """Label numbers of the folder, mapped by name: `_background_` 0, `dove` 1, `__ignore__` the ignored value."""
        label = super().read_label(index)
        path = Path(self.files[index][1]).with_name("label_names.txt")
        if not path.is_file():
            return label
        names = [line.strip() for line in read_text(path, "names of the labels").splitlines() if line.strip()]
        ids = {"_background_": 0, "dove": 1, "__ignore__": self.ignore_index}
        unknown = [name for name in names if name not in ids]
        if unknown:
            raise InputError(
                f"{path}: unknown names {', '.join(unknown)} (expected {', '.join(NAMES)}). "
                "Rename them, or use the type VOC or Dataset for other classes."
            )
        table = np.array([ids[name] for name in names], self._label_type)
        outside = [int(value) for value in np.unique(label) if value >= len(names)]
        if outside:
            raise InputError(
                f"{path.with_name('label.png')}: label values {outside[:10]} have no name in {path.name} "
                f"(it names 0..{len(names) - 1}). Export the folder again, or add the names."
            )
        return table[label]


def draw_if_absent(root: str | os.PathLike, count: int = COUNT, seed: int = SEED) -> bool:
    """Draws the set where `root` is absent or empty, whole or not at all; whether it did so.

    The main rank draws, the others wait for it (and draw for themselves where it has another file system).
    """
    root = Path(root)
    if _filled(root):
        return False
    if not is_main() and _wait(root):
        return False
    logger.info(f"{root}: there are no photos, so {count} pictures of doves are drawn there (about {count // 10} s)")
    try:
        root.parent.mkdir(parents=True, exist_ok=True)
        _sweep(root)
        beside = Path(tempfile.mkdtemp(prefix=f".{root.name}-", suffix=".part", dir=root.parent))
    except OSError as error:
        raise InputError(
            f"{root}: the dove pictures cannot be drawn there ({error.strerror}). Set dataset_root to a folder that "
            "can be written, or to where your photos are."
        ) from None
    try:
        draw_set(beside, count, seed)
        beside.chmod(0o755)  # mkdtemp makes it private
        return _rename(beside, root)
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def draw_set(folder: Path, count: int, seed: int) -> None:
    """`count` folders 000, 001, ... with img.png, label.png, label_names.txt and label_viz.png. The bytes depend on
    `seed` alone."""
    with ThreadPoolExecutor(min(os.cpu_count() or 1, 8)) as pool:  # OpenCV and zlib let go of the interpreter lock
        list(pool.map(lambda index: _draw_folder(folder / f"{index:03d}", seed, index), range(count)))


def _draw_folder(folder: Path, seed: int, index: int) -> None:
    from segkit.datasets.drawing import draw_photo  # 1000 lines that a user with photos never needs

    image, label = draw_photo(seed, index)
    folder.mkdir()
    palette = voc_palette(256)
    write_png(folder / "img.png", image)
    write_png(folder / "label.png", label, palette)
    write_png(folder / "label_viz.png", overlay(image, label, palette))
    (folder / "label_names.txt").write_text("".join(f"{name}\n" for name in NAMES), encoding="utf-8")


def _filled(root: Path) -> bool:
    return root.is_dir() and any(root.iterdir())


def _sweep(root: Path) -> None:
    """Removes what drawings that were killed left beside `root`."""
    for left in root.parent.glob(f".{root.name}-*.part"):
        if time.time() - left.stat().st_mtime > STALE:
            shutil.rmtree(left, ignore_errors=True)


def _wait(root: Path) -> bool:
    """Whether `root` filled within the patience of a rank that is not the main one."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        if _filled(root):
            return True
        time.sleep(0.2)
    return False


def _rename(beside: Path, root: Path) -> bool:
    """Moves the drawn set into place, unless another process was faster."""
    try:
        if root.is_dir():
            root.rmdir()  # it is empty; Windows does not rename onto it
        os.rename(beside, root)
        return True
    except OSError as error:
        if _filled(root):
            return False
        raise InputError(f"{root}: the drawn pictures cannot be moved there ({error.strerror}).") from None
