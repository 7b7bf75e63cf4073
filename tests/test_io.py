"""Reading and writing against Pillow as the independent reader, and against the real data sets."""

from __future__ import annotations

import errno
import io
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segkit import exif
from segkit import io as sio
from segkit.errors import InputError
from segkit.palette import voc_palette

RNG = np.random.default_rng(0)


def photo(height: int = 24, width: int = 37, bands: int = 3) -> np.ndarray:
    """A smooth, unsymmetrical picture, so that JPEG keeps it and every orientation differs."""
    y, x = np.mgrid[0:height, 0:width]
    return np.stack([(x * 6 + y * (3 * band + 1)) % 200 + 20 for band in range(bands)], 2).astype(np.uint8)


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


LOSSLESS = {"PNG": {}, "BMP": {}, "WEBP": {"lossless": True}, "TIFF": {"compression": "tiff_lzw"}}


@pytest.mark.parametrize("kind", [*LOSSLESS, "JPEG"])
def test_formats_equal_pillow(kind: str, tmp_path: Path) -> None:
    path = tmp_path / f"空 格 é.{kind.lower()}"
    path.write_bytes(encoded(Image.fromarray(photo()), kind, **LOSSLESS.get(kind, {"quality": 95})))
    got = sio.read_image(path)
    want = np.asarray(Image.open(path).convert("RGB"))
    assert got.dtype == np.uint8 and got.flags.c_contiguous
    assert np.abs(got.astype(int) - want).max() <= (2 if kind == "JPEG" else 0)
    assert sio.image_size(path) == (24, 37)


# what a viewer does with the stored picture, by the definition of the tag: where its row 0 and column 0 belong
UPRIGHT = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: a[::-1].swapaxes(0, 1),
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: lambda a: a[:, ::-1].swapaxes(0, 1),
}


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("turn", range(1, 9))
def test_exif_orientation_of_images_and_labels(kind: str, turn: int, tmp_path: Path) -> None:
    tag = Image.Exif()
    tag[0x0112] = turn
    path = tmp_path / "x"
    path.write_bytes(encoded(Image.fromarray(photo()), kind, exif=tag, **LOSSLESS.get(kind, {"quality": 95})))
    want = UPRIGHT[turn](photo()).astype(int)
    got = sio.read_image(path)
    assert got.shape == want.shape and np.abs(got - want).mean() <= (8 if kind == "JPEG" else 0)
    assert sio.read_image(path, 1).shape == (*want.shape[:2], 1)
    assert sio.image_size(path) == want.shape[:2]
    index = photo()[..., 0] // 40
    for compression in ("tiff_lzw", "raw") if kind == "TIFF" else (None,):
        if kind in ("PNG", "TIFF"):
            options = {"compression": compression} if compression else {}
            path.write_bytes(encoded(Image.fromarray(index), kind, exif=tag, **options))
            assert np.array_equal(sio.read_label(path), UPRIGHT[turn](index)), compression


def test_orientation_of_damaged_exif_is_upright() -> None:
    tag = Image.Exif()
    tag[0x0112] = 6
    data = encoded(Image.fromarray(photo()), "JPEG", exif=tag)
    assert exif.orientation(data) == 6
    assert exif.orientation(data[:30]) == 1
    assert exif.orientation(data.replace(b"MM\0*", b"XX\0*").replace(b"II*\0", b"XX*\0")) == 1
    assert exif.orientation(b"") == 1


def test_channels() -> None:
    rgb = photo()
    rgba = np.dstack([rgb, photo(bands=5)[..., 4]])
    gray = np.ascontiguousarray(rgb[..., 0])
    data = {
        "RGB": encoded(Image.fromarray(rgb), "PNG"),
        "RGBA": encoded(Image.fromarray(rgba), "PNG"),
        "L": encoded(Image.fromarray(gray), "PNG"),
        "LA": encoded(Image.merge("LA", [Image.fromarray(gray)] * 2), "PNG"),
        "P": encoded(Image.fromarray(rgb).quantize(200), "PNG"),
        "1": encoded(Image.fromarray(gray > 100), "PNG"),
        "LA tiff": encoded(Image.merge("LA", [Image.fromarray(gray)] * 2), "TIFF"),
        "RGBA tiff": encoded(Image.fromarray(rgba), "TIFF"),
    }
    for name, content in data.items():
        for channels in (1, 3):
            assert sio.decode_image(content, name, channels).shape == (24, 37, channels), name
    for name in ("L", "LA", "LA tiff"):
        assert np.array_equal(sio.decode_image(data[name], name, 3), np.repeat(gray[..., None], 3, 2)), name
        assert np.array_equal(sio.decode_image(data[name], name, 1)[..., 0], gray), name
    for name in ("RGBA", "RGBA tiff"):
        assert np.array_equal(sio.decode_image(data[name], name, 4), rgba), name
        assert np.array_equal(sio.decode_image(data[name], name, 3), rgb), name
    assert set(np.unique(sio.decode_image(data["1"], "1"))) == {0, 255}
    luminance = np.asarray(Image.fromarray(rgb).convert("L")).astype(int)
    assert np.abs(sio.decode_image(data["RGB"], "RGB", 1)[..., 0] - luminance).max() <= 1
    with pytest.raises(InputError, match=r"a\.png: wrong number of bands \(got 3, expected img_channels: 4\)"):
        sio.decode_image(data["RGB"], "a.png", 4)


def test_npy_images(tmp_path: Path) -> None:
    path = tmp_path / "a.npy"
    bands = photo(bands=5)
    np.save(path, bands)
    assert np.array_equal(sio.read_image(path, 5), bands)
    assert sio.image_size(path) == (24, 37)
    with pytest.raises(InputError, match="got 5, expected img_channels: 3"):
        sio.read_image(path)
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(InputError, match=r"a\.npy: not a readable \.npy array"):
        sio.read_image(path, 5)


@pytest.mark.parametrize("kind", [*LOSSLESS, "JPEG"])
@pytest.mark.parametrize("share", [0.3, 0.6, 0.97])
def test_truncated_images(kind: str, share: float, tmp_path: Path, capfd: pytest.CaptureFixture) -> None:
    noisy = RNG.integers(0, 255, (90, 120, 3)).astype(np.uint8)
    data = encoded(Image.fromarray(noisy), kind)
    path = tmp_path / f"cut.{kind}"
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(InputError, match=r"cut\.\w+: (not a readable image|TIFF of this kind)"):
        sio.read_image(path)
    if kind in ("PNG", "TIFF"):
        with pytest.raises(InputError, match=r"cut\.\w+: not a readable image"):
            sio.read_label(path)


def test_jpeg_with_bytes_after_its_end_is_whole() -> None:
    data = encoded(Image.fromarray(photo()), "JPEG")
    assert np.array_equal(sio.decode_image(data + b"maker notes" * 20, "x"), sio.decode_image(data, "x"))


def test_damaged_png(tmp_path: Path) -> None:
    data = bytearray(encoded(Image.fromarray(photo(80, 80)), "PNG"))
    data[len(data) // 2] ^= 0xFF
    path = tmp_path / "bad.png"
    path.write_bytes(data)
    with pytest.raises(InputError, match=r"bad\.png: not a readable image"):
        sio.read_image(path)
    with pytest.raises(InputError, match=r"bad\.png: not a readable image"):
        sio.read_label(path)


@pytest.mark.parametrize("read", [sio.read_image, sio.read_label])
def test_files_that_are_no_pictures(read: object, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.png: no such file\. Mend the path"):
        read(tmp_path / "none.png")
    with pytest.raises(InputError, match=r"cannot be read \(.*directory"):
        read(tmp_path)
    (tmp_path / "empty.jpg").write_bytes(b"")
    with pytest.raises(InputError, match=r"empty\.jpg: .*empty \(0 bytes\)"):
        read(tmp_path / "empty.jpg")
    (tmp_path / "text.jpg").write_text("not a picture at all")
    with pytest.raises(InputError, match=r"text\.jpg: not a readable image .*JPEG, PNG, BMP, WebP"):
        read(tmp_path / "text.jpg")
    with pytest.raises(InputError, match=r"text\.jpg: not a readable image"):
        sio.image_size(tmp_path / "text.jpg")
    with pytest.raises(InputError, match=r"none\.png: no such file"):
        sio.image_size(tmp_path / "none.png")


# ------------------------------------------------------------------ labels


def test_label_kinds(tmp_path: Path) -> None:
    index = (photo()[..., 0] // 40).astype(np.uint8)
    path = tmp_path / "label.png"
    image = Image.fromarray(index)
    palette = image.copy()
    palette.putpalette(voc_palette().tobytes())
    for kind in (image, palette, Image.merge("RGB", [image] * 3), Image.merge("LA", [image, image])):
        kind.save(path)
        got = sio.read_label(path)
        assert got.dtype == np.uint8 and np.array_equal(got, index), kind.mode
    Image.fromarray(index > 2).save(path)
    assert np.array_equal(sio.read_label(path), (index > 2).astype(np.uint8))
    Image.fromarray(index.astype(np.uint16)).save(path)
    assert sio.read_label(path).dtype == np.uint8
    Image.fromarray(index.astype(np.uint16) + 300).save(path)
    assert sio.read_label(path).dtype == np.int32 and np.array_equal(sio.read_label(path), index.astype(int) + 300)
    np.save(tmp_path / "l.npy", index.astype(np.int64)[None])
    assert np.array_equal(sio.read_label(tmp_path / "l.npy"), index)
    np.save(tmp_path / "l.npy", index.astype(float))
    with pytest.raises(InputError, match=r"l\.npy: not a map of class numbers \(got float64"):
        sio.read_label(tmp_path / "l.npy")
    Image.fromarray(index.astype(np.float32)).save(tmp_path / "f.tif")
    with pytest.raises(InputError, match=r"f\.tif: labels of this kind cannot be read \(got pixel mode F"):
        sio.read_label(tmp_path / "f.tif")


def test_colour_labels(tmp_path: Path) -> None:
    palette = np.array([[0, 0, 0], [255, 0, 0], [9, 200, 3], [7, 7, 7]], np.uint8)
    index = RNG.integers(0, 4, (9, 11)).astype(np.uint8)
    path = tmp_path / "c.png"
    Image.fromarray(palette[index]).save(path)
    assert np.array_equal(sio.read_label(path, palette), index)
    with pytest.raises(InputError, match=r"c\.png: a colour label .*`palette: "):
        sio.read_label(path)
    with pytest.raises(InputError, match=r"c\.png: 1 colours .* palette of 3 \(got \[7, 7, 7\]\)"):
        sio.read_label(path, palette[:3])
    gray = np.where(index > 1, 3, 0)  # only colours of equal channels, all in the palette: still colours
    Image.fromarray(palette[gray]).save(path)
    assert np.array_equal(sio.read_label(path, palette), gray)
    Image.fromarray(np.repeat(index[..., None], 3, 2)).save(path)  # class numbers saved as RGB
    assert np.array_equal(sio.read_label(path, palette), index)


# ------------------------------------------------------------------ writing


def test_write_png_round_trip(tmp_path: Path) -> None:
    index = (photo(50, 31)[..., 0] // 40).astype(np.uint8)
    path = tmp_path / "a" / "嗨" / "mask.png"
    sio.write_png(path, index, voc_palette(3))
    with Image.open(path) as image:
        image.load()
        assert image.mode == "P" and np.array_equal(np.asarray(image), index)
        assert image.getpalette()[:9] == [0, 0, 0, 128, 0, 0, 0, 128, 0]
    sio.write_png(path, photo())
    assert np.array_equal(np.asarray(Image.open(path)), photo())
    sio.write_png(path, index > 1)
    assert np.array_equal(sio.read_label(path), index > 1)
    sio.write_png(path, index.astype(np.int32) + 1000)
    assert np.array_equal(sio.read_label(path), index.astype(int) + 1000)
    assert sorted(p.name for p in path.parent.iterdir()) == ["mask.png"]


def test_writing_where_one_cannot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match=r"file/a\.png: cannot be written .*choose another folder"):
        sio.write_bytes_atomic(tmp_path / "file" / "a.png", b"1")
    target = tmp_path / "kept.bin"
    sio.write_bytes_atomic(target, b"old")

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(InputError, match=r"kept\.bin: cannot be written \(No space left on device\)\. Make room there"):
        sio.write_bytes_atomic(target, b"new")
    assert target.read_bytes() == b"old" and sorted(p.name for p in tmp_path.iterdir()) == ["file", "kept.bin"]


def test_overlay() -> None:
    image = np.full((2, 3, 3), 100, np.uint8)
    mask = np.array([[0, 1, 255], [1, 0, 2]], np.uint8)
    got = sio.overlay(image, mask, np.array([[0, 0, 0], [200, 0, 0]], np.uint8))
    assert got[0, 0].tolist() == [60, 60, 60] and got[0, 1].tolist() == [140, 60, 60]
    assert got[0, 2].tolist() == got[1, 2].tolist() == [100, 100, 100]  # not in the palette: the photo


# ------------------------------------------------------------------ import


def run_python(code: str, root: Path, **variables: str) -> subprocess.CompletedProcess:
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([*variables.values(), str(root)])}
    return subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)


def test_opencv_without_a_display_library(tmp_path: Path, root: Path) -> None:
    (tmp_path / "cv2.py").write_text("raise ImportError('libGL.so.1: cannot open shared object file')")
    code = "from segkit.errors import InputError\ntry:\n import segkit.io\nexcept InputError as e:\n print(e)"
    done = run_python(code, root, fake=str(tmp_path))
    assert "libGL.so.1" in done.stdout and "pip install opencv-python-headless" in done.stdout


def test_reading_images_needs_neither_paddle_nor_pillow(tmp_path: Path, root: Path) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(encoded(Image.fromarray(photo()), "JPEG"))
    code = (
        "import sys, segkit.transforms, segkit.postprocess\nfrom segkit.io import read_image, write_png\n"
        f"write_png({str(tmp_path / 'b.png')!r}, read_image({str(path)!r})[..., 0], read_image({str(path)!r})[0])\n"
        "assert not {'paddle', 'PIL'} & set(sys.modules)"
    )
    done = run_python(code, root)
    assert done.returncode == 0, done.stderr


# ------------------------------------------------------------------ real data


def test_carrot_photos_lie_under_their_masks(shared: Path) -> None:
    """Most photos carry orientation 3 with an unchanged size: only the greenness tells the frame."""
    folder = shared / "data" / "carrot_weed_8mp"
    for path in sorted(folder.glob("images/*.jpg")):
        image, label = sio.read_image(path), sio.read_label(folder / "labels" / f"{path.stem}.png")
        assert image.shape[:2] == label.shape == sio.image_size(path)
        red, green, blue = np.moveaxis(image[::4, ::4].astype(int), 2, 0)
        excess, plants = 2 * green - red - blue, label[::4, ::4] > 0
        assert excess[plants].mean() - excess[~plants].mean() > 30, path.name


def test_every_small_data_set_is_read(shared: Path) -> None:
    data = shared / "data"
    for name, channels in (("cats8", 3), ("drive", 3), ("em_membrane", 1), ("labelme_voc3", 3), ("rs_cloud10_npy", 3)):
        images = sorted((data / name / "images").iterdir())
        assert images, name
        for path in images[:8]:
            image = sio.read_image(path, channels)
            label = sio.read_label(data / name / "labels" / f"{path.stem}.png")
            assert image.shape == (*label.shape, channels) and sio.image_size(path) == label.shape, path
            assert image.std() > 5 and label.dtype == np.uint8


def test_palette_masks_hold_the_same_classes_as_their_gray_copies(shared: Path) -> None:
    folder = shared / "data" / "cats8"
    masks = sorted((folder / "raw" / "data" / "SegmentationClassPNG").glob("*.png"))
    assert masks and {Image.open(path).mode for path in masks} == {"P"}
    for path in masks:
        assert np.array_equal(sio.read_label(path), sio.read_label(folder / "labels" / path.name)), path


def test_labelme_palette_masks_equal_its_arrays(shared: Path) -> None:
    folder = shared / "data" / "labelme_voc3" / "raw" / "data_dataset_voc"
    masks = sorted((folder / "SegmentationClass").glob("*.png"))
    assert masks
    for path in masks:
        want = np.load(folder / "SegmentationClassNpy" / f"{path.stem}.npy")  # -1: ignored
        assert np.array_equal(sio.read_label(path), want.astype(np.uint8)), path
