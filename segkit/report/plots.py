"""Which charts a report shows, from what report.json says."""

from __future__ import annotations

from typing import Any, Optional

from segkit.report.charts import COLOURS, Chart, Series


def training(course: dict[str, Any], names: list[str]) -> list[Chart]:
    """Loss, learning rate, scores and throughput over the iterations; those of which there is something."""
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
    return [chart for chart in found if chart.series]


def two_courses(first: Optional[dict[str, Any]], second: Optional[dict[str, Any]]) -> list[Chart]:
    """Loss and validation mIoU of two runs in one chart each."""
    found = []
    for title, part, key in (("Loss", "train", "loss"), ("Validation", "eval", "mIoU")):
        series = [
            Series(side, course[part]["iter"], course[part][key], number, part == "eval")
            for number, (side, course) in enumerate(zip("AB", (first, second)))
            if course and any(value is not None for value in course[part].get(key, ()))
        ]
        found += [Chart(title, "iteration", key, series)] if series else []
    return found


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


def sizes(found: dict[str, Any]) -> list[Chart]:
    """Mean IoU of objects by their size: a line a class, as far as there are colours."""
    sizes, names = found["sizes"], found["metrics"]["class_names"]
    sides = sizes["sides"]
    ticks = [f"<{sides[0]}", *(f"{low}–{high}" for low, high in zip(sides, sides[1:])), f"≥{sides[-1]}"]
    count = [sum(column) for column in zip(*sizes["count"])]
    if len(names) <= COLOURS:
        series = [
            Series(name, range(len(ticks)), row, number, True)
            for number, (name, row) in enumerate(zip(names, sizes["iou"]))
            if any(value is not None for value in row)
        ]
    else:
        means = []
        for column, total in enumerate(count):
            sums = (row[column] * n[column] for row, n in zip(sizes["iou"], sizes["count"]) if n[column])
            means.append(sum(sums) / total if total else None)
        series = [Series("all objects", range(len(ticks)), means, 0, True)]
    note = "Objects: " + ", ".join(f"{tick} px: {n}" for tick, n in zip(ticks, count) if n) + "."
    title, axis = "IoU by object size", "side of a square of the object's area, pixels"
    return [Chart(title, axis, "mean IoU", series, (-0.2, len(ticks) - 0.8), (0, 1.02), ticks, note)] if series else []


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
