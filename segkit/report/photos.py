"""The photos of an evaluation, whatever became of their data set since: names, numbers, and a fingerprint."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

import numpy as np

from segkit.errors import InputError


def name_of_photo(dataset: Any, path: str) -> str:
    """The photo's path below the data set's root, by which two runs find it wherever their data lie."""
    relative = os.path.relpath(path, dataset.dataset_root)
    return path if relative.startswith("..") else Path(relative).as_posix()


def fingerprint(dataset: Any) -> str:
    """Of the list, and of the size and time of each photo and label; of a user's own class the length alone."""
    found = hashlib.sha256(str(len(dataset)).encode())
    for pair in getattr(dataset, "files", ()):
        for path in filter(None, pair):
            known = os.stat(path) if os.path.exists(path) else None
            found.update(f"{path}\0{known and (known.st_size, known.st_mtime_ns)}\n".encode("utf-8", "surrogateescape"))
    return found.hexdigest()


class Photos:
    """Finds the photos of a report in a data set, whose list may have changed since."""

    def __init__(self, dataset: Any):
        self.dataset = dataset
        files = getattr(dataset, "files", None)
        self._numbers = None
        if files is not None:
            self._numbers = {name_of_photo(dataset, path): number for number, (path, *_) in enumerate(files)}

    def sample(self, item: dict[str, Any]) -> dict[str, Any]:
        """The sample of what report.json says of a photo. Errors: it is gone from the list, or its label is another."""
        number = item["index"] if self._numbers is None else self._numbers.get(item["path"])
        if number is None:
            raise InputError(
                f"{item['path']}: it was evaluated, but is not in the list of val_dataset any more. Run segkit report "
                "on that run again."
            )
        sample = self.dataset.read(number)
        valid = sample["label"][sample["label"] != self.dataset.ignore_index]
        if np.bincount(valid, minlength=self.dataset.num_classes).tolist() != list(item["counts"][2]):
            raise InputError(
                f"{item['path']}: its label is not the one that was evaluated. Run segkit report on that run again."
            )
        return sample
