"""`weight: auto` in a loss: class weights from the training labels, put into the config as numbers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from segkit.config import Config
from segkit.data.stats import class_weights
from segkit.errors import InputError
from segkit.log import logger


def with_class_weights(cfg: Config, dataset: Any, seed: int, resume: Path | None = None) -> Config:
    """`cfg` with numbers wherever a loss says `weight: auto`; those of the checkpoint `resume` where it has some.

    The numbers are the median frequencies of at most 200 training labels, drawn by `seed`.
    """
    places = [
        place
        for key in ("loss", "distill_loss")
        for place in _places((cfg.data.get(key) or {}).get("types"), (key, "types"))
    ]
    if not places:
        return cfg
    for place in places:
        node = _at(cfg.data, place)
        if node.get("edge_label") or (cfg.data["model"].get("num_classes") == 1):
            what = "edges" if node.get("edge_label") else "one output channel (model.num_classes: 1)"
            raise InputError(
                f"{cfg.mark(*place, 'weight')}: {'.'.join(map(str, place))}.weight: auto is a weight a class, but "
                f"{node['type']} has {what} here. Leave it out, or balance with BCELoss's pos_weight: dynamic."
            )
    found = None if resume is None else _kept(resume, cfg.trust, places)
    if found is None:
        weights, count = class_weights(dataset, seed)
        found = [weights] * len(places)
        pairs = ", ".join(f"{name} {weight:g}" for name, weight in zip(dataset.class_names, weights))
        logger.info("weight: auto, from %d training labels: %s", count, pairs)
    else:
        logger.info("weight: auto, as in %s: %s", resume, ", ".join(f"{weight:g}" for weight in found[0]))
    changes = {".".join(map(str, (*place, "weight"))): value for place, value in zip(places, found)}
    return cfg.update(changes, source="weight: auto of ")


def _places(value: Any, path: tuple[Any, ...]) -> Iterator[tuple[Any, ...]]:
    """Key paths of the nodes, nested ones too, that say `weight: auto`."""
    if isinstance(value, dict):
        if value.get("weight") == "auto":
            yield path
        for key, item in value.items():
            yield from _places(item, (*path, key))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _places(item, (*path, index))


def _at(data: Any, place: tuple[Any, ...]) -> Any:
    for part in place:
        data = data[part]
    return data


def _kept(resume: Path, trust: bool, places: list[tuple[Any, ...]]) -> list[list[float]] | None:
    """The numbers that stand at these places in a checkpoint's config.yml, or None where they do not."""
    try:
        data = Config(resume / "config.yml", check=False, trust=trust, of_model=True).data
        found = [_at(data, place)["weight"] for place in places]
    except (InputError, KeyError, IndexError, TypeError):
        return None
    return found if all(isinstance(value, list) for value in found) else None
