"""The loss scale of fp16 training."""

from __future__ import annotations

import paddle

from segkit.log import logger


class LossScaler(paddle.amp.GradScaler):
    """Paddle's `GradScaler`, which itself ends with a TypeError at the first overflow where NumPy is 2.4 or newer: it
    prints its scale as `float` of an array [1]."""

    def _update(self) -> None:
        """Lower the scale after steps that overflowed (and were skipped), raise it after many that did not."""
        if not self._enable:
            return
        good, bad = (0, self._decr_count + 1) if self._cache_found_inf else (self._incr_count + 1, 0)
        if bad == self._decr_every_n_nan_or_inf:
            self._scale, bad = self._scale * self._decr_ratio, 0
            logger.info(
                "fp16: gradients overflowed, the step was skipped; the loss scale is now %g", self._scale.item()
            )
        if good == self._incr_every_n_steps:
            self._scale, good = self._scale * self._incr_ratio, 0
        self._incr_count, self._decr_count = good, bad
