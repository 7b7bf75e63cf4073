"""Which charts a report shows, from what report.json says."""

from __future__ import annotations

from typing import Any, Optional, Sequence

from segkit.polygons import is_background
from segkit.report import history
from segkit.report.charts import COLOURS, Chart, Mark, Series


def training(course: dict[str, Any], names: list[str], own: Optional[int] = None) -> list[Chart]:
    """Loss, learning rate, scores and throughput over the iterations; those of which there is something. `own`: the
    iteration that the weights are of, marked where the training went on."""
    train, evals = course["train"], course["eval"]
    step = train["iter"]

    def lines(*keys: str) -> list[Series]:
        there = [key for key in keys if any(value is not None for value in train[key])]
        return [Series(key, step, train[key], number) for number, key in enumerate(there)]

    minutes = course["seconds"] / 60
    found = [
        Chart("Loss", "iteration", "loss", lines(*course["losses"])),
        Chart("Learning rate", "iteration", "lr", lines("lr")),
        Chart("Throughput", "iteration", "images/s", lines("ips"), note=f"The iterations took {minutes:.1f} min."),
    ]
    if evals["iter"]:
        scores = [Series(k, evals["iter"], evals[k], n, True) for n, k in enumerate(("mIoU", "Acc", "mDice"))]
        found.insert(1, Chart("Validation", "iteration", "score", scores))
        if len(names) <= COLOURS and any(evals["class_iou"]):
            classes = [
                Series(name, evals["iter"], [row[n] if row else None for row in evals["class_iou"]], n, True)
                for n, name in enumerate(names)
            ]
            found.insert(2, Chart("IoU of the classes", "iteration", "IoU", classes))
    if own is not None and own < _end(course):
        for chart in found:
            chart.marks = [Mark(f"these weights (iteration {own:,})", own)]
    return [chart for chart in found if chart.series]


def _end(course: dict[str, Any]) -> float:
    """The last iteration that a course tells of."""
    return max([*course["train"]["iter"], *course["eval"]["iter"]], default=0)


def two_courses(found: Sequence[dict[str, Any]]) -> list[Chart]:
    """Loss and validation mIoU of two runs in one chart each, from what both report.json say; one line where both
    are checkpoints of one run. The iterations of the weights are marked where the training went on."""
    courses = [item["history"] for item in found]
    one = all(courses) and history.same(*courses)
    lines = list(zip("AB", courses, range(2)))
    if one:
        lines = [("A and B", max(courses, key=_end), 2)]
    marks = [
        Mark(f"{side} (iteration {item['iteration']:,})", item["iteration"], number)
        for number, (side, item) in enumerate(zip("AB", found))
        if item["history"] and item["iteration"] is not None and (one or item["iteration"] < _end(item["history"]))
    ]
    charts = []
    for title, part, key in (("Loss", "train", "loss"), ("Validation", "eval", "mIoU")):
        series = [
            Series(name, course[part]["iter"], course[part][key], colour, part == "eval")
            for name, course, colour in lines
            if course and any(value is not None for value in course[part].get(key, ()))
        ]
        charts += [Chart(title, "iteration", key, series, marks=marks)] if series else []
    return charts


def reliability(found: dict[str, Any]) -> list[Chart]:
    """Accuracy against confidence."""
    bins = found["calibration"]
    if bins["ece"] is None:
        return []
    note = (
        f"Expected calibration error {bins['ece']:.4f}, largest gap {bins['mce']:.4f}, 15 bins. Below the dashed line "
        "the network is surer than it is right."
    )
    series = [
        Series("perfect", [0, 1], [0, 1], -1),
        Series("accuracy", bins["confidence"], bins["accuracy"], 0, True),
        Series("share of the pixels", bins["confidence"], [n / sum(bins["count"]) for n in bins["count"]], 1, True),
    ]
    return [Chart("Calibration", "confidence", "accuracy", series, (0, 1.02), (0, 1.02), note=note)]


def size_names(sides: Sequence[int]) -> list[str]:
    """What the size classes of objects are called."""
    return [f"<{sides[0]}", *(f"{low}–{high}" for low, high in zip(sides, sides[1:])), f"≥{sides[-1]}"]


def object_classes(found: dict[str, Any]) -> list[int]:
    """The classes that have objects, without the background: it is one only where nothing else is labelled."""
    counted = [number for number, row in enumerate(found["sizes"]["count"]) if any(row)]
    return [n for n in counted if n or not is_background(found["metrics"]["class_names"][0])] or counted


def sizes(found: dict[str, Any]) -> list[Chart]:
    """Mean IoU of objects by their size: a line a class, as far as there are colours."""
    sizes, names, shown = found["sizes"], found["metrics"]["class_names"], object_classes(found)
    ticks = size_names(sizes["sides"])
    if len(names) <= COLOURS:
        series = [Series(names[number], range(len(ticks)), sizes["iou"][number], number, True) for number in shown]
    else:
        means = []
        for column in range(len(ticks)):
            rows = [(sizes["iou"][n][column], sizes["count"][n][column]) for n in shown if sizes["count"][n][column]]
            total = sum(count for _, count in rows)
            means.append(sum(iou * count for iou, count in rows) / total if total else None)
        series = [Series("all objects", range(len(ticks)), means, 0, True)] if shown else []
    title, axis = "IoU by object size", "side of a square of the object's area, pixels"
    return [Chart(title, axis, "mean IoU", series, (-0.2, len(ticks) - 0.8), (0, 1.02), ticks)] if series else []


def thresholds(found: dict[str, Any]) -> list[Chart]:
    """ROC and precision-recall of two classes."""
    curves, best = found["curves"], found["curves"]["best"]
    (wrong, right), (recall, precision) = curves["roc"], curves["pr"]
    return [
        Chart(
            "ROC", "false positive rate", "true positive rate",
            [Series("chance", [0, 1], [0, 1], -1), Series("ROC", wrong, right, 0)],
            (-0.01, 1.01), (0, 1.02), note=f"Area {curves['auc']:.4f}.",
        ),
        Chart(
            "Precision and recall", "recall", "precision",
            [Series("curve", recall, precision, 0), Series("best IoU", [best["recall"]], [best["precision"]], 1, True)],
            (-0.01, 1.01), (0, 1.02), note=f"Average precision {curves['ap']:.4f}.",
        ),
    ]  # fmt: skip
