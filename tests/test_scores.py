"""Models whose scores are no logits, from val and predict to the exported folder: MaskFormer's votes, STFPM's distances."""

from __future__ import annotations

from typing import get_args

import numpy as np
import paddle
import pytest
import yaml

from segkit import Config, build
from segkit.engine.evaluate import evaluate, predict_sample
from segkit.engine.graph import Exported
from segkit.engine.segmenter import for_evaluation, from_model, load, load_model
from segkit.errors import InputError
from segkit.models import scores_are
from segkit.models.stfpm import STFPM
from segkit.options import EvalOptions, PredictOptions
from segkit.postprocess import ScoresAre
from segkit.registry import BACKBONES, MODELS
from tests.tiny_backbone import TinyBackbone
from tests.tiny_model import RESIZE, make_config, make_data, make_weights, photo, run

assert TinyBackbone.__name__ == "TinyBackbone"  # registered by the import
NODES = {
    "votes": {"type": "MaskFormer", "backbone": {"type": "TinyBackbone"}, "decoder_layers": 1},
    "distances": {"type": "STFPM", "num_classes": 1, "backbone": {"type": "TinyResNet"}},
}
SIZE = (48, 64)  # what RESIZE makes of every photo


@pytest.fixture(scope="module", params=NODES)
def folder(request, tmp_path_factory):
    """A best_model folder of either kind."""
    root = tmp_path_factory.mktemp(request.param)
    classes = 3 if request.param == "votes" else 2
    make_data(root / "data", classes)
    best = make_weights(make_config(root, RESIZE, NODES[request.param], num_classes=classes), root / "best_model")
    if request.param == "distances":  # untrained, they lie close together: half of a photo is made abnormal
        cfg = Config.from_model_path(best)
        middle = float(np.median(raw(cfg, load_model(cfg, best), photo(*SIZE))))
        cfg.update({"model.abnormal_from": middle}).save(best / "config.yml")
    return best


def raw(cfg: Config, model: paddle.nn.Layer, image: np.ndarray) -> np.ndarray:
    """What the model itself says of a photo of the network's size: [C, H, W]."""
    x = from_model(cfg, model).prepare(image).x
    with paddle.no_grad():
        return model(paddle.to_tensor(x[None]))[0].numpy()[0]


def shares(scores: np.ndarray) -> np.ndarray:
    """The probabilities that these scores stand for, of background and foreground where there is one channel."""
    if len(scores) == 1:
        return np.concatenate([1 / (1 + scores), scores / (1 + scores)])
    return scores / scores.sum(0)


def test_every_model_says_what_its_scores_are() -> None:
    kinds = {name: scores_are(MODELS.get(name)) for name in MODELS.names()}
    assert set(kinds.values()) <= set(get_args(ScoresAre))
    assert {name for name, kind in kinds.items() if kind != "logits"} == {"MaskFormer", "STFPM"}


def test_masks_thresholds_and_probabilities(folder) -> None:
    cfg, image = Config.from_model_path(folder), photo(*SIZE)
    model = load_model(cfg, folder)
    expected = shares(raw(cfg, model, image))
    trained = load(folder)
    np.testing.assert_allclose(trained.predict_proba(image), expected, atol=1e-5)
    mask = trained.predict(image)
    sure = np.abs(expected - 0.5).min(0) > 1e-4 if len(expected) == 2 else np.ones(SIZE, bool)
    np.testing.assert_array_equal(mask[sure], expected.argmax(0)[sure])
    if len(expected) == 2:
        assert 0.4 < mask.mean() < 0.6
    cut = float(np.median(expected.max(0))) if len(expected) > 2 else 0.45
    found = from_model(cfg, model, PredictOptions(threshold=cut)).predict(image)
    wanted = np.where(expected.max(0) < cut, 255, mask) if len(expected) > 2 else expected[1] > cut
    assert (found == wanted).mean() > 0.995 and len(np.unique(found)) > 1


def test_metrics_are_those_of_the_masks(folder) -> None:
    cfg = Config.from_model_path(folder)
    model = load_model(cfg, folder)
    dataset = build.build_dataset(cfg, "val")
    seen = []
    found = evaluate(
        model, dataset, EvalOptions(auc_roc=True), observer=lambda sample, mask, p: seen.append((sample, mask, p))
    )
    trained, right, total = load(folder), 0, 0
    for number, (sample, mask, probability) in enumerate(seen):
        np.testing.assert_array_equal(mask, trained.predict(sample.path))
        np.testing.assert_array_equal(mask, predict_sample(model, dataset, number))
        np.testing.assert_allclose(probability, trained.predict_proba(sample.path), atol=1e-6)
        valid = sample.label != 255
        right, total = right + (mask == sample.label)[valid].sum(), total + valid.sum()
    assert len(seen) == 3 and found["Acc"] == pytest.approx(right / total)


@pytest.mark.parametrize("op", ["none", "softmax"])
def test_exported_folders_say_the_same(folder, tmp_path, op) -> None:
    out = tmp_path / "out"
    assert run("export", "--model_path", folder, "--save_dir", out, "--output_op", op) == 0
    node = yaml.safe_load((out / "deploy.yaml").read_text())["Deploy"]
    assert node["scores_are"] == ("probabilities" if "votes" in str(folder) else "distances")
    trained, exported, image = load(folder), load(out), photo(*SIZE)
    np.testing.assert_array_equal(exported.predict(image), trained.predict(image))
    np.testing.assert_allclose(exported.predict_proba(image), trained.predict_proba(image), atol=1e-5)
    big = photo(97, 131)
    share = (exported.predict(big) == trained.predict(big)).mean()
    assert share == 1 if op == "none" else share > 0.97
    cfg = Config.from_model_path(folder)
    if op == "none":
        found = [evaluate(*for_evaluation(cfg, EvalOptions(), path)[:2]) for path in (folder, out)]
        assert found[0]["confusion_matrix"] == found[1]["confusion_matrix"]


def test_a_graph_that_ends_in_class_numbers(folder) -> None:
    cfg = Config.from_model_path(folder)
    model = load_model(cfg, folder)
    x = from_model(cfg, model).prepare(photo(*SIZE)).x
    with paddle.no_grad():
        found = Exported(model, "argmax")(paddle.to_tensor(x[None])).numpy()[0]
    expected = shares(raw(cfg, model, photo(*SIZE)))
    assert found.dtype == np.uint8 and (found == expected.argmax(0)).mean() > 0.999


def test_deploy_yaml_names_a_kind(folder, tmp_path) -> None:
    (tmp_path / "deploy.yaml").write_text("Deploy: {transforms: [], scores_are: votes, model: a, params: b}")
    with pytest.raises(
        InputError, match=r"Deploy\.scores_are: got 'votes', expected logits or probabilities or distances"
    ):
        load(tmp_path)


def test_the_distance_from_which_on_a_pixel_is_abnormal() -> None:
    paddle.seed(0)
    plain = STFPM(1, BACKBONES.get("TinyResNet")())
    plain.eval()
    halved = STFPM(1, BACKBONES.get("TinyResNet")(), abnormal_from=0.5)
    halved.set_state_dict(plain.state_dict())
    halved.eval()
    x = paddle.randn([1, 3, 32, 32])
    with paddle.no_grad():
        np.testing.assert_allclose(halved(x)[0].numpy(), 2 * plain(x)[0].numpy(), rtol=1e-6)
    with pytest.raises(InputError, match=r"model.abnormal_from: not a distance \(got 0, expected a number above 0\)"):
        STFPM(1, abnormal_from=0)
