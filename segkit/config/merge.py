"""`_base_` chains: the child wins over its bases, a later base over an earlier one; dicts merge, lists replace."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from segkit.config.components import accepted_keys, same_type
from segkit.config.source import Mark, MarkedDict, read_file
from segkit.errors import InputError, shown
from segkit.log import logger


@dataclass(frozen=True)
class File:
    """A file's own keys, and the files it is based on."""

    own: MarkedDict
    bases: list[File]


def read(path: Path, chain: tuple[Path, ...] = ()) -> File:
    """The file at `path` and everything it is based on. Cycles and missing bases show the chain that led there."""
    path = path.absolute()
    trail = " -> ".join(str(p) for p in (*chain, path))
    if path.resolve() in [p.resolve() for p in chain]:
        raise InputError(f"{chain[-1]}: _base_ files go in a circle ({trail}). Take one of the links out.")
    if chain and not path.is_file():
        raise InputError(f"{chain[-1]}: the _base_ file {path} does not exist (chain: {trail}). Correct the path.")
    own = read_file(path, _shown(path))
    mark = own.marks.get("_base_")
    bases = own.drop("_base_")
    bases = [] if bases is None else [bases] if isinstance(bases, str) else bases
    if not isinstance(bases, list) or not all(isinstance(base, str) for base in bases):
        raise InputError(
            f"{mark}: _base_ is a path or a list of paths (got {shown(bases)}). Mend it, as in `_base_: common.yml`."
        )
    return File(own, [read(path.parent / base, (*chain, path)) for base in bases])


def giver(file: File, key: str) -> MarkedDict:
    """The keys of the file whose `key` counts; no keys where none has it."""
    if key in file.own:
        return file.own
    return next((found for base in reversed(file.bases) if (found := giver(base, key))), MarkedDict())


def merged(file: File) -> MarkedDict:
    """A file over what it is based on."""
    result = MarkedDict()
    for base in file.bases:
        result = merge(result, merged(base))
    return merge(result, file.own) if file.bases else file.own


def _shown(path: Path) -> str:
    """The path as messages give it: relative where it is below the working directory."""
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)


def merge(base: MarkedDict, child: MarkedDict, place: tuple[str, ...] = ()) -> MarkedDict:
    """`child` over `base`; both are left as they are. `place` is the key path of the two, for the type's registry."""
    if child.get("_inherited_") is False:
        base = MarkedDict()
    elif "type" in child and "type" in base and not same_type(place, base["type"], child["type"]):
        base = inherit(base, child["type"], place, child.marks["type"])
    result = MarkedDict()
    for key in base:
        result.take(key, base)
    for key in child:
        if key == "_inherited_":
            continue
        result.take(key, child)
        if isinstance(child[key], MarkedDict) and isinstance(base.get(key), MarkedDict):
            result[key] = merge(base[key], child[key], (*place, key))
        elif isinstance(child[key], MarkedDict):
            result[key] = merge(MarkedDict(), child[key], (*place, key))
    return result


def inherit(node: MarkedDict, new_type: Any, place: tuple[str, ...], mark: Mark) -> MarkedDict:
    """What a node of another type takes over: the keys that the new type has. The rest is named in the log."""
    accepted = accepted_keys(place, new_type)
    if accepted is None:  # an unknown type: the check names it, nothing is lost before that
        return node
    kept = MarkedDict()
    for key in node:
        if key == "type" or key in accepted:
            kept.take(key, node)
    dropped = [key for key in node if key not in kept]
    if dropped:
        logger.info(
            "%s: %s is now %s instead of %s: dropped what it does not take: %s",
            mark, ".".join(place), new_type, node["type"], ", ".join(dropped),
        )  # fmt: skip
    return kept
