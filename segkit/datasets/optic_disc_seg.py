"""PaddleSeg's quick-start data set of fundus photos."""

from __future__ import annotations

from segkit.datasets.dataset import Dataset
from segkit.registry import DATASETS


@DATASETS.register
class OpticDiscSeg(Dataset):
    """Optic discs in eye-ground photos: `train_list.txt`, `val_list.txt` and `test_list.txt` below the root."""

    NUM_CLASSES = 2
    CLASS_NAMES = ["background", "optic_disc"]
    LISTS = {"train": "train_list.txt", "val": "val_list.txt", "test": "test_list.txt"}
