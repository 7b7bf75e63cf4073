"""PSSL: ImageNet's photos with pseudo labels that an ensemble of classifiers explains
(Li et al., https://arxiv.org/abs/2207.03335)."""

from __future__ import annotations

import os
import zipfile
import zlib
from typing import Any, Literal, Optional

import numpy as np

from segkit.datasets.lists import Pair, read_text
from segkit.datasets.public import Published
from segkit.errors import InputError
from segkit.header import refuse_large
from segkit.registry import DATASETS

_BACKGROUND = 1000
_SYNSETS = "imagenet_lsvrc_2015_synsets.txt"


@DATASETS.register
class PSSLDataset(Published):
    """Photos below `imagenet_root`/train, label archives below `pssl_root`/train, for training alone.

    A photo has one of 1000 classes, that of its folder in the order of the file of synsets, and the background, 1000;
    other values of an archive are ignored. `imagenet_root` and `pssl_root`: the two folders.
    """

    NUM_CLASSES = 1001
    IGNORE_INDEX = 1001
    HOME = "https://www.image-net.org (photos) and https://github.com/PaddlePaddle/PaddleSeg, configs/pssl (labels)"
    LAYOUT = f"train.txt, {_SYNSETS}, train/n01440764/*.JPEG_eiseg.npz; below imagenet_root: train/n01440764/*.JPEG"
    LISTS = {"train": "train.txt"}

    def __init__(
        self,
        transforms: Optional[list],
        imagenet_root: str,
        pssl_root: str,
        mode: Literal["train"] = "train",
        num_classes: Optional[int] = None,
        img_channels: int = 3,
        edge: bool = False,
        label_map: Optional[dict[int, int]] = None,
        reduce_zero_label: bool = False,
        nodata: Optional[float] = None,
        cache: Literal["none", "ram", "disk"] = "none",
    ):
        self.imagenet_root = os.fspath(imagenet_root)
        self.pssl_root = os.fspath(pssl_root)
        super().__init__(
            transforms,
            self.pssl_root,
            num_classes,
            mode,
            img_channels=img_channels,
            edge=edge,
            label_map=label_map,
            reduce_zero_label=reduce_zero_label,
            nodata=nodata,
            cache=cache,
        )

    @classmethod
    def info(cls, **node: Any) -> dict[str, Any]:
        """See `Dataset.info`; the ignored value is 1001."""
        return super().info(**{**node, "ignore_index": cls.IGNORE_INDEX})

    def by_layout(self) -> list[Pair]:
        synsets = read_text(os.path.join(self.dataset_root, _SYNSETS), "list of synsets").split()
        self._numbers = {name: number for number, name in enumerate(synsets)}
        pairs = []
        for name in self.names_of(self.LISTS["train"]):
            photo, end, _ = name.partition(".JPEG")
            pairs.append((os.path.join(self.imagenet_root, photo + end), os.path.join(self.dataset_root, name)))
        unknown = sorted({self._synset(photo) for photo, _ in pairs} - set(self._numbers))
        if unknown:
            raise InputError(
                f"{self.dataset_root}: train.txt names photos of classes that {_SYNSETS} lacks "
                f"(got {', '.join(unknown[:5])}). Restore both files."
            )
        return pairs

    def _synset(self, photo: str) -> str:
        return os.path.basename(photo).split("_")[0]

    def read_label(self, index: int) -> np.ndarray:
        photo, path = self.files[index]
        try:
            with np.load(path, allow_pickle=False) as archive:
                refuse_large((archive.zip.getinfo("arr_0.npy").file_size,), 1, path)
                values = archive["arr_0"]
        except InputError:
            raise
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
            raise InputError(f"{path}: not a label archive of PSSL ({error}). Copy it again.") from error
        label = np.full(values.shape, self.ignore_index, np.int32)
        label[values == 0] = _BACKGROUND
        label[values == 1] = self._numbers[self._synset(photo)]
        return label
