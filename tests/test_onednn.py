"""oneDNN's convolutions against Paddle's own: numbers, gradients, and everything round them."""

from __future__ import annotations

import gc
import logging
import os
import subprocess
import sys
import threading
from typing import Any, Callable

import numpy as np
import paddle
import paddle.nn.functional as F
import pytest
from paddle.nn.functional import conv as paddle_conv

from segkit.engine import onednn
from segkit.engine.onednn import context, functional, library
from segkit.engine.onednn.library import Unavailable
from segkit.errors import InputError
from segkit.log import logger

try:
    LIBRARY = library.load()
except Unavailable as reason:
    pytest.skip(f"no oneDNN here: {reason}", allow_module_level=True)

PRECISIONS = ["fp32", *(["bf16"] if LIBRARY.has_bf16 else [])]

# input, filters, kernel, options
CONVOLUTIONS = [
    ((2, 3, 64, 64), 16, 3, {"padding": 1}),
    ((2, 16, 33, 47), 32, 3, {"padding": 1, "bias": False}),
    ((2, 16, 33, 47), 32, 3, {"stride": 2, "padding": 1}),
    ((1, 64, 40, 40), 64, 3, {"padding": 2, "dilation": 2, "bias": False}),
    ((2, 32, 31, 29), 24, 1, {}),
    ((2, 32, 32, 32), 48, 1, {"stride": 2, "bias": False}),
    ((2, 32, 32, 32), 32, 3, {"padding": 1, "groups": 32}),
    ((2, 20, 33, 35), 20, 3, {"stride": 2, "padding": 1, "groups": 20}),
    ((2, 16, 32, 32), 96, 3, {"stride": 2, "padding": 1, "groups": 16}),
    ((2, 24, 30, 30), 48, 3, {"padding": 6, "dilation": 6, "groups": 3}),
    ((1, 7, 17, 19), 5, 5, {"padding": 2}),
    ((2, 64, 16, 16), 2, 1, {}),
    ((2, 8, 28, 30), 8, (3, 5), {"stride": (2, 1), "padding": [1, 2], "dilation": (1, 2), "groups": 2, "bias": False}),
    ((1, 16, 20, 20), 8, 3, {"padding": [0, 1, 2, 0]}),
    ((2, 32, 9, 9), 64, 7, {"stride": 2, "padding": 3, "bias": False}),
    ((3, 1, 50, 50), 1, 3, {"padding": 1}),
    ((3, 5, 12, 13), 7, 3, {"padding": "same"}),
    ((2, 8, 21, 30), 16, 3, {"padding": "same", "stride": 2}),
    ((2, 8, 21, 30), 16, 4, {"padding": "SAME", "stride": 2}),
    ((2, 8, 21, 30), 8, 3, {"padding": "same", "dilation": 2}),
    ((2, 8, 21, 30), 8, 3, {"padding": "valid", "groups": 4}),
    ((2, 8, 21, 30), 16, (1, 5), {"padding": "same", "bias": False}),
    ((2, 6, 11, 12), 6, 3, {"padding": [[0, 0], [0, 0], [1, 2], [0, 3]]}),
    ((5, 4, 8, 8), 4, 3, {"padding": 1, "groups": 4, "dilation": 2}),
    ((2, 4, 1, 1), 8, 1, {}),
    ((2, 4, 2, 2), 8, 3, {"padding": 1}),
    ((4, 129, 6, 5), 17, 3, {"padding": 1}),
    ((1, 3, 30, 30), 8, 3, {"stride": 3, "padding": 0}),
]
TRANSPOSED = [
    ((2, 16, 17, 19), 8, 2, {"stride": 2}),
    ((2, 16, 16, 16), 8, 4, {"stride": 2, "padding": 1, "bias": False}),
    ((1, 8, 15, 15), 12, 3, {"stride": 2, "padding": 1, "output_padding": 1}),
    ((2, 16, 12, 12), 16, 4, {"stride": 2, "padding": 1, "groups": 16, "bias": False}),
    ((2, 12, 10, 11), 8, 3, {"dilation": 2, "groups": 2}),
    ((3, 4, 7, 9), 6, 3, {"stride": (3, 2), "padding": [1, 0]}),
    ((2, 4, 7, 9), 6, 3, {"stride": 2, "padding": [1, 0, 0, 1]}),
    ((2, 4, 7, 9), 6, 3, {"stride": 2, "padding": "same"}),
    ((2, 4, 7, 9), 6, 3, {"stride": 2, "padding": "valid"}),
    ((2, 4, 7, 9), 6, 3, {"stride": 2, "padding": 1, "output_size": [14, 18]}),
    ((1, 5, 6, 6), 5, 3, {"stride": 2, "padding": 1, "output_padding": (1, 0)}),
]


def random_case(seed: int) -> tuple[tuple[int, ...], int, Any, dict[str, Any], bool]:
    """Anything that Paddle computes."""
    rng = np.random.default_rng(seed)
    pick = lambda *values: values[int(rng.integers(len(values)))]  # noqa: E731
    groups = pick(1, 1, 2, 3)
    channels, filters = groups * int(rng.integers(1, 9)), groups * int(rng.integers(1, 9))
    kernel = (int(rng.integers(1, 6)), int(rng.integers(1, 6)))
    stride = (int(rng.integers(1, 4)), int(rng.integers(1, 4)))
    dilation = (int(rng.integers(1, 3)), int(rng.integers(1, 3)))
    transposed = bool(rng.random() < 0.3)
    most = [max(1, d * (k - 1) // 2 + 1) for d, k in zip(dilation, kernel)]
    padding = [int(rng.integers(most[i // 2])) for i in range(4)]
    if not transposed and rng.random() < 0.25:
        padding = pick("same", "valid")
    shape = (int(rng.integers(1, 6)), channels, int(rng.integers(10, 26)), int(rng.integers(10, 26)))
    options = {"stride": stride, "dilation": dilation, "groups": groups, "padding": padding}
    return shape, filters, kernel, {**options, "bias": bool(rng.random() < 0.5)}, transposed


CASES = [
    *((*case, False) for case in CONVOLUTIONS),
    *((*case, True) for case in TRANSPOSED),
    *(random_case(seed) for seed in range(30)),
]


def run(function: Callable[..., Any], arrays: list[Any], seed: int = 1) -> list[np.ndarray]:
    """Output and all gradients."""
    tensors = [None if a is None else paddle.to_tensor(a, stop_gradient=False) for a in arrays]
    y = function(*tensors)
    weigh = np.random.default_rng(seed).standard_normal(y.shape).astype("float32")
    y.backward(paddle.to_tensor(weigh))
    return [y.numpy(), *(t.grad.numpy() for t in tensors if t is not None)]


def distance(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.abs(a - b).max() / max(np.abs(b).max(), 1e-12))


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    a, b = a.ravel().astype("float64"), b.ravel().astype("float64")
    return float(a @ b / max(np.sqrt((a @ a) * (b @ b)), 1e-30))


def bf16(enabled: bool = True) -> Any:
    return onednn.convolutions(enabled, precision="bf16")


@pytest.fixture(autouse=True)
def untouched() -> Any:
    """No test leaves a hook in Paddle."""
    before = (paddle_conv._conv_nd, paddle_conv._C_ops)
    yield
    assert (paddle_conv._conv_nd, paddle_conv._C_ops) == before


@pytest.fixture
def lines() -> Any:
    """What is logged, with everything said before forgotten."""
    said: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: said.append(record.getMessage())
    level = logger.level
    logger.setLevel(logging.INFO)
    logger.addHandler(handler)
    context._said.clear()
    functional.counts.clear()
    yield said
    logger.removeHandler(handler)
    logger.setLevel(level)


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


def block() -> paddle.nn.Layer:
    paddle.seed(3)
    return paddle.nn.Sequential(
        paddle.nn.Conv2D(3, 16, 3, padding="same"),
        paddle.nn.BatchNorm2D(16),
        paddle.nn.ReLU(),
        paddle.nn.Conv2D(16, 16, 3, padding=1, groups=16, bias_attr=False),
        paddle.nn.Conv2DTranspose(16, 4, 2, stride=2),
    )


IMAGE = np.random.default_rng(5).standard_normal((4, 3, 24, 20)).astype("float32")


def gradients(model: paddle.nn.Layer, image: np.ndarray = IMAGE) -> list[np.ndarray]:
    model.clear_gradients()
    y = model(paddle.to_tensor(image))
    (y * y).mean().backward()
    return [y.numpy(), *parameter_gradients(model)]


def parameter_gradients(model: paddle.nn.Layer) -> list[np.ndarray]:
    return [p.grad.numpy() for p in model.parameters() if not p.stop_gradient]


def assert_close(got: list[np.ndarray], expected: list[np.ndarray]) -> None:
    assert len(got) == len(expected)
    largest = max(np.abs(b).max() for b in expected[1:])
    for a, b in zip(got, expected):  # a bias before BatchNorm has no gradient but rounding
        assert np.abs(a - b).max() < 1e-4 * max(np.abs(b).max(), 0.1 * largest)


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


def test_nesting_and_exceptions() -> None:
    x, w = paddle.ones([1, 3, 8, 8]), paddle.ones([4, 3, 3, 3])

    def used() -> bool:
        before = onednn.counts[functional.ONEDNN]
        F.conv2d(x, w)
        return onednn.counts[functional.ONEDNN] > before

    assert not used()
    with onednn.convolutions():
        assert used()
        hooks = (paddle_conv._conv_nd, paddle_conv._C_ops)
        with onednn.convolutions(False):
            assert not used()
        assert used()
        with pytest.raises(KeyError), onednn.convolutions():
            raise KeyError
        assert used()
        assert hooks == (paddle_conv._conv_nd, paddle_conv._C_ops)
    assert not used()


def test_fallbacks_are_counted_and_said_once(lines: list[str]) -> None:
    w = paddle.ones([4, 3, 3, 3])
    with onednn.convolutions():
        for _ in range(3):
            F.conv2d(paddle.ones([1, 3, 8, 8], "float64"), w.astype("float64"))
        assert F.conv2d(paddle.ones([1, 8, 8, 3]), w, data_format="NHWC").shape == [1, 6, 6, 4]
        assert F.conv2d(paddle.ones([0, 3, 8, 8]), w).shape == [0, 4, 6, 6]
        with pytest.raises(ValueError, match=r"channel|InvalidArgument"):
            F.conv2d(paddle.ones([1, 5, 8, 8]), w)
    assert onednn.counts["data type float64"] == 3
    assert onednn.counts["data format NHWC"] == 1
    assert onednn.counts["empty tensor"] == 1
    assert [line for line in lines if "float64" in line] == [
        "convolutions: Paddle's kernel for input [1, 3, 8, 8], weights [4, 3, 3, 3]: data type float64 "
        "(later ones are only counted)"
    ]


def test_one_line_says_what_is_used(lines: list[str]) -> None:
    for _ in range(2):
        with onednn.convolutions():
            pass
    threads = LIBRARY.threads
    assert lines == [f"convolutions: oneDNN {LIBRARY.version}, float32, {threads} threads"]
    lines.clear()
    with onednn.convolutions(False):
        pass
    assert lines == ["convolutions: Paddle's own kernels, as asked"]


def test_unavailable_is_a_no_op(lines: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def absent() -> None:
        raise Unavailable("this Paddle brings no libdnnl.so.3")

    monkeypatch.setattr(context, "load", absent)
    with onednn.convolutions():
        y = F.conv2d(paddle.ones([1, 3, 8, 8]), paddle.ones([4, 3, 3, 3]))
    assert y.shape == [1, 4, 6, 6]
    assert lines == [
        "convolutions: Paddle's own kernels, because oneDNN cannot be used here: this Paddle brings no libdnnl.so.3"
    ]
    assert not onednn.counts
    with pytest.raises(InputError, match=r"it needs oneDNN, which cannot be used here.*Drop --precision bf16"), bf16():
        pass


def test_disagreement_turns_it_off(lines: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    from segkit.engine.onednn import selfcheck

    context._check.cache_clear()
    monkeypatch.setattr(selfcheck, "_plain", lambda transposed: lambda x, w, b: selfcheck_wrong(x, w, b, transposed))
    try:
        with onednn.convolutions():
            pass
    finally:
        context._check.cache_clear()
    assert len(lines) == 1
    assert "the output of a small convolution differs from Paddle's by" in lines[0]


def selfcheck_wrong(x: Any, w: Any, b: Any, transposed: bool) -> Any:
    function = F.conv2d_transpose if transposed else F.conv2d
    return function(x, w, b, stride=[2, 1], padding=1, groups=2) * 1.01


def test_bf16_needs_the_hardware(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LIBRARY, "isa", 0x27)
    with (
        pytest.raises(InputError, match=r"this CPU has no bf16.*got instruction set 0x27.*Drop --precision bf16"),
        bf16(),
    ):
        pass
    with (
        pytest.raises(InputError, match=r"only oneDNN's convolutions compute in bf16.*Drop one of the two flags"),
        bf16(False),
    ):
        pass


def test_other_version_of_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    class Renamed(library._Version):
        pass

    monkeypatch.setattr(library.ctypes, "CDLL", lambda *_: FakeLibrary())
    with pytest.raises(Unavailable, match=r"its version is 4\.1\.0, expected 3\.x"):
        library.Library(library.Path("libdnnl.so.3"))


class FakeLibrary:
    def __getattr__(self, name: str) -> Any:
        def function(*_: Any) -> Any:
            return type("Pointer", (), {"contents": library._Version(4, 1, 0)})()

        return function


def test_graphs_are_untouched(tmp_path: Any) -> None:
    model = block()
    model.eval()
    image = paddle.to_tensor(IMAGE)
    spec = [paddle.static.InputSpec([None, 3, None, None], "float32")]
    with onednn.convolutions():
        before = onednn.counts[functional.ONEDNN]
        for full in (True, False):
            traced = paddle.jit.to_static(block(), input_spec=spec if full else None, full_graph=full)
            traced.eval()
            inside = traced(image)
        paddle.jit.save(model, str(tmp_path / "model"), input_spec=spec)
        loaded = paddle.jit.load(str(tmp_path / "model"))(image)
        assert onednn.counts[functional.ONEDNN] == before
        mine = model(image)
    plain = model(image)
    assert paddle.in_dynamic_mode()
    assert np.array_equal(loaded.numpy(), plain.numpy())
    assert distance(mine.numpy(), plain.numpy()) < 1e-4
    assert distance(inside.numpy(), plain.numpy()) < 1e-4
    program = (tmp_path / "model.json").read_text()
    assert "conv2d" in program
    assert "py_layer" not in program
    assert "py_func" not in program


def test_cache_is_bounded_and_frees(monkeypatch: pytest.MonkeyPatch) -> None:
    freed = []
    original = functional.Convolution

    class Counted(original):
        def __del__(self) -> None:
            freed.append(1)

    monkeypatch.setattr(functional, "Convolution", Counted)
    monkeypatch.setattr(functional._cache, "limit", 4)
    functional._cache.clear()
    weight = paddle.ones([4, 3, 3, 3])
    weight.stop_gradient = False
    with onednn.convolutions():
        for size in range(8, 20):
            F.conv2d(paddle.ones([1, 3, size, size]), weight).sum().backward()
        assert len(functional._cache) == 4
    gc.collect()
    assert len(freed) == 8
    functional._cache.clear()
    gc.collect()
    assert len(freed) == 12


def test_paddles_threads_are_put_back() -> None:
    runtimes = LIBRARY._openmp
    before = [r.omp_get_max_threads() for r in runtimes]
    with onednn.convolutions():
        gradients(block())
        assert [r.omp_get_max_threads() for r in runtimes] == before


def test_thread_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library, "physical_cores", lambda: 8)
    monkeypatch.delenv("PADDLE_TRAINER_ID", raising=False)
    monkeypatch.delenv("PADDLE_LOCAL_SIZE", raising=False)
    monkeypatch.delenv("PADDLE_TRAINERS_NUM", raising=False)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert library.thread_count() == 8
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert library.thread_count() == 3
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setattr(library, "_set_before_start", lambda name: False)
    assert library.thread_count() == 8, "Paddle's own 1"
    monkeypatch.setattr(library, "_set_before_start", lambda name: True)
    assert library.thread_count() == 1
    monkeypatch.setenv("PADDLE_TRAINER_ID", "1")
    monkeypatch.setenv("PADDLE_TRAINERS_NUM", "2")
    assert library.thread_count() == 4, "the launcher's 1"


def test_two_ranks(tmp_path: Any, root: Any) -> None:
    """DataParallel over gloo: each rank takes half of the batch, both get the gradient of the whole."""
    script = tmp_path / "ranks.py"
    script.write_text(
        "import sys\n"
        "import paddle\n"
        "from segkit.dist import rank, world_size\n"
        "from segkit.engine.device import init_distributed, set_up_device\n"
        "from segkit.engine.onednn import convolutions, counts\n"
        "from segkit.engine.onednn.library import load\n"
        "set_up_device('cpu')\n"
        "init_distributed()\n"
        "paddle.seed(1)\n"
        "model = paddle.nn.Sequential(paddle.nn.Conv2D(3, 4, 3), paddle.nn.Conv2DTranspose(4, 2, 2, 2))\n"
        "net = paddle.DataParallel(model) if world_size() > 1 else model\n"
        "x = paddle.randn([4, 3, 8, 8])\n"
        "half = x[2 * rank() : 2 * rank() + 2] if world_size() > 1 else x\n"
        "with convolutions():\n"
        "    (net(half) ** 2).mean().backward()\n"
        "grads = [round(float(p.grad.abs().sum()), 3) for p in model.parameters()]\n"
        "print('GRAD', grads, counts['oneDNN'], flush=True)\n"
    )
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PADDLE_")}
    environment["PYTHONPATH"] = os.pathsep.join([os.fspath(root), environment.get("PYTHONPATH", "")])
    alone = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=60, env=environment)
    assert alone.returncode == 0, alone.stderr
    expected = next(line for line in alone.stdout.splitlines() if line.startswith("GRAD"))
    assert expected.endswith(" 2")
    launch = [sys.executable, "-m", "paddle.distributed.launch", "--nproc_per_node", "2", "--log_dir", tmp_path / "log"]
    both = subprocess.run([*launch, script], capture_output=True, text=True, timeout=90, env=environment)
    assert both.returncode == 0, both.stdout + both.stderr
    for number in (0, 1):
        assert expected in (tmp_path / "log" / f"workerlog.{number}").read_text()


def test_nothing_is_kept_after_backward(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a convolution saved goes with backward, also where the loss is held on to."""
    freed = []

    class Counted(functional.Convolution):
        def __del__(self) -> None:
            freed.append(1)

    monkeypatch.setattr(functional, "Convolution", Counted)
    functional._cache.clear()
    weight = paddle.ones([4, 3, 3, 3])
    weight.stop_gradient = False
    with onednn.convolutions():
        loss = F.conv2d(paddle.ones([1, 3, 9, 9]), weight).sum()
        functional._cache.clear()
        gc.collect()
        assert not freed
        loss.backward()
        gc.collect()
        assert freed == [1]
        unused = F.conv2d(paddle.ones([1, 3, 9, 9]), weight)
        functional._cache.clear()
        del unused
        gc.collect()
        assert freed == [1, 1]


def test_nothing_on_a_gpu(lines: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paddle, "get_device", lambda: "gpu:0")
    before = (paddle_conv._conv_nd, paddle_conv._C_ops)
    with onednn.convolutions(precision="bf16"):
        assert (paddle_conv._conv_nd, paddle_conv._C_ops) == before
    assert lines == []
