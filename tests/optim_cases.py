"""What the tests of schedules and optimizers share."""

from __future__ import annotations

import numpy as np
import paddle

from segkit.optim import build_scheduler


def rates(node: dict, iters: int, last: int) -> list[float]:
    scheduler = build_scheduler(dict(node), iters)
    found = []
    for _ in range(last + 1):
        found.append(scheduler())
        scheduler.step()
    return found


class Part(paddle.nn.Layer):
    """Holds parameters under given names."""

    def put(self, path: str, value: np.ndarray) -> None:
        head, _, rest = path.partition(".")
        if rest:
            if head not in self._sub_layers:
                self.add_sublayer(head, Part())
            getattr(self, head).put(rest, value)
            return
        start = paddle.nn.initializer.Assign(value)
        self.add_parameter(head, self.create_parameter(list(value.shape), default_initializer=start))


def toy(names: list[str], arrays=None) -> Part:
    model = Part()
    for name in names:
        model.put(name, np.ones([2], "float32") if arrays is None else arrays[f"init_{name}"])
    return model
