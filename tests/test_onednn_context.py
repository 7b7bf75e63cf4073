"""When oneDNN's convolutions are used, what is said about it, and that they leave nothing behind."""

from __future__ import annotations

import gc
import logging
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import paddle
import paddle.nn.functional as F
import pytest
from paddle.nn.functional import common as paddle_common
from paddle.nn.functional import conv as paddle_conv
from paddle.nn.functional import loss as paddle_loss

from segkit.config import Config
from segkit.engine import onednn
from segkit.engine.onednn import context, convolution, functional, library
from segkit.engine.onednn.library import Unavailable
from segkit.engine.train import train
from segkit.errors import InputError, counted
from segkit.log import logger
from segkit.options import TrainOptions
from tests.convolution_cases import IMAGE, block, distance, gradients
from tests.tiny import make_data, tiny_config

try:
    LIBRARY = library.load()
except Unavailable as reason:
    pytest.skip(f"no oneDNN here: {reason}", allow_module_level=True)


def bf16(enabled: bool = True) -> Any:
    return onednn.convolutions(enabled, precision="bf16")


@pytest.fixture(autouse=True)
def untouched() -> Any:
    """No test leaves a hook in Paddle."""
    hooked = lambda: [paddle_conv._conv_nd, *(m._C_ops for m in (paddle_conv, paddle_common, paddle_loss))]  # noqa: E731
    before = hooked()
    yield
    assert hooked() == before


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


def test_refusal_of_the_backward_pass_falls_back(lines: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Any, *_: Any) -> None:
        raise library.OneDNNError("oneDNN: backward_data: status 3")

    functional._cache.clear()
    monkeypatch.setattr(convolution.DataGradient, "__init__", refuse)
    monkeypatch.setattr(functional, "_refused", {})
    x, w = paddle.ones([1, 3, 8, 8]), paddle.ones([4, 3, 3, 3])
    x.stop_gradient = False
    with onednn.convolutions():
        for _ in range(2):
            F.conv2d(x, w).sum().backward()
    assert x.grad.shape == x.shape
    assert onednn.counts == {"oneDNN: backward_data: status 3": 2}
    assert sum("status 3" in line for line in lines) == 1


def test_one_line_says_what_is_used(lines: list[str]) -> None:
    for _ in range(2):
        with onednn.convolutions():
            pass
    threads = LIBRARY.threads
    assert lines == [f"convolutions: oneDNN {LIBRARY.version}, float32, {counted(threads, 'thread')}"]
    lines.clear()
    with onednn.convolutions(False):
        pass
    assert lines == ["convolutions: Paddle's own kernels, as asked"]


def test_a_compiled_graph_is_said_to_use_paddles_kernels(lines: list[str], tmp_path: Path) -> None:
    cfg = Config(tiny_config(make_data(tmp_path / "data"), tmp_path / "c.yml", iters=1, to_static_training=True))
    train(cfg, TrainOptions(save_dir=str(tmp_path / "out"), device="cpu", num_workers=0, do_eval=True))
    said = [line for line in lines if line.startswith("convolutions: ")]
    assert said == ["convolutions: Paddle's own kernels, which a compiled graph (to_static_training) uses"]
    assert not functional.counts
    with pytest.raises(InputError, match=r"--precision bf16: .* in bf16 \(got to_static_training.*Drop one of the two"):
        train(cfg, TrainOptions(save_dir=str(tmp_path / "b"), device="cpu", num_workers=0, precision="bf16"))


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
        pytest.raises(InputError, match=r"only oneDNN's convolutions compute in bf16.*Drop one of the two"),
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


def test_kernel_threads_sleep_inside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("KMP_BLOCKTIME", "KMP_LIBRARY", "OMP_WAIT_POLICY"):
        monkeypatch.delenv(name, raising=False)
    runtimes = [r for r in LIBRARY._openmp if hasattr(r, "kmp_get_blocktime")]
    before = [r.kmp_get_blocktime() for r in runtimes]
    with onednn.convolutions():
        assert all(r.kmp_get_blocktime() == 0 for r in runtimes)
        with onednn.convolutions():
            pass
        assert all(r.kmp_get_blocktime() == 0 for r in runtimes)
    assert [r.kmp_get_blocktime() for r in runtimes] == before
    monkeypatch.setenv("KMP_BLOCKTIME", "5")
    with onednn.convolutions():
        assert [r.kmp_get_blocktime() for r in runtimes] == before


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


def test_the_environment_turns_it_off(monkeypatch) -> None:
    monkeypatch.setenv("SEGKIT_ONEDNN", "0")
    with pytest.raises(library.Unavailable, match="SEGKIT_ONEDNN=0"):
        library.load.__wrapped__()
