"""Parts of the report's page that need no run: words about numbers, legends, and the size of its pictures."""

from __future__ import annotations

import base64
import re
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from segkit.report import compare, page, panels, plots
from segkit.report.collect import SIDE, small

NAMES = ["background", "dove", "owl"]


def score(delta: float, low: float, high: float) -> dict[str, float]:
    return {"first": 0.3, "second": 0.3 + delta, "delta": delta, "low": low, "high": high, "p": 0.3}


@pytest.mark.parametrize(
    "numbers, kind, said",
    [
        ((0.02, 0.01, 0.03), "good", "B is better by 0.0200; "),
        ((-0.02, -0.05, 0.01), "unsure", "B is worse by 0.0200; "),
        ((0.00003, 0.00001, 0.00004), "unsure", "Both are equal to four digits; "),
        (
            (0.0, -0.00004, 0.02),
            "unsure",
            "Both are equal; the 95 % interval over the choice of the 7 photos is +0.0000",
        ),
    ],
)
def test_verdicts(numbers, kind, said) -> None:
    found = compare.verdict([{"model_path": "output/a"}] * 2, score(*numbers), range(7))
    assert f"<p class={kind}>{said}" in found and "-0.0000" not in found
    assert ("chance" in found) == (kind == "unsure" and "equal" not in said)


def test_summaries_say_what_only_one_run_knows() -> None:
    found = compare.both_rows([{"summary": {"data": "x"}}, {"summary": {"data": "x", "trained": "on cpu"}}])
    assert found == "<dl><dt>data<dd>x<dt>trained, A<dd><dt>trained, B<dd>on cpu</dl>"


def test_what_a_threshold_is_for() -> None:
    assert "segkit predict --threshold 0.37" in page.threshold_use(1, "0.37")
    two = page.threshold_use(2, "0.37")
    assert "--threshold 0.37" not in two and "--save_prob" in two


def test_all_classes_are_in_the_legend() -> None:
    names = [f"class {number}" for number in range(150)]
    found = page.image_legend({"metrics": {"class_names": names}, "palette": [[0, 0, 0]]})
    assert all(f">{name}<" in found for name in names) and "110 more classes" in found
    assert "more classes" not in page.image_legend({"metrics": {"class_names": NAMES}, "palette": [[0, 0, 0]]})


def sizes_of(counts: list[list[int]], names: list[str]) -> dict:
    iou = [[0.5 if count else None for count in row] for row in counts]
    return {"sizes": {"sides": [8], "count": counts, "iou": iou}, "metrics": {"class_names": names},
            "palette": [[0, 0, 0]]}  # fmt: skip


def test_the_background_is_no_object() -> None:
    found = sizes_of([[25, 1], [3, 4], [0, 0]], NAMES)
    (chart,) = plots.sizes(found)
    assert [line.name for line in chart.series] == ["dove"]
    table = re.sub("<[^>]+>", " ", page.size_table(found)).split()
    assert table[-4:] == ["dove", "3", "4", "7"] and "25" not in table
    (alone,) = plots.sizes(sizes_of([[25, 1], [0, 0], [0, 0]], NAMES))
    assert [line.name for line in alone.series] == ["background"], "where nothing else is labelled"
    (ground,) = plots.sizes(sizes_of([[25, 1], [3, 4]], ["ground", "dove"]))
    assert len(ground.series) == 2
    many = sizes_of([[25, 1], [3, 0], *([0, 0] for _ in range(20))], ["background", *map(str, range(21))])
    (mean,) = plots.sizes(many)
    assert mean.series[0].y == [0.5, None]
    assert plots.sizes(sizes_of([[0, 0]], ["dove"])) == [] and page.size_table(sizes_of([[0, 0]], ["dove"])) == ""


def test_fewer_panels_are_larger() -> None:
    sides = [panels.side_of(number) for number in (0, 3, 12, 26, 60, 1000)]
    assert sides == sorted(sides, reverse=True) and sides[0] == SIDE and sides[3] == 800 and sides[-1] == 400


def test_pictures_of_a_large_photo() -> None:
    """All of one size, and the label's way to it is the prediction's: what is right has no error at its edges."""
    rng = np.random.default_rng(0)
    label = (cv2.resize(rng.random((31, 47)), (2345, 1567)) > 0.5).astype(np.uint8)
    sample = {"image": np.repeat(label[..., None] * 200, 3, 2), "label": label}
    dataset = SimpleNamespace(ignore_index=255, num_classes=2, palette=np.array([[0, 0, 0], [128, 0, 0]], np.uint8))
    photos = SimpleNamespace(dataset=dataset, sample=lambda item: sample)
    cells = panels.pictures(photos, {}, [("", small(label))], 800)
    data = [base64.b64decode(text) for text in re.findall('base64,([^"]+)', cells)]
    found = [cv2.imdecode(np.frombuffer(item, np.uint8), cv2.IMREAD_UNCHANGED) for item in data]
    assert {picture.shape[:2] for picture in found} == {(534, 800)} and len(found) == 4
    assert not found[3].any()
