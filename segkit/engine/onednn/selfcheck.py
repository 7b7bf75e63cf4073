"""Whether oneDNN gives Paddle's numbers here, tried on small maps before it is used."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import paddle
import paddle.nn.functional as F

from segkit.engine.onednn.functional import Fallback, convolve, counts
from segkit.engine.onednn.library import Library, OneDNNError, Unavailable

ARGUMENTS = {"stride": [2, 1], "padding": [1, 1], "algorithm": "EXPLICIT", "dilation": [1, 1], "groups": 2}
TOLERANCE = {False: 1e-4, True: 0.05}  # by bf16; of the largest value


def agrees(library: Library, bf16: bool) -> None:
    """`Unavailable` where outputs or gradients differ from Paddle's."""
    before = counts.copy()
    for transposed in (False, True):
        numbers = np.random.default_rng(0)
        tensors = [numbers.standard_normal(s).astype("float32") for s in ((2, 8, 9, 7), (8, 4, 3, 3), (8,))]
        weigh = paddle.to_tensor(numbers.standard_normal((2, 8, 17 if transposed else 5, 7)).astype("float32"))
        try:
            ours, theirs = (
                _outputs(f, tensors, weigh) for f in (_onednn(library, bf16, transposed), _plain(transposed))
            )
        except (OneDNNError, Fallback) as error:
            raise Unavailable(f"a small convolution failed ({error})") from error
        for name, a, b in zip(("output", "input's gradient", "weights' gradient", "bias's gradient"), ours, theirs):
            difference = float(np.abs(a - b).max() / np.abs(b).max())
            if not difference <= TOLERANCE[bf16]:
                raise Unavailable(f"the {name} of a small convolution differs from Paddle's by {difference:.1e}")
    _restore(before)


def chained() -> dict[str, np.ndarray]:
    """What two convolutions with BatchNorm give, one with ReLU: output, gradients, running statistics, by name.

    The ReLU lets every other channel through as a whole: where a number is near 0, rounding would decide.
    """
    before = counts.copy()
    numbers = np.random.default_rng(0)
    fixed = lambda *shape: _assigned(numbers.standard_normal(shape))  # noqa: E731
    layers = []
    for into, out in ((4, 8), (8, 8)):
        layers.append(paddle.nn.Conv2D(into, out, 3, padding=1, weight_attr=fixed(out, into, 3, 3), bias_attr=False))
        layers.append(paddle.nn.BatchNorm2D(out, weight_attr=_assigned(np.ones(out)), bias_attr=_assigned([6, -6] * 4)))
    model = paddle.nn.Sequential(*layers[:2], paddle.nn.ReLU(), *layers[2:])
    x, weigh = (numbers.standard_normal((2, c, 9, 7)).astype("float32") for c in (4, 8))
    y, into_x = _outputs(model, [x], paddle.to_tensor(weigh))
    found = {f"gradient of {name}": p.grad.numpy() for name, p in model.named_parameters() if not p.stop_gradient}
    found.update((name, p.numpy()) for name, p in model.named_parameters() if p.stop_gradient)  # running statistics
    _restore(before)
    return {"output": y, "gradient of the input": into_x, **found}


def _assigned(values: Any) -> Any:
    """An initializer that leaves the random numbers of the run alone."""
    return paddle.nn.initializer.Assign(np.asarray(values, "float32"))


def difference(found: dict[str, np.ndarray], expected: dict[str, np.ndarray], bf16: bool) -> str | None:
    """What is further from `expected` than it may be, None where nothing is."""
    for name, b in expected.items():
        far = float(np.abs(found[name] - b).max() / np.abs(b).max())
        if not far <= TOLERANCE[bf16]:
            return f"{name} of a small one differs from Paddle's by {far:.1e}"
    return None


def reached() -> None:
    """`Unavailable` unless Paddle's functions go through the hooks (its internals may change), and the other kernels
    give what numpy gives."""
    before = counts.copy()
    x, weight = paddle.ones([1, 2, 4, 4]), paddle.ones([2, 2, 3, 3])
    with paddle.no_grad():
        F.conv2d(x, weight)
        F.conv2d(x, weight[:, :1], groups=2)
        F.conv2d_transpose(x, weight)
        F.conv._conv_nd(
            x, weight, bias=None, stride=[1, 1], padding=[0, 0], padding_algorithm="EXPLICIT", dilation=[1, 1],
            groups=1, data_format="NCHW", channel_dim=1, op_type="conv2d", use_cudnn=False,
        )  # fmt: skip
        ramp = paddle.arange(64, dtype="float32").expand([1, 16, 16, 64])
        doubled = F.interpolate(ramp, scale_factor=2, mode="bilinear").numpy()
        loss = F.cross_entropy(_scores(), paddle.zeros([1, 128, 128], "int64"), axis=1)
    spots, pooled = _spots()
    found = sum((counts - before).values())
    _restore(before)
    if found != 8:
        raise Unavailable(f"Paddle {paddle.__version__} calls its functions in another way ({found} of 8 reached)")
    wanted = np.clip((np.arange(128) + 0.5) / 2 - 0.5, 0, 63)
    if np.abs(doubled - wanted).max() > 1e-4 * 63 or abs(float(loss) - np.log1p(np.e)) > 1e-4:
        raise Unavailable("interpolation or cross entropy of a small map is wrong")
    if not (np.array_equal(spots, np.tile([[0.0, 1.0], [0.0, 0.0]], [1, 16, 128, 128])) and np.all(pooled == 3)):
        raise Unavailable("ReLU or max-pooling of a small map is wrong")


def _spots() -> tuple[np.ndarray, np.ndarray]:
    """The gradient of the largest of every four pixels -1, 3, 2 and -2, after a ReLU, and those largest."""
    with paddle.enable_grad():
        x = paddle.to_tensor([[-1.0, 3.0], [2.0, -2.0]]).tile([1, 16, 128, 128])
        x.stop_gradient = False
        pooled = F.max_pool2d(F.relu(x), 2)
        pooled.sum().backward()
    return x.grad.numpy(), pooled.numpy()


def _scores() -> paddle.Tensor:
    """Logits 0 and 1 of two classes: the cross entropy of the first is log(1 + e)."""
    return paddle.arange(2, dtype="float32").reshape([1, 2, 1, 1]).expand([1, 2, 128, 128])


def _restore(before: Counter[str]) -> None:
    counts.clear()
    counts.update(before)


def _onednn(library: Library, bf16: bool, transposed: bool) -> Any:
    extra = {"data_format": "NCHW", "output_padding": [], "output_size": []}
    return lambda x, w, b: convolve(library, bf16, transposed, x, w, b, {**ARGUMENTS, **extra})


def _plain(transposed: bool) -> Any:
    function = F.conv2d_transpose if transposed else F.conv2d
    options = {name: ARGUMENTS[name] for name in ("stride", "padding", "dilation", "groups")}
    return lambda x, w, b: function(x, w, b, **options)


def _outputs(function: Any, arrays: list[np.ndarray], weigh: paddle.Tensor) -> list[np.ndarray]:
    with paddle.enable_grad():
        tensors = [paddle.to_tensor(a, stop_gradient=False) for a in arrays]
        y = function(*tensors)
        (y * weigh).sum().backward()
    return [t.numpy() for t in (y, *(t.grad for t in tensors))]
