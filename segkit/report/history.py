"""The course of a training run, from the metrics.jsonl that it wrote."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Optional

import numpy as np

_POINTS = 400
_BEGINNING = 20  # log lines by which a run is known again
_NO_LOSS = ("kind", "iter", "epoch", "lr", "batch_cost", "reader_cost", "ips")


def find(model_path: Optional[str]) -> Optional[Path]:
    """The metrics.jsonl of the run that weights (a file, a best_model or iter_N folder, a run folder) are of."""
    if not model_path:
        return None
    path = Path(model_path)
    for folder in (path, path.parent, path.parent.parent):
        if (folder / "metrics.jsonl").is_file():
            return folder / "metrics.jsonl"
    return None


def read(path: Path, until: Optional[int] = None) -> dict[str, Any]:
    """`train` and `eval`: lists of values by name, `iter` among them, None where a row has no such value; `losses`,
    the names of the loss and its parts; `seconds`, what the iterations took, and `own_seconds`, what those up to
    `until` did. Long runs are averaged to 400 points."""
    rows: dict[str, list[dict[str, Any]]] = {"train": [], "eval": []}
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            row = json.loads(line)
            rows[row["kind"]].append({**row, "iter": int(row["iter"])})
        except (ValueError, KeyError, TypeError):  # a line that a crash cut off
            continue
    for part in rows.values():
        part.sort(key=lambda row: row["iter"])
    steps = np.diff([row["iter"] for row in rows["train"]], prepend=0)
    costs = [float(row.get("batch_cost") or 0) * step for row, step in zip(rows["train"], steps)]
    own = sum(cost for row, cost in zip(rows["train"], costs) if until is None or row["iter"] <= until)
    names = dict.fromkeys(name for row in rows["train"] for name in row if name not in _NO_LOSS)
    train = _columns(_thinned(rows["train"]), [*names, "iter", "lr", "ips", "batch_cost", "reader_cost"])
    evals = _columns(rows["eval"], ["iter", "mIoU", "Acc", "mDice", "Kappa"])
    evals["class_iou"] = [row.get("class_iou") for row in rows["eval"]]
    began = [[row["iter"], row.get("loss")] for row in rows["train"][:_BEGINNING]]
    return {
        "train": train, "eval": evals, "losses": list(names), "began": began, "seconds": sum(costs), "own_seconds": own,
    }  # fmt: skip


def same(first: dict[str, Any], second: dict[str, Any]) -> bool:
    """Whether two courses are those of one run, read at the same time or not: they begin with the same losses."""
    return bool(first["began"]) and all(one == other for one, other in zip(first["began"], second["began"]))


def _columns(rows: list[dict[str, Any]], names: list[str]) -> dict[str, list[Optional[float]]]:
    return {name: [_number(row.get(name)) for row in rows] for name in names}


def _number(value: Any) -> Optional[float]:
    return float(value) if isinstance(value, (int, float)) and np.isfinite(value) else None


def _thinned(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Means of blocks of rows where there are many; the iteration is the block's last one."""
    length = -(-len(rows) // _POINTS)
    if length <= 1:
        return rows
    thinned = []
    for start in range(0, len(rows), length):
        block = rows[start : start + length]
        numbers = {name: [_number(row.get(name)) for row in block] for name in block[-1]}
        means = {
            name: np.mean(good) for name, values in numbers.items() if (good := [v for v in values if v is not None])
        }
        thinned.append({**means, "iter": block[-1]["iter"]})
    return thinned
