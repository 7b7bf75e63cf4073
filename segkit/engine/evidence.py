"""What a broken training step was fed, kept for a look."""

from __future__ import annotations

import contextlib
import shutil
from pathlib import Path
from typing import Any, Iterable, Sequence

import numpy as np
import paddle

MOST = 32
"""photos that are copied at most"""


def keep(folder: Path, batches: Sequence[dict[str, Any]], photos: Sequence[str], pairs: Iterable[Any]) -> bool:
    """Fill `folder` with the last of `photos` and their labels, numbered, and with the arrays of `batches` as the
    network got them: `batch_0.npz` and so on. Returns whether it could be written.

    Args:
        pairs: (photo, label or None) of the data set.
    """
    labels = {str(pair[0]): pair[1] for pair in pairs if len(pair) == 2}
    chosen = list(dict.fromkeys(photos))[-MOST:]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for number, photo in enumerate(chosen):
            for kind, path in (("photo", photo), ("label", labels.get(photo))):
                if path is not None:
                    with contextlib.suppress(FileNotFoundError):
                        shutil.copyfile(path, folder / f"{number:02d}_{kind}{Path(path).suffix}")
        (folder / "files.txt").write_text("".join(f"{photo}\t{labels.get(photo) or ''}\n" for photo in chosen), "utf-8")
        for number, batch in enumerate(batches):
            arrays = {key: value.numpy() for key, value in batch.items() if isinstance(value, paddle.Tensor)}
            np.savez(folder / f"batch_{number}.npz", **arrays)
    except OSError:
        return False
    return True
