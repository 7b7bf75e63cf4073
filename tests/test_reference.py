"""The config reference: the committed pages are what signatures and docstrings say, and --explain tells one entry."""

from __future__ import annotations

from pathlib import Path

import pytest

from segkit.cli import main as cli
from segkit.config import reference
from segkit.registry import DATASETS, LOSSES, MODELS, TRANSFORMS

PAGES = Path(__file__).resolve().parents[1] / "docs" / "reference"


def test_the_committed_pages_are_those_that_are_generated(tmp_path: Path) -> None:
    assert reference.main([str(tmp_path)]) == 0
    for page in ("config.md", "models.md"):
        made, kept = ((folder / page).read_text(encoding="utf-8").splitlines() for folder in (tmp_path, PAGES))
        assert kept == made, "write it again: python -m segkit.config.reference docs/reference"


def test_every_component_has_an_entry_with_words() -> None:
    text = "".join((PAGES / page).read_text(encoding="utf-8") for page in ("config.md", "models.md"))
    entries = {
        name.strip(): entry.partition("\n")[2].strip()
        for entry in text.split("\n### ")[1:]
        for name in entry.partition("\n")[0].split(",")
    }
    for registry in (MODELS, LOSSES, TRANSFORMS, DATASETS):
        for name in reference._own_names(registry):
            assert len(entries[name].split()) > 2, name


def test_explain(capsys) -> None:
    assert cli.main(["config", "--explain", "UNet"]) == 0
    told = capsys.readouterr().out
    assert told.startswith("UNet (model)\n[N, in_channels, H, W] ->")
    assert "\n  base_channels: int = 64\n" in told
    assert "\n  num_classes: int, filled in\n" in told
    assert cli.main(["config", "--explain", "Dataset"]) == 0
    assert "cache: one of none, ram, disk = none\n      keep decoded samples" in capsys.readouterr().out
    assert cli.main(["config", "--explain", "polynomialdecay"]) == 0
    told = capsys.readouterr().out
    assert "\n  power: float = 1.0" in told
    assert "\n      First iterations, in which the rate rises in a straight line." in told


def test_explain_names_the_nearest(capsys) -> None:
    assert cli.main(["config", "--explain", "Unett"]) == 2
    assert "no component is called 'Unett'. Did you mean 'UNet'?" in capsys.readouterr().err


@pytest.mark.parametrize("argv", [[], ["a", "b"]])
def test_the_generator_says_how_it_is_called(argv: list[str], capsys) -> None:
    assert reference.main(argv) == 2
    assert "usage: python -m segkit.config.reference FOLDER" in capsys.readouterr().err
