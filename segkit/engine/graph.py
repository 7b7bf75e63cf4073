"""The graph that is exported: a model and what it ends in."""

from __future__ import annotations

from pathlib import Path

import paddle


class Exported(paddle.nn.Layer):
    """The main output of a model with what the graph ends in. x float32 [N, C, H, W] -> scores or probabilities
    [N, classes, H, W], or class numbers int32 [N, H, W]."""

    def __init__(self, model: paddle.nn.Layer, output_op: str, multilabel: bool = False):
        super().__init__()
        self.model = model
        self.output_op = output_op
        self.multilabel = multilabel

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        scores = self.model(x)[0]
        if self.output_op == "none":
            return scores
        single = scores.shape[1] == 1
        if self.output_op == "softmax":
            if single or self.multilabel:
                return paddle.nn.functional.sigmoid(scores)
            return paddle.nn.functional.softmax(scores, axis=1)
        if single:
            return (scores[:, 0] > 0).astype("int32")
        return paddle.argmax(scores, axis=1, dtype="int32")


def save_graph(model: paddle.nn.Layer, folder: Path, shape: list[int]) -> None:
    """`model.json` (or `.pdmodel`, as this Paddle makes it) and `model.pdiparams`."""
    model.eval()
    spec = [paddle.static.InputSpec(shape, "float32", name="x")]
    graph = paddle.jit.to_static(model, input_spec=spec, full_graph=True)
    paddle.jit.save(graph, str(folder / "model"))
