"""segkit init: a folder of photos and labels becomes a config that trains, and says why it is as it is."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from segkit import runtime
from segkit.cli import main as cli
from segkit.config import Config
from segkit.data.convert import ConvertOptions
from segkit.data.facts import Facts
from segkit.data.init import init
from segkit.data.recipe import OUTPUTS, Device, choose, config_text
from segkit.data.split import Sample
from segkit.data.thickness import thickness
from segkit.errors import InputError
from tests.tiny import make_data

CPU, GPU = Device(False, 2, 0.0, avx512=True), Device(True, 16, 24.0)


def facts(
    size: tuple[int, int], shares: list[float], photos: int = 100, bands: int = 3, thick: float = np.nan
) -> Facts:
    """Of photos of one size whose classes cover these shares; `thick`: of class 1, in pixels."""
    pixels = np.zeros(256, np.int64)
    pixels[: len(shares)] = np.array(shares) * size[0] * size[1]
    moments = None if bands == 3 else np.array([[255.0] * bands, [2 * 255.0**2] * bands])
    samples = [Sample(f"{k}.png", f"{k}.png", pixels, size, bands=bands, moments=moments) for k in range(photos)]
    parts = ["train"] * (photos - photos // 5) + ["val"] * (photos // 5)
    made = Facts.of(Path("d"), [f"c{k}" for k in range(len(shares))], samples, parts)
    made.thickness = np.array([np.nan, thick / max(size)] + [np.nan] * (len(shares) - 2))
    return made


def test_init_and_train_from_any_folder(tmp_path: Path, monkeypatch, capsys) -> None:
    """The shortest way to a model; `train` takes the config as it stands."""
    data = make_data(tmp_path / "photos", train=6, val=2)
    for part in ("train.txt", "val.txt"):
        (data / part).unlink()
    monkeypatch.chdir(tmp_path)
    assert cli.main(["init", "photos"]) == 0
    text = (data / "segkit.yml").read_text(encoding="utf-8")
    assert "# Photos: train 6, val 2." in text and "# U-Net of 16 channels" in text
    assert (data / "classes.txt").read_text() == "background\nclass 1\n"
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    argv = ["train", "../photos/segkit.yml", "--iters", "1", "--num_workers", "0", "--device", "cpu", "--save_dir", "o"]
    assert cli.main([*argv, "--opts", "train_dataset.transforms.2.crop_size=[32,32]"]) == 0
    assert Path("o/iter_1/model.pdparams").is_file()
    assert cli.main(["train", "a.yml", "--config", "b.yml"]) == 2
    assert "two configs: a.yml and --config b.yml. Give one of them" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["cats8", "neu_seg", "drive", "em_membrane"])
def test_real_sets(name: str, shared: Path, tmp_path: Path) -> None:
    folder = tmp_path / name
    folder.mkdir()
    for part in ("images", "labels", "train.txt", "val.txt"):
        (folder / part).symlink_to((shared / "data" / name / part).resolve())
    made = init(str(folder), device=CPU)
    cfg = Config(made.config)
    assert cfg.data["train_dataset"]["num_classes"] == len(made.facts.class_names)
    assert made.facts.photos["train"] == len((folder / "train.txt").read_text().split("\n")) - 1
    assert not (folder / "segkit_data").exists()


def test_labels_elsewhere_are_converted(tmp_path: Path) -> None:
    data = make_data(tmp_path / "d", train=4, val=2)
    for path in (data / "labels").iterdir():
        Image.fromarray(np.array(Image.open(path)) * 255).save(path)
    shutil.move(data / "labels", tmp_path / "masks")
    made = init(str(data / "images"), labels=str(tmp_path / "masks"), device=CPU)
    assert made.data == data / "images" / "segkit_data" and made.facts.class_names == ["background", "foreground"]
    assert Config(made.config).data["train_dataset"]["dataset_root"] == "images/segkit_data"


def test_again_with_overwrite(tmp_path: Path) -> None:
    """What the first run made is no source of the second; a link back to the folder does no harm."""
    data = make_data(tmp_path / "d", train=4, val=2)
    for path in (data / "labels").iterdir():
        Image.fromarray(np.array(Image.open(path)) * 255).save(path)
    for part in ("train.txt", "val.txt"):
        (data / part).unlink()
    (data / "images" / "back").symlink_to(data)
    for _ in range(2):
        made = init(str(data), options=ConvertOptions(overwrite=True), device=CPU)
        assert sum(made.facts.photos.values()) == 6
    assert (data / "segkit_data.previous_1" / "train.txt").is_file()


def test_a_list_of_train_alone_is_kept_aside(tmp_path: Path) -> None:
    data = make_data(tmp_path / "d", train=8, val=1)
    before = (data / "train.txt").read_bytes()
    (data / "val.txt").unlink()
    made = init(str(data), device=CPU)
    assert (data / "previous_lists_1" / "train.txt").read_bytes() == before
    assert made.facts.photos == {"train": 6, "val": 2, "test": 0}


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    data = make_data(tmp_path / "d", train=4, val=2)
    before = (data / "train.txt").read_bytes()
    init(str(data), device=CPU)
    assert (data / "train.txt").read_bytes() == before
    with pytest.raises(InputError, match=r"segkit\.yml: it exists already, and is not overwritten\. Use it"):
        init(str(data), device=CPU)
    with pytest.raises(InputError, match=r"gone: no such folder\. Give the folder that holds your photos and labels"):
        init(str(tmp_path / "gone"))


def test_recipes_follow_the_data() -> None:
    small, large = choose(facts((200, 200), [0.5, 0.5]), CPU), choose(facts((3000, 4000), [0.5, 0.5]), CPU)
    assert (small.long, small.crop, small.weights) == (0, (192, 192), [])
    assert large.long == 320 and large.crop == (256, 224) and not large.slide
    tiny = choose(facts((3000, 4000), [0.9999, 0.0001]), CPU)
    assert tiny.long > 1000 and tiny.weights[1] > tiny.weights[0]
    assert choose(facts((3000, 4000), [1 - 2e-6, 2e-6]), CPU).long == 2048
    gpu = choose(facts((3000, 4000), [0.5, 0.5], 4000), GPU)
    assert gpu.long == 1024 and gpu.crop == (512, 512) and gpu.channels == 32 and 2 <= gpu.batch <= 16
    assert choose(facts((200, 200), [0.5, 0.5], 5), CPU).iters < choose(facts((200, 200), [0.5, 0.5], 500), CPU).iters


@pytest.mark.parametrize("bands", [1, 3, 12])
@pytest.mark.parametrize("shares", [[0.5, 0.5], [0.989, 0.01, 0.001]])
def test_the_text_is_a_config_that_checks(bands: int, shares: list[float], tmp_path: Path) -> None:
    data = facts((3000, 4000), shares, 30, bands)
    path = tmp_path / "segkit.yml"
    path.write_text(config_text(data, choose(data, CPU), 'a "b": c'), encoding="utf-8")
    cfg = Config(path)
    assert cfg.data["train_dataset"]["dataset_root"] == 'a "b": c'
    assert yaml.safe_load(path.read_text(encoding="utf-8"))["model"].get("in_channels", 3) == bands
    assert bands == 3 or cfg.data["val_dataset"]["transforms"][-1] == {
        "type": "Normalize", "mean": [1.0] * bands, "std": [1.0] * bands}  # fmt: skip


def test_bands(shared: Path, tmp_path: Path, logged) -> None:
    pytest.importorskip("tifffile")
    source = shared / "data" / "tif16_raw"
    for part in ("images", "labels"):
        (tmp_path / "s" / part).mkdir(parents=True)
        for name in ("a", "b"):
            file = next((source / part).glob("sen1floods11_S2.*"))
            shutil.copy(file, tmp_path / "s" / part / f"{name}{file.suffix}")
    init(str(tmp_path / "s"), device=CPU)  # one picture twice
    assert "near-identical photos are in two parts, so that scores look better than they are" in "\n".join(logged)
    (tmp_path / "s" / "segkit.yml").unlink()
    for name, line in (("train", "images/a.tif labels/a.png\n"), ("val", "images/b.tif labels/b.png\n")):
        (tmp_path / "s" / f"{name}.txt").write_text(line)
    node = Config(init(str(tmp_path / "s"), device=CPU).config).data
    assert node["train_dataset"]["img_channels"] == node["model"]["in_channels"] == 13
    assert len(node["train_dataset"]["transforms"][-1]["mean"]) == 13
    shutil.copy(source / "images" / "spacenet_pan_u16.tif", tmp_path / "s" / "images" / "c.tif")
    shutil.copy(source / "labels" / "spacenet_pan_u16.png", tmp_path / "s" / "labels" / "c.png")
    with (tmp_path / "s" / "train.txt").open("a") as file:
        file.write("images/c.tif labels/c.png\n")
    with pytest.raises(
        InputError, match=r"photos of different numbers of bands \(2 of 13, 1 of 1; images/c\.tif differ"
    ):
        init(str(tmp_path / "s"), options=ConvertOptions(overwrite=True), device=CPU)


def test_what_the_doctor_finds_is_said(tmp_path: Path) -> None:
    data = make_data(tmp_path / "d", train=4, val=2)
    (data / "classes.txt").write_text("ground\nsquare\n", encoding="utf-8")
    Image.fromarray(np.full((24, 32), 7, np.uint8)).save(data / "labels" / "001.png")
    with pytest.raises(InputError, match=r"(?s)segkit\.yml is written, but training would fail or be wrong.*001\.png"):
        init(str(data), device=CPU)


def test_an_old_config_is_kept(tmp_path: Path, capsys) -> None:
    data = make_data(tmp_path / "d", train=4, val=2)
    (data / "segkit.yml").write_text("mine: 1")
    for _ in range(2):
        assert cli.main(["init", str(data), "--overwrite", "--json"]) == 0
    said = capsys.readouterr()
    assert (data / "segkit.yml.previous_1").read_text() == "mine: 1"
    assert (data / "segkit.yml.previous_2").read_text() == (data / "segkit.yml").read_text()
    assert "the old one is now" in said.err and '"config"' in said.out


def test_a_refusal_writes_nothing(tmp_path: Path) -> None:
    data = make_data(tmp_path / "d", train=3, val=1)
    for part in ("train.txt", "val.txt"):
        (data / part).unlink()
    first = sorted((data / "images").iterdir())[0]
    np.save(first.with_suffix(".npy"), np.zeros((*np.array(Image.open(first)).shape[:2], 5), np.uint8))
    first.unlink()
    before = sorted(data.rglob("*"))
    with pytest.raises(InputError, match="photos of different numbers of bands"):
        init(str(data), device=CPU)
    assert sorted(data.rglob("*")) == before


def test_what_is_in_the_way_of_a_conversion_is_told_in_terms_of_init(tmp_path: Path) -> None:
    data = make_data(tmp_path / "d", train=3, val=1)
    with pytest.raises(InputError, match=r"--labels .*gone: no such folder or file\. Mend the path"):
        init(str(data), str(tmp_path / "gone"), device=CPU)
    (data / "segkit_data").mkdir()
    with pytest.raises(InputError, match=r"segkit_data: it was converted before, and is not overwritten\. Train with"):
        init(str(data), str(data / "labels"), device=CPU)


def test_warnings_name_what_they_are_about(tmp_path: Path, logged) -> None:
    data = make_data(tmp_path / "d", train=4, val=2)
    (data / "classes.txt").write_text("background\nthing\nghost\n")
    init(str(data), device=CPU)
    assert "classes that occur nowhere: 1 of 3 (2 ghost). Mend num_classes" in "\n".join(logged)


def test_a_bad_line_in_a_list_does_not_lose_the_list(tmp_path: Path) -> None:
    """The other lines were left out with it, and init went on with the photos of val.txt alone."""
    data = make_data(tmp_path / "d", train=4, val=2)
    with open(data / "train.txt", "a", encoding="utf-8") as file:
        file.write("images/extra.png\n")
    before = (data / "train.txt").read_bytes()
    with pytest.raises(InputError, match=r"train\.txt:5: only 1 field .*images/extra\.png"):
        init(str(data), device=CPU)
    assert (data / "train.txt").read_bytes() == before and not (data / "segkit.yml").exists()


def test_the_command_to_go_on_with_can_be_pasted(tmp_path: Path, monkeypatch, capsys) -> None:
    make_data(tmp_path / "my photos", train=4, val=2)
    monkeypatch.chdir(tmp_path)
    assert cli.main(["init", "my photos"]) == 0
    assert "segkit train 'my photos/segkit.yml' --do_eval" in capsys.readouterr().err
    assert cli.main(["data", "convert", "my photos", "--to", "o o"]) == 0
    assert "segkit train 'o o/segkit.yml' --do_eval" in capsys.readouterr().err


def test_the_printed_time_is_of_training_alone() -> None:
    one = choose(facts((64, 64), [0.5, 0.5], 2), CPU).why["iters"]
    assert one == "about 1 minute of training on 2 CPU cores, evaluations on top; 1200 passes over 2 photos"
    assert (
        "minutes of training on 2 CPU cores, evaluations on top; "
        in choose(facts((900, 900), [0.5, 0.5]), CPU).why["iters"]
    )


def test_the_printed_time_minds_what_the_cpu_can_do(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without AVX-512 the same training takes three times as long, and where it would take too long there is less of it."""

    def minutes(wide: bool, size: tuple[int, int]) -> tuple[int, int]:
        monkeypatch.setattr(runtime, "cpu_facts", lambda: {"flags": "fpu avx2 avx512f" if wide else "fpu avx2"})
        monkeypatch.setattr(runtime, "physical_cores", lambda: 2)
        made = choose(facts(size, [0.5, 0.5], 8), Device.here())
        return int(re.match(r"about (\d+) minutes? of", made.why["iters"])[1]), made.iters

    (wide, same), (narrow, iters) = (minutes(wide, (128, 128)) for wide in (True, False))
    assert iters == same and 2 * wide <= narrow <= 4 * wide
    (_, many), (narrow, few) = (minutes(wide, (620, 640)) for wide in (True, False))
    assert few < many and 5 <= narrow <= 8


def test_a_small_crop_is_not_called_most_of_a_photo() -> None:
    assert choose(facts((1024, 2048), [0.9999, 0.0001]), CPU).why["crop"].startswith("a window of 3% of a photo, in")
    assert choose(facts((600, 800), [0.5, 0.5]), CPU).why["crop"].startswith("most of a photo, in")


@pytest.mark.parametrize("width", [1, 2, 3, 5, 8, 15, 30])
@pytest.mark.parametrize("turn", [0, 20, 45, 90])
def test_thickness_of_drawn_lines(width: int, turn: int) -> None:
    """Independent of `cv2`: pixels at most half the width from a line through the middle."""
    y, x = np.mgrid[:200, :200] - 100.2
    angle = np.deg2rad(turn)
    line = np.abs(y * np.cos(angle) - x * np.sin(angle)) <= width / 2
    specks = np.zeros_like(line)
    specks[::40, ::40] = True
    assert abs(thickness(line) - max(width, 2)) <= 1 + 0.16 * width
    assert thickness(line | specks) <= thickness(line)
    assert thickness(line.T) == pytest.approx(thickness(line), abs=1)


def test_thickness_of_blobs() -> None:
    y, x = np.mgrid[:300, :300]
    for radius in (10, 40):
        disk = (y - 150) ** 2 + (x - 150) ** 2 <= radius**2
        assert 1.6 * radius <= thickness(disk) <= 2.2 * radius
        assert thickness(disk | ((y == 3) & (x < 60))) == pytest.approx(
            thickness(disk), rel=0.5
        )  # a scratch is no blob
    assert thickness(np.ones((40, 50), bool)) > 100 and thickness(x < 4) > 4  # cut by the border: goes on beyond it


def lines_or_blobs(folder: Path, lines: bool) -> Path:
    """Photos of 600x500 with class 1 on the same share of the pixels, as lines of 3 pixels or as one square."""
    data = make_data(folder, train=4, val=2, size=(500, 600))
    for path in (data / "labels").iterdir():
        label = np.zeros((500, 600), np.uint8)
        if lines:
            for top in range(20, 480, 40):
                label[top : top + 3] = 1
        else:
            label[100:247, 100:247] = 1
        Image.fromarray(label).save(path)
    return data


def test_thin_lines_keep_their_resolution(tmp_path: Path) -> None:
    thin = init(str(lines_or_blobs(tmp_path / "thin", True)), device=CPU)
    thick = init(str(lines_or_blobs(tmp_path / "thick", False)), device=CPU)
    assert thin.facts.shares[1] == pytest.approx(thick.facts.shares[1], rel=0.01)
    assert (thin.recipe.long, thick.recipe.long) == (0, 320)
    assert "'class 1' is typically 3 pixels thick, and shrinking would make it vanish" in thin.config.read_text()
    some = choose(facts((1500, 2000), [0.5, 0.5], thick=12), CPU)
    assert some.long == 672 and "no further, as 'c1' is typically 12 pixels thick" in some.why["size"]


def test_thin_lines_of_converted_labels(tmp_path: Path) -> None:
    data = lines_or_blobs(tmp_path / "d", True)
    made = init(str(data / "images"), labels=str(data / "labels"), device=CPU)
    assert made.data.name == "segkit_data" and made.recipe.long == 0


@pytest.mark.parametrize("name", ["drive", "em_membrane"])
def test_real_thin_sets_are_not_shrunk(name: str, shared: Path, tmp_path: Path) -> None:
    folder = tmp_path / name
    folder.mkdir()
    for part in ("images", "labels", "train.txt", "val.txt"):
        (folder / part).symlink_to((shared / "data" / name / part).resolve())
    made = init(str(folder), device=CPU)
    assert made.recipe.long == 0 and made.recipe.model == "UNet"


@pytest.mark.parametrize(
    "size, photos, thick, device, model, why",
    [
        ((1024, 2048), 1000, 400, CPU, "BiSeNetV2", "800 photos are enough to train it from scratch"),
        ((1024, 2048), 1000, 400, GPU, "PPLiteSeg", "800 photos are enough to train it from scratch"),
        ((1024, 2048), 100, 400, GPU, "UNet", "learns from few photos"),
        ((200, 200), 1000, 100, GPU, "UNet", "photos are small"),
        ((1024, 2048), 1000, 20, GPU, "UNet", "'c1' is about 10 pixels thick, and it decides at full resolution"),
        ((1024, 2048), 1000, np.nan, CPU, "UNet", "objects may be thin"),
    ],
)
def test_the_model_follows_the_data(size, photos, thick, device, model, why) -> None:
    recipe = choose(facts(size, [0.5, 0.5], photos, thick=thick), device)
    assert recipe.model == model and why in recipe.why["model"]


@pytest.mark.parametrize("device", [CPU, GPU])
@pytest.mark.parametrize("bands", [3, 4])
def test_a_fast_model_takes_a_step(device: Device, bands: int, tmp_path: Path) -> None:
    data = facts((1024, 2048), [0.9, 0.1], 1000, bands, thick=400)
    recipe = choose(data, device)
    root = make_data(tmp_path / "d", train=4, val=2, size=(64, 96))
    for path in (root / "images").iterdir() if bands == 4 else ():
        np.save(path.with_suffix(".npy"), np.dstack([np.array(Image.open(path)), np.zeros((64, 96), np.uint8)]))
    for part in ("train.txt", "val.txt") if bands == 4 else ():
        text = (root / part).read_text()
        (root / part).write_text(re.sub(r"(images/\d+)\.png", r"\1.npy", text))
    config = tmp_path / "segkit.yml"
    text = config_text(data, recipe, str(root))
    config.write_text(
        text.replace(str(list(recipe.crop)), "[64, 64]").replace(f"long_size: {recipe.long}", "long_size: 96")
    )
    said = f"{recipe.model} has {OUTPUTS[recipe.model]} scores in training"
    assert said in text and Config(config).data["loss"]["coef"] == [1] * OUTPUTS[recipe.model]
    argv = ["train", str(config), "--iters", "1", "--batch_size", "2", "--num_workers", "0", "--device", "cpu"]
    assert cli.main([*argv, "--save_dir", str(tmp_path / "o")]) == 0
    assert (tmp_path / "o" / "iter_1" / "model.pdparams").is_file()
