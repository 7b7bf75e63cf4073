"""What can be wrong with classes, with the parts' balance, and with copies of photos."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

import numpy as np

from segkit.data.duplicates import near_pairs
from segkit.data.findings import Finding, class_table
from segkit.data.rules import pairs
from segkit.data.scan import Scan
from segkit.data.source import Source
from segkit.errors import counted
from segkit.transforms.color import Normalize

RARE, MOSTLY = 0.001, 0.9
FAR = 10  # of a band after Normalize: photos of 8 bits never come out so far from 0
DULL = 0.01  # largest standard deviation of a band after Normalize that leaves hardly anything to see


def classes(source: Source, scans: list[Scan]) -> Iterator[Finding]:
    """Classes that never occur, in val only, or hardly ever."""
    rows = [row for row in class_table(source, scans) if row["is_class"]]
    if source.parts[0].dataset.use_multilabel or not any(item.counts for item in scans):
        return
    name = {row["value"]: f"{row['value']} {row['name']}" for row in rows}
    absent = [row["value"] for row in rows if not any(row["pixels"].values())]
    if absent and source.declared:
        hint = ""
        if absent == [0]:
            hint = " No label has a 0: if the classes are numbered from 1, set `reduce_zero_label: True`."
        yield Finding(
            "absent", "warning", f"classes that occur nowhere: {len(absent)} of {len(rows)}",
            "Mend num_classes or the labels, or know that they cannot be learnt." + hint, [name[v] for v in absent],
        )  # fmt: skip
    parts = [part.name for part in source.parts]
    if {"train", "val"} <= set(parts):
        untrained = [r for r in rows if any(r["pixels"].values()) and not r["pixels"]["train"]]
        unjudged = [r for r in rows if r["pixels"]["train"] and not r["pixels"]["val"]]
        divide = "Divide again, so that every class is in both: segkit data split --stratify."
        if untrained:
            listed = [name[row["value"]] for row in untrained]
            yield Finding(
                "val_only", "warning", f"classes that are not in the train part: {len(listed)}", divide, listed
            )
        if unjudged:
            listed = [name[row["value"]] for row in unjudged]
            yield Finding(
                "train_only", "warning", f"classes that are not in the val part: {len(listed)}", divide, listed
            )
    first = "train" if "train" in parts else parts[0]
    total = sum(row["pixels"][first] for row in rows) or 1
    rare = [row for row in rows if 0 < row["pixels"][first] < RARE * total]
    if rare:
        yield Finding(
            "rare", "warning", f"classes with less than {RARE:.1%} of the pixels of the {first} part: {len(rare)}",
            "They are learnt badly: label more of them, weight them in the loss (segkit data stats suggests weights), "
            "or merge them with others.",
            [f"{name[r['value']]} ({r['pixels'][first] / total:.4%}, {counted(r['images'][first], 'photo')})"
             for r in rare],
        )  # fmt: skip


def masks(source: Source, scans: list[Scan]) -> Iterator[Finding]:
    """Labels that are mostly ignored, or background alone; photos of one colour."""
    dataset = source.parts[0].dataset
    labelled = [item for item in scans if item.counts]
    ignored = [i for i in labelled if i.counts.get(dataset.ignore_index, 0) > MOSTLY * sum(i.counts.values())]
    if labelled and all(set(item.counts) <= {dataset.ignore_index} for item in labelled):
        text = "every pixel of every label is ignored: there is nothing to learn"
        yield Finding("ignored", "error", text, "Mend ignore_index or the labels.", [], pairs(ignored))
    elif ignored:
        yield Finding(
            "ignored", "warning", f"labels of which more than {MOSTLY:.0%} is ignored: {len(ignored)}",
            "Look at them; mend ignore_index or the labels.", [source.short(item.label) for item in ignored],
            pairs(ignored),
        )  # fmt: skip
    empty = [item for item in labelled if set(item.counts) == {0}]
    if empty and dataset.num_classes > 1:
        yield Finding(
            "background", "warning", f"labels with nothing but class 0: {len(empty)}",
            "Good where these photos show nothing else; label them where they do.",
            [source.short(item.label) for item in empty], pairs(empty),
        )  # fmt: skip
    flat = [item for item in scans if item.std is not None and float(item.std.max()) == 0]
    if flat:
        yield Finding(
            "flat", "warning", f"photos of one colour: {len(flat)}",
            "Look at them; take them off the list.", [source.short(item.image) for item in flat], pairs(flat),
        )  # fmt: skip


def copies(source: Source, scans: list[Scan]) -> Iterator[Finding]:
    """Pictures that are the same, or nearly, in two parts; within a part; with different labels."""
    seen = [item for item in scans if item.look is not None]
    groups: dict[str, list[Scan]] = defaultdict(list)
    for item in seen:
        groups[item.digest].append(item)
    same = [group for group in groups.values() if len(group) > 1]
    across = [group for group in same if len({item.part for item in group}) > 1]
    within = [group for group in same if any(_twice(group, part.name) for part in source.parts)]
    leak = (
        "The score would be too good: move them into one part (segkit data split keeps near-identical photos together)."
    )
    if across:
        count = sum(len(group) for group in across)
        text = f"pictures that are in two parts, pixel by pixel the same: {count}"
        yield Finding("leak", "warning", text, leak, [_group(source, group) for group in across], pairs(across[0]))
    different = [group for group in same if len({item.label_digest for item in group if item.label_digest}) > 1]
    if different:
        yield Finding(
            "contradiction", "warning", f"identical pictures with different labels: {sum(map(len, different))}",
            "Keep the right one.", [_group(source, group) for group in different], pairs(different[0]),
        )  # fmt: skip
    if within:
        text = f"pictures that are more than once in a part: {sum(map(len, within))}"
        yield Finding(
            "twice", "warning", text, "Take copies off the list.", [_group(source, group) for group in within]
        )
    near = [(seen[a], seen[b]) for a, b in near_pairs([item.look for item in seen])]
    near = [pair for pair in near if pair[0].part != pair[1].part and pair[0].digest != pair[1].digest]
    if near:
        text = f"pairs of near-identical pictures in two parts: {len(near)}"
        listed = [_group(source, list(pair)) for pair in near]
        yield Finding("near", "warning", text, leak, listed, pairs([item for pair in near for item in pair]))


def scale(source: Source, scans: list[Scan]) -> Iterator[Finding]:
    """Normalize that does not fit the photos, as its default does not fit 16-bit ones."""
    for part in source.parts:
        read = [item for item in scans if item.part == part.name and item.mean is not None]
        for transform in part.dataset.transforms.transforms:
            if not isinstance(transform, Normalize) or not read:
                continue
            if len({len(item.mean) for item in read} | {part.dataset.img_channels}) > 1:
                continue
            mean = np.mean([item.mean for item in read], 0) / 255
            spread = np.sqrt(np.mean([item.std**2 for item in read], 0)) / 255 / transform.std
            far = np.abs((mean - transform.mean) / transform.std)
            if far.max() > FAR or spread.max() > FAR or spread.max() < DULL:
                yield Finding(
                    "normalize", "warning",
                    f"Normalize of the {part.name} part does not fit: bands come out up to {far.max():.3g} from 0, "
                    f"with a standard deviation of up to {spread.max():.3g} (expected about 0 and 1)",
                    "Give it the mean and std that segkit data stats prints.",
                )  # fmt: skip


def _twice(group: list[Scan], part: str) -> bool:
    return sum(item.part == part for item in group) > 1


def _group(source: Source, group: list[Scan]) -> str:
    return " = ".join(f"{source.short(item.image)} ({item.part})" for item in group)
