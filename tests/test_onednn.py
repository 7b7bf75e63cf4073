"""oneDNN's convolutions against Paddle's own: outputs and gradients."""

from __future__ import annotations

import gc
import threading
from typing import Any, Callable

import numpy as np
import paddle
import paddle.nn.functional as F
import pytest

from segkit.engine import onednn
from segkit.engine.onednn import functional, library
from segkit.engine.onednn.library import Unavailable
from tests.convolution_cases import (
    CASES,
    IMAGE,
    assert_close,
    block,
    cosine,
    distance,
    gradients,
    parameter_gradients,
    run,
)

try:
    LIBRARY = library.load()
except Unavailable as reason:
    pytest.skip(f"no oneDNN here: {reason}", allow_module_level=True)

PRECISIONS = ["fp32", *(["bf16"] if LIBRARY.has_bf16 else [])]


@pytest.mark.parametrize("case", CASES, ids=lambda c: "-".join(str(v).replace(" ", "") for v in c[:4]))
def test_outputs_and_gradients_equal_paddles(case: Any) -> None:
    shape, filters, kernel, options, transposed = case
    options = dict(options)
    bias = options.pop("bias", True)
    groups = options.get("groups", 1)
    kernel = (kernel, kernel) if isinstance(kernel, int) else kernel
    rng = np.random.default_rng(0)
    weight = (shape[1], filters // groups, *kernel) if transposed else (filters, shape[1] // groups, *kernel)
    arrays = [rng.standard_normal(shape), rng.standard_normal(weight) * 0.1, rng.standard_normal(filters)]
    arrays = [a.astype("float32") for a in arrays] if bias else [*(a.astype("float32") for a in arrays[:2]), None]
    function = F.conv2d_transpose if transposed else F.conv2d
    expected = run(lambda x, w, b: function(x, w, b, **options), arrays)
    for precision in PRECISIONS:
        before = onednn.counts[functional.ONEDNN]
        with onednn.convolutions(precision=precision):
            got = run(lambda x, w, b: function(x, w, b, **options), arrays)
        assert onednn.counts[functional.ONEDNN] == before + 1
        for a, b in zip(got, expected):
            if precision == "fp32":
                assert distance(a, b) < 1e-4
            else:
                assert cosine(a, b) > 0.999


LAYERS = [
    lambda: paddle.nn.Conv2D(8, 16, 3, padding="same"),
    lambda: paddle.nn.Conv2D(8, 16, 3, padding="same", stride=2, bias_attr=False),
    lambda: paddle.nn.Conv2D(8, 8, 3, padding=1, padding_mode="reflect"),
    lambda: paddle.nn.Conv2D(8, 16, 3, padding=1, groups=8),
    lambda: paddle.nn.Conv2DTranspose(8, 4, 2, stride=2),
    lambda: paddle.nn.Conv2DTranspose(8, 8, 4, stride=2, padding=1, groups=8, bias_attr=False),
]


@pytest.mark.parametrize("make", LAYERS)
def test_layers(make: Callable[[], Any]) -> None:
    layer = make()
    x = np.random.default_rng(0).standard_normal((2, 8, 21, 30)).astype("float32")

    def outputs() -> list[np.ndarray]:
        layer.clear_gradients()
        return [*run(layer, [x]), *(p.grad.numpy() for p in layer.parameters())]

    expected = outputs()
    before = onednn.counts[functional.ONEDNN]
    with onednn.convolutions():
        got = outputs()
    assert onednn.counts[functional.ONEDNN] == before + 1
    assert max(distance(a, b) for a, b in zip(got, expected)) < 1e-4


@pytest.mark.parametrize("precision", PRECISIONS)
def test_same_input_twice_gives_the_same_bits(precision: str) -> None:
    with onednn.convolutions(precision=precision):
        first = [gradients(block(), np.tile(IMAGE, (1, 1, 4, 4))) for _ in range(4)]
        functional._cache.clear()
        first.append(gradients(block(), np.tile(IMAGE, (1, 1, 4, 4))))
    for other in first[1:]:
        assert all(np.array_equal(a, b) for a, b in zip(first[0], other))


@pytest.mark.parametrize("frozen", ["input of the first", "weights", "bias", "all but the last", "all"])
def test_frozen_parts(frozen: str) -> None:
    results = []
    for used in (False, True):
        model = block()
        if frozen == "weights":
            model[0].weight.stop_gradient = model[4].weight.stop_gradient = True
        elif frozen == "bias":
            model[0].bias.stop_gradient = True
        elif frozen != "input of the first":
            for p in [*model[0].parameters(), *model[1].parameters(), *model[3].parameters()]:
                p.stop_gradient = True
            if frozen == "all":
                for p in model.parameters():
                    p.stop_gradient = True
        with onednn.convolutions(used):
            if frozen == "all":
                results.append([model(paddle.to_tensor(IMAGE)).numpy()] * 2)
            else:
                results.append(gradients(model))
    assert_close(results[1], results[0])


def test_no_grad_and_evaluation() -> None:
    model = block()
    model.eval()
    with paddle.no_grad():
        expected = model(paddle.to_tensor(IMAGE))
        with onednn.convolutions():
            got = model(paddle.to_tensor(IMAGE))
    assert got.stop_gradient
    assert distance(got.numpy(), expected.numpy()) < 1e-4


def test_non_contiguous_input() -> None:
    weight = np.random.default_rng(0).standard_normal((4, 24, 3, 3)).astype("float32")
    function = lambda x, w: F.conv2d(x.transpose([0, 2, 1, 3]), w.transpose([0, 1, 3, 2]), padding=1)  # noqa: E731
    expected = run(function, [IMAGE, weight])
    with onednn.convolutions():
        got = run(function, [IMAGE, weight])
    assert max(distance(a, b) for a, b in zip(got, expected)) < 1e-4


def test_recompute() -> None:
    from paddle.distributed.fleet.utils import recompute

    results = []
    for used in (False, True):
        for reentrant in (True, False):
            model = block()
            image = paddle.to_tensor(IMAGE, stop_gradient=False)
            with onednn.convolutions(used):
                y = recompute(model, image, use_reentrant=reentrant)
                (y * y).mean().backward()
            results.append([y.numpy(), image.grad.numpy(), *parameter_gradients(model)])
    for other in results[1:]:
        assert_close(other, results[0])


def test_backward_after_the_context_and_after_the_cache_forgot() -> None:
    expected = gradients(block())
    model = block()
    with onednn.convolutions():
        y = model(paddle.to_tensor(IMAGE))
    functional._cache.clear()
    gc.collect()
    (y * y).mean().backward()
    assert_close([y.numpy(), *parameter_gradients(model)], expected)


def test_change_in_place_is_noticed() -> None:
    layer = paddle.nn.Conv2D(4, 4, 3, padding=1)
    x = paddle.ones([1, 4, 8, 8])
    x.stop_gradient = False
    with onednn.convolutions():
        y = layer(x).sum()
        with paddle.no_grad():
            layer.weight.add_(paddle.ones_like(layer.weight))
        with pytest.raises((RuntimeError, OSError), match="changed in place after the forward pass"):
            y.backward()


def test_threads_and_several_models() -> None:
    models = [block() for _ in range(4)]
    expected = gradients(block())
    results: list[Any] = [None] * 4

    def work(i: int) -> None:
        for _ in range(5):
            results[i] = gradients(models[i])

    with onednn.convolutions():
        threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    for result in results:
        assert_close(result, expected)
