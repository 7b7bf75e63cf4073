"""The list files of data sets: separators, names with spaces, what is wrong with a line."""

from __future__ import annotations

from pathlib import Path

import pytest

from segkit.datasets.lists import read_list, split_line
from segkit.errors import InputError

# --- lists


@pytest.mark.parametrize("separator", [" ", "   ", "\t", ",", ", ", "|", " | "])
def test_separators(tmp_path: Path, separator: str) -> None:
    text = f"\ufeff# a comment\r\n\r\nimages/1.jpg{separator}labels/1.png\r\nimages/2.jpg{separator}labels/2.png"
    (tmp_path / "l.txt").write_bytes(text.encode())
    pairs = read_list(str(tmp_path / "l.txt"), "R")
    assert pairs == [("R/images/1.jpg", "R/labels/1.png"), ("R/images/2.jpg", "R/labels/2.png")]


@pytest.mark.parametrize("separator", ["\t", ",", "|"])
def test_names_with_spaces_and_a_clear_separator(separator: str) -> None:
    assert split_line(f"my cat.jpg{separator}my cat mask.png", "", None, False) == ("my cat.jpg", "my cat mask.png")


def test_names_with_spaces_split_by_existing_files(tmp_path: Path) -> None:
    (tmp_path / "my cat.jpg").touch()
    (tmp_path / "my cat mask.png").touch()
    line = "my cat.jpg my cat mask.png"
    assert split_line(line, str(tmp_path), None, False) == ("my cat.jpg", "my cat mask.png")
    assert split_line(line, str(tmp_path), " ", False) == ("my cat.jpg", "my cat mask.png")


def test_comma_in_a_name_is_no_separator_where_files_say_so(tmp_path: Path) -> None:
    for name in ("a,b.jpg", "c.png"):
        (tmp_path / name).touch()
    assert split_line("a,b.jpg c.png", str(tmp_path), None, False) == ("a,b.jpg", "c.png")


def test_two_splits_that_exist_are_ambiguous(tmp_path: Path) -> None:
    for name in ("a", "a b", "b c", "c"):
        (tmp_path / name).touch()
    with pytest.raises(InputError, match="2 ways of splitting it give files that exist: 'a b c'"):
        split_line("a b c", str(tmp_path), None, False)


def test_explicit_separator() -> None:
    assert split_line("a b;c d", "", ";", False) == ("a b", "c d")
    assert split_line("a,b|c", "", "|", False) == ("a,b", "c")
    assert split_line("a b", "", "|", True) == ("a b", None)
    with pytest.raises(InputError, match=r"1 field between '\|' \(expected 2\): 'a b'"):
        split_line("a b", "", "|", False)
    with pytest.raises(InputError, match=r"3 fields between ',' \(expected 2\)"):
        split_line("a,b,c", "", ",", False)


def test_one_and_three_fields_are_told_with_line_and_text(tmp_path: Path) -> None:
    path = tmp_path / "l.txt"
    path.write_text("a.jpg a.png\nb.jpg\n")
    with pytest.raises(InputError, match=r"l\.txt:2: only 1 field .*expected 2 fields\): 'b.jpg'.*<TAB>"):
        read_list(str(path), str(tmp_path))
    path.write_text("# x\na.jpg a.png b.png\n")
    with pytest.raises(InputError, match=r"l\.txt:2: 3 fields \(expected 2\), and no way .*: 'a.jpg a.png b.png'"):
        read_list(str(path), str(tmp_path))
    path.write_text("a.jpg\nb.jpg\n")
    with pytest.raises(InputError, match=r"2 lines cannot be used:\n.*l\.txt:1:.*\n.*l\.txt:2:"):
        read_list(str(path), str(tmp_path))


def test_empty_and_undecodable_lists(tmp_path: Path) -> None:
    path = tmp_path / "l.txt"
    path.write_text("# nothing\n\n")
    with pytest.raises(InputError, match=r"l\.txt: the list has no samples \(expected lines"):
        read_list(str(path), "")
    path.write_bytes(b"\xff\xfe\x00a")
    with pytest.raises(InputError, match="not UTF-8 text"):
        read_list(str(path), "")
    with pytest.raises(InputError, match=r"nowhere\.txt: the list of samples cannot be read \(No such file"):
        read_list(str(tmp_path / "nowhere.txt"), "")
