"""Pictures that claim, or would unfold to, more than the memory holds; damaged files of every format."""

from __future__ import annotations

import io as bytes_io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segkit import header, io
from segkit.bands import decode_npy, decode_tiff
from segkit.datasets.pssl import PSSLDataset
from segkit.errors import InputError
from tests.bad_input.pictures import FORMATS, encoded


@pytest.fixture(autouse=True)
def pillow_s_limit(monkeypatch) -> None:
    """Restored at the end: reading a picture sets it."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", Image.MAX_IMAGE_PIXELS)


@pytest.mark.parametrize("kind", FORMATS)
def test_sizes_are_those_of_the_pictures(kind: str) -> None:
    for width, height in ((31, 17), (200, 300)):
        data = encoded(kind, width, height)
        if kind not in ("tiff", "tiff-16", "npy"):
            assert header.size(data) == (width, height)
        assert io.decode_image(data, "x").shape == (height, width, 3)


def test_sizes_of_rarer_headers() -> None:
    core = b"BM" + bytes(12) + struct.pack("<IHHHH", 12, 31, 17, 1, 24)
    assert header.size(core) == (31, 17)
    upside_down = b"BM" + bytes(12) + struct.pack("<Iii", 40, 31, -17)
    assert header.size(upside_down) == (31, 17)
    extended = b"RIFF" + bytes(4) + b"WEBPVP8X" + bytes(8) + struct.pack("<HBHB", 30, 0, 16, 1)
    assert header.size(extended) == (31, 65536 + 17)
    for data in (b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"BM", b"RIFF1234WEBPVP8 ", b"GIF89a"):
        assert header.size(data) == (0, 0)


def bomb(width: int = 60_000, height: int = 60_000) -> bytes:
    """A gray PNG of few bytes; one row is there."""
    parts = ((b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)), (b"IDAT", zlib.compress(bytes(width + 1))),
             (b"IEND", b""))  # fmt: skip
    chunks = (struct.pack(">I", len(b)) + k + b + struct.pack(">I", zlib.crc32(k + b)) for k, b in parts)
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def test_a_bomb_is_refused_by_its_header(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "b.png").write_bytes(bomb())
    said = (
        r"b\.png: too many pixels \(got 60000 x 60000, expected at most 268,435,456 in all\).*SEGKIT_MAX_PIXELS higher"
    )
    for read in (io.read_image, io.read_label):
        with pytest.raises(InputError, match=said):
            read(tmp_path / "b.png")
    for kind in FORMATS:
        if kind == "npy":
            continue  # not compressed: what it holds was there to be read
        (tmp_path / "x").write_bytes(encoded(kind, 40, 30))
        monkeypatch.setenv("SEGKIT_MAX_PIXELS", "1199")
        with pytest.raises(InputError, match=r"x: too many pixels \(got 40 x 30, expected at most 1,199"):
            io.read_image(tmp_path / "x")
        monkeypatch.setenv("SEGKIT_MAX_PIXELS", "1200")
        assert io.read_image(tmp_path / "x").shape == (30, 40, 3)


def test_a_large_label_is_no_bomb(tmp_path: Path, monkeypatch) -> None:
    """Pillow's own limit is below that of photos."""
    monkeypatch.setattr(header, "MAX_PIXELS", 400)
    Image.new("L", (20, 20), 3).save(tmp_path / "l.png")
    assert io.read_label(tmp_path / "l.png").tolist() == [[3] * 20] * 20
    assert io.image_size(tmp_path / "l.png") == (20, 20)


def test_an_array_that_claims_more_than_the_memory() -> None:
    out = bytes_io.BytesIO()
    np.lib.format.write_array_header_1_0(out, {"descr": "<f8", "fortran_order": False, "shape": (10**9, 10**9)})
    with pytest.raises(InputError, match=r"x: not a readable \.npy array"):
        decode_npy(out.getvalue(), "x")


def test_a_tiff_of_many_wide_bands_is_refused_by_its_bytes(monkeypatch) -> None:
    """Pixels alone do not tell: 40 bands of float64 are 80 times as much as gray."""
    tifffile = pytest.importorskip("tifffile")
    out = bytes_io.BytesIO()
    tifffile.imwrite(out, np.zeros((30, 40, 40)), photometric="minisblack", compression="zlib", planarconfig="contig")
    monkeypatch.setenv("SEGKIT_MAX_PIXELS", "20000")
    with pytest.raises(
        InputError, match=r"x: too large \(got an array of shape \[30, 40, 40\].*SEGKIT_MAX_PIXELS higher"
    ):
        decode_tiff(out.getvalue(), "x")
    monkeypatch.setenv("SEGKIT_MAX_PIXELS", "24000")
    assert decode_tiff(out.getvalue(), "x").shape == (30, 40, 40)


def test_an_archive_of_labels_that_unfolds_to_more_than_the_memory(tmp_path: Path, monkeypatch) -> None:
    np.savez_compressed(tmp_path / "l.npz", np.zeros((200, 200), np.int64))
    dataset = PSSLDataset.__new__(PSSLDataset)
    dataset.files, dataset.ignore_index, dataset._numbers = [("n1_a.JPEG", str(tmp_path / "l.npz"))], 1001, {"n1": 3}
    assert set(np.unique(dataset.read_label(0))) == {1000}
    monkeypatch.setenv("SEGKIT_MAX_PIXELS", "10000")
    with pytest.raises(InputError, match=r"l\.npz: too large \(got an array"):
        dataset.read_label(0)
