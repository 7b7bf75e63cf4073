"""val: the scores of the very masks that predict writes."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys

import numpy as np
import paddle
import pytest
from PIL import Image
from sklearn.metrics import confusion_matrix, roc_auc_score

from segkit import Config, build, io, log
from segkit.engine.evaluate import evaluate, predict_sample
from segkit.engine.segmenter import load, load_model
from segkit.errors import InputError
from segkit.options import EvalOptions
from tests.tiny_model import PLAIN, make_all, make_config, make_data, make_weights, photo, run


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return make_all(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def exported(tiny):
    """The same model exported."""
    assert run("export", "--model_path", tiny, "--save_dir", tiny.parent / "exported") == 0
    return tiny.parent / "exported"


def pairs(folder, masks):
    """(label, mask) of every photo as flat arrays, ignored pixels left out."""
    for path in sorted((folder / "labels").iterdir()):
        label, mask = np.asarray(Image.open(path)), np.asarray(Image.open(masks / path.name))
        yield label[label != 255], mask[label != 255]


@pytest.mark.parametrize("flags", [(), ("--is_slide", "--crop_size", "32", "24"), "aug"])
def test_val_scores_what_predict_writes(tiny, tmp_path, flags):
    extra = ("--scales", "0.5", "1.0", "--flip_horizontal")
    val_flags = ("--aug_eval", *extra) if flags == "aug" else flags
    predict_flags = ("--aug_pred", *extra) if flags == "aug" else flags
    assert run("val", "--model_path", tiny, "--save_dir", tmp_path, *val_flags) == 0
    images = tiny.parent / "data" / "images"
    assert run("predict", "--model_path", tiny, "--image_path", images, "--save_dir", tmp_path, *predict_flags) == 0
    labels, masks = map(np.concatenate, zip(*pairs(tiny.parent / "data", tmp_path / "mask")))
    found = json.loads((tmp_path / "metrics.json").read_text())
    expected = confusion_matrix(labels, masks, labels=range(3))
    np.testing.assert_array_equal(found["confusion_matrix"], expected)
    iou = np.diag(expected) / (expected.sum(0) + expected.sum(1) - np.diag(expected))
    np.testing.assert_allclose(found["class_iou"], iou)
    assert found["mIoU"] == pytest.approx(iou.mean())
    assert found["num_images"] == 3
    assert set(found) >= {"Acc", "Kappa", "mDice", "class_names", "class_precision", "class_recall", "class_dice"}


def test_photos_of_their_own_size(tiny, tmp_path):
    """No resizing: classes are decided on the device, and are those of predict."""
    opts = ("--opts", f"val_dataset.transforms={json.dumps(PLAIN)}")
    assert run("val", "--model_path", tiny, "--save_dir", tmp_path, *opts) == 0
    images = tiny.parent / "data" / "images"
    assert run("predict", "--model_path", tiny, "--image_path", images, "--save_dir", tmp_path, *opts) == 0
    labels, masks = map(np.concatenate, zip(*pairs(tiny.parent / "data", tmp_path / "mask")))
    found = json.loads((tmp_path / "metrics.json").read_text())
    np.testing.assert_array_equal(found["confusion_matrix"], confusion_matrix(labels, masks, labels=range(3)))


class Flat(paddle.nn.Layer):
    """Class 1 where the photo is bright; remembers the shapes it was given."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def forward(self, x):
        self.seen.append(tuple(x.shape))
        bright = x.mean(axis=1, keepdim=True)
        return [paddle.concat([-bright, bright], axis=1)]


class Photos:
    """Photos of these sizes, as a data set; those of `wrong` have a label value that is no class."""

    num_classes, ignore_index, class_names, mode, dataset_root = 2, 255, ["dark", "bright"], "val", "photos"

    def __init__(self, sizes, wrong=()):
        self.sizes, self.wrong = sizes, wrong

    def __len__(self):
        return len(self.sizes)

    def get(self, index, rng):
        size = self.sizes[index]
        image = np.random.default_rng(index).standard_normal((*size, 3)).astype(np.float32)
        label = np.random.default_rng(100 + index).integers(0, 2, size).astype(np.uint8)
        if index in self.wrong:
            label[0, 0] = 7
        return {"image": image, "label": label, "geometry": [], "path": f"photo {index}"}


def test_neighbours_of_one_size_go_together():
    dataset = Photos([(20, 30)] * 3 + [(30, 20), (20, 30)] + [(1024, 700)] * 2)
    model = Flat()
    found = evaluate(model, dataset)
    assert model.seen == [(3, 3, 20, 30), (1, 3, 30, 20), (1, 3, 20, 30), (1, 3, 1024, 700), (1, 3, 1024, 700)]
    samples = [dataset.get(index, None) for index in range(len(dataset))]
    masks = [(sample["image"].mean(axis=2) > 0).ravel() for sample in samples]
    labels = [sample["label"].ravel() for sample in samples]
    expected = confusion_matrix(np.concatenate(labels), np.concatenate(masks))
    np.testing.assert_array_equal(found["confusion_matrix"], expected)
    assert found["num_images"] == len(dataset)
    model.seen.clear()
    assert evaluate(model, dataset, EvalOptions(aug_eval=True, flip_horizontal=True))["num_images"] == len(dataset)
    assert {shape[0] for shape in model.seen} == {1}


def test_the_first_bad_label_is_named():
    with pytest.raises(InputError, match=r"photo 2: label: values outside the classes \(got 7, expected 0 to 1\)"):
        evaluate(Flat(), Photos([(20, 30)] * 9, wrong=(2, 3, 8)))


def test_log_lines(tiny, capsys):
    assert run("val", "--model_path", tiny) == 0
    said = capsys.readouterr().err
    assert "[EVAL] #Images: 3 mIoU: 0." in said
    line = next(row for row in said.splitlines() if "#Images" in row)
    names = [word for word in line.split("[EVAL]")[1].split() if word.endswith(":")]
    assert names == ["#Images:", "mIoU:", "Acc:", "Kappa:", "Dice:"]
    assert "| class" in said and "Precision" in said and "Recall" in said
    assert "\r" not in said


def test_absent_classes_are_named(tmp_path, capsys):
    make_data(tmp_path / "data", classes=2)
    node = {"type": "UNet", "base_channels": 4, "num_classes": 5}
    config = make_config(tmp_path, model=node, num_classes=5, class_names=["sky", "sea", "ship", "gull", "rock"])
    cfg = Config(config)
    model = build.build_model(cfg)
    head = [layer for layer in model.sublayers() if isinstance(layer, paddle.nn.Conv2D)][-1]
    head.bias.set_value(np.array([9, 0, 0, -99, -99], "float32"))
    log.setup()
    found = evaluate(model, build.build_dataset(cfg, "val"))
    assert {"gull", "rock"} <= set(found["absent_classes"])
    assert found["class_iou"][3] is None
    assert "neither labelled nor predicted, left out of the means:" in capsys.readouterr().err


def test_area_under_the_curve(tiny, tmp_path):
    assert run("val", "--model_path", tiny, "--save_dir", tmp_path, "--auc_roc") == 0
    found = json.loads((tmp_path / "metrics.json").read_text())
    seg, data = load(tiny), tiny.parent / "data"
    truth, scores = [], []
    for path in sorted((data / "labels").iterdir()):
        label = np.asarray(Image.open(path))
        truth.append(label[label != 255])
        scores.append(seg.predict_proba(data / "images" / path.name)[:, label != 255])
    expected = roc_auc_score(np.concatenate(truth), np.concatenate(scores, 1).T, multi_class="ovr")
    assert found["auc_roc"] == pytest.approx(expected, abs=2e-3)


def test_mode_is_put_back_and_masks_are_repeatable(tiny):
    cfg = Config.from_model_path(tiny)
    model, dataset = load_model(cfg, tiny), build.build_dataset(cfg, "val")
    model.train()
    first = evaluate(model, dataset)
    assert model.training
    assert evaluate(model, dataset) == first
    mask = predict_sample(model, dataset, 1)
    np.testing.assert_array_equal(mask, load(tiny).predict(dataset.files[1][0]))
    assert mask.shape == (97, 131) and mask.dtype == np.uint8


def test_one_sigmoid_channel(tmp_path):
    make_data(tmp_path / "data", classes=2)
    node = {"type": "UNet", "base_channels": 4, "num_classes": 1}
    folder = make_weights(make_config(tmp_path, model=node, num_classes=2), tmp_path / "best_model")
    cfg = Config.from_model_path(folder)
    for transforms in (None, PLAIN):
        changed = cfg if transforms is None else cfg.update({"val_dataset.transforms": transforms})
        found = evaluate(load_model(changed, folder), build.build_dataset(changed, "val"))
        assert np.shape(found["confusion_matrix"]) == (2, 2)
        assert np.sum(found["confusion_matrix"]) == sum((h - 4) * w for h, w in ((60, 80), (97, 131), (48, 48)))


def test_several_labels_a_pixel(tmp_path):
    root = tmp_path / "data"
    planes = np.random.default_rng(0).integers(0, 2, (3, 40, 56)).astype(np.uint8)
    io.write_png(root / "images" / "0.png", photo(40, 56))
    io.write_png(root / "labels" / "0.png", np.concatenate(list(planes), axis=1))
    for name in ("train", "val"):
        (root / f"{name}.txt").write_text("images/0.png labels/0.png\n")
    folder = make_weights(make_config(tmp_path, use_multilabel=True), tmp_path / "best_model")
    assert run("val", "--model_path", folder, "--save_dir", tmp_path / "val", "--auc_roc") == 0
    found = json.loads((tmp_path / "val" / "metrics.json").read_text())
    mask = load(folder).predict(root / "images" / "0.png")
    assert mask.shape == (3, 40, 56)
    for number in range(3):
        hits = (mask[number] & planes[number]).sum()
        expected = hits / (mask[number] | planes[number]).sum()
        assert found["class_iou"][number] == pytest.approx(expected)


def test_an_exported_folder(tiny, exported, tmp_path):
    assert run("val", "--model_path", exported, "--save_dir", tmp_path / "a") == 0
    assert run("val", "--model_path", tiny, "--save_dir", tmp_path / "b", "--no_onednn") == 0
    assert (tmp_path / "a" / "metrics.json").read_text() == (tmp_path / "b" / "metrics.json").read_text()
    assert run("val", "--model_path", tiny, "--save_dir", tmp_path / "c") == 0
    exact, fast = (json.loads((tmp_path / name / "metrics.json").read_text()) for name in "ac")
    moved = np.abs(np.subtract(exact["confusion_matrix"], fast["confusion_matrix"])).sum()
    assert moved <= 2e-4 * np.sum(
        exact["confusion_matrix"]
    )  # a pixel that changes its class leaves one cell for another


def test_an_exported_folder_in_windows(tiny, tmp_path):
    plain = ("--opts", f"val_dataset.transforms={json.dumps(PLAIN)}")
    windows = ("--is_slide", "--crop_size", 40, 32, "--stride", 20, 24)
    exported = tmp_path / "exported"
    assert run("export", "--model_path", tiny, "--save_dir", exported, *plain) == 0
    assert run("val", "--model_path", exported, "--save_dir", tmp_path / "a", *windows, "--no_onednn") == 0
    trained = ("--model_path", tiny, "--save_dir", tmp_path / "b", "--no_onednn")
    assert run("val", *trained, *windows, *plain) == 0
    found, expected = (json.loads((tmp_path / name / "metrics.json").read_text())["mIoU"] for name in "ab")
    assert found == pytest.approx(expected, abs=1e-3)
    config = (exported / "config.yml").read_text()
    (exported / "config.yml").write_text(
        config + "\ntest_config: {is_slide: true, crop_size: [40, 32], stride: [20, 24]}"
    )
    assert run("val", "--model_path", exported, "--save_dir", tmp_path / "c", "--no_onednn") == 0
    assert (tmp_path / "c" / "metrics.json").read_text() == (tmp_path / "a" / "metrics.json").read_text()


def test_an_export_of_classes_is_evaluated_on_whole_photos(tiny, tmp_path, capsys):
    plain, found = ("--opts", f"val_dataset.transforms={json.dumps(PLAIN)}"), []
    windows = ("test_config.is_slide=true", "test_config.crop_size=[40,32]")
    for name, op, config in (("whole", "none", ()), ("classes", "argmax", windows)):
        flags = ("--output_op", op, *plain, *config)
        assert run("export", "--model_path", tiny, "--save_dir", tmp_path / name, *flags) == 0
        assert run("val", "--model_path", tmp_path / name, "--save_dir", tmp_path / "m", "--backend", "paddle") == 0
        found.append((tmp_path / "m" / "metrics.json").read_text())
    assert found[0] == found[1]
    assert run("val", "--model_path", tmp_path / "classes", "--is_slide", "--crop_size", 40, 32) == 2
    assert "--is_slide averages scores, but the model was exported with --output_op argmax" in capsys.readouterr().err


@pytest.mark.parametrize("flags", [(), ("--is_slide", "--crop_size", 40, 32, "--stride", 20, 24)])
def test_an_exported_folder_with_normalize_in_its_graph(tiny, tmp_path, flags):
    plain, found = ("--opts", f"val_dataset.transforms={json.dumps(PLAIN)}"), []
    for name, fold in (("folded", ("--fold_preprocess",)), ("exported", ())):
        assert run("export", "--model_path", tiny, "--save_dir", tmp_path / name, *fold, *plain) == 0
        assert run("val", "--model_path", tmp_path / name, "--save_dir", tmp_path / "m", "--no_onednn", *flags) == 0
        found.append(np.array(json.loads((tmp_path / "m" / "metrics.json").read_text())["confusion_matrix"]))
    assert np.abs(found[0] - found[1]).sum() <= 2e-3 * found[1].sum()  # rounding


def test_an_exported_folder_without_a_config(tiny, exported, tmp_path, capsys):
    folder = shutil.copytree(exported, tmp_path / "exported")
    (folder / "config.yml").unlink()
    assert run("val", "--model_path", folder) == 2
    assert "there is no config.yml beside these weights. Give the config with --config" in capsys.readouterr().err
    assert run("val", "--model_path", folder / "deploy.yaml", "--config", tiny / "config.yml") == 0


def test_an_engine_for_trained_weights(tiny, capsys):
    assert run("val", "--model_path", tiny, "--backend", "paddle") == 2
    assert "--backend paddle runs an exported folder (got trained weights" in capsys.readouterr().err


def test_two_ranks_give_the_metrics_of_one(tiny, tmp_path, root):
    door = root / "tools" / "val.py"
    command = [
        sys.executable,
        "-m",
        "paddle.distributed.launch",
        "--nproc_per_node",
        "2",
        "--log_dir",
        tmp_path / "log",
    ]
    flags = ["--model_path", tiny, "--save_dir", tmp_path / "two", "--device", "cpu"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*command, door, *flags], capture_output=True, text=True, timeout=120, env=environment, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert run("val", "--model_path", tiny, "--save_dir", tmp_path / "one") == 0
    assert (tmp_path / "two" / "metrics.json").read_text() == (tmp_path / "one" / "metrics.json").read_text()


def test_without_weights(tiny, capsys):
    assert run("val", "--config", tiny / "config.yml") == 2
    assert "--model_path is missing: without trained weights the result would be noise" in capsys.readouterr().err


def test_weights_of_another_model(tiny, tmp_path, capsys):
    config = make_config(tmp_path, model={"type": "UNet", "base_channels": 8}, dataset_root=str(tiny.parent / "data"))
    assert run("val", "--config", config, "--model_path", tiny) == 2
    assert "of another width" in capsys.readouterr().err
    assert run("val", "--config", config, "--model_path", tmp_path / "nothing") == 2
    assert "no weights there" in capsys.readouterr().err


def test_no_val_dataset(tiny, tmp_path, capsys):
    text = (tiny / "config.yml").read_text()
    (tmp_path / "config.yml").write_text(text[: text.index("val_dataset")] + text[text.index("model:") :])
    assert run("val", "--config", tmp_path / "config.yml", "--model_path", tiny) == 2
    assert "there is no val_dataset" in capsys.readouterr().err


def test_another_number_of_classes(tiny):
    cfg = Config.from_model_path(tiny)
    dataset = build.build_dataset(cfg, "val")
    with pytest.raises(InputError, match="the model gives 7 classes, but the data set has 3"):
        evaluate(lambda x: np.zeros((1, 7, *x.shape[2:]), np.float32), dataset)


def test_transforms_that_cut_the_photo(tiny):
    cfg = Config.from_model_path(tiny).update(
        {"val_dataset.transforms": [{"type": "RandomCenterCrop", "retain_ratio": [0.5, 0.5]}, {"type": "Normalize"}]}
    )
    with pytest.raises(InputError, match="cuts parts of the photo off"):
        evaluate(load_model(cfg, tiny), build.build_dataset(cfg, "val"))


def test_an_engine_is_applied_plainly(tiny):
    dataset = build.build_dataset(Config.from_model_path(tiny), "val")
    with pytest.raises(InputError, match="an exported model is applied plainly"):
        evaluate(lambda x: x, dataset, EvalOptions(aug_eval=True, flip_horizontal=True))


def test_a_sample_without_a_label(tiny, tmp_path):
    (tmp_path / "test.txt").write_text("images/0.png\n")
    cfg = Config.from_model_path(tiny).update(
        {"val_dataset.mode": "test", "val_dataset.test_path": str(tmp_path / "test.txt")}
    )
    with pytest.raises(InputError, match="the list names no label for it"):
        evaluate(load_model(cfg, tiny), build.build_dataset(cfg, "val"))
