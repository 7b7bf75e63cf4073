"""Fonts for class names in pictures. Needs Pillow."""

from __future__ import annotations

import functools
import os
from typing import Any, Optional

from segkit.errors import InputError
from segkit.log import warn_once

# Tried by name in the system's own folders, after Pillow's own font, which has Latin letters alone.
_FONTS = (
    *("DejaVuSans.ttf", "NotoSansCJK-Regular.ttc", "NotoSansSC-Regular.otf", "SourceHanSansSC-Regular.otf"),
    *("wqy-microhei.ttc", "wqy-zenhei.ttc", "DroidSansFallbackFull.ttf", "msyh.ttc", "simhei.ttf", "simsun.ttc"),
    *("PingFang.ttc", "Hiragino Sans GB.ttc", "STHeiti Medium.ttc", "Arial Unicode.ttf", "malgun.ttf", "meiryo.ttc"),
)
_NOWHERE = "\U0010fffe"  # a character that no font has: what it looks like is a missing one


@functools.lru_cache(maxsize=64)
def font_for(text: str, size: int) -> Any:
    """The first font of `size` pixels that has all characters of `text`, else the one that has most of them.

    A file named by `SEGKIT_FONT` in the environment comes first. Errors: it cannot be read.
    """
    best, most = None, -1
    for name in (os.environ.get("SEGKIT_FONT"), "", *_FONTS):
        font = _open(name, size) if name is not None else None
        if font is None:
            continue
        count = sum(shows(font, sign) for sign in set(text))
        if count == len(set(text)):
            return font
        if count > most:
            best, most = font, count
    return best


def shows(font: Any, text: str) -> bool:
    """Whether the font has all characters of `text`."""
    missing = bytes(font.getmask(_NOWHERE))
    return all(sign.isspace() or bytes(font.getmask(sign)) != missing for sign in text)


def readable(names: list[str], numbers: list[int], font: Any) -> list[str]:
    """The names, those that the font cannot show replaced by `class <number>`, which is said once."""
    found = [name if shows(font, name) else f"class {number}" for name, number in zip(names, numbers)]
    lost = [name for name, text in zip(names, found) if name != text]
    if lost:
        warn_once(
            f"no font of this machine has all characters of the class name '{lost[0]}': its number stands for it in "
            "pictures. Install one (apt install fonts-noto-cjk), or set SEGKIT_FONT to a font file."
        )
    return found


def _open(name: str, size: int) -> Optional[Any]:
    from PIL import ImageFont

    if not name:
        return ImageFont.load_default(size)
    try:
        return ImageFont.truetype(name, size)
    except OSError as error:
        if name == os.environ.get("SEGKIT_FONT"):
            raise InputError(
                f"SEGKIT_FONT: the font file {name} cannot be read ({error}). Give a .ttf, .ttc or .otf file."
            ) from None
        return None
