"""What a check found, and how it is told."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Literal

from segkit.data.scan import Scan
from segkit.data.source import Source

SHOWN = 10  # files that the text names


@dataclass
class Finding:
    """One thing that is wrong. `kind` is its short name; an error means that training would fail or be wrong.

    `files`: paths relative to the data set's folder, some with what was found there; `examples`: (photo, label)
    of a few of them.
    """

    kind: str
    severity: Literal["error", "warning"]
    text: str
    remedy: str
    files: list[str] = field(default_factory=list)
    examples: list[tuple[str, str | None]] = field(default_factory=list)

    def line(self) -> str:
        """The finding in one line, with three of its files."""
        told = f" ({', '.join(self.files[:3])}{', ...' if len(self.files) > 3 else ''})" if self.files else ""
        return f"{self.text}{told}. {self.remedy}"

    def lines(self) -> list[str]:
        """The finding as text."""
        rows = [f"[{self.severity.upper()}] {self.text}", f"  Remedy: {self.remedy}"]
        rows += [f"    {name}" for name in self.files[:SHOWN]]
        return rows + ([f"    ... and {len(self.files) - SHOWN} more"] if len(self.files) > SHOWN else [])


@dataclass
class Report:
    """Everything about a data set: its findings, errors first, and the numbers behind them."""

    source: Source
    scans: list[Scan]
    findings: list[Finding]

    @property
    def errors(self) -> list[Finding]:
        """Findings with which training would fail or be wrong."""
        return [finding for finding in self.findings if finding.severity == "error"]

    @property
    def warnings(self) -> list[Finding]:
        """The other findings."""
        return [finding for finding in self.findings if finding.severity == "warning"]

    @property
    def exit_code(self) -> int:
        """2 where there are errors, else 0."""
        return 2 if self.errors else 0

    def of_kind(self, kind: str) -> list[Finding]:
        """The findings of one kind."""
        return [finding for finding in self.findings if finding.kind == kind]

    def to_dict(self) -> dict[str, Any]:
        """For `--json`."""
        findings = [
            {
                "kind": item.kind,
                "severity": item.severity,
                "text": item.text,
                "remedy": item.remedy,
                "files": item.files,
            }
            for item in self.findings
        ]
        classes = class_table(self.source, self.scans)
        return {"source": self.source.path, "samples": self.samples(), "classes": classes, "findings": findings}

    def samples(self) -> dict[str, int]:
        """Samples of each part."""
        return {part.name: len(part.dataset.files) for part in self.source.parts}

    def text(self) -> str:
        """The whole report as text."""
        parts = ", ".join(f"{name} {count}" for name, count in self.samples().items())
        table = class_table(self.source, self.scans)
        if not self.source.declared:  # numbers between those that occur are no classes that anyone named
            table = [row for row in table if any(row["pixels"].values())]
        rows = [f"{self.source.path}: {parts} samples", *_histogram(table)]
        for finding in self.findings:
            rows += ["", *finding.lines()]
        ending = f"{_count(len(self.errors), 'error')}, {_count(len(self.warnings), 'warning')}"
        return "\n".join([*rows, "", ending if self.findings else "nothing wrong was found"])


def class_table(source: Source, scans: Iterable[Scan]) -> list[dict[str, Any]]:
    """For each label value, ignored ones last: its name, and pixels and images by part."""
    dataset = source.parts[0].dataset
    pixels: dict[str, Counter[int]] = {part.name: Counter() for part in source.parts}
    images: dict[str, Counter[int]] = {part.name: Counter() for part in source.parts}
    for item in scans:
        pixels[item.part].update(item.counts)
        images[item.part].update(item.counts.keys())
    seen = {value for counter in pixels.values() for value in counter}
    classes = set(range(class_count(source, seen)))
    rows = []
    for value in [*sorted(classes), *sorted(seen - classes)]:
        name = dataset.class_names[value] if source.declared and value in classes else f"value {value}"
        if value == dataset.ignore_index:
            name = "ignored"
        by_part = {part: counter[value] for part, counter in pixels.items()}
        rows.append(
            {
                "value": value,
                "name": name,
                "is_class": value in classes,
                "pixels": by_part,
                "images": {part: counter[value] for part, counter in images.items()},
            }
        )
    return rows


def class_count(source: Source, seen: Iterable[int]) -> int:
    """Number of classes: as declared, else one more than the largest of the values `seen` that are not ignored."""
    dataset = source.parts[0].dataset
    if source.declared:
        return dataset.num_classes
    return 1 + max((value for value in seen if 0 <= value != dataset.ignore_index), default=0)


def _histogram(rows: list[dict[str, Any]]) -> list[str]:
    total = sum(sum(row["pixels"].values()) for row in rows) or 1
    width = max((len(str(row["name"])) for row in rows), default=0)
    lines = []
    for row in rows[:40]:
        share = sum(row["pixels"].values()) / total
        images = ", ".join(f"{part} {count}" for part, count in row["images"].items())
        lines.append(f"  {row['name']:{width}} {share:9.4%}  in images: {images}")
    return lines + ([f"  ... and {len(rows) - 40} more"] if len(rows) > 40 else [])


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'s' * (number != 1)}"
