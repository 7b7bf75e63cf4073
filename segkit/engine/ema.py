"""Exponential moving average of the weights."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import paddle


class WeightAverage:
    """The average of a model's floating-point state, BatchNorm statistics included.

    `average = d * average + (1 - d) * current` with d = min(decay, (1 + n) / (10 + n)) at update n, so that a
    short run is not held back by its first weights (the warm-up of TensorFlow's ExponentialMovingAverage).
    """

    def __init__(self, model: paddle.nn.Layer, decay: float = 0.999):
        self.decay = decay
        self.updates = 0
        self._average = {key: value.clone().detach() for key, value in model.state_dict().items()}

    @paddle.no_grad()
    def update(self, model: paddle.nn.Layer) -> None:
        """Take in the weights after an optimizer step."""
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        self.updates += 1
        for key, value in model.state_dict().items():
            average = self._average[key]
            if value.is_floating_point():
                average.scale_(decay)
                average.add_(value.astype(average.dtype) * (1 - decay))
            else:
                paddle.assign(value, average)

    def state_dict(self) -> dict[str, paddle.Tensor | np.ndarray]:
        """The averaged weights under the model's keys, and the number of updates."""
        return {**self._average, "ema.updates": np.asarray(self.updates)}

    def weights(self) -> dict[str, paddle.Tensor]:
        """The averaged weights under the model's keys."""
        return dict(self._average)

    def load(self, state: dict[str, np.ndarray]) -> None:
        """Put back what `state_dict` gave."""
        self.updates = int(state["ema.updates"])
        for key, value in self._average.items():
            value.set_value(state[key])

    @contextmanager
    def applied_to(self, model: paddle.nn.Layer) -> Iterator[None]:
        """The model with the averaged weights inside the block, its own after it."""
        own = {key: value.clone() for key, value in model.state_dict().items()}
        model.set_state_dict(self._average)
        try:
            yield
        finally:
            model.set_state_dict(own)
