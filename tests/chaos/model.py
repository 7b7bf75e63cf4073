"""A network small enough for hundreds of runs, with what makes resuming hard: dropout, BatchNorm, two outputs."""

from __future__ import annotations

import paddle
from paddle import nn
from paddle.nn import functional

from segkit.registry import MODELS


@MODELS.register
class ChaosNet(nn.Layer):
    """Two convolutions at half size, and an auxiliary head."""

    train_outputs = 2

    def __init__(self, num_classes: int, in_channels: int = 3):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2D(in_channels, 8, 3, 2, 1),
            nn.BatchNorm2D(8),
            nn.ReLU(),
            nn.Conv2D(8, 8, 3, 1, 1),
            nn.BatchNorm2D(8),
        )
        self.dropout = nn.Dropout2D(0.3)
        self.head, self.auxiliary = nn.Conv2D(8, num_classes, 1), nn.Conv2D(8, num_classes, 1)

    def forward(self, x: paddle.Tensor) -> list[paddle.Tensor]:
        """x [N, C, H, W] -> scores [N, num_classes, H, W], with the auxiliary ones in training."""
        size = x.shape[2:]
        inner = functional.relu(self.body(x))
        outputs = [self.head(self.dropout(inner))]
        if self.training:
            outputs.append(self.auxiliary(self.dropout(inner)))
        return [functional.interpolate(output, size, mode="bilinear") for output in outputs]
