"""Line charts as small SVGs whose colours are the page's CSS variables, with their data for the page's script."""

from __future__ import annotations

import io
import re
from dataclasses import dataclass, field
from typing import Any, Optional, Sequence

from segkit.errors import InputError

WIDTH, HEIGHT = 4.6, 2.7
_BOX = (0.135, 0.18, 0.845, 0.78)  # the axes: left, bottom, width, height as shares of the picture
_INK = {"quiet": "#fe0201", "line": "#fe0202"}
_FLAT = 0.01  # of a value: what moves less is drawn as the level line that it is
COLOURS = 10
"""how many series colours the page has, `--c0` to `--c9`"""

Values = Sequence[Optional[float]]


@dataclass
class Series:
    """One line. `colour`: number of the page's series colour, -1 for a dashed quiet one; `mark`: dots on its points."""

    name: str
    x: Values
    y: Values
    colour: int = 0
    mark: bool = False


@dataclass
class Mark:
    """A dashed upright line at `x`. `colour` as that of a series."""

    name: str
    x: float
    colour: int = -1


@dataclass
class Chart:
    """`title`, axis names and series; `limits` of x and y where the data should not decide. `ticks`: names of the whole
    numbers 0, 1, ... on the x axis."""

    title: str
    x: str
    y: str
    series: list[Series]
    xlim: Optional[tuple[float, float]] = None
    ylim: Optional[tuple[float, float]] = None
    ticks: list[str] = field(default_factory=list)
    note: str = ""
    marks: list[Mark] = field(default_factory=list)


def draw(chart: Chart) -> tuple[str, dict[str, Any]]:
    """(SVG text, the data for the page's script: `box` as shares from the left and the top, `xlim`, `ylim`, `series`).

    Text stays text, in the page's font; every colour is a CSS variable. Errors: matplotlib is not installed.
    """
    matplotlib = require()
    settings = {
        "svg.fonttype": "none", "svg.hashsalt": chart.title, "text.parse_math": False, "font.size": 9.5,
        "axes.edgecolor": _INK["line"], "xtick.color": _INK["quiet"], "ytick.color": _INK["quiet"],
        "axes.labelcolor": _INK["quiet"], "axes.grid": True, "grid.color": _INK["line"], "grid.linewidth": 0.6,
        "axes.spines.top": False, "axes.spines.right": False,
    }  # fmt: skip
    with matplotlib.rc_context(settings):
        from matplotlib.figure import Figure

        figure = Figure((WIDTH, HEIGHT), facecolor="none")
        axes = figure.add_axes(_BOX, facecolor="none")
        axes.set_xlabel(chart.x)
        axes.set_ylabel(chart.y)
        for series in chart.series:
            _plot(axes, series)
        for mark in chart.marks:
            axes.axvline(mark.x, color=_colour(mark.colour), linewidth=1.1, linestyle="--")
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")  # whole numbers: no "1e-5+0.3" above the axis
        low, high = axes.get_ylim()
        if high - low < _FLAT * abs(high):  # a score that hardly moves is no mountain
            axes.set_ylim(high - _FLAT * abs(high), high + _FLAT * abs(high))
        if chart.xlim:
            axes.set_xlim(*chart.xlim)
        if chart.ylim:
            axes.set_ylim(*chart.ylim)
        if chart.ticks:
            axes.set_xticks(range(len(chart.ticks)), chart.ticks)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
        left, bottom, width, height = _BOX
        meta = {
            "box": [left, 1 - bottom - height, width, height], "xlim": axes.get_xlim(), "ylim": axes.get_ylim(),
            "x": chart.x, "ticks": chart.ticks,
            "series": [{"name": s.name, "x": list(s.x), "y": list(s.y), "colour": s.colour} for s in chart.series],
        }  # fmt: skip
    return _for_page(buffer.getvalue()), meta


def require() -> Any:
    """The matplotlib package, or an `InputError` that names the extra."""
    try:
        import matplotlib
    except ImportError as error:
        raise InputError(
            f"the report's charts need matplotlib ({error}). Install it: pip install matplotlib (the extra report)"
        ) from error
    return matplotlib


def _plot(axes: Any, series: Series) -> None:
    y = [float("nan") if value is None else value for value in series.y]
    if series.colour < 0:
        axes.plot(series.x, y, color=_colour(series.colour), linewidth=0.9, linestyle="--")
        return
    axes.plot(
        series.x, y, color=_colour(series.colour), linewidth=1.5, solid_joinstyle="round",
        marker="o" if series.mark or len(y) == 1 else None, markersize=3.5,
    )  # fmt: skip


def _colour(number: int) -> str:
    """What stands in the SVG for a series' colour until `_for_page`."""
    return _INK["quiet"] if number < 0 else f"#fe01{number % COLOURS:02x}"


def _for_page(svg: str) -> str:
    """From a file to a part of a page: no prologue, no ids but those that are used, variables for colours."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"#fe01([0-9a-f]{2})", lambda found: f"var(--c{int(found[1], 16)})", svg)
    for name, colour in _INK.items():
        svg = svg.replace(colour, f"var(--{name})")
    svg = re.sub(r"<metadata>.*?</metadata>\s*", "", svg, flags=re.DOTALL)
    svg = re.sub(r"<!--.*?-->\s*", "", svg, flags=re.DOTALL)
    used = set(re.findall(r'(?:href="|url\()#([\w-]+)', svg))
    svg = re.sub(r' id="([^"]+)"', lambda found: found[0] if found[1] in used else "", svg)
    svg = re.sub(r'<svg[^>]*viewBox="([^"]+)"[^>]*>', r'<svg viewBox="\1" aria-hidden="true">', svg, count=1)
    svg = re.sub(r" font-family: [^;\"]*;", "", svg)
    svg = re.sub(r"<defs>\s*<style.*?</defs>\s*", "", svg, flags=re.DOTALL)
    return re.sub(r"\n\s*", "\n", svg).replace("xlink:href", "href").strip()
