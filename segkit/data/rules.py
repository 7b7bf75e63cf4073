"""What can be wrong with files, sizes, labels and names; classes.py has what concerns classes and copies."""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Iterator

from segkit.data.findings import Finding, class_count
from segkit.data.scan import Scan
from segkit.data.source import Source
from segkit.datasets.labels import likely_reason
from segkit.datasets.lists import read_text
from segkit.errors import InputError

GRAY, COLOUR = {"1", "L", "LA", "I", "I;16"}, {"P", "RGB", "RGBA", "CMYK", "YCbCr"}
EXAMPLES = 4
_FAULTS = {
    "missing": ("files that are named but not there", "Mend the list or dataset_root, or restore the files."),
    "empty": ("empty files", "Copy them again, or take them off the list."),
    "unreadable": ("files that cannot be read", "They are damaged or of another format: copy or convert them again."),
    "bands": (
        "pictures with other bands than img_channels says",
        "Set img_channels on the data set, or convert the pictures.",
    ),
    "colour": (
        "labels that are colour masks",
        "Give the colour of every class as `palette: [[r, g, b], ...]` on the data set, or make class numbers of "
        "them: segkit data convert --format color.",
    ),
}  # fmt: skip


def files(source: Source, scans: list[Scan]) -> Iterator[Finding]:
    """Lists that cannot be used; files that are missing, empty, unreadable or of another kind than declared."""
    for part in source.parts:
        if part.problems:
            yield Finding(
                "list", "error", f"problems with the {part.name} part's list or folder: {len(part.problems)}",
                "Mend what each line says.", part.problems,
            )  # fmt: skip
        elif not part.dataset.files:
            yield Finding("list", "error", f"the {part.name} part has no samples", "Fill its list or folder.")
        for kind, names, what in (
            ("unlabelled", part.unlabelled, "photos without a label of the same name, left out"),
            ("unused", part.unused, "labels without a photo of the same name, left out"),
        ):
            if names:
                text = f"{what}: {len(names)}"
                yield Finding(kind, "warning", text, "Rename or remove them.", [source.short(name) for name in names])
    for kind, (what, remedy) in _FAULTS.items():
        found = {}
        for item in scans:
            for fault, path, text in item.faults:
                if fault == kind:
                    found[path] = (item, f"{source.short(path)} ({text.removeprefix(path + ': ')})")
        if found:
            chosen = [item for item, _ in found.values()]
            yield Finding(
                kind, "error", f"{what}: {len(found)}", remedy, [text for _, text in found.values()], pairs(chosen)
            )


def sizes(source: Source, scans: list[Scan]) -> Iterator[Finding]:
    """Labels that do not cover their photos."""
    planes = 1
    dataset = source.parts[0].dataset
    if dataset.use_multilabel:
        planes = dataset.num_classes - len(dataset._label_transforms)
    turned, other = [], []
    for item in scans:
        if item.image_size is None or item.label_size is None:
            continue
        height, width = item.image_size
        if item.label_size != (height, width * planes):
            (turned if item.label_size == (width, height) else other).append(item)
    if turned:
        yield Finding(
            "transposed", "error", f"labels with their photo's width as height and height as width: {len(turned)}",
            "The photo's EXIF orientation, applied on reading, turns it by 90 degrees, and the mask was drawn without "
            "it: turn the mask, or bake the orientation into the photo.",
            [_sizes(source, item) for item in turned], pairs(turned),
        )  # fmt: skip
    if other:
        yield Finding(
            "size", "error", f"labels that differ in size from their photos: {len(other)}",
            "Check that they belong together. A label that is a pixel or so short was exported wrongly: export it "
            "again, or resize it with nearest neighbour.",
            [_sizes(source, item) for item in other], pairs(other),
        )  # fmt: skip


def values(source: Source, scans: list[Scan]) -> Iterator[Finding]:
    """Label values that are no classes, by what is the likely reason."""
    dataset = source.parts[0].dataset
    ignore = dataset.ignore_index
    count = 2 if dataset.use_multilabel else _classes(source, scans)
    groups: dict[str, list[Scan]] = defaultdict(list)
    for part in source.parts:
        labelled = [item for item in scans if item.part == part.name and item.counts]
        wrong = [item for item in labelled if any(not 0 <= v < count and v != ignore for v in item.counts)]
        seen = {value for item in labelled for value in item.counts}
        if wrong and (len(wrong) > len(labelled) / 2 or 0 not in seen):  # one habit: all values together tell it best
            groups[likely_reason(sorted(seen), count, ignore)] += wrong
            continue
        for item in wrong:
            reason = likely_reason(sorted(item.counts), count, ignore)
            groups[reason + " Only some labels are so: a setting of the data set holds for every label."].append(item)
    for reason, group in groups.items():
        told = [f"{source.short(item.label)} ({_values(item, count, ignore)})" for item in group]
        text = f"labels with values that are no classes (expected 0..{count - 1} or {ignore}): {len(group)}"
        yield Finding("range", "error", text, reason, told, pairs(group))
    yield from _white(source, scans, count, ignore)


def _white(source: Source, scans: list[Scan], count: int, ignore: int) -> Iterator[Finding]:
    """0/255 masks where 255 is legal, because it is ignored: they train on nothing."""
    white = [item for item in scans if ignore == 255 and 255 in item.counts and set(item.counts) <= {0, 255}]
    others = [item for item in scans if item.counts and item not in white]
    usual = sum(255 in item.counts for item in others)
    nothing_else = count <= 2 and not any(1 in item.counts for item in scans)
    if white and (nothing_else or usual <= len(others) // 10):
        yield Finding(
            "white", "error",
            f"labels that are 0/255, black and white, where 255 counts as ignored and nothing is learnt: {len(white)}",
            "Set `label_map: {255: 1}` on the data set where 255 is the foreground, or divide these masks by 255.",
            [source.short(item.label) for item in white], pairs(white),
        )  # fmt: skip


def pictures(source: Source, scans: list[Scan]) -> Iterator[Finding]:
    """Kinds of photos that do not go together; turned ones; labels saved as JPEG."""
    by_type = Counter(item.dtype for item in scans if item.dtype)
    if len(by_type) > 1:
        rare = by_type.most_common()[-1][0]
        group = [item for item in scans if item.dtype == rare]
        usual, fewer = (_bits(by_type.most_common()[i][0]) for i in (0, -1))
        yield Finding(
            "depth", "error", f"{fewer} photos among {usual} ones, their values on another scale: {len(group)}",
            "Convert them, so that all photos have the same number type and scale.",
            [source.short(item.image) for item in group], pairs(group),
        )  # fmt: skip
    gray = [item for item in scans if item.mode in GRAY]
    colour = [item for item in scans if item.mode in COLOUR]
    if gray and colour and source.parts[0].dataset.img_channels == 3:
        group, what = min((gray, "gray"), (colour, "colour"), key=lambda pair: len(pair[0]))
        yield Finding(
            "mixed", "warning", f"{what} photos among others: {len(group)}",
            "They are read (gray is repeated in all bands), but look different to a model: leave them out if they "
            "are not meant.", [source.short(item.image) for item in group], pairs(group),
        )  # fmt: skip
    yield from _turned(source, [item for item in scans if item.turned != 1])
    jpegs = [item for item in scans if item.label_jpeg]
    if jpegs:
        yield Finding(
            "jpeg", "warning",
            f"labels saved as JPEG, whose compression changes class numbers at borders: {len(jpegs)}",
            "Export the labels again, as PNG.", [source.short(item.label) for item in jpegs], pairs(jpegs),
        )  # fmt: skip


def _turned(source: Source, turned: list[Scan]) -> Iterator[Finding]:
    if not turned:
        return
    fits = [item.fit for item in turned if item.fit is not None]
    read, stored = (sum(fit[i] for fit in fits) / max(len(fits), 1) for i in (0, 1))
    names, shown = [source.short(item.image) for item in turned], pairs(turned)
    measured = f" (classes explain {read:.0%} of the photos' variance so, {stored:.0%} unturned)" if fits else ""
    if fits and stored > 1.5 * read + 0.02:
        yield Finding(
            "frame", "error",
            f"photos with an EXIF orientation whose labels are drawn without it: {len(turned)}{measured}",
            "Photos are turned on reading: turn the labels alike, or bake the orientation into the photos.",
            names, shown,
        )  # fmt: skip
    else:
        yield Finding(
            "exif", "warning",
            f"photos with an EXIF orientation, which is applied on reading: {len(turned)}{measured}",
            "Nothing is to be done where the labels lie right in the examples; other tools may need it baked in.",
            names, shown,
        )  # fmt: skip


def names(source: Source, scans: list[Scan]) -> Iterator[Finding]:
    """Names whose results would collide, labels that several photos share, spaces that need luck."""
    stems: dict[tuple[str, str], set[str]] = defaultdict(set)
    owners: dict[str, set[str]] = defaultdict(set)
    for item in scans:
        stems[item.part, os.path.splitext(os.path.abspath(item.image))[0].lower()].add(item.image)
        if item.label is not None:
            owners[os.path.abspath(item.label)].add(item.image)
    for kind, groups, text, remedy in (
        ("collide", stems, "photos whose names differ in ending or case alone, so that their results would collide",
         "Rename them."),
        ("shared", owners, "photos that share a label with another photo", "Give each photo a label of its own."),
    ):  # fmt: skip
        found = [" and ".join(sorted(map(source.short, group))) for group in groups.values() if len(group) > 1]
        if found:
            yield Finding(
                kind, "warning", f"{text}: {sum(len(g) for g in groups.values() if len(g) > 1)}", remedy, found
            )
    for part in source.parts:
        try:
            text = read_text(part.dataset.list_path(), "list of samples")
        except InputError:
            continue
        spaced = [pair for pair in part.dataset.files if any(" " in source.short(name or "") for name in pair)]
        if spaced and not any(sign in text for sign in "\t,|"):
            yield Finding(
                "spaces", "warning",
                f"names with spaces in the {part.name} list, where spaces also separate photo and label, read by "
                f"trying which files exist: {len(spaced)}", "Separate photo and label by a tab.",
                [" | ".join(source.short(name) for name in pair if name) for pair in spaced],
            )  # fmt: skip


def pairs(scans: list[Scan]) -> list[tuple[str, str | None]]:
    """A few samples to show."""
    return [(item.image, item.label) for item in scans[:EXAMPLES]]


def _classes(source: Source, scans: list[Scan]) -> int:
    """The number of classes. Where nobody says it, values far apart are not taken for that many classes."""
    seen = {value for item in scans for value in item.counts if value != source.parts[0].dataset.ignore_index}
    count = class_count(source, seen)
    return len(seen) if not source.declared and count > 64 and len(seen) < count // 2 else count


def _sizes(source: Source, item: Scan) -> str:
    (height, width), (label_height, label_width) = item.image_size, item.label_size
    return f"{source.short(item.label)} ({label_width}x{label_height}, its photo {width}x{height})"


def _values(item: Scan, count: int, ignore: int) -> str:
    wrong = [(value, n) for value, n in sorted(item.counts.items()) if not 0 <= value < count and value != ignore]
    shown = ", ".join(f"{value}: {n} px" for value, n in wrong[:5])
    return shown + (f" and {len(wrong) - 5} more values" if len(wrong) > 5 else "")


def _bits(dtype: str) -> str:
    return "8-bit" if dtype == "uint8" else "16-bit or float"
