"""`imports:` of a config: the user's own code, run at once where the config is theirs, else only when trusted."""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import importlib.machinery
import importlib.util
import os
import sys
from pathlib import Path

from segkit import runtime
from segkit.config.source import Mark, MarkedDict, MarkedList
from segkit.errors import InputError
from segkit.log import logger

_SUFFIXES = (
    *importlib.machinery.EXTENSION_SUFFIXES,
    *importlib.machinery.SOURCE_SUFFIXES,
    *importlib.machinery.BYTECODE_SUFFIXES,
)
"""of files that an import runs, in the order in which Python looks for them"""
_OWN_CONFIGS = Path(__file__).resolve().parents[2] / "configs"


def import_users_code(raw: MarkedDict, trust: bool, of_model: bool = False) -> None:
    """`imports: [my_package.my_file]` registers a user's own components; the working directory is searched too.

    A config outside the working directory, or that came with weights (`of_model`), may be a stranger's: what it would
    run is shown and run only with `trust`. Code that ran once, as that of a run that was trained here, is remembered by
    its content and not asked about again.
    """
    names = raw.get("imports") or []
    if not isinstance(names, MarkedList) or not all(isinstance(name, str) for name in names):
        return
    if "" not in sys.path and str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    for name, mark in zip(names, names.marks):
        if name in sys.modules:
            continue
        place = str(mark)
        _allow(name, place, "" if trust else _doubt(mark, of_model))
        logger.info("%s: imports: running the code of %s", place, name)
        _import(name, place)


def _import(name: str, place: str) -> None:
    if importlib.util.find_spec("paddle") is not None:
        runtime.require_paddle()  # it may import it
    before, sys.pycache_prefix = sys.pycache_prefix, str(runtime.home() / "pycache")
    try:  # bytecode that lies beside the code may be of other code
        importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name.split(".")[0] and error.name != name:
            raise
        raise _missing(name, place) from None
    finally:
        sys.pycache_prefix = before


def _missing(name: str, place: str) -> InputError:
    return InputError(
        f"{place}: imports: there is no module '{name}'. Give its dotted name as Python imports it from the working "
        "directory."
    )


def _doubt(mark: Mark, of_model: bool) -> str:
    """Why a config may be a stranger's. No reason: the user wrote `imports` as a flag, or in a config below the working
    directory that came with no weights, or it is the toolkit's own."""
    if mark.line is None:
        return ""
    folders = Path(mark.source).resolve().parents
    if Path.cwd().resolve() not in folders and _OWN_CONFIGS not in folders:
        return "lies outside the working directory"
    return "came with weights" if of_model else ""


def _allow(name: str, place: str, doubt: str) -> None:
    """Remember the code of a module, or refuse it where it is in `doubt` and not remembered."""
    files = _files(name)
    if not files:
        raise _missing(name, place)
    note = runtime.home() / "trusted" / _sum(files)
    if doubt and not note.is_file():
        raise InputError(
            f"{place}: imports: this config {doubt} and would run the code of {name} ({files[0]}), which has not run "
            "here before as it and its package are now. Look at them; then say --trust, once for this code (segkit "
            "config FILE --trust serves every command; in Python: trust=True)."
        )
    with contextlib.suppress(OSError):  # not remembered: asked again the next time
        note.parent.mkdir(parents=True, exist_ok=True)
        note.write_text(f"{name}\n{files[0]}\n", encoding="utf-8")


def _files(name: str) -> list[Path]:
    """The module's file, then every file of the package that it is in. Found without running anything."""
    top, *parts = name.split(".")
    try:
        spec = importlib.util.find_spec(top)
    except (ImportError, ValueError):
        return []
    if spec is None:
        return []
    folders = [Path(folder) for folder in spec.submodule_search_locations or ()]
    if not folders:
        return [Path(spec.origin)] if not parts and spec.origin and os.path.isfile(spec.origin) else []
    for folder in folders:
        inner = folder.joinpath(*parts)
        stems = (inner / "__init__", inner) if parts else (inner / "__init__",)
        for path in (Path(f"{stem}{suffix}") for stem in stems for suffix in _SUFFIXES):
            if path.is_file():
                return [path, *sorted(other for other in folder.rglob("*") if other != path and _runs(other))]
    return []


def _runs(path: Path) -> bool:
    return path.name.endswith(_SUFFIXES) and path.parent.name != "__pycache__" and path.is_file()


def _sum(files: list[Path]) -> str:
    found = hashlib.sha256()
    for path in files:
        content = path.read_bytes()
        found.update(f"{path.name} {len(content)}\n".encode() + content)
    return found.hexdigest()
