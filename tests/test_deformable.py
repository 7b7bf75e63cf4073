"""Attention to points of several maps, beside the paper's formula written out; ViT-Adapter's own arguments."""

from __future__ import annotations

import numpy as np
import paddle
import pytest

from segkit.errors import InputError
from segkit.models.deformable import DeformableAttention, cell_centres
from segkit.models.transformer import to_tokens
from segkit.registry import BACKBONES
from tests.model_cases import noise

HEADS, POINTS, CHANNELS = 2, 3, 8
SIZES = [(4, 6), (2, 3)]


def interpolated(image: np.ndarray, x: float, y: float) -> np.ndarray:
    """[h, w, D] at a point in cells, the first one's centre at 0.5; zeros around."""
    height, width = image.shape[:2]
    found = np.zeros(image.shape[2])
    for row in range(height):
        for column in range(width):
            share = max(0, 1 - abs(row + 0.5 - y)) * max(0, 1 - abs(column + 0.5 - x))
            found += share * image[row, column]
    return found


def written_out(layer: DeformableAttention, query: np.ndarray, place: np.ndarray, maps: list[np.ndarray]) -> np.ndarray:
    """What one query [C] at `place` (x, y) finds in maps [h, w, C]: equation 3 of the paper, then the last layer."""
    weight = {key: value.numpy().astype("float64") for key, value in layer.state_dict().items()}

    def linear(x: np.ndarray, name: str) -> np.ndarray:
        return x @ weight[f"{name}.weight"] + weight[f"{name}.bias"]

    steps = linear(query, "sampling_offsets").reshape(HEADS, len(maps), POINTS, 2)
    scores = linear(query, "attention_weights").reshape(HEADS, len(maps) * POINTS)
    shares = np.exp(scores) / np.exp(scores).sum(-1, keepdims=True)
    found = np.zeros((HEADS, CHANNELS // HEADS))
    for head in range(HEADS):
        for level, seen in enumerate(maps):
            values = linear(seen, "value_proj").reshape(*seen.shape[:2], HEADS, -1)[:, :, head]
            for point in range(POINTS):
                x, y = place * seen.shape[1::-1] + steps[head, level, point]
                found[head] += shares[head, level * POINTS + point] * interpolated(values, x, y)
    return linear(found.ravel(), "output_proj")


def test_a_query_finds_what_the_formula_says():
    paddle.seed(0)
    layer = DeformableAttention(CHANNELS, HEADS, len(SIZES), POINTS)
    for name in ("sampling_offsets", "attention_weights"):
        paddle.nn.initializer.Normal(std=0.5)(getattr(layer, name).weight)
    maps = [noise(2, CHANNELS, *size) for size in SIZES]
    places, queries = cell_centres(maps[0]), noise(2, 24, CHANNELS)
    found = layer(queries, places, [to_tokens(x) for x in maps], maps).numpy()
    assert found.shape == (2, 24, CHANNELS)
    for image, number in ((0, 0), (0, 13), (1, 23)):
        seen = [x[image].transpose([1, 2, 0]).numpy() for x in maps]
        expected = written_out(layer, queries[image, number].numpy(), places[0, number].numpy(), seen)
        np.testing.assert_allclose(found[image, number], expected, rtol=1e-4, atol=1e-5)


def test_cells_stand_row_by_row():
    found = cell_centres(noise(1, 1, 2, 4)).numpy()[0]
    np.testing.assert_allclose(found[:, 0], [0.125, 0.375, 0.625, 0.875] * 2)
    np.testing.assert_allclose(found[:, 1], [0.25] * 4 + [0.75] * 4)


def test_points_start_on_squares_around_their_place_and_stay_untrained():
    layer = DeformableAttention(16, 8, 1, 2)
    steps = layer.sampling_offsets.bias.numpy().reshape(8, 2, 2)
    around = [(1, 0), (1, 1), (0, 1), (-1, 1), (-1, 0), (-1, -1), (0, -1), (1, -1)]
    np.testing.assert_allclose(steps[:, 0], around, atol=1e-6)
    np.testing.assert_allclose(steps[:, 1], 2 * np.array(around), atol=1e-6)
    assert layer.sampling_offsets.bias.stop_gradient


@pytest.mark.parametrize(
    "parts", [[[0, 1]], [[0, 0], [1, 1], [2, 2], [3, 4]], [[0, 0], [1, 1], [2, 2], [3, 2]], [[0]] * 4]
)
def test_parts_that_are_not_there_are_refused(parts):
    with pytest.raises(InputError, match=r"interaction_indexes: not four parts of the transformer .*from 0 to 3"):
        BACKBONES.get("ViTAdapter")(embed_dim=16, depth=4, num_heads=2, interaction_indexes=parts)
