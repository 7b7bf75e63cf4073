"""Functions that Paddle 3.3 no longer writes as .pdmodel: put back, they say there what they say elsewhere."""

from __future__ import annotations

import os
import subprocess
import sys

CODE = """
import sys
from pathlib import Path
import numpy as np
import paddle
import paddle.nn.functional as F
from paddle import inference
from segkit.engine import old_ir
from segkit.engine.graph import Exported, save_graph

old_ir.restore()

class Every(paddle.nn.Layer):
    def __init__(self):
        super().__init__()
        self.conv = paddle.nn.Conv2D(3, 3, 1)

    def forward(self, x):
        y = F.sigmoid(self.conv(x))
        found = [getattr(paddle, name)(x + 2) for name in ("abs", "ceil", "cos", "exp", "floor", "log", "round")]
        found += [getattr(paddle, name)(x + 2) for name in ("rsqrt", "sign", "sin", "sqrt", "tanh")]
        found += [F.sigmoid(x), paddle.nn.Sigmoid()(x), F.gelu(x), F.gelu(x, True), F.softplus(x), x.exp()]
        found += [paddle.multiply(x, y), paddle.maximum(x, y), paddle.minimum(x, y), x.maximum(y)]
        found += [paddle.matmul(x, y, transpose_y=True), x.matmul(y), paddle.bmm(x[:, 0], y[:, 1]).unsqueeze(1)]
        found += [paddle.sum(x, axis=1, keepdim=True), x.sum(axis=[2, 3], keepdim=True), x.sum().reshape([1, 1, 1, 1])]
        found += [paddle.roll(x, 1, 2), paddle.roll(x, [1, 2], [2, 3]), paddle.tril(x), paddle.triu(x, 1)]
        found += [paddle.argmax(x, axis=1, keepdim=True, dtype="int32").astype("float32"), x[:, :1].expand_as(x)]
        found += [F.normalize(x), F.normalize(x, p=1, axis=3)]
        grid = paddle.stack([x[:, 0], y[:, 0]], axis=-1)
        found += [F.grid_sample(x, grid), F.grid_sample(x, grid, "nearest", "border", False)]
        return [paddle.concat([item.expand([1, 3, 8, 8]) for item in found], axis=1)]

folder = Path(sys.argv[1])
model = Every()
x = np.random.default_rng(0).random((1, 3, 8, 8), np.float32)
expected = model(paddle.to_tensor(x))[0].numpy()
save_graph(Exported(model, "none"), folder, [1, 3, 8, 8])
config = inference.Config(str(folder / "model.pdmodel"), str(folder / "model.pdiparams"))
config.disable_glog_info()
config.disable_mkldnn()
predictor = inference.create_predictor(config)
predictor.get_input_handle("x").copy_from_cpu(x)
predictor.run()
found = predictor.get_output_handle(predictor.get_output_names()[0]).copy_to_cpu()
np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
print("equal", found.shape)
"""


def test_every_function(root, tmp_path):
    environment = {**os.environ, "FLAGS_enable_pir_api": "0", "PYTHONPATH": str(root)}
    done = subprocess.run(
        [sys.executable, "-c", CODE, str(tmp_path)], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert "equal (1, 114, 8, 8)" in done.stdout
