"""The graph that is exported: a model and what it ends in."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Optional

import paddle

from segkit.models import scores_are
from segkit.postprocess import ScoresAre, score_of

_CONVERTING = threading.RLock()  # the class that is changed meanwhile is everybody's
_TINY = 1e-30  # no pixel's sum is divided by 0
# Mean and standard deviation a band, of photos divided by 255.
Normalization = tuple[list[float], list[float]]


class Exported(paddle.nn.Layer):
    """The main output of a model with what the graph begins and ends in. x float32 [N, C, H, W], or with
    `normalization` uint8 [N, H, W, C] -> scores or probabilities [N, classes, H, W], or class numbers [N, H, W], uint8
    up to 256 classes and else int32."""

    def __init__(
        self,
        model: paddle.nn.Layer,
        output_op: str,
        multilabel: bool = False,
        normalization: Optional[Normalization] = None,
    ):
        super().__init__()
        self.model = model
        self.output_op = output_op
        self.multilabel = multilabel
        self.folded = normalization is not None
        if normalization is not None:
            for name, values in zip(("mean", "std"), normalization):
                self.register_buffer(name, paddle.to_tensor(values, "float32").reshape([1, -1, 1, 1]))

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        if self.folded:
            x = (x.astype("float32").transpose([0, 3, 1, 2]) / 255 - self.mean) / self.std
        scores = self.model(x)[0]
        if self.output_op == "none":
            return scores
        single, kind = scores.shape[1] == 1, scores_are(self.model)
        if self.output_op == "softmax":
            return _each(scores, kind) if single or self.multilabel else _shares(scores, kind)
        if single:
            return (scores[:, 0] > score_of(0.5, kind)).astype("uint8")
        classes = paddle.argmax(scores, axis=1, dtype="int32")
        return classes.astype("uint8") if scores.shape[1] <= 256 else classes


def _each(scores: paddle.Tensor, kind: ScoresAre) -> paddle.Tensor:
    """The probability of each score by itself."""
    if kind == "logits":
        return paddle.nn.functional.sigmoid(scores)
    # Not d / (1 + d): of that Paddle Inference's oneDNN makes ones.
    return 1 - 1 / (1 + scores) if kind == "distances" else scores.clip(max=1.0)


def _shares(scores: paddle.Tensor, kind: ScoresAre) -> paddle.Tensor:
    """Probabilities of the classes [N, classes, H, W], which add up to 1."""
    if kind == "logits":
        return paddle.nn.functional.softmax(scores, axis=1)
    return scores / scores.sum(axis=1, keepdim=True).clip(min=_TINY)


def save_graph(model: Exported, folder: Path, shape: list[int]) -> None:
    """`model.json` (or `.pdmodel`, as this Paddle makes it) and `model.pdiparams`. `shape`: [N, C, H, W]."""
    model.eval()
    if model.folded:
        count, channels, height, width = shape
        spec = [paddle.static.InputSpec([count, height, width, channels], "uint8", name="x")]
    else:
        spec = [paddle.static.InputSpec(shape, "float32", name="x")]
    with methods_converted_once():
        paddle.jit.save(paddle.jit.to_static(model, input_spec=spec, full_graph=True), str(folder / "model"))


@contextlib.contextmanager
def methods_converted_once() -> Iterator[None]:
    """Within the block Paddle rewrites a layer's `forward` for graphs once for all layers of that class. By itself it
    does so for each of them, 30 ms a layer: its cache is keyed by bound methods, which are gone as soon as they have
    been called (seen in Paddle 3.3)."""
    with _CONVERTING, contextlib.ExitStack() as stack:
        with contextlib.suppress(ImportError, AttributeError):  # another Paddle has no such cache
            from paddle.jit.dy2static.program_translator import FunctionCache

            convert = FunctionCache.convert_with_cache
            stack.callback(setattr, FunctionCache, "convert_with_cache", convert)
            FunctionCache.convert_with_cache = lambda cache, method: convert(cache, getattr(method, "__func__", method))
        yield
