"""The HTML file of a report: sections about one run, put into a document that needs nothing else."""

from __future__ import annotations

import html
import json
from pathlib import Path
from typing import Any, Sequence

import numpy as np

from segkit import io
from segkit.report import plots
from segkit.report.charts import Chart, draw
from segkit.report.measures import image_score
from segkit.report.panels import ERRORS, Masks, chosen, class_scores, pictures, side_of
from segkit.report.photos import Photos

_PAGE = Path(__file__).parent / "page"
_LEGEND = 40  # classes that a legend shows at once
_FEW = 10  # rows of a table that stands open
_KINDS = {"missed": "error: missed", "too much": "error: too much", "wrong": "error", "ignored": "ignored"}
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"


class Document:
    """Sections, and the data that the page's script takes."""

    def __init__(self, title: str):
        self.title = title
        self.data: dict[str, Any] = {"charts": []}
        self._sections: list[tuple[str, str]] = []

    def section(self, title: str, *parts: str) -> None:
        """Add a section of HTML parts."""
        self._sections.append((title, "".join(parts)))

    def charts(self, found: Sequence[Chart]) -> str:
        """HTML of charts beside each other."""
        return f"<div class=charts>{''.join(self._chart(chart) for chart in found)}</div>"

    def _chart(self, chart: Chart) -> str:
        svg, data = draw(chart)
        number = len(self.data["charts"])
        self.data["charts"].append(data)
        keys = "".join(key(line.name, line.colour, line.colour < 0) for line in chart.series)
        keys += "".join(key(mark.name, mark.colour, True) for mark in chart.marks)
        note = f"<p class=note>{html.escape(chart.note)}</p>" if chart.note else ""
        return (
            f'<figure class=chart tabindex=0 data-chart={number} aria-label="{html.escape(chart.title)}">'
            f"<h3>{html.escape(chart.title)}</h3><div class=keys>{keys}</div><div class=plot>{svg}</div>"
            f"<output></output>{note}</figure>"
        )

    def write(self, path: Path) -> None:
        """Write the file, whole or not at all."""
        style, script = ((_PAGE / name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))
        data = json.dumps(_rounded(self.data), ensure_ascii=False).replace("<", "\\u003c")
        links = "".join(f'<a href="#s{n}">{html.escape(title)}</a>' for n, (title, _) in enumerate(self._sections))
        body = "".join(
            f"<section id=s{number}><h2>{html.escape(title)}</h2>{text}</section>"
            for number, (title, text) in enumerate(self._sections)
        )
        title = html.escape(self.title)
        text = (
            f'<!doctype html><html lang=en><head><meta charset=utf-8><meta http-equiv="Content-Security-Policy" '
            f'content="{_POLICY}"><meta name=viewport content="width=device-width,initial-scale=1">'
            f"<title>{title}</title><style>{style}</style></head><body><header><h1>{title}</h1>"
            f'<button id=theme type=button aria-label="colours">auto</button><nav>{links}</nav></header>'
            f"<main>{body}</main><dialog id=zoom></dialog>"
            f'<script type="application/json" id=data>{data}</script><script>{script}</script></body></html>\n'
        )
        io.write_bytes_atomic(path, text.encode())


def write_page(path: Path, found: dict[str, Any], dataset: Any, folder: Path, images: int) -> None:
    """The page of one run from what report.json says (see `segkit.report.run.measure`) and its data set."""
    metrics = found["metrics"]
    document = Document(f"{name_of(found)}: mIoU {metrics['mIoU']:.4f}")
    document.data["names"], document.data["matrix"] = metrics["class_names"], metrics["confusion_matrix"]
    document.section("Summary", scores(metrics), rows(found["summary"]), listing("config", found["config"]))
    if found["history"]:
        courses = plots.training(found["history"], metrics["class_names"], found["iteration"])
        document.section("Training", document.charts(courses))
    else:
        document.section("Training", "<p>There is no metrics.jsonl beside the weights, so there are no curves.</p>")
    document.section("Classes", class_table(found))
    document.section("Confusion matrix", "<div id=confusion></div>")
    measured = document.charts(plots.reliability(found) + plots.sizes(found))
    document.section("Calibration and sizes", measured, size_table(found))
    if found["curves"]:
        document.section("Threshold", document.charts(plots.thresholds(found)), threshold_note(found))
    document.section("Images", image_section(found, dataset, folder, images))
    document.write(path)


def key(name: str, colour: int, dashed: bool) -> str:
    """What a line of a chart is, beside a piece of it."""
    shown = f"c{colour}" if colour >= 0 else "quiet"
    return f'<span class="key{" dashed" if dashed else ""}" style="--c:var(--{shown})">{html.escape(name)}</span>'


def name_of(found: dict[str, Any]) -> str:
    """What a run is called: its folder, with iter_N where it is not the best model."""
    parts = [part for part in Path(found["model_path"]).parts if part not in ("best_model", "model.pdparams")]
    return "/".join(parts[-2:] if parts and parts[-1].startswith("iter_") else parts[-1:]) or "report"


def scores(metrics: dict[str, Any]) -> str:
    """The main numbers as tiles."""
    names = {"mIoU": "mIoU", "Acc": "accuracy", "Kappa": "kappa", "mDice": "mean Dice", "auc_roc": "mean AUC"}
    tiles = "".join(
        f"<div><b>{metrics[key]:.4f}</b><span>{name}</span></div>" for key, name in names.items() if key in metrics
    )
    absent = metrics["absent_classes"]
    note = f"<p>Neither labelled nor predicted, left out of the means: {html.escape(', '.join(absent))}</p>"
    return f"<div class=tiles>{tiles}</div>{note if absent else ''}"


def rows(found: dict[str, str]) -> str:
    """A list of names and texts."""
    items = "".join(f"<dt>{html.escape(name)}<dd>{html.escape(text)}" for name, text in found.items())
    return f"<dl>{items}</dl>"


def listing(title: str, text: str) -> str:
    """A text that opens on demand."""
    return f"<details><summary>{html.escape(title)}</summary><pre>{html.escape(text)}</pre></details>"


def class_table(found: dict[str, Any]) -> str:
    """IoU, precision, recall and boundary IoU of each class as bars, and the class's share of the labelled pixels."""
    metrics = found["metrics"]
    labelled = np.array(metrics["confusion_matrix"]).sum(1)
    columns = {
        "IoU": metrics["class_iou"], "precision": metrics["class_precision"], "recall": metrics["class_recall"],
        "boundary IoU": found["boundary_iou"], "share": (labelled / max(labelled.sum(), 1)).tolist(),
    }  # fmt: skip
    lines = []
    for number, name in enumerate(metrics["class_names"]):
        swatch = swatch_of(found["palette"], number)
        cells = "".join(bar(values[number], name != "share") for name, values in columns.items())
        lines.append(f"<tr><th scope=row data-v={number}>{swatch}{html.escape(name)}</th>{cells}</tr>")
    mean = [value for value in found["boundary_iou"] if value is not None]
    note = f"<p class=note>Mean boundary IoU: {np.mean(mean) if mean else 0:.4f} (bands of 2 % of the diagonal).</p>"
    return f"{plain_table(['class', *columns], lines, True)}{note}"


def size_table(found: dict[str, Any]) -> str:
    """How many objects of each class and size were labelled."""
    lines = []
    for number in plots.object_classes(found):
        count = found["sizes"]["count"][number]
        cells = "".join(f"<td>{value:,}</td>" for value in (*count, sum(count)))
        name = html.escape(found["metrics"]["class_names"][number])
        lines.append(f"<tr><th scope=row>{swatch_of(found['palette'], number)}{name}</th>{cells}</tr>")
    if not lines:
        return ""
    table = plain_table(["class", *plots.size_names(found["sizes"]["sides"]), "all"], lines)
    shown = " open" if len(lines) <= _FEW else ""
    return f"<details{shown}><summary>Labelled objects by size, in pixels</summary>{table}</details>"


def plain_table(heads: Sequence[str], lines: Sequence[str], sortable: bool = False) -> str:
    """A table, whose heads sort it where asked."""
    names = [html.escape(name) for name in heads]
    if sortable:
        names = [f"<button type=button>{name}</button>" for name in names]
    head = "".join(f"<th scope=col>{name}</th>" for name in names)
    body = f"<thead><tr>{head}</tr></thead><tbody>{''.join(lines)}</tbody>"
    return f"<div class=wide><table{' class=sortable' if sortable else ''}>{body}</table></div>"


def swatch_of(palette: Sequence[Sequence[int]], number: int) -> str:
    """A square in the colour of a class."""
    red, green, blue = palette[number % len(palette)]
    return f'<i class=swatch style="background:rgb({red},{green},{blue})"></i>'


def bar(value: Any, drawn: bool = True) -> str:
    """A table cell with a number from 0 to 1, and a bar behind it."""
    if value is None:
        return "<td data-v=-1>–</td>"
    style = f' style="--w:{100 * value:.1f}%"' if drawn else ""
    text = f"{value:.4f}" if drawn else f"{value:.2%}"
    return f"<td data-v={value:.6f}><span class=bar{style}>{text}</span></td>"


def threshold_note(found: dict[str, Any]) -> str:
    """The best threshold beside 0.5."""
    lines = []
    for title, score in (("0.5", found["curves"]["half"]), ("best", found["curves"]["best"])):
        cells = "".join(f"<td>{score[name]:.4f}</td>" for name in ("threshold", "iou", "precision", "recall"))
        lines.append(f"<tr><th scope=row>{title}</th>{cells}</tr>")
    name, best = html.escape(found["metrics"]["class_names"][1]), found["curves"]["best"]["threshold"]
    return (
        f"<p>Scores of <b>{name}</b> where it is given to pixels of a higher probability than the threshold:</p>"
        + plain_table(["", "threshold", "IoU", "precision", "recall"], lines)
        + "<p>The best one was chosen on these very photos, so that on others it will be less good than here. "
        f"{threshold_use(found['channels'], f'{best:.3g}')}</p>"
    )


def threshold_use(channels: int, best: str) -> str:
    """HTML: how another threshold than 0.5 is put to use."""
    if channels == 1:
        return (
            f"To use it: <code>segkit predict --threshold {best}</code>, and <code>threshold: {best}</code> in the "
            "deploy.yaml of an exported folder."
        )
    return (
        "This model has two output channels, of which the mask shows the higher: a cut at 0.5. The flag "
        "<code>--threshold</code> does not move it: of two channels it makes pixels 255 whose class is less sure. To "
        f"cut at {best}, take the probabilities that <code>segkit predict --save_prob</code> writes, or train a model "
        "of one channel (<code>model.num_classes: 1</code>), whose threshold can be set."
    )


def image_section(found: dict[str, Any], dataset: Any, folder: Path, most: int) -> str:
    """The worst and the best photos, and what sorts them."""
    names, images, masks, photos = found["metrics"]["class_names"], found["images"], Masks(folder), Photos(dataset)
    panels, numbers = [], chosen(images, most)
    for number in numbers:
        item = images[number]
        own = [image_score(np.array(item["counts"])), *class_scores(item["counts"])]
        cells = pictures(photos, item, [("", masks.read(item["index"]))], side_of(len(numbers)))
        panels.append(panel(item["path"], own, cells, f"mIoU {own[0] or 0:.4f}"))
    return sorter(names) + image_legend(found) + f"<div id=panels>{''.join(panels)}</div>"


def sorter(names: Sequence[str], up: str = "worst first", down: str = "best first") -> str:
    """The choice of what panels are sorted by."""
    options = "".join(f"<option value={n}>{html.escape(name)}</option>" for n, name in enumerate(["all", *names]))
    return (
        f"<div class=tools><label>score of <select id=by>{options}</select></label>"
        f"<label>order <select id=order><option value=1>{up}</option><option value=-1>{down}</option></select>"
        "</label></div>"
    )


def image_legend(found: dict[str, Any]) -> str:
    """Colours of the classes and of the error map."""
    names = found["metrics"]["class_names"]
    shown = [f"{swatch_of(found['palette'], n)}{html.escape(name)}" for n, name in enumerate(names)]
    shown, more = shown[:_LEGEND], shown[_LEGEND:]
    kinds = ("missed", "too much", "ignored") if len(names) == 2 else ("wrong", "ignored")
    shown += [f'<i class=swatch style="background:rgb{ERRORS[kind]}"></i>{_KINDS[kind]}' for kind in kinds]
    rest = f"<details><summary>{len(more)} more classes</summary>{_legend(more)}</details>" if more else ""
    return _legend(shown) + rest


def _legend(items: Sequence[str]) -> str:
    return f"<p class=legend>{''.join(f'<span>{item}</span>' for item in items)}</p>"


def signed(value: float) -> str:
    """A difference with four digits; one that is none in them has a plus."""
    return f"{round(value, 4) + 0.0:+.4f}"


def panel(path: str, own: Sequence[Any], cells: str, text: str, kind: str = "pics") -> str:
    """One photo's pictures. `own`: scores to sort by, that of all classes first; `kind`: CSS classes."""
    values = json.dumps([None if value is None else round(value, 4) for value in own])
    return (
        f'<article data-scores="{values}"><h3>{html.escape(path)} <b>{html.escape(text)}</b></h3>'
        f'<button type=button class="{kind}" aria-label="enlarge {html.escape(path)}">{cells}</button></article>'
    )


def _rounded(value: Any) -> Any:
    """Floats with 5 significant digits, which a page cannot show more of."""
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_rounded(item) for item in value]
    return float(f"{value:.5g}") if isinstance(value, float) else value
