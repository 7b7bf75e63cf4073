"""List files: one `image<sep>label` a line (SPEC 5)."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Optional

from segkit.errors import InputError, list_problems

Pair = tuple[str, Optional[str]]
SEPARATORS = ("\t", "|", ",")


class ListError(InputError):
    """Lines of a list that cannot be used: `problems`, a text each, and `pairs`, what the other lines say."""

    def __init__(self, text: str, problems: list[str], pairs: list[Pair]):
        super().__init__(text)
        self.problems, self.pairs = problems, pairs


def read_text(path: str | os.PathLike, what: str) -> str:
    """The text of a small user file, without a byte-order mark. `what` names its role in an error."""
    try:
        return Path(path).read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: the {what} is not UTF-8 text ({error}). Save it as UTF-8.") from None
    except OSError as error:
        raise InputError(f"{path}: the {what} cannot be read ({error.strerror}). Check the path.") from None


def read_list(path: str, root: str, separator: str | None = None, labels_optional: bool = False) -> list[Pair]:
    """(image, label) paths joined onto `root`, in the order of the list.

    `separator` None: tab, `|`, comma or spaces, decided line by line. `labels_optional`: a line may be an
    image alone, whose label is None. All unusable lines are reported in one `InputError`.
    """
    pairs: list[Pair] = []
    problems: list[str] = []
    for number, line in enumerate(read_text(path, "list of samples").splitlines(), start=1):
        line = line.strip(" \r\n")
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        try:
            image, label = split_line(line, root, separator, labels_optional)
        except InputError as error:
            problems.append(f"{path}:{number}: {error}")
            continue
        pairs.append((os.path.join(root, image), label and os.path.join(root, label)))
    if len(problems) == 1:
        raise ListError(problems[0], problems, pairs)
    if problems:
        raise ListError(list_problems(f"{path}: {len(problems)} lines cannot be used:", problems), problems, pairs)
    if not pairs:
        raise InputError(f"{path}: the list has no samples (expected lines of `image label`). Fill it.")
    return pairs


def split_line(line: str, root: str, separator: str | None, labels_optional: bool) -> Pair:
    """One line's image and label. Where several splits are possible, the only one whose files exist wins."""
    if separator is not None and separator.strip():
        return _split_by(line, separator, labels_optional)
    splits = _spaces(line) if separator else [*_separators(line), *_spaces(line)]
    if len(splits) == 1:
        return splits[0]
    existing = [pair for pair in splits if _exists(root, pair[0]) and _exists(root, pair[1])]
    if existing:
        if len(existing) > 1 and existing[0] in _spaces(line):
            raise InputError(_text(f"{len(existing)} ways of splitting it give files that exist", line))
        return existing[0]
    if labels_optional and (not splits or _exists(root, line)):
        return line, None
    if not splits:
        raise InputError(_text("only 1 field (got an image without a label, expected 2 fields)", line))
    by_separator = [pair for pair in splits if pair not in _spaces(line)]
    if len(by_separator) == 1:
        return by_separator[0]
    fields = len(re.split(r"\s+|[|,]\s*", line))
    raise InputError(_text(f"{fields} fields (expected 2), and no way of splitting it gives files that exist", line))


def _split_by(line: str, separator: str, labels_optional: bool) -> Pair:
    fields = [field.strip() for field in line.split(separator)]
    if len(fields) == 2 and all(fields):
        return fields[0], fields[1]
    if len(fields) == 1 and labels_optional:
        return fields[0], None
    count = sum(map(bool, fields))
    raise InputError(_text(f"{count} field{'s' * (count != 1)} between {separator!r} (expected 2)", line))


def _separators(line: str) -> list[Pair]:
    """The splits by a tab, `|` or comma that give just two fields."""
    found = []
    for separator in SEPARATORS:
        fields = [field.strip() for field in line.split(separator)]
        if len(fields) == 2 and all(fields):
            found.append((fields[0], fields[1]))
    return found


def _spaces(line: str) -> list[Pair]:
    """Every split at a run of spaces."""
    cuts = [(found.start(), found.end()) for found in re.finditer(r" +", line)]
    return [(line[:start], line[end:]) for start, end in cuts if line[:start].strip() and line[end:].strip()]


def _exists(root: str, name: str) -> bool:
    return os.path.isfile(os.path.join(root, name))


def _text(what: str, line: str) -> str:
    return (
        f"{what}: {line!r}. Write `image<TAB>label`, or set `separator` on the data set; "
        "names with spaces need a tab, a comma or `|` between image and label."
    )
