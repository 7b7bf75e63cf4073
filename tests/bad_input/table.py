"""The table: what is spoilt, and the command that meets it. What it must say is in expected.txt."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from tests.bad_input.pictures import encoded
from tests.bad_input.world import Change, cut, drop, edit, image, remove, write


@dataclass
class Row:
    """One mistake."""

    name: str
    argv: str
    changes: list[Change] = field(default_factory=list)
    patch: str = ""
    """a name in `patches`, for what is wrong with the machine"""
    goes_on: str = ""
    """where the command goes on with a warning: words of its line"""


CHECK = "config config.yml --check"
TRAIN = "train --config config.yml --device cpu --num_workers 0 --save_dir out"
VAL = "val --model_path best --device cpu --num_workers 0"
PREDICT = "predict --model_path best --device cpu --save_dir out --image_path data/images"
EXPORT = "export --model_path best --save_dir new"
INFER = "infer --config exported --save_dir out --image_path data/images"
IMAGE, LABEL = "data/images/000.png", "data/labels/000.png"
SQUARE = np.zeros((24, 32), np.uint8)
ALIASES = "x0: &x0 [1]\n" + "".join(f"x{n}: &x{n} [{', '.join([f'*x{n - 1}'] * 10)}]\n" for n in range(1, 9))


FORGED = (
    b"\x80\x04}X\x01\x00\x00\x00wcnumpy\ndtype\nX\x02\x00\x00\x00O8\x89\x88\x87R(K\x03X\x01\x00\x00\x00|NNNJ\xff\xff\xff\xff"
    b"J\xff\xff\xff\xffK\x00tbs."
)
"""a type of objects whose state says that it holds plain numbers"""


class _Evil:
    def __reduce__(self) -> tuple:
        return print, ("ran",)


def _rows(topic: str, argv: str) -> Callable[..., Row]:
    """`row(name, *changes)`: what one command meets of one topic."""

    def row(name: str, *changes: Change) -> Row:
        return Row(f"{topic}: {name}", argv, list(changes))

    return row


def _config_files() -> list[Row]:
    row = _rows("config", CHECK)
    return [
        Row("config: no such file", "config conifg.yml"),
        Row("config: a folder", "config data"),
        Row("config: none given", "config"),
        row("empty", write("config.yml", "")),
        row("a list", write("config.yml", "- a\n")),
        row("a number", write("config.yml", "7\n")),
        row("a tab as indentation", write("config.yml", "model:\n\ttype: UNet\n")),
        row("an open bracket", write("config.yml", "iters: [1\n")),
        row("a key twice", write("config.yml", "iters: 1\niters: 2\n")),
        row("an alias of nothing", write("config.yml", "iters: *none\n")),
        row("a date that there is not", write("config.yml", "iters: 1\nseed: 2024-13-45\n")),
        row("a number of 5,000 digits", write("config.yml", "iters: " + "9" * 5000 + "\n")),
        row("lists in lists, 1,200 deep", write("config.yml", "iters: " + "[" * 1200 + "\n")),
        row("a key that is a list", write("config.yml", "? [a]\n: 1\n")),
        row("aliases of aliases", write("config.yml", ALIASES)),
        row("a value that contains itself", write("config.yml", "model: &m {a: *m}\n")),
        row("a tag that would run code", write("config.yml", "model: !!python/object/apply:os.system [ls]\n")),
        row("bytes that are no text", write("config.yml", b"\xff\xfe\x00\x01")),
        row("a base that is not there", edit("_base_", "gone.yml")),
        row("a base that is itself", edit("_base_", "config.yml")),
        row("a base that is a number", edit("_base_", 3)),
    ]


def _config_keys() -> list[Row]:
    row = _rows("config", CHECK)
    return [
        row("a misspelt key", edit("iterz", 5)),
        row("iters as text", edit("iters", "many")),
        row("iters 0", edit("iters", 0)),
        row("iters negative", edit("iters", -5)),
        row("iters 2.5", edit("iters", 2.5)),
        row("batch_size 0", edit("batch_size", 0)),
        row("batch_size null", edit("batch_size", None)),
        row("no model", drop("model")),
        row("no loss", drop("loss")),
        row("no optimizer", drop("optimizer")),
        row("no schedule", drop("lr_scheduler")),
        row("no training set", drop("train_dataset")),
        row("a model that is a list", edit("model", ["UNet"])),
        row("a model that is a name", edit("model", "UNet")),
        row("a model without type", drop("model.type")),
        row("a misspelt model", edit("model.type", "Unet++")),
        row("a type that is a number", edit("model.type", 5)),
        row("a misspelt argument of the model", edit("model.base_chanels", 4)),
        row("an argument of another kind", edit("model.base_channels", "four")),
        row("a misspelt optimizer", edit("optimizer.type", "Adom")),
        row("a misspelt schedule", edit("lr_scheduler.type", "PolyDecay")),
        row("a misspelt argument of the schedule", edit("lr_scheduler.powr", 1)),
        row("a misspelt loss", edit("loss.types.0.type", "CrossEntropy")),
        row("a loss that is a name", edit("loss.types", ["CrossEntropyLoss"])),
        row("no losses", edit("loss.types", [])),
        row("two coefficients for one output", edit("loss.coef", [1, 0.4])),
        row("coefficients that are text", edit("loss.coef", ["one"])),
        row("a misspelt transform", edit("train_dataset.transforms.0.type", "RandomPadingCrop")),
        row("a misspelt key of a transform", edit("train_dataset.transforms.0", {"type": "RandomPaddingCrop", "crop_sise": [16, 16]})),
        row("a transform of a wrong size", edit("train_dataset.transforms.0.crop_size", [16])),
        row("a transform that is null", edit("train_dataset.transforms.0", None)),
        row("a size that fills the memory", edit("train_dataset.transforms.0", {"type": "Resize", "target_size": [100_000, 100_000]})),
        row("a misspelt data set", edit("train_dataset.type", "Dataste")),
        row("classes in two places", edit("model.num_classes", 7)),
        row("classes nowhere", drop("train_dataset.num_classes"), drop("val_dataset.num_classes")),
        row("classes 0", edit("train_dataset.num_classes", 0), edit("val_dataset.num_classes", 0)),
        row("classes as text", edit("train_dataset.num_classes", "two")),
        row("a misspelt key of the test", edit("test_config", {"is_silde": True})),
        row("many at once", edit("iterz", 5), edit("model.type", "Unit"), drop("loss"), edit("batch_size", "a")),
        row("both spellings of the schedule", edit("learning_rate", {"value": 0.1})),
        row("a module that is not there", edit("imports", ["not_there"])),
        row("imports that are a name", edit("imports", "not_there")),
        Row("config: --opts without =", f"{CHECK} --opts iters"),
        Row("config: --opts of an unknown key", f"{CHECK} --opts itres=5"),
        Row("config: --opts beyond a list", f"{CHECK} --opts train_dataset.transforms.9.type=Resize"),
        Row("config: --opts of a date that there is not", f"{CHECK} --opts iters=2024-13-45"),
        Row("config: --opts below a number", f"{CHECK} --opts iters.a=5"),
        Row("config: --opts that is no YAML", f"{CHECK} --opts iters=[1"),
        Row("config: --paddleseg alone", "config --paddleseg nowhere"),
    ]  # fmt: skip


def _lists() -> list[Row]:
    row = _rows("list", TRAIN)
    return [
        row("absent", remove("data/train.txt")),
        row("empty", write("data/train.txt", "")),
        row("only comments", write("data/train.txt", "# nothing\n\n")),
        row("bytes that are no text", write("data/train.txt", b"\xff\xfe\xfa")),
        row("a folder", remove("data/train.txt"), write("data/train.txt/x", "")),
        row("one field", write("data/train.txt", "images/000.png\n")),
        row("three fields", write("data/train.txt", "images/000.png labels/000.png more\n")),
        row("a photo that is not there", write("data/train.txt", "images/9.png labels/000.png\n")),
        row("a label that is not there", write("data/train.txt", "images/000.png labels/9.png\n")),
        row("names with spaces, ambiguous", write("data/train.txt", "images/a b.png labels/c d.png\n")),
        row("a separator that is not in it", edit("train_dataset.separator", "|")),
        row("a data set that is not there", edit("train_dataset.dataset_root", "dtaa")),
        row("another list that is not there", edit("train_dataset.train_path", "lists/train.txt")),
        row("names of classes that are not there", edit("train_dataset.class_names", "names.txt")),
        row("more names than classes", edit("train_dataset.class_names", ["a", "b", "c"])),
        row("a mode that is none", edit("train_dataset.mode", "training")),
        row("a cache that is none", edit("train_dataset.cache", "disc")),
        Row("list: predict's, empty", PREDICT.replace("data/images", "l.txt"), [write("l.txt", "\n")]),
        Row("list: predict's, of photos that are not there", PREDICT.replace("data/images", "l.txt"), [write("l.txt", "x.png\n")]),
    ]  # fmt: skip


def _pictures() -> list[Row]:
    row = _rows("photo", TRAIN)
    label = _rows("label", TRAIN)
    rng = np.random.default_rng(0)
    return [
        row("empty", write(IMAGE, b"")),
        row("cut short", cut(IMAGE)),
        row("text", write(IMAGE, "hello")),
        row("a web page", write(IMAGE, "<!DOCTYPE html><html>404</html>")),
        row("a GIF", write(IMAGE, b"GIF89a\x01\x00\x01\x00")),
        row("a JPEG cut short", write(IMAGE, encoded("jpeg")[:500])),
        row("an array of text", write(IMAGE, b"\x93NUMPY\x01\x00")),
        row("another size than its label", image(IMAGE, np.zeros((30, 30, 3), np.uint8))),
        row("turned against its label", image(IMAGE, np.zeros((32, 24, 3), np.uint8))),
        row("four bands where three are asked for", edit("train_dataset.img_channels", 5)),
        row("a folder", remove(IMAGE), write(f"{IMAGE}/x", "")),
        Row("photo: predict, cut short", f"{PREDICT}/000.png", [cut(IMAGE)]),
        Row("photo: predict, not there", f"{PREDICT}/x.png"),
        Row("photo: predict, an empty folder", PREDICT.replace("data/images", "empty"), [write("empty/.keep", "")]),
        Row("photo: predict, a pattern that fits nothing", PREDICT.replace("data/images", "*.jpg")),
        Row("photo: predict, a kind that is not read", PREDICT.replace("data/images", "config.yml")),
        Row("photo: infer, cut short", f"{INFER}/000.png", [cut(IMAGE)]),
        Row("photo: infer, not there", f"{INFER}/x.png"),
        label("empty", write(LABEL, b"")),
        label("cut short", cut(LABEL)),
        label("text", write(LABEL, "hello")),
        label("a value above the classes", image(LABEL, SQUARE + 7)),
        label("0 and 255 mixed with a class too many", image(LABEL, np.where(SQUARE == 0, 2, 255).astype(np.uint8))),
        label("colours without a palette", image(LABEL, rng.integers(0, 255, (24, 32, 3)).astype(np.uint8))),
        label("colours that the palette lacks", image(LABEL, np.full((24, 32, 3), (9, 9, 8), np.uint8)),
              edit("train_dataset.palette", [[0, 0, 0], [255, 0, 0]])),
        label("floats", write(LABEL, _npy(np.zeros((24, 32), np.float32)))),
        label("planes", write(LABEL, _npy(np.zeros((24, 32, 2), np.uint8)))),
        label("all of them bad", *(image(f"data/labels/{n:03}.png", SQUARE + 9) for n in range(3))),
        label("a palette of one colour", edit("train_dataset.palette", [[0, 0, 0]])),
        label("a palette of numbers that are no colours", edit("train_dataset.palette", [[0, 0], [1, 1]])),
        label("a map to a class that there is not", edit("train_dataset.label_map", {0: 9})),
    ]  # fmt: skip


def _npy(array: np.ndarray) -> bytes:
    import io

    out = io.BytesIO()
    np.save(out, array)
    return out.getvalue()


def _weights() -> list[Row]:
    row = _rows("weights", VAL)
    file = "best/model.pdparams"
    return [
        row("absent", remove(file)),
        row("empty", write(file, b"")),
        row("cut short", cut(file)),
        row("text", write(file, "weights")),
        row("of PyTorch", write(file, b"PK\x03\x04rest")),
        row("that run code", write(file, pickle.dumps({"w": _Evil()}))),
        row("without arrays", write(file, pickle.dumps({"epoch": 3}))),
        row("of another model", write(file, pickle.dumps({"other.weight": np.zeros((3, 3), np.float32)}))),
        row("without their config", remove("best/config.yml")),
        row("of another width", edit("model.base_channels", 8, "best/config.yml")),
        row("safetensors, damaged", remove(file), write("best/model.safetensors", b"x" * 20)),
        Row("weights: no such folder", VAL.replace("best", "bst")),
        row("with a forged type", write(file, FORGED)),
        Row("weights: none given", "val --config config.yml --device cpu"),
        Row("weights: none given to predict", "predict --config config.yml --image_path data/images --device cpu"),
        Row("weights: pretrained that is not there", TRAIN, [edit("model.pretrained", "gone.pdparams")]),
        Row("weights: pretrained over http", TRAIN, [edit("model.pretrained", "http://example.com/a.pdparams")]),
        Row("weights: pretrained that is a page", TRAIN, [edit("model.pretrained", "https://example.com/index.html")]),
        Row("weights: pretrained, offline", f"{TRAIN} --offline", [edit("model.pretrained", "https://example.com/a.pdparams")]),
        Row("resume: nowhere", f"{TRAIN} --resume_model nowhere"),
        Row("resume: a best model", f"{TRAIN} --resume_model best"),
        Row("resume: an empty folder", f"{TRAIN} --resume_model data/images"),
        Row("resume: a torn record", f"{TRAIN} --resume_model iter_1", [write(f"iter_1/{n}", "{") for n in ("model.pdparams", "model.pdopt", "trainer.json")]),
    ]  # fmt: skip


def _flags() -> list[Row]:
    def row(name: str, flags: str) -> Row:
        return Row(f"flag: {name}", f"{TRAIN} {flags}")

    return [
        Row("flag: no command that there is", "trian"),
        Row("flag: --quiet, then no command that there is", "--quiet trian"),
        Row("flag: no config", "train"),
        Row("flag: two configs", "train a.yml --config b.yml"),
        row("unknown", "--itres 5"),
        row("iters as text", "--iters many"),
        row("iters 0", "--iters 0"),
        row("batch_size negative", "--batch_size -2"),
        row("learning_rate as text", "--learning_rate fast"),
        row("log_iters 0", "--log_iters 0"),
        row("save_interval 0", "--save_interval 0"),
        row("num_workers negative", "--num_workers -1"),
        row("keep_checkpoint_max 0", "--keep_checkpoint_max 0"),
        row("accumulate_steps 0", "--accumulate_steps 0"),
        row("repeats 0", "--repeats 0"),
        row("early stop without evaluation", "--early_stop_intervals 3"),
        row("early stop after 0", "--early_stop_intervals 0 --do_eval"),
        row("a best metric that is none", "--best_metric accuracy --do_eval"),
        row("a best metric of no class", "--best_metric IoU/dog --do_eval"),
        row("a precision that is none", "--precision fp8"),
        row("fp16 on the CPU", "--precision fp16"),
        row("a device that is none", "--device tpu"),
        row("a teacher without weights", "--teacher_config config.yml"),
        row("a boolean that is none", "--do_eval maybe"),
        row("cinn without a compiled graph", "--cinn"),
        row("a save_dir that is a file", "--save_dir config.yml"),
        Row("flag: val, a crop of one number", f"{VAL} --is_slide --crop_size 32"),
        Row("flag: val, a window without its size", f"{VAL} --is_slide"),
        Row("flag: val, a stride of 0", f"{VAL} --is_slide --crop_size 16 16 --stride 0 0"),
        Row("flag: val, a stride beyond the window", f"{VAL} --is_slide --crop_size 16 16 --stride 32 32"),
        Row("flag: val, scales of 0", f"{VAL} --aug_eval --scales 0"),
        Row("flag: predict, no photo", "predict --model_path best"),
        Row("flag: predict, a threshold of 2", f"{PREDICT} --threshold 2"),
        Row("flag: predict, colours in twos", f"{PREDICT} --custom_color 1 2"),
        Row("flag: predict, colours above 255", f"{PREDICT} --custom_color 0 0 0 300 0 0"),
        Row("flag: data, no such command", "data convrt"),
        Row("flag: data convert, no such folder", "data convert nowhere --to out"),
        Row("flag: data convert, a folder without labels", "data convert configs --to out", [write("configs/x.txt", "")]),
        Row("flag: data check, nothing there", "data check nowhere"),
        Row("flag: data split, no such folder", "data split nowhere"),
        Row("flag: init, no such folder", "init nowhere"),
        Row("flag: info, other bands", "info --config config.yml --input_shape 1 4 32 32"),
    ]  # fmt: skip


def _exports() -> list[Row]:
    row = _rows("exported", INFER)
    deploy = "exported/deploy.yaml"
    return [
        Row("export: a shape of four bands", f"{EXPORT} --input_shape 1 4 32 32"),
        Row("export: a shape of 0", f"{EXPORT} --input_shape 1 3 0 32"),
        Row("export: a shape of three numbers", f"{EXPORT} --input_shape 3 32 32"),
        Row("export: into a folder of others", EXPORT.replace("new", "data")),
        Row("export: into a file", EXPORT.replace("new", "config.yml")),
        Row("export: no weights", "export --config config.yml"),
        Row("export: a format that is none", f"{EXPORT} --format tflite"),
        Row("export: an ending that is none", f"{EXPORT} --output_op sigmoid"),
        row("no deploy.yaml", remove(deploy)),
        row("empty", write(deploy, "")),
        row("no YAML", write(deploy, "Deploy: [1\n")),
        row("no text", write(deploy, b"\xff\xfe\x00")),
        row("a date that there is not", write(deploy, "Deploy:\n  threshold: 2024-13-45\n")),
        row("aliases of aliases", write(deploy, ALIASES)),
        row("no section", write(deploy, "Other: 1\n")),
        row("no model", edit("Deploy.model", None, deploy)),
        row("no transforms", edit("Deploy.transforms", None, deploy)),
        row("a misspelt transform", edit("Deploy.transforms", [{"type": "Nromalize"}], deploy)),
        row("an unknown key of a transform", edit("Deploy.transforms", [{"type": "Normalize", "men": 1}], deploy)),
        row("transforms of another size", edit("Deploy.input_shape", [-1, 3, -1, -1], deploy),
            edit("Deploy.transforms.0.target_size", [32, 255], deploy)),
        row("a model that is not there", edit("Deploy.model", "other.json", deploy)),
        row("a model of another folder", edit("Deploy.model", "../config.yml", deploy)),
        row("a shape of text", edit("Deploy.input_shape", "any", deploy)),
        row("a palette of no colours", edit("Deploy.palette", [[1, 2]], deploy)),
        row("a threshold of 2", edit("Deploy.threshold", 2, deploy)),
        row("weights cut short", cut("exported/model.pdiparams")),
        row("a graph cut short", cut("exported/model.json")),
        Row("exported: no such folder", INFER.replace("exported", "exprted")),
        Row("exported: no photo", "infer --config exported"),
        Row("exported: a batch of 0", f"{INFER} --batch_size 0"),
        Row("exported: a backend that is none", f"{INFER} --backend tensorrt"),
        Row("exported: TensorRT on the CPU", f"{INFER} --use_trt True"),
        Row("exported: a GPU that is not there", f"{INFER} --device gpu"),
    ]  # fmt: skip


def _machine() -> list[Row]:
    return [
        Row("machine: no GPU", TRAIN.replace("cpu", "gpu")),
        Row("machine: a tenth GPU", TRAIN.replace("cpu", "gpu:9")),
        Row("machine: no room in save_dir", TRAIN, patch="full"),
        Row("machine: no right to write", TRAIN.replace("save_dir out", "save_dir /proc/out")),
        Row("machine: no right to write, predict", PREDICT.replace("save_dir out", "save_dir /proc/out")),
        Row("machine: no right to write, export", EXPORT.replace("save_dir new", "save_dir /proc/out")),
        Row("machine: no room for masks", PREDICT, patch="full"),
        Row("machine: no VisualDL", f"{TRAIN} --use_vdl", patch="no visualdl"),
        Row("machine: no tifffile", f"{PREDICT}/000.png", [write(IMAGE, encoded("tiff-16"))], patch="no tifffile"),
        Row("machine: no albumentations", CHECK, [edit("train_dataset.transforms.0", {"type": "Albumentations", "transforms": []})], patch="no albumentations"),
        Row("machine: no onnxruntime", f"{INFER} --backend onnxruntime", patch="no onnxruntime",
            changes=[write("exported/model.onnx", b"x"), edit("Deploy.onnx", "model.onnx", "exported/deploy.yaml")]),
        Row("machine: no openvino", f"{INFER} --backend openvino", patch="no openvino",
            changes=[write("exported/model.xml", b"x"), write("exported/model.bin", b"x"),
                     edit("Deploy.openvino", "model.xml", "exported/deploy.yaml")]),
        Row("machine: no paddle2onnx", f"{EXPORT} --format onnx", patch="no paddle2onnx"),
        Row("machine: no Paddle", TRAIN, patch="no paddle"),
        Row("machine: too little shared memory", f"{TRAIN.replace('num_workers 0', 'num_workers 1')} --iters 1", patch="few shared",
            goes_on="/dev/shm"),
        Row("machine: a picture beyond the limit", f"{PREDICT}/000.png", [image(IMAGE, np.zeros((40, 40, 3), np.uint8))], patch="few pixels"),
    ]  # fmt: skip


ROWS = [*_config_files(), *_config_keys(), *_lists(), *_pictures(), *_weights(), *_flags(), *_exports(), *_machine()]
