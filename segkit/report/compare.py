"""`segkit report A B`: what the second run does better and worse than the first."""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import html
import json
from pathlib import Path
from typing import Any, Optional, Sequence

import numpy as np

from segkit.build import build_dataset
from segkit.config import Config
from segkit.errors import InputError
from segkit.log import logger
from segkit.options import ReportOptions
from segkit.report import plots
from segkit.report.bootstrap import differences
from segkit.report.measures import image_score
from segkit.report.page import Document, image_legend, name_of, panel, plain_table, rows, signed, sorter, swatch_of
from segkit.report.panels import Masks, class_scores, pictures, side_of
from segkit.report.photos import Photos, fingerprint
from segkit.report.run import FILE, check, default_folder, identity, measure


@dataclasses.dataclass
class Measured:
    """A run's report: the folder of it, and what report.json says."""

    folder: Path
    found: dict[str, Any]


def two(runs: Sequence[str], other: Optional[str]) -> tuple[str, str]:
    """The two runs of the command line. Errors: another number of them, or `other`, a --config or --model_path."""
    if len(runs) != 2 or other:
        got = ", ".join([*runs, *([other] if other else [])])
        raise InputError(
            f"segkit report: got {got}, expected two run folders to compare, such as output/a output/b, or "
            "--model_path for one run. Give one or the other."
        )
    return runs[0], runs[1]


def compare(first: str, second: str, options: ReportOptions, opts: Sequence[str], trust: bool) -> dict[str, Any]:
    """Write report.html of two runs into `options.save_dir` (output/comparison). A run is a folder with weights, which
    is evaluated where no report of it is newer, or a report's folder. Returns the differences (see `bootstrap`)."""
    check(options)
    runs = [measured(path, options, opts, trust) for path in (first, second)]
    pairs = matched(runs, (first, second))
    counts = [np.array([pair[side]["counts"] for pair in pairs]) for side in (0, 1)]
    found = differences(*counts)
    cfg = Config(runs[0].folder / "config.yml", trust=trust, of_model=True)
    page = Path(options.save_dir or "output/comparison") / "report.html"
    document = Document(f"{name_of(runs[0].found)} and {name_of(runs[1].found)}")
    head = [run.found for run in runs]
    document.section("Summary", verdict(head, found["mIoU"], pairs), both_rows(head))
    document.section("Classes", class_table(head, found["classes"]))
    charts = plots.two_courses(head)
    if charts:
        document.section("Training", document.charts(charts))
    document.section("Config", config_changes(*(item["config"] for item in head)))
    document.section("Images", image_section(runs, pairs, build_dataset(cfg, "val"), options.images))
    document.write(page)
    score = found["mIoU"]
    logger.info(
        "mIoU %.4f and %.4f: %s (95 %% interval %s to %s, p %.3g). The comparison is %s",
        score["first"], score["second"], *(signed(score[key]) for key in ("delta", "low", "high")), score["p"], page,
    )  # fmt: skip
    return {**found, "images": len(pairs), "report": str(page)}


def measured(path: str, options: ReportOptions, opts: Sequence[str], trust: bool) -> Measured:
    """The report of a run: what is there if it is of the same weights, config, flags and data, or else a new
    evaluation."""
    if (Path(path) / FILE).is_file():
        return Measured(Path(path), read(Path(path) / FILE))
    cfg = Config.from_model_path(path, opts, trust)
    folder = default_folder(path)
    found = None
    with contextlib.suppress(InputError):  # none there, or one of an older segkit
        found = read(folder / FILE)
    if found is not None:
        data = fingerprint(build_dataset(cfg, "val", use_multilabel=options.use_multilabel))
        if found.get("of") == identity(cfg, options, path, data):
            logger.info("%s: taken as it is", folder / FILE)
            return Measured(folder, found)
    return Measured(folder, measure(cfg, dataclasses.replace(options), path, folder)[0])


def read(path: Path) -> dict[str, Any]:
    """A report.json. Errors: it is none."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        found["metrics"]["class_names"], found["images"], found["history"], found["iteration"]  # what is read of it
    except (OSError, ValueError, KeyError, TypeError) as error:
        said = f"{type(error).__name__}: {error}"
        raise InputError(f"{path}: no report's data ({said}). Run segkit report on that run again.") from error
    return found


def matched(runs: Sequence[Measured], names: Sequence[str]) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """The photos that both evaluated. Errors: other classes, none in common, or other labels."""
    classes = [run.found["metrics"]["class_names"] for run in runs]
    if classes[0] != classes[1]:
        raise InputError(
            f"{names[1]}: its classes are not those of {names[0]} (got {', '.join(classes[1])}, expected "
            f"{', '.join(classes[0])}). Compare runs on the same classes."
        )
    own, other = ({item["path"]: item for item in run.found["images"]} for run in runs)
    pairs = [(own[path], other[path]) for path in own if path in other]
    if not pairs:
        raise InputError(
            f"{names[1]}: it was evaluated on other photos than {names[0]} (got {next(iter(other), 'none')}, expected "
            f"{next(iter(own), 'none')}). Evaluate both on the same val_dataset, with --opts say."
        )
    for one, another in pairs:
        if one["counts"][2] != another["counts"][2]:
            raise InputError(
                f"{one['path']}: its labels were others when {names[1]} was evaluated than for {names[0]}. Run segkit "
                "report on both again."
            )
    if len(pairs) < max(len(own), len(other)):
        logger.warning("photos that only one of the runs evaluated are left out: %d and %d are there, %d are in both",
                       len(own), len(other), len(pairs))  # fmt: skip
    return pairs


def verdict(found: Sequence[dict[str, Any]], score: dict[str, float], pairs: Sequence[Any]) -> str:
    """The numbers, and in words what they say."""
    better, equal = score["delta"] > 0, signed(score["delta"]) == signed(0)
    sure = not equal and (score["low"] > 0 or score["high"] < 0)
    said = f"B is {'better' if better else 'worse'} by {abs(score['delta']):.4f}"
    if equal:
        said = "Both are equal to four digits" if score["delta"] else "Both are equal"
    meant = ": more than the choice of photos explains (another seed of the training may still tell otherwise)"
    if not sure:
        meant = "" if equal else ": it may be chance"
    text = (
        f"{said}; the 95 % interval over the choice of the {len(pairs)} photos is {signed(score['low'])} to "
        f"{signed(score['high'])} (paired bootstrap, p {score['p']:.3g}){meant}."
    )
    kind = ("good" if better else "bad") if sure else "unsure"
    tiles = "".join(
        f"<div><b>{score[key]:.4f}</b><span>mIoU of {side}: {html.escape(name_of(item))}</span></div>"
        for key, side, item in zip(("first", "second"), "AB", found)
    )
    return f"<div class=tiles>{tiles}</div><p class={kind}>{text}</p>"


def both_rows(found: Sequence[dict[str, Any]]) -> str:
    """The summaries of both; what is equal is said once."""
    lines = {}
    first, second = (item["summary"] for item in found)
    for name in {**first, **second}:
        text, other = first.get(name, ""), second.get(name, "")
        lines.update({name: text} if text == other else {f"{name}, A": text, f"{name}, B": other})
    return rows(lines)


def class_table(found: Sequence[dict[str, Any]], classes: Sequence[Optional[dict[str, float]]]) -> str:
    """IoU of each class in both, and the difference."""
    lines = []
    for number, (name, item) in enumerate(zip(found[0]["metrics"]["class_names"], classes)):
        head = f"<th scope=row data-v={number}>{swatch_of(found[0]['palette'], number)}{html.escape(name)}</th>"
        if item is None:
            lines.append(f"<tr>{head}{'<td data-v=-9>–</td>' * 5}</tr>")
            continue
        kind = "good" if item["low"] > 0 else "bad" if item["high"] < 0 else ""
        cells = "".join(f"<td data-v={item[key]:.6f}>{item[key]:.4f}</td>" for key in ("first", "second"))
        lines.append(
            f"<tr>{head}<td data-v={item['delta']:.6f} class='{kind}'>{signed(item['delta'])}</td>"
            f"<td data-v={item['low']:.6f}>{signed(item['low'])} to {signed(item['high'])}</td>{cells}"
            f"<td data-v={item['p']:.6f}>{item['p']:.3g}</td></tr>"
        )
    note = "<p class=note>In colour: the 95 % interval does not hold 0. One class in twenty does so by chance.</p>"
    return plain_table(["class", "B less A", "95 % interval", "IoU of A", "IoU of B", "p"], lines, True) + note


def config_changes(first: str, second: str) -> str:
    """Lines of the configs that differ."""
    changed = list(difflib.unified_diff(first.splitlines(), second.splitlines(), "A", "B", n=2, lineterm=""))
    if not changed:
        return "<p>The configs are the same.</p>"
    return f"<pre>{html.escape(chr(10).join(changed))}</pre>"


def image_section(runs: Sequence[Measured], pairs: Sequence[Any], dataset: Any, most: int) -> str:
    """How many photos got better, and those that changed most."""
    deltas = [
        (image_score(np.array(b["counts"])) or 0.0) - (image_score(np.array(a["counts"])) or 0.0) for a, b in pairs
    ]
    ranked = sorted(range(len(pairs)), key=lambda number: deltas[number])
    worse = [number for number in ranked if deltas[number] < 0]
    better = [number for number in ranked if deltas[number] > 0]
    half = -(-most // 2)
    shown = [*worse[:half], *better[len(better) - min(len(better), most // 2) :]]
    masks, photos = [Masks(run.folder) for run in runs], Photos(dataset)
    panels = []
    for number in shown:
        pair = pairs[number]
        sides = zip(*(class_scores(item["counts"]) for item in pair))
        own = [None if a is None and b is None else (b or 0.0) - (a or 0.0) for a, b in sides]
        found = [(f" {side}", mask.read(item["index"])) for side, mask, item in zip("AB", masks, pair)]
        cells = pictures(photos, pair[0], found, side_of(len(shown)))
        panels.append(panel(pair[0]["path"], [deltas[number], *own], cells, signed(deltas[number]), "pics six"))
    text = (
        f"<p>With B, {len(better)} photos are better, {len(worse)} worse and "
        f"{len(pairs) - len(better) - len(worse)} the same (mIoU of the photo). Those that changed most:</p>"
    )
    head = runs[0].found
    tools = sorter(head["metrics"]["class_names"], "greatest loss first", "greatest gain first")
    return text + tools + image_legend(head) + f"<div id=panels>{''.join(panels)}</div>"
