"""Undoing geometry against a whole-array argmax."""

from __future__ import annotations

import json
import tracemalloc

import numpy as np
import pytest

from segkit import postprocess
from segkit.errors import InputError
from segkit.registry import TRANSFORMS
from segkit.transforms import Compose

RNG = np.random.default_rng(1)
RESIZE = {"op": "resize", "from": [31, 47], "to": [20, 24]}
PAD = {"op": "pad", "from": [20, 24], "top": 0, "left": 0, "to": [32, 32]}


def softmax(array: np.ndarray) -> np.ndarray:
    scaled = np.exp(array - array.max(0))
    return scaled / scaled.sum(0)


@pytest.mark.parametrize("classes", [2, 19, 300])
def test_class_map_is_the_argmax_of_the_whole(classes: int) -> None:
    scores = RNG.standard_normal((classes, 32, 32)).astype(np.float32)
    whole = postprocess.undo(scores, [RESIZE, PAD])
    got = postprocess.class_map(scores, [RESIZE, PAD])
    assert got.dtype == (np.uint8 if classes < 256 else np.int32)
    assert np.array_equal(got, whole.argmax(0))
    assert np.array_equal(postprocess.class_map(scores, []), scores.argmax(0))


def test_equal_scores_give_the_first_class() -> None:
    assert (postprocess.class_map(np.zeros((4, 3, 3), np.float32), []) == 0).all()


def test_threshold_marks_unsure_pixels() -> None:
    scores = RNG.standard_normal((5, 32, 32)).astype(np.float32) * 2
    whole = softmax(postprocess.undo(scores, [RESIZE, PAD]))
    want = np.where(whole.max(0) < 0.6, 255, whole.argmax(0))
    assert 0.1 < (want == 255).mean() < 0.9
    assert np.array_equal(postprocess.class_map(scores, [RESIZE, PAD], threshold=0.6), want)
    shares = softmax(scores)
    want = np.where(shares.max(0) < 0.6, 255, shares.argmax(0))
    assert np.array_equal(postprocess.class_map(shares, [], 0.6, scores_are="probabilities"), want)


def test_single_channel_and_multilabel() -> None:
    scores = RNG.standard_normal((3, 8, 9)).astype(np.float32)
    chance = 1 / (1 + np.exp(-scores))
    for threshold in (None, 0.5, 0.8):
        cut = threshold or 0.5
        assert np.array_equal(postprocess.class_map(scores[:1], [], threshold), chance[0] > cut)
        assert np.array_equal(postprocess.class_map(scores, [], threshold, multilabel=True), chance > cut)
    assert np.array_equal(postprocess.class_map(chance[:1], [], 0.8, scores_are="probabilities"), chance[0] > 0.8)
    assert postprocess.class_map(scores[:1], [], 0.0).all() and not postprocess.class_map(scores[:1], [], 1.0).any()
    np.testing.assert_allclose(postprocess.probabilities(scores[:1], []), [1 - chance[0], chance[0]], atol=1e-6)
    np.testing.assert_allclose(postprocess.probabilities(scores, [], multilabel=True), chance, atol=1e-6)


def test_votes_become_shares_at_the_photos_size() -> None:
    votes = RNG.random((4, 32, 32)).astype(np.float32) * 3
    whole = postprocess.undo(votes, [RESIZE, PAD])
    shares = whole / whole.sum(0)
    got = postprocess.class_map(votes, [RESIZE, PAD], scores_are="probabilities")
    assert np.array_equal(got, whole.argmax(0))
    want = np.where(shares.max(0) < 0.4, 255, whole.argmax(0))
    assert 0.1 < (want == 255).mean() < 0.9
    assert np.array_equal(postprocess.class_map(votes, [RESIZE, PAD], 0.4, scores_are="probabilities"), want)
    got = postprocess.probabilities(votes, [RESIZE, PAD], scores_are="probabilities")
    np.testing.assert_allclose(got, shares, rtol=1e-5)
    assert (postprocess.probabilities(np.zeros((2, 3, 3), np.float32), [], scores_are="probabilities") == 0).all()
    np.testing.assert_allclose(
        postprocess.probabilities(votes, [], multilabel=True, scores_are="probabilities"), np.minimum(votes, 1)
    )


def test_distances_are_foreground_above_one() -> None:
    distances = np.array([[[0, 0.5, 1, 1.5, 4]]], np.float32)
    assert postprocess.class_map(distances, [], scores_are="distances").tolist() == [[0, 0, 0, 1, 1]]
    assert postprocess.class_map(distances, [], 0.75, scores_are="distances").tolist() == [[0, 0, 0, 0, 1]]
    assert not postprocess.class_map(distances, [], 1.0, scores_are="distances").any()
    got = postprocess.probabilities(distances, [], scores_are="distances")
    np.testing.assert_allclose(got[1], [[0, 1 / 3, 0.5, 0.6, 0.8]], rtol=1e-6)
    np.testing.assert_allclose(got.sum(0), 1)


def test_probabilities() -> None:
    scores = RNG.standard_normal((4, 32, 32)).astype(np.float32)
    before = scores.copy()
    got = postprocess.probabilities(scores, [RESIZE, PAD])
    assert got.shape == (4, 31, 47) and got.dtype == np.float32
    np.testing.assert_allclose(got, softmax(postprocess.undo(scores, [RESIZE, PAD])), atol=1e-6)
    assert np.array_equal(scores, before)


def test_flip_and_crop() -> None:
    index = RNG.integers(0, 7, (10, 12)).astype(np.uint8)
    for axis in (0, 1):
        step = {"op": "flip", "axis": axis, "from": [10, 12]}
        assert np.array_equal(postprocess.label_map(np.flip(index, axis), [step]), index)
    crop = {"op": "crop", "from": [10, 12], "top": 2, "left": 3, "to": [5, 6]}
    got = postprocess.label_map(index[2:7, 3:9], [crop])
    assert np.array_equal(got[2:7, 3:9], index[2:7, 3:9]) and (got == 255).sum() == 120 - 30
    scores = RNG.standard_normal((3, 5, 6)).astype(np.float32)
    got = postprocess.class_map(scores, [crop])
    assert np.array_equal(got[2:7, 3:9], scores.argmax(0)) and (got == 255).sum() == 120 - 30
    shares = postprocess.probabilities(scores, [crop])
    assert (shares[:, 0] == 0).all() and np.allclose(shares[:, 2:7, 3:9].sum(0), 1)


def test_transforms_and_undo_agree() -> None:
    """A label-like score map goes through a validation chain and comes back where it was."""
    y, x = np.mgrid[0:61, 0:83]
    blob = ((y - 30) ** 2 + (x - 25) ** 2 < 300).astype(np.uint8)
    nodes = [("ResizeByLong", {"long_size": 160}), ("Padding", {"target_size": [192, 160]})]
    nodes += [("RandomHorizontalFlip", {"prob": 1}), ("ScalePadding", {"target_size": [224, 224]})]
    chain = Compose([TRANSFORMS.get(name)(**arguments) for name, arguments in nodes])
    sample = chain({"image": np.repeat(blob[..., None] * 200, 3, 2)}, np.random.default_rng(0))
    json.dumps(sample["geometry"])  # goes into deploy.yaml and files: plain numbers only
    scores = sample["image"][..., 0].astype(np.float32) - 100
    got = postprocess.class_map(np.stack([-scores, scores]), sample["geometry"])
    assert got.shape == blob.shape and (got == blob).mean() > 0.99


def test_what_cannot_be_undone() -> None:
    with pytest.raises(InputError, match=r"random warps .* cannot be undone.*val_dataset\.transforms"):
        postprocess.class_map(np.zeros((2, 4, 4), np.float32), [{"op": "warp", "from": [4, 4], "to": [4, 4]}])
    with pytest.raises(ValueError, match=r"scores of size \(9, 9\) do not fit the geometry step"):
        postprocess.class_map(np.zeros((2, 9, 9), np.float32), [PAD])
    with pytest.raises(InputError, match=r"threshold: not a probability \(got 50"):
        postprocess.class_map(np.zeros((2, 4, 4), np.float32), [], threshold=50)


def test_memory_is_a_few_planes() -> None:
    geometry = [{"op": "resize", "from": [1224, 1632], "to": [64, 64]}]
    scores = RNG.standard_normal((40, 64, 64)).astype(np.float32)
    tracemalloc.start()
    postprocess.class_map(scores, geometry, threshold=0.3)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 6 * 4 * 1224 * 1632
