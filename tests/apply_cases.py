"""What the tests of applying a model share."""

from __future__ import annotations

import paddle


class Conv(paddle.nn.Layer):
    """A 5x5 convolution: what a pixel becomes depends on its window."""

    def __init__(self, weight):
        super().__init__()
        self.weight = paddle.to_tensor(weight)
        self.seen = []

    def forward(self, x):
        self.seen.append(tuple(x.shape))
        return [paddle.nn.functional.conv2d(x, self.weight, padding=2)]
