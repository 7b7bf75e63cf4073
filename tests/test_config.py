"""Configs: merging, old spellings, overrides, and a message for every mistake."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from segkit.config import Config
from segkit.errors import InputError

ROOT = Path(__file__).resolve().parents[1]
SHIPPED = sorted(path for path in (ROOT / "configs").rglob("*.yml") if "_base_" not in path.parts)

BASE = """\
batch_size: 2
iters: 10
train_dataset:
  type: Dataset
  dataset_root: data/none
  num_classes: 2
  transforms:
    - type: Resize
      target_size: [32, 32]
    - type: Normalize
model:
  type: UNet
optimizer:
  type: SGD
  momentum: 0.9
  weight_decay: 4.0e-5
lr_scheduler:
  type: PolynomialDecay
  learning_rate: 0.01
  power: 0.9
  end_lr: 0
loss:
  types:
    - type: CrossEntropyLoss
  coef: [1]
"""


@pytest.fixture
def write(tmp_path: Path):
    def _write(text: str, name: str = "config.yml") -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return path

    return _write


def line_of(text: str, part: str) -> int:
    return next(number for number, line in enumerate(text.splitlines(), 1) if part in line)


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.name)
def test_shipped_configs_have_no_problems(path: Path) -> None:
    assert Config(path, check=False).problems() == []


def test_quick_start_config_in_the_old_spelling() -> None:
    cfg = Config(ROOT / "configs/quick_start/bisenet_optic_disc_512x512_1k.yml")
    assert cfg.data["lr_scheduler"] == {"type": "PolynomialDecay", "learning_rate": 0.01, "power": 0.9, "end_lr": 0}
    assert cfg.data["optimizer"] == {"type": "Momentum", "momentum": 0.9, "weight_decay": 4.0e-5}
    assert cfg.data["loss"] == {"types": [{"type": "CrossEntropyLoss"}] * 5, "coef": [1, 1, 1, 1, 1]}
    assert cfg.data["model"] == {"type": "BiSeNetV2", "pretrained": None}


class TestBase:
    def test_child_wins_lists_replace_dicts_merge(self, write) -> None:
        write(BASE, "base.yml")
        path = write(
            "_base_: base.yml\niters: 20\ntrain_dataset:\n  transforms:\n    - type: Normalize\noptimizer:\n  momentum: 0.5\n",
        )
        cfg = Config(path)
        assert cfg.iters == 20
        assert cfg.data["train_dataset"]["transforms"] == [{"type": "Normalize"}]
        assert cfg.data["train_dataset"]["num_classes"] == 2
        assert cfg.data["optimizer"]["momentum"] == 0.5

    def test_a_later_base_wins_over_an_earlier_one(self, write) -> None:
        write(BASE, "one/a.yml")
        write("iters: 77\nbatch_size: 3\n", "two/b.yml")
        cfg = Config(write("_base_: [one/a.yml, two/b.yml]\nbatch_size: 4\n"))
        assert (cfg.iters, cfg.batch_size) == (77, 4)

    def test_another_type_inherits_what_it_takes(self, write, caplog) -> None:
        import logging

        write(BASE, "base.yml")
        path = write("_base_: base.yml\noptimizer:\n  type: AdamW\n")
        logging.getLogger("segkit").propagate = True
        with caplog.at_level("INFO", logger="segkit"):
            cfg = Config(path)
        logging.getLogger("segkit").propagate = False
        assert cfg.data["optimizer"] == {"type": "AdamW", "weight_decay": 4.0e-5}
        assert "optimizer is now AdamW instead of SGD: dropped what it does not take: momentum" in caplog.text

    def test_inherited_false_replaces_the_node(self, write) -> None:
        write(BASE, "base.yml")
        cfg = Config(write("_base_: base.yml\noptimizer:\n  _inherited_: False\n  type: Adam\n"))
        assert cfg.data["optimizer"] == {"type": "Adam"}

    def test_a_circle_shows_the_chain(self, write) -> None:
        a = write("_base_: b.yml\n", "a.yml")
        write("_base_: a.yml\n", "b.yml")
        with pytest.raises(InputError, match=r"go in a circle \(.*a\.yml -> .*b\.yml -> .*a\.yml\)"):
            Config(a)

    def test_a_missing_base_shows_the_chain(self, write) -> None:
        a = write("_base_: sub/b.yml\n", "a.yml")
        write("_base_: gone.yml\n", "sub/b.yml")
        with pytest.raises(
            InputError, match=r"gone\.yml does not exist \(chain: .*a\.yml -> .*b\.yml -> .*gone\.yml\)"
        ):
            Config(a)

    def test_base_must_be_paths(self, write) -> None:
        with pytest.raises(InputError, match=r"config\.yml:1: _base_ is a path or a list of paths \(got 3\)"):
            Config(write("_base_: 3\n"))


class TestFile:
    def test_a_missing_config_names_its_neighbours(self, write) -> None:
        path = write(BASE)
        with pytest.raises(InputError, match=r"confg\.yml: this config file does not exist.*holds config\.yml"):
            Config(path.with_name("confg.yml"))

    def test_a_folder(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match="is a folder, expected a YAML file"):
            Config(tmp_path)

    def test_broken_yaml_has_its_line(self, write) -> None:
        with pytest.raises(InputError, match=r"config\.yml:3: this is not valid YAML"):
            Config(write("iters: 3\nmodel: {type: UNet\nloss: 1\n"))

    def test_not_a_mapping(self, write) -> None:
        with pytest.raises(InputError, match="a config is a mapping of keys to values"):
            Config(write("- 1\n- 2\n"))

    def test_a_key_that_stands_twice(self, write) -> None:
        with pytest.raises(InputError, match=r"config\.yml:26: .*the key 'iters' stands twice"):
            Config(write(BASE + "iters: 5\n"))

    def test_an_alias_of_a_mapping_that_overrides_what_it_merges(self, write) -> None:
        more = "a: &a {x: 1, y: 2}\nb: &b {<<: *a, y: 3}\nc: *b\n"
        assert Config(write(more), check=False).data["c"] == {"x": 1, "y": 3}

    def test_not_utf8(self, tmp_path: Path) -> None:
        (tmp_path / "c.yml").write_bytes("iters: 3 # größe".encode("utf-16"))
        with pytest.raises(InputError, match="cannot be read as UTF-8 text"):
            Config(tmp_path / "c.yml")

    def test_numbers_without_a_dot(self, write) -> None:
        assert Config(write(BASE.replace("0.01", "1e-3"))).data["lr_scheduler"]["learning_rate"] == 1e-3

    def test_anchors_and_merge_keys(self, write) -> None:
        text = BASE.replace("    - type: Normalize", "    - type: Normalize\n      mean: *mean")
        cfg = Config(write("mean: &mean [0.1, 0.2, 0.3]\n" + text))
        assert cfg.data["train_dataset"]["transforms"][1]["mean"] == [0.1, 0.2, 0.3]
        assert "mean" not in yaml.safe_load(cfg.to_yaml())


# (what is changed in BASE, to what, the messages that must be there)
MISTAKES = [
    ("  type: UNet", "  type: Unet", [r":12: model\.type: unknown model type 'Unet'\. Did you mean 'UNet'\? Known: .*BiSeNetV2"]),
    ("weight_decay", "weight_decai", [r":16: optimizer\.weight_decai: unknown key .* Did you mean 'weight_decay'\?"]),
    ("iters: 10", "iter: 10", [r":2: iter: unknown key 'iter'\. Did you mean 'iters'\?", "the key 'iters' is missing"]),
    ("iters: 10", "iters: ten", [r":2: iters: got 'ten' \(str\), expected int"]),
    ("iters: 10", "iters: 0", [r":2: iters: got 0, expected at least 1"]),
    ("batch_size: 2", "batch_size: 2.5", [r":1: batch_size: got 2\.5 \(float\), expected int"]),
    ("[32, 32]", "[32, wide]", [r":9: train_dataset\.transforms\.0\.target_size: got .*wide.*expected"]),
    ("  type: SGD", "  type: SDG", [r":14: optimizer\.type: unknown optimizer type 'SDG'\. Did you mean 'SGD'\?"]),
    ("type: PolynomialDecay", "type: PolyDecay", [r"lr_scheduler\.type: unknown lr_scheduler type 'PolyDecay'"]),
    ("  power: 0.9", "  power: high", [r":20: lr_scheduler\.power: got 'high' \(str\), expected float"]),
    ("coef: [1]", "coef: [1, 1, 2]\n    #", [r":25: loss\.coef: the model gives 1 outputs in training, but there are 3 losses\. .*with coef: \[1\]"]),
    ("loss:", "distill_loss: {types: [{type: KLLoss}], coef: [3, 3, 3]}\nloss:", [r":\d+: distill_loss\.coef: got 3 coefficients for 1 losses\. Give one for each: they are all of the model's main output"]),
    ("    - type: CrossEntropyLoss", "    - type: CrossEntropyLoss\n    - type: DiceLoss", [r"got 1 coefficients for 2 losses"]),
    ("- type: CrossEntropyLoss", "- typ: CrossEntropyLoss", [r"loss\.types\.0: the key 'type' is missing\. Is 'typ' meant\?"]),
    ("  type: UNet", "  type: UNet\n  num_classes: 5", [r":13: model\.num_classes is 5, but train_dataset\.num_classes is 2 .*:6"]),
    ("  num_classes: 2\n", "", [r"num_classes is given nowhere"]),
    ("  type: Dataset", "  type: Dataset\n  img_chanels: 1", [r"unknown key 'img_chanels' of Dataset\. Did you mean 'img_channels'\?"]),
    ("  dataset_root: data/none\n", "", [r"train_dataset: Dataset needs the key 'dataset_root' \(str\)"]),
    ("loss:\n", "los:\n", [r"unknown key 'los'\. Did you mean 'loss'\?", "the key 'loss' is missing"]),
    ("model:\n  type: UNet\n", "model: UNet\n", [r":11: model: got 'UNet' \(str\), expected a mapping"]),
    ("  type: UNet", "  type: 5", [r"model\.type: type is a name \(got 5\)"]),
    ("iters: 10", "iters: 10\ntest_config:\n  is_slid: True", [r"test_config\.is_slid: unknown key .* Did you mean 'is_slide'\?"]),
    ("[32, 32]", "[32]", [r":8: train_dataset\.transforms\.0: Resize.*target_size"]),
    ("    - type: CrossEntropyLoss", "    - type: CrossEntropyLoss\n      top_k_percent_pixels: 3.0", [r":24: loss\.types\.0: .*top_k"]),
    ("    - type: Normalize", "    - Normalize", [r":10: train_dataset\.transforms\.1: got 'Normalize' \(str\), expected a mapping with a type, such as \{type: Normalize\}"]),
]  # fmt: skip


@pytest.mark.parametrize(
    "old, new, messages", MISTAKES, ids=[f"{old.strip()} -> {new.strip()}" for old, new, _ in MISTAKES]
)
def test_mistakes(write, old: str, new: str, messages: list[str]) -> None:
    assert old in BASE
    path = write(BASE.replace(old, new, 1))
    with pytest.raises(InputError) as caught:
        Config(path)
    for message in messages:
        assert caught.match(message)


def test_all_problems_are_reported_at_once(write) -> None:
    text = BASE.replace("iters: 10", "iters: x").replace("momentum", "momentun").replace("UNet", "UNit")
    with pytest.raises(InputError, match="3 problems") as caught:
        Config(write(text))
    for part in ("iters", "momentun", "UNit"):
        assert part in str(caught.value)


class TestOpts:
    @pytest.mark.parametrize(
        "opt, path, value",
        [
            ("iters=0x10", ("iters",), 16),
            (
                "train_dataset.transforms.0.target_size=[64,48]",
                ("train_dataset", "transforms", 0, "target_size"),
                [64, 48],
            ),
            ("train_dataset.transforms.-1.mean=[0.0,0.0,0.0]", ("train_dataset", "transforms", 1, "mean"), [0.0] * 3),
            ("learning_rate.value=0.5", ("lr_scheduler", "learning_rate"), 0.5),
            ("learning_rate.decay.power=2.0", ("lr_scheduler", "power"), 2.0),
            ("test_config.is_slide=False", ("test_config", "is_slide"), False),
            ("model.pretrained=a=b.pdparams", ("model", "pretrained"), "a=b.pdparams"),
            ("lr_scheduler.learning_rate=0", ("lr_scheduler", "learning_rate"), 0),
        ],
    )
    def test_values(self, write, opt: str, path: tuple, value: object) -> None:
        node = Config(write(BASE), [opt]).data
        for part in path:
            node = node[part]
        assert node == value

    def test_a_changed_type_keeps_what_fits(self, write) -> None:
        cfg = Config(write(BASE), ["optimizer.type=Adam", "optimizer.beta1=0.8"])
        assert cfg.data["optimizer"] == {"type": "Adam", "weight_decay": 4.0e-5, "beta1": 0.8}

    @pytest.mark.parametrize(
        "opt, message",
        [
            ("iters", r"--opts iters: expected KEY=VALUE"),
            ("iters=[1", r"--opts iters=\[1: the value is not valid YAML"),
            (
                "train_dataset.transforms.7.type=Normalize",
                r"'7' is no index of the list train_dataset\.transforms \(0 to 1\)",
            ),
            ("iters.x=1", r"iters is 10, it has no keys of its own"),
            ("modle.type=UNet", r"unknown key 'modle'\. Did you mean 'model'\?"),
            ("model.aling_corners=True", r"--opts model\.aling_corners=True: .*Did you mean 'align_corners'\?"),
            ("model.align_corners=maybe", r"--opts model.*: got 'maybe' \(str\), expected bool"),
        ],
    )
    def test_mistakes(self, write, opt: str, message: str) -> None:
        with pytest.raises(InputError, match=message):
            Config(write(BASE), [opt])


class TestOldSpelling:
    def old(self, text: str) -> str:
        start = BASE.index("lr_scheduler:")
        return BASE[:start] + text + BASE[BASE.index("loss:") :]

    def test_a_plain_number(self, write) -> None:
        cfg = Config(write(self.old("learning_rate: 0.02\n")))
        assert cfg.data["lr_scheduler"] == {"type": "PolynomialDecay", "learning_rate": 0.02, "power": 0.9, "end_lr": 0}

    def test_piecewise(self, write) -> None:
        text = "learning_rate:\n  value: [0.1, 0.01]\n  decay:\n    type: piecewise\n    boundaries: [5]\n"
        cfg = Config(write(self.old(text)))
        assert cfg.data["lr_scheduler"] == {"type": "PiecewiseDecay", "values": [0.1, 0.01], "boundaries": [5]}

    def test_both_spellings(self, write) -> None:
        with pytest.raises(
            InputError, match=r"learning_rate is the older spelling of lr_scheduler, which also stands at"
        ):
            Config(write(BASE + "learning_rate: 0.1\n"))

    def test_an_unknown_key(self, write) -> None:
        with pytest.raises(InputError, match=r"learning_rate has the keys value and decay \(got values\)"):
            Config(write(self.old("learning_rate:\n  values: 0.1\n")))


class TestPaths:
    def test_working_directory_first_then_the_folder_above_configs(self, write, tmp_path: Path, monkeypatch) -> None:
        path = write(BASE, "project/configs/sub/c.yml")
        (tmp_path / "project" / "data" / "none").mkdir(parents=True)
        elsewhere = tmp_path / "elsewhere"
        elsewhere.mkdir()
        monkeypatch.chdir(elsewhere)
        assert Config(path).find("data/none") == tmp_path / "project" / "data" / "none"
        (elsewhere / "data" / "none").mkdir(parents=True)
        assert Config(path).find("data/none") == Path("data/none")
        assert Config(path).find("data/absent") == Path("data/absent")

    def test_a_saved_config_gives_the_same_config(self, write, tmp_path: Path, monkeypatch) -> None:
        path = write(BASE)
        (tmp_path / "data" / "none").mkdir(parents=True)
        cfg = Config(path)
        cfg.save(tmp_path / "again.yml")
        again = Config(tmp_path / "again.yml")
        assert again.data["train_dataset"].pop("dataset_root") == str(tmp_path / "data" / "none")
        cfg.data["train_dataset"].pop("dataset_root")
        assert again.data == cfg.data

    def test_the_config_beside_the_weights(self, write, tmp_path: Path) -> None:
        Config(write(BASE)).save(_made(tmp_path / "run" / "best_model") / "config.yml")
        for given in ("run", "run/best_model"):
            assert Config.from_model_path(tmp_path / given).iters == 10
        with pytest.raises(
            InputError, match=r"there is no config\.yml beside these weights\. Give the config with --config"
        ):
            Config.from_model_path(_made(tmp_path / "empty"))
        with pytest.raises(InputError, match=r"nowhere: there is no such file or folder\. Give a run's best_model"):
            Config.from_model_path(tmp_path / "nowhere")


def _made(path: Path) -> Path:
    path.mkdir(parents=True)
    return path


def test_imports_register_a_users_own_model(write, tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "my_models.py").write_text(
        "import paddle\nfrom segkit.registry import MODELS\n\n\n@MODELS.register\nclass MyOwnNet(paddle.nn.Layer):\n"
        "    def __init__(self, num_classes: int, depth: int = 1):\n        super().__init__()\n"
        "        self.head = paddle.nn.Conv2D(3, num_classes, depth)\n",
        encoding="utf-8",
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    cfg = Config(write("imports: [my_models]\n" + BASE.replace("type: UNet", "type: MyOwnNet\n  depth: 3")))
    from segkit.build import build_model

    assert build_model(cfg).head.weight.shape == [2, 3, 3, 3]
    with pytest.raises(InputError, match=r"config\.yml:1: imports: there is no module 'not_there'"):
        Config(write("imports: [not_there]\n" + BASE))


def test_a_model_of_imports_inherits_what_it_takes(write, tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "narrow_models.py").write_text(
        "from segkit.registry import MODELS\n\n\n@MODELS.register\nclass NarrowNet:\n"
        "    def __init__(self, num_classes: int, align_corners: bool = False):\n        pass\n",
        encoding="utf-8",
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    base = write(BASE.replace("type: UNet", "type: UNet\n  base_channels: 8\n  align_corners: true"))
    base.rename(tmp_path / "base.yml")
    (tmp_path / "middle.yml").write_text("_base_: base.yml\nimports: [narrow_models]\n", encoding="utf-8")
    cfg = Config(write("_base_: middle.yml\nmodel: {type: NarrowNet}\n"))
    assert cfg.data["model"] == {"type": "NarrowNet", "align_corners": True}


def test_num_classes_may_stand_on_the_model_alone(write) -> None:
    text = BASE.replace("  num_classes: 2\n", "")
    for given, classes in ((3, 3), (1, 2)):
        cfg = Config(write(text.replace("type: UNet", f"type: UNet\n  num_classes: {given}")))
        assert cfg.data["train_dataset"]["num_classes"] == classes


def test_clip_by_type(write) -> None:
    clip = "  grad_clip: {type: ClipGradByNorm, clip_norm: 1.0}"
    assert Config(write(BASE.replace("  momentum: 0.9", "  momentum: 0.9\n" + clip))).problems() == []


def test_one_sigmoid_channel_for_two_classes_is_legal(write) -> None:
    assert Config(write(BASE.replace("type: UNet", "type: UNet\n  num_classes: 1"))).data["model"]["num_classes"] == 1
