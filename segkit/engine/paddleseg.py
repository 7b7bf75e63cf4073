"""Which configs of a PaddleSeg checkout work here: each is resolved, checked and built as it stands."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Optional

import paddle

from segkit import build, optim
from segkit.config import Config
from segkit.errors import InputError
from segkit.log import noting

_UNKNOWN = re.compile(r"unknown ([a-z_ ]+) type '([^']*)'")


@dataclass
class Finding:
    """What became of one config."""

    path: str
    """relative to the checkout"""
    model: str = ""
    backbone: str = ""
    missing: list[str] = field(default_factory=list)
    """components that segkit lacks, such as `model MaskFormer`"""
    problems: list[str] = field(default_factory=list)
    """anything else, one line each"""
    notes: list[str] = field(default_factory=list)
    """what was warned of meanwhile"""

    @property
    def builds(self) -> bool:
        """Whether its transforms, model, loss, schedule and optimizer were built."""
        return not (self.missing or self.problems)


def config_files(folder: Path) -> list[Path]:
    """The configs below `folder/configs` (or `folder`), without the parts in `_base_` folders."""
    root = folder / "configs" if (folder / "configs").is_dir() else folder
    files = sorted({*root.rglob("*.yml"), *root.rglob("*.yaml")})
    if not files:
        raise InputError(
            f"{folder}: no configs there (looked for {root}/**/*.yml). Give the folder of a PaddleSeg checkout."
        )
    return [file for file in files if "_base_" not in file.relative_to(root).parts]


def survey(folder: Path) -> Iterator[Finding]:
    """A `Finding` for each config with a model, in the order of their names. Needs no data and loads no weights."""
    last = Last()
    for file in config_files(folder):
        with noting() as notes:
            found = look_at(file, str(file.relative_to(folder)), last)
        if found is not None:
            found.notes = notes
            yield found


@dataclass
class Last:
    """The model built last, and of what: configs beside each other often have the same, and building takes longest."""

    made_of: str = ""
    model: Any = None


def look_at(file: Path, name: str, last: Last) -> Optional[Finding]:
    """Resolve, check and build one config; None for one without a model, which is a part of others."""
    found = Finding(name)
    try:
        cfg = Config(file, check=False)
        if "model" not in cfg.data:
            return None  # a part of others
        model = cfg.data["model"] or {}
        backbone = model.get("backbone") or {}
        found.model, found.backbone = str(model.get("type", "")), str(backbone.get("type", ""))
        for problem in cfg.problems():
            unknown = _UNKNOWN.search(problem)
            found.missing += [f"{unknown[1]} {unknown[2]}"] if unknown else []
            found.problems += [] if unknown else [problem]
    except InputError as error:
        found.problems.append(str(error))
    if found.builds:
        try:
            build_all(cfg, last)
        except InputError as error:
            found.problems.append(str(error))
    found.missing = list(dict.fromkeys(found.missing))
    return found


def build_all(cfg: Config, last: Optional[Last] = None) -> paddle.nn.Layer:
    """Everything of a config but its data sets: transforms, losses, model, schedule and optimizer. Returns the model,
    whose parameters are shapes without numbers: `last`'s, where that was made of the same."""
    last = last or Last()
    for part in ("train", "val"):
        build.build_transforms(cfg, part)
    build.build_losses(cfg)
    info = build.data_info(cfg)
    made_of = json.dumps([cfg.data["model"], info.num_classes, info.img_channels], sort_keys=True, default=str)
    if made_of != last.made_of:
        with paddle.utils.unique_name.guard(), paddle.LazyGuard():  # parameters without memory: nothing is computed
            last.made_of, last.model = "", build.build_model(cfg)
        last.made_of = made_of
    scheduler = optim.build_scheduler(cfg.data["lr_scheduler"], cfg.iters)
    optim.build_optimizer(cfg.data["optimizer"], scheduler, last.model)
    return last.model


def print_survey(folder: Path, show: Callable[[str], Any] = print) -> list[Finding]:
    """The table of a checkout, a line at a time; the last line counts: `N of 205 build`."""
    findings = []
    for found in survey(folder):
        findings.append(found)
        state = "builds" if found.builds else "missing: " + ", ".join(found.missing) if found.missing else "problem"
        show(f"{found.path:75} {found.model + (' / ' + found.backbone if found.backbone else ''):45} {state}")
        for line in [*found.problems, *(f"note: {note}" for note in found.notes)]:
            show(f"    {line}")
    show(f"{sum(found.builds for found in findings)} of {len(findings)}")
    return findings
