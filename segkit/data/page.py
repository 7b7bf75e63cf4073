"""The report of a check as one HTML file that needs nothing else: class histogram, sizes, and what each finding looks
like."""

from __future__ import annotations

import base64
import html
from collections import Counter
from pathlib import Path

import numpy as np

from segkit._cv2 import cv2
from segkit.data.findings import Finding, Report, class_table
from segkit.data.picture import class_colours, overlay, thumbnail
from segkit.data.source import Source
from segkit.deploy.outputs import as_rgb
from segkit.errors import InputError
from segkit.io import read_image, write_bytes_atomic

SIDE = 260
STYLE = """
body{font:15px/1.45 system-ui,sans-serif;margin:2em auto;max-width:1100px;padding:0 1em;color:#1c2127;background:#fff}
h1{font-size:1.5em}h2{font-size:1.15em;margin-top:2em}table{border-collapse:collapse}
td,th{padding:2px 10px;text-align:left}
.n{text-align:right;font-variant-numeric:tabular-nums}.bar{height:12px;min-width:1px;border-radius:2px}
.f{border-left:5px solid #d9a400;padding:.4em 1em;margin:1em 0;background:#f7f7f5}.f.error{border-color:#c62828}
.f p{margin:.3em 0}.k{font-size:.8em;font-weight:600;text-transform:uppercase;color:#8a6d00}.error .k{color:#c62828}
code{font-size:.85em;word-break:break-all}figure{display:inline-block;margin:.6em .6em 0 0;vertical-align:top}
figcaption{font-size:.75em;max-width:530px;word-break:break-all;color:#555}img{max-width:260px;margin-right:4px}
svg text{font:11px system-ui,sans-serif;fill:#555}
"""


def write_page(report: Report, path: str | Path) -> None:
    """Write the report to `path`."""
    source = report.source
    parts = ", ".join(f"{name} {count}" for name, count in report.samples().items())
    title = html.escape(source.path)
    text = "".join(
        [
            "<!doctype html><html lang=en><meta charset=utf-8>",
            '<meta name=viewport content="width=device-width,initial-scale=1">',
            f"<title>{title}</title><style>{STYLE}</style><h1>{title}</h1>",
            f"<p>{html.escape(parts)} samples; errors: {len(report.errors)}, warnings: {len(report.warnings)}</p>",
            "<h2>Findings</h2>",
            _legend(report) + "".join(_finding(source, finding) for finding in report.findings),
            "<h2>Classes</h2>",
            _classes(report),
            "<h2>Sizes of the photos</h2>",
            _scatter(report),
        ]
    )
    write_bytes_atomic(path, text.encode())


def _legend(report: Report) -> str:
    if not report.findings:
        return "<p>Nothing wrong was found.</p>"
    if not any(finding.examples for finding in report.findings):
        return ""
    return (
        "<p>In the examples class 0 shows the photo, ignored pixels are whitened, and values that are no classes are "
        "magenta.</p>"
    )


def _finding(source: Source, finding: Finding) -> str:
    rows = "".join(f"<div><code>{html.escape(name)}</code></div>" for name in finding.files)
    opened = " open" if len(finding.files) <= 8 else ""
    listed = f"<details{opened}><summary>which ({len(finding.files)})</summary>{rows}</details>" if rows else ""
    pictures = "".join(_figure(source, image, label) for image, label in finding.examples)
    return (
        f'<div class="f {finding.severity}"><span class=k>{finding.severity}</span>'
        f"<p><b>{html.escape(finding.text)}</b></p><p>{html.escape(finding.remedy)}</p>{listed}{pictures}</div>"
    )


def _figure(source: Source, image_path: str, label_path: str | None) -> str:
    """A photo under its label, beside each other where they do not fit; what cannot be read is left out."""
    dataset = source.parts[0].dataset
    try:
        photo = as_rgb(read_image(image_path, dataset.img_channels))
    except InputError:
        photo = None
    label = read_any_label(source, image_path, label_path)
    shown = []
    if photo is not None and label is not None and label.shape == photo.shape[:2]:
        shown = [thumbnail(photo, SIDE), thumbnail(overlay(photo, label, dataset, source.declared), SIDE)]
    else:
        shown += [thumbnail(photo, SIDE)] if photo is not None else []
        if label is not None:
            flat = np.full((*label.shape, 3), 255, np.uint8)
            shown.append(thumbnail(overlay(flat, label, dataset, source.declared), SIDE))
    if not shown:
        return ""
    images = "".join(_embedded(picture) for picture in shown)
    return f"<figure>{images}<figcaption>{html.escape(source.short(image_path))}</figcaption></figure>"


def read_any_label(source: Source, image_path: str, label_path: str | None) -> np.ndarray | None:
    """The label of a sample as its data set reads it, [H, W]; None where it cannot be read."""
    for part in source.parts:
        for index, pair in enumerate(part.dataset.files):
            if label_path is not None and pair == (image_path, label_path):
                try:
                    return part.dataset.mapped_label(index)
                except InputError:
                    return None
    return None


def _embedded(picture: np.ndarray) -> str:
    data = cv2.imencode(".jpg", picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 85])[1].tobytes()
    return f'<img src="data:image/jpeg;base64,{base64.b64encode(data).decode()}">'


def _classes(report: Report) -> str:
    rows = class_table(report.source, report.scans)
    total = sum(sum(row["pixels"].values()) for row in rows) or 1
    colours = class_colours(report.source.parts[0].dataset, report.source.declared)
    top = max((sum(row["pixels"].values()) for row in rows), default=0) or 1
    cells = []
    for row in rows:
        pixels = sum(row["pixels"].values())
        colour = "#999" if not row["is_class"] else "#{:02x}{:02x}{:02x}".format(*colours[row["value"] % len(colours)])
        images = ", ".join(f"{part} {count}" for part, count in row["images"].items())
        bar = (
            f'<div class=bar style="width:{420 * pixels / top:.0f}px;background:{colour};border:1px solid #bbb"></div>'
        )
        cells.append(
            f"<tr><td class=n>{row['value']}<td>{html.escape(str(row['name']))}<td>{bar}"
            f"<td class=n>{pixels / total:.3%}<td>{html.escape(images)}"
        )
    head = "<tr><th>value<th>class<th>share of all pixels<th><th>photos with it"
    return f"<table>{head}{''.join(cells)}</table>"


def _scatter(report: Report) -> str:
    """Widths and heights as circles, larger where more photos have that size."""
    sizes = Counter(item.image_size for item in report.scans if item.image_size is not None)
    if not sizes:
        return "<p>No photo could be read.</p>"
    wide, high = max(width for _, width in sizes), max(height for height, _ in sizes)
    left, box_width, box_height = 60, 560, 300
    most = max(sizes.values())
    dots = []
    for (height, width), count in sizes.items():
        x, y = left + box_width * width / wide, 20 + box_height * (1 - height / high)
        radius = 4 + 8 * (count / most) ** 0.5
        dots.append(
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius:.1f}" fill="#1f77b4" fill-opacity=".45">'
            f"<title>{width} x {height}: {count} photos</title></circle>"
        )
    bottom = 20 + box_height
    axes = (
        f'<path d="M{left} 20V{bottom}H{left + box_width}" stroke="#999" fill="none"/>'
        f'<text x="{left + box_width}" y="{bottom + 16}" text-anchor="end">width {wide} px</text>'
        f'<text x="{left - 6}" y="24" text-anchor="end">{high} px</text><text x="4" y="{bottom}">height</text>'
        f'<text x="{left}" y="{bottom + 16}">0</text>'
    )
    return f'<svg width="{left + box_width + 30}" height="{bottom + 30}">{axes}{"".join(dots)}</svg>'
