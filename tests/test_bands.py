"""Pictures of many bands and other number types, from the file to a trained and exported model."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from segkit import bands
from segkit import io as sio
from segkit.cli.main import main
from segkit.datasets import Dataset
from segkit.errors import InputError
from segkit.transforms import Compose
from segkit.transforms.color import Normalize
from segkit.transforms.resize import Resize

tifffile = pytest.importorskip("tifffile")
RNG = np.random.default_rng(0)

# name: (shape, type) of the file as its makers saved it, read by rasterio
REAL = {
    "images/sen1floods11_S1.tif": ((512, 512, 2), "float32"),
    "images/sen1floods11_S2.tif": ((512, 512, 13), "int16"),
    "images/spacenet_pan_u16.tif": ((900, 900), "uint16"),
    "images/spacenet_road_u16.tif": ((1300, 1300), "uint16"),
    "raw/solaris_ms1.tif": ((300, 300, 4), "float64"),
    "raw/solaris_sample_geotiff_custom_proj.tif": ((512, 512, 3), "int16"),
    "raw/solaris_sar_masked.tif": ((200, 200, 4), "float32"),
    "raw/terratorch_random_label_int64.tif": ((224, 224), "int64"),
    "raw/terratorch_s2_10band_float32_lzw.tif": ((224, 224, 10), "float32"),
}


@pytest.mark.parametrize("name", REAL)
def test_real_tiffs(name: str, shared: Path) -> None:
    path = shared / "data" / "tif16_raw" / name
    shape, kind = REAL[name]
    array = bands.decode_tiff(path.read_bytes(), str(path))
    assert (array.shape, array.dtype.name) == (shape, kind)
    count = shape[2] if len(shape) == 3 else 1
    image = sio.read_image(path, count)
    assert image.shape == (*shape[:2], count) and image.dtype == np.float32
    assert sio.image_size(path) == shape[:2]
    assert bands.tiff_facts(str(path))["shape"] == (*shape[:2], count)
    rasterio = pytest.importorskip("rasterio")
    with rasterio.open(path) as file:
        want = file.read().transpose(1, 2, 0)
    assert np.array_equal(array.reshape(want.shape), want, equal_nan=want.dtype.kind == "f")


def test_real_npy_images(shared: Path) -> None:
    folder = shared / "data" / "rs_cloud10_npy"
    paths = sorted((folder / "images").glob("*.npy"))
    assert len(paths) == 10
    for path in paths:
        image = sio.read_image(path)
        assert image.shape == (256, 256, 3) and image.dtype == np.uint8
        assert np.array_equal(image, np.load(path))
        assert sio.read_label(folder / "labels" / f"{path.stem}.png").shape == (256, 256)


def test_three_int16_bands_are_never_read_as_one(shared: Path) -> None:
    path = shared / "data" / "tif16_raw" / "raw" / "solaris_sample_geotiff_custom_proj.tif"
    image = sio.read_image(path, 3)
    assert not np.array_equal(image[..., 0], image[..., 1])
    with pytest.raises(InputError, match="got 3, expected img_channels: 4"):
        sio.read_image(path, 4)


LAYOUTS = {
    "chunky strips": {"planarconfig": "contig"},
    "planes": {"planarconfig": "separate"},
    "tiled planes": {"planarconfig": "separate", "tile": (16, 16), "compression": "deflate"},
    "tiles": {"planarconfig": "contig", "tile": (16, 16), "compression": "lzw"},
    "big": {"planarconfig": "contig", "bigtiff": True},
    "big-endian": {"planarconfig": "contig", "byteorder": ">"},
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("kind", ["uint8", "uint16", "int16", "float32", "float64"])
def test_tiff_layouts(layout: str, kind: str, tmp_path: Path) -> None:
    options = dict(LAYOUTS[layout])
    writer = {key: options.pop(key) for key in ("bigtiff", "byteorder") if key in options}
    array = (RNG.random((24, 37, 5)) * 250).astype(kind)
    stored = array.transpose(2, 0, 1) if options["planarconfig"] == "separate" else array
    path = tmp_path / "空.tif"
    with tifffile.TiffWriter(path, **writer) as file:
        file.write(stored, photometric="minisblack", **options)
    got = sio.read_image(path, 5)
    assert got.dtype == (np.uint8 if kind == "uint8" else np.float32)
    assert np.array_equal(got, array.astype(got.dtype))
    assert sio.image_size(path) == (24, 37)


def test_pages_are_bands(tmp_path: Path) -> None:
    stack = RNG.integers(0, 999, (6, 20, 30), np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", stack, photometric="minisblack")
    assert np.array_equal(sio.read_image(tmp_path / "a.tif", 6), stack.transpose(1, 2, 0).astype(np.float32))
    tifffile.imwrite(tmp_path / "b.tif", stack, imagej=True, metadata={"axes": "ZYX"})
    assert np.array_equal(sio.read_image(tmp_path / "b.tif", 6), stack.transpose(1, 2, 0).astype(np.float32))


@pytest.mark.parametrize("turn", range(1, 9))
def test_turned_tiffs(turn: int, tmp_path: Path) -> None:
    array = RNG.integers(0, 999, (4, 5, 3), np.uint16)
    tag = [(274, 3, 1, turn, True)]
    tifffile.imwrite(tmp_path / "a.tif", array, photometric="rgb", extratags=tag)
    Image.fromarray((array % 256).astype(np.uint8)).save(
        tmp_path / "b.tif", exif=(lambda exif: (exif.__setitem__(274, turn), exif)[1])(Image.Exif())
    )
    assert np.array_equal(sio.read_image(tmp_path / "a.tif") % 256, sio.read_image(tmp_path / "b.tif"))


def test_infrared_is_not_dropped_as_if_it_were_alpha(tmp_path: Path) -> None:
    array = RNG.integers(0, 255, (8, 9, 4), np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", array, photometric="rgb", extrasamples=["unspecified"])
    assert np.array_equal(sio.read_image(tmp_path / "a.tif", 4), array)
    for count in (2, 4):
        tifffile.imwrite(
            tmp_path / "b.tif", array[..., :count].astype(np.uint16), photometric="minisblack", planarconfig="contig"
        )
        with pytest.raises(InputError, match=f"got {count}, expected img_channels: 3"):
            sio.read_image(tmp_path / "b.tif")


def test_deep_pngs_keep_their_values(tmp_path: Path) -> None:
    gray = RNG.integers(0, 65535, (24, 37), np.uint16)
    Image.fromarray(gray).save(tmp_path / "gray.png")
    assert np.array_equal(sio.read_image(tmp_path / "gray.png", 1)[..., 0], gray.astype(np.float32))
    assert np.array_equal(sio.read_image(tmp_path / "gray.png", 3)[..., 2], gray.astype(np.float32))
    cv2 = sio.cv2
    rgb = RNG.integers(0, 65535, (24, 37, 3), np.uint16)
    (tmp_path / "rgb.png").write_bytes(cv2.imencode(".png", rgb[..., ::-1])[1].tobytes())
    assert np.array_equal(sio.read_image(tmp_path / "rgb.png"), rgb.astype(np.float32))


def test_npy_of_other_types_and_shapes(tmp_path: Path) -> None:
    array = RNG.random((6, 7, 12)) - 0.5
    np.save(tmp_path / "a.npy", array)
    assert np.array_equal(sio.read_image(tmp_path / "a.npy", 12), array.astype(np.float32))
    np.save(tmp_path / "a.npy", array.astype(np.complex64))
    with pytest.raises(InputError, match=r"a\.npy: not a picture \(got complex64 of shape \[6, 7, 12\]"):
        sio.read_image(tmp_path / "a.npy", 12)


def test_tiffs_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, RNG.random((64, 64, 3)), photometric="rgb", compression="deflate")
    whole = path.read_bytes()
    path.write_bytes(whole[:3000])
    with pytest.raises(InputError, match=r"a\.tif: not a readable TIFF"):
        sio.read_image(path)
    tifffile.imwrite(path, RNG.random((8, 8)).astype(np.complex64))
    with pytest.raises(InputError, match=r"a\.tif: pixels that are no plain numbers \(got complex64"):
        sio.read_image(path, 1)
    path.write_bytes(whole)
    monkeypatch.setitem(sys.modules, "tifffile", None)
    with pytest.raises(
        InputError, match=r"a\.tif: a TIFF of more than 8 bits.*needs the extra tiff.*pip install tifffile imagecodecs"
    ):
        sio.read_image(path)


def test_a_codec_that_is_missing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, RNG.random((64, 64, 3)), photometric="rgb")

    def fail(self: object, *args: object, **kwargs: object) -> None:
        raise ValueError("<COMPRESSION.LZW: 5> requires the 'imagecodecs' package")

    monkeypatch.setattr(tifffile.TiffPageSeries, "asarray", fail)
    with pytest.raises(
        InputError, match=r"a\.tif: its compression needs imagecodecs.*pip install tifffile imagecodecs"
    ):
        sio.read_image(path)


def test_one_row_is_no_picture(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no picture of rows and columns \(got the axes Q\)"):
        bands._bands_last(np.zeros(3), "Q", "a.tif")


def test_integer_labels_of_tiffs(shared: Path) -> None:
    folder = shared / "data" / "tif16_raw" / "raw"
    label = sio.read_label(folder / "sen1floods11_Spain_7370579_LabelHand.tif")
    assert sorted(np.unique(label)) == [-1, 0, 1]
    assert set(np.unique(sio.read_label(folder / "terratorch_random_label_int64.tif"))) == {0, 1}


def test_missing_pixels_get_the_mean_of_the_others() -> None:
    image = np.full((4, 5, 2), 10, np.int16).astype(np.float32)
    image[0, 0], image[1, 1] = -9999, (-9999, 4)
    filled, missing = bands.fill_missing(image, -9999)
    assert missing.sum() == 1 and missing[0, 0] and filled[1, 1, 0] == -9999
    assert np.allclose(filled[0, 0], image.reshape(-1, 2)[1:].mean(0)) and image[0, 0, 0] == -9999
    image[2, 2, 0] = np.nan
    filled, missing = bands.fill_missing(image)
    assert missing.sum() == 1 and missing[2, 2] and np.isfinite(filled).all()
    assert bands.fill_missing(np.zeros((2, 2, 1), np.uint8), -9999)[1] is None
    black, missing = bands.fill_missing(np.zeros((2, 2, 1), np.uint8), 0)
    assert missing.all() and not black.any()


def test_many_bands_through_the_transforms() -> None:
    image = RNG.random((30, 40, 13)).astype(np.float32) * 3000
    mean, std = image.mean((0, 1)) / 255, image.std((0, 1)) / 255
    sample = {"image": image, "path": "a", "geometry": []}
    done = Compose([Normalize(mean.tolist(), std.tolist())])(sample, RNG)["image"]
    assert np.allclose(done.mean((0, 1)), 0, atol=1e-3) and np.allclose(done.std((0, 1)), 1, atol=1e-3)
    for interp in ("NEAREST", "LINEAR", "CUBIC", "AREA", "LANCZOS4"):
        small = Compose([Resize([20, 15], interp=interp)])(sample, RNG)["image"]
        first = Compose([Resize([20, 15], interp=interp)])({**sample, "image": image[..., 9:12]}, RNG)["image"]
        assert small.shape == (15, 20, 13) and np.allclose(small[..., 9:12], first, rtol=1e-4), interp


@pytest.fixture
def scenes(tmp_path: Path) -> Path:
    """Six georeferenced 13-band int16 pictures; the bands of class 1 are brighter, a corner has no data."""
    rasterio = pytest.importorskip("rasterio")
    lines = []
    for number in range(6):
        label = np.zeros((32, 40), np.uint8)
        label[4 + number : 20 + number, 8:26] = 200
        array = RNG.integers(200, 900, (13, 32, 40)).astype(np.int16) + np.int16(1500) * (label > 0).astype(np.int16)
        array[:, :3, :3] = -9999
        place = rasterio.transform.from_origin(500000 + 400 * number, 4600000, 10, 10)
        (tmp_path / "images").mkdir(exist_ok=True)
        with rasterio.open(
            tmp_path / "images" / f"{number}.tif", "w", driver="GTiff", count=13, height=32, width=40, dtype="int16",
            crs="EPSG:32633", transform=place, interleave="band", compress="deflate",
        ) as file:  # fmt: skip
            file.write(array)
        sio.write_png(tmp_path / "labels" / f"{number}.png", label)
        lines.append(f"images/{number}.tif labels/{number}.png\n")
    (tmp_path / "train.txt").write_text("".join(lines[:4]))
    (tmp_path / "val.txt").write_text("".join(lines[4:]))
    normalize = {"type": "Normalize", "mean": [5.0] * 13, "std": [3.0] * 13}
    node = {"type": "Dataset", "dataset_root": str(tmp_path), "num_classes": 2}
    config = {
        "batch_size": 2,
        "iters": 30,
        "train_dataset": {
            **node,
            "img_channels": 13,
            "label_map": {200: 1},
            "nodata": -9999,
            "transforms": [{"type": "RandomPaddingCrop", "crop_size": [32, 32]}, normalize],
        },
        "val_dataset": {**node, "transforms": [normalize]},
        "model": {"type": "UNet", "base_channels": 4},
        "optimizer": {"type": "Adam"},
        "lr_scheduler": {"type": "PolynomialDecay", "learning_rate": 0.02, "power": 0.9, "end_lr": 0},
        "loss": {"types": [{"type": "CrossEntropyLoss"}], "coef": [1]},
    }
    path = tmp_path / "c.yml"
    path.write_text(yaml.safe_dump(config, sort_keys=False))
    return path


def test_a_model_of_13_bands(scenes: Path, tmp_path: Path) -> None:
    """Trains, evaluates (label_map and nodata hold there too), predicts with coordinates, exports and infers."""
    import json

    rasterio = pytest.importorskip("rasterio")
    out = tmp_path / "out"
    assert main(["train", "--config", str(scenes), "--save_dir", str(out), "--do_eval", "--save_interval", "30"]) == 0
    best = str(out / "best_model")
    assert main(["val", "--model_path", best, "--save_dir", str(tmp_path / "val")]) == 0
    metrics = json.loads((tmp_path / "val" / "metrics.json").read_text())
    assert metrics["mIoU"] > 0.8
    counted = np.array(metrics["confusion_matrix"])
    assert counted.sum() == 2 * (32 * 40 - 9)  # the corner without data counts for nothing
    assert counted[1].sum() == 2 * 16 * 18
    photo = tmp_path / "images" / "5.tif"
    assert main(["predict", "--model_path", best, "--image_path", str(photo), "--save_dir", str(tmp_path / "p")]) == 0
    mask = sio.read_label(tmp_path / "p" / "mask" / "5.png")
    with rasterio.open(tmp_path / "p" / "mask" / "5.tif") as got, rasterio.open(photo) as want:
        assert np.array_equal(got.read(1), mask)
        assert got.crs == want.crs and got.transform == want.transform
    assert sio.read_image(tmp_path / "p" / "added_prediction" / "5.png").shape == (32, 40, 3)
    exported = tmp_path / "exported"
    assert main(["export", "--model_path", best, "--save_dir", str(exported)]) == 0
    argv = ["--config", str(exported / "deploy.yaml"), "--image_path", str(photo), "--save_dir", str(tmp_path / "i")]
    assert main(["infer", *argv, "--device", "cpu"]) == 0
    assert np.array_equal(sio.read_label(tmp_path / "i" / "5.png"), mask)


def test_coordinates_need_rasterio(
    scenes: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from segkit.deploy.geo import write_georeferenced

    photo, mask = str(scenes.parent / "images" / "0.tif"), np.zeros((32, 40), np.uint8)
    target = scenes.parent / "m.tif"
    assert not write_georeferenced(target, mask, str(scenes))
    monkeypatch.setitem(sys.modules, "rasterio", None)
    caplog.set_level("WARNING", "segkit")
    assert not write_georeferenced(target, mask, photo) and not target.exists()


def sample(root: Path, label: np.ndarray, **arguments: object) -> dict:
    sio.write_png(root / "a.png", np.zeros((*label.shape, 3), np.uint8))
    np.save(root / "b.npy", label)
    (root / "train.txt").write_text("a.png b.npy\n")
    (root / "val.txt").write_text("a.png b.npy\n")
    return Dataset(None, str(root), **{"num_classes": 3, **arguments}).get(0, RNG)


@pytest.mark.parametrize("mode", ["train", "val"])
def test_labels_are_mapped_as_they_are_read(tmp_path: Path, mode: str) -> None:
    label = np.array([[0, 1, 2], [255, 7, 3]], np.uint8)
    got = sample(tmp_path, label, mode=mode, label_map={255: 1, 7: 255, 1: 0, 3: 2})["label"]
    assert got.tolist() == [[0, 0, 2], [1, 255, 2]] and got.dtype == np.uint8
    got = sample(tmp_path, label, mode=mode, label_map={7: 255}, reduce_zero_label=True)["label"]
    assert got.tolist() == [[255, 0, 1], [255, 255, 2]]
    wide = np.array([[-1, 500, 1]], np.int16)
    got = sample(tmp_path, wide, mode=mode, label_map={-1: 255, 500: 3}, reduce_zero_label=True)["label"]
    assert got.tolist() == [[255, 2, 0]] and got.dtype == np.uint8


@pytest.mark.parametrize("given", [{255: 9}, {"a": 1}, {1: True}])
def test_a_label_map_that_cannot_be(tmp_path: Path, given: dict) -> None:
    with pytest.raises(
        InputError, match=r"label_map: got .*expected \{value in the file: class\}, where a class is 0\.\.2"
    ):
        sample(tmp_path, np.zeros((2, 2), np.uint8), label_map=given)


def test_val_inherits_the_map(scenes: Path) -> None:
    from segkit import build
    from segkit.config import Config

    val = build.build_dataset(Config(scenes), "val")
    assert val.label_map == {200: 1} and val.nodata == -9999
    got = val.get(0, RNG)["label"]
    assert set(np.unique(got)) == {0, 1, 255} and (got[:3, :3] == 255).all() and (got == 255).sum() == 9


def test_photos_that_lie_on_their_head_are_turned_with_their_masks(shared: Path) -> None:
    """carrot_weed_8mp: plants are green, so inside the masks it must be greener than outside."""
    root = shared / "data" / "carrot_weed_8mp"
    data = Dataset(None, str(root), num_classes=3)
    every = data.files + Dataset(None, str(root), num_classes=3, mode="val").files
    assert len(every) >= 4
    for image_path, label_path in every:
        image = sio.read_image(image_path)[::8, ::8].astype(int)
        inside = sio.read_label(label_path)[::8, ::8] > 0
        green = 2 * image[..., 1] - image[..., 0] - image[..., 2]
        assert green[inside].mean() > green[~inside].mean() + 20, image_path
