"""Whether two runs differ by more than the choice of the photos: a paired bootstrap over photos."""

from __future__ import annotations

from typing import Any, Optional

import numpy as np

ROUNDS = 2000
_CHUNK = 100


def differences(first: np.ndarray, second: np.ndarray, seed: int = 0) -> dict[str, Any]:
    """`second` less `first`, each the pixels [N, 3, C] of N photos: rightly predicted, predicted and labelled.

    `mIoU` and, a list of them, `classes`: `first`, `second`, `delta`, `low` and `high` (the middle 95 % of 2,000 draws
    of N photos with replacement, the same for both) and `p`, two-sided: how often a draw does not have delta's sign,
    twice. None for a class that is neither labelled nor predicted. `mIoU` of a run is over the classes that the run has
    in all photos; in a draw, over those of them that either run has there (0 for the one that has not): else what one
    run alone predicts in some photo would change its divisor with the draw, and with it the scores of all classes.
    Source: Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13.
    """
    photos = len(first)
    both = np.stack([first, second]).astype(np.float64).reshape(2, photos, -1)
    rng = np.random.default_rng(seed)
    drawn = []
    for start in range(0, ROUNDS, _CHUNK):
        times = rng.multinomial(photos, np.full(photos, 1 / photos), min(_CHUNK, ROUNDS - start))
        drawn.append(_ious((times @ both).reshape(2, len(times), *first.shape[1:])))
    found = _ious(both.sum(1).reshape(2, *first.shape[1:]))
    rounds = np.concatenate(drawn, axis=1)
    own = ~np.isnan(found)
    seen = ~np.isnan(rounds).all(axis=0)
    names = range(first.shape[2])
    return {
        "mIoU": _compared(*_means(found, own), *_means(rounds, own[:, None] & seen)),
        "classes": [_compared(*found[:, index], *rounds[:, :, index]) for index in names],
    }


def _ious(counts: np.ndarray) -> np.ndarray:
    """[..., 3, C] -> [..., C], NaN for a class that is neither labelled nor predicted."""
    hits, predicted, labelled = np.moveaxis(counts, -2, 0)
    union = predicted + labelled - hits
    return np.divide(hits, union, out=np.full(union.shape, np.nan), where=union > 0)


def _means(ious: np.ndarray, counted: np.ndarray) -> np.ndarray:
    """Over the classes that are `counted`, bool [..., C]: [..., C] -> [...], 0 where none is."""
    return np.where(counted, np.nan_to_num(ious), 0).sum(-1) / np.maximum(counted.sum(-1), 1)


def _compared(first: float, second: float, firsts: np.ndarray, seconds: np.ndarray) -> Optional[dict[str, float]]:
    if np.isnan(first) and np.isnan(second):
        return None
    first, second = (0.0 if np.isnan(value) else float(value) for value in (first, second))
    delta = np.nan_to_num(seconds) - np.nan_to_num(firsts)
    low, high = np.percentile(delta, (2.5, 97.5))
    beyond = min((delta <= 0).sum(), (delta >= 0).sum())
    return {
        "first": first, "second": second, "delta": second - first, "low": float(low), "high": float(high),
        "p": float(min(1.0, 2 * (1 + beyond) / (1 + len(delta)))),
    }  # fmt: skip
