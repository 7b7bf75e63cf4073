"""Canny's edges (https://doi.org/10.1109/TPAMI.1986.4767851) as operations on tensors, fit for an exported graph."""

from __future__ import annotations

import paddle
import paddle.nn.functional as F
from paddle import Tensor

_TAN_22, _TAN_67 = 13573, 13573 + (1 << 16)  # of 22.5 and 67.5 degrees, times 2^15
_STEPS = 8
"""Pixels that edges are followed between two looks at whether they have ended."""


def canny(image: Tensor, low: float, high: float) -> Tensor:
    """[N, C, H, W] of whole numbers from 0 to 255 -> [N, 1, H, W]: 1 on edges, 0 elsewhere; without a gradient.

    The pixels are those of `cv2.Canny(image, low, high)`: crests of the gradient (Sobel, 3x3, |dx| + |dy|, of the band
    where that is largest) above `low` that hang together with one above `high`.
    """
    dx, dy = _steepest_band(image.detach().astype("float32"))
    strength = dx.abs() + dy.abs()
    weak = (_is_crest(dx, dy, strength) & (strength > low)).astype("float32")
    return _followed((strength > high).astype("float32") * weak, weak)


def _steepest_band(image: Tensor) -> tuple[Tensor, Tensor]:
    """Sobel's differences along x and y [N, 1, H, W] of the band where they are largest, the first of equals."""
    padded = F.pad(image, [1, 1, 1, 1], mode="replicate")
    rows = padded[:, :, :-2] + 2 * padded[:, :, 1:-1] + padded[:, :, 2:]
    columns = padded[..., :-2] + 2 * padded[..., 1:-1] + padded[..., 2:]
    along_x, along_y = rows[..., 2:] - rows[..., :-2], columns[:, :, 2:] - columns[:, :, :-2]
    dx, dy = along_x[:, :1], along_y[:, :1]
    for band in range(1, image.shape[1]):
        other_x, other_y = along_x[:, band : band + 1], along_y[:, band : band + 1]
        steeper = other_x.abs() + other_y.abs() > dx.abs() + dy.abs()
        dx, dy = paddle.where(steeper, other_x, dx), paddle.where(steeper, other_y, dy)
    return dx, dy


def _is_crest(dx: Tensor, dy: Tensor, strength: Tensor) -> Tensor:
    """Where the gradient is stronger than on both sides along its direction, of which there are four. Of two equals
    in a row or a column the first counts."""
    padded = F.pad(strength, [1, 1, 1, 1])
    up, middle, down = padded[:, :, :-2], padded[:, :, 1:-1], padded[:, :, 2:]
    wide, tall = dx.abs().astype("int32"), dy.abs().astype("int32") * (1 << 15)
    level, upright = tall < wide * _TAN_22, tall > wide * _TAN_67
    rising = dx * dy < 0
    before = paddle.where(rising, up[..., 2:], up[..., :-2])
    after = paddle.where(rising, down[..., :-2], down[..., 2:])
    before = paddle.where(level, middle[..., :-2], paddle.where(upright, up[..., 1:-1], before))
    after = paddle.where(level, middle[..., 2:], paddle.where(upright, down[..., 1:-1], after))
    return (strength > before) & ((strength > after) | ((strength == after) & (level | upright)))


def _followed(sure: Tensor, weak: Tensor) -> Tensor:
    """The pixels of `weak` that hang together with `sure` ones, over corners too."""

    def goes_on(reached: Tensor, grew: Tensor) -> Tensor:
        return grew

    def step(reached: Tensor, grew: Tensor) -> list[Tensor]:
        grown = reached
        for _ in range(_STEPS):
            grown = F.max_pool2d(grown, 3, stride=1, padding=1) * weak
        return [grown, (grown > reached).any()]

    return paddle.static.nn.while_loop(goes_on, step, [sure, sure.max() > 0])[0]
