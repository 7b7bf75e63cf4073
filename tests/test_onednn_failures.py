"""A primitive of oneDNN that fails when it runs: Paddle's kernel takes over, the numbers are right, one line says so."""

from __future__ import annotations

import logging
from typing import Any, Callable, Iterator

import numpy as np
import paddle
import paddle.nn.functional as F
import pytest

from segkit.engine import onednn
from segkit.engine.onednn import activation, cross_entropy, functional, library, pooling, resampling
from segkit.engine.onednn.library import Unavailable
from segkit.log import logger
from segkit.models.layers import ConvBN, ConvBNReLU
from tests.convolution_cases import distance

try:
    LIBRARY = library.load()
except Unavailable as reason:
    pytest.skip(f"no oneDNN here: {reason}", allow_module_level=True)

FAILURE = "status 1"  # out of memory


class Executions:
    """Every execution of a primitive; the one that comes after `until` others fails."""

    def __init__(self) -> None:
        self.until = -1
        self.original = LIBRARY.c.dnnl_primitive_execute

    def __call__(self, *arguments: Any) -> int:
        self.until -= 1
        return 1 if self.until == -1 else self.original(*arguments)


@pytest.fixture
def executions(monkeypatch: pytest.MonkeyPatch) -> Executions:
    for module in (activation, cross_entropy, pooling, resampling):
        monkeypatch.setattr(module, "LEAST", 0)
    with onednn.convolutions():  # it has looked whether oneDNN agrees
        pass
    found = Executions()
    monkeypatch.setattr(LIBRARY.c, "dnnl_primitive_execute", found)
    return found


@pytest.fixture(autouse=True)
def forgotten(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(functional, "_refused", {})
    functional._cache.clear()
    yield
    functional._cache.clear()


@pytest.fixture
def lines() -> Iterator[list[str]]:
    said: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: said.append(record.getMessage())
    logger.addHandler(handler)
    functional.counts.clear()
    yield said
    logger.removeHandler(handler)


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(sum(shape)).standard_normal(shape).astype("float32")


X = noise(2, 4, 9, 8)
LABEL = np.random.default_rng(0).integers(0, 4, (2, 9, 8))
CASES: dict[str, tuple[Callable[..., Any], list[np.ndarray]]] = {
    "convolution": (lambda x, w, b: F.conv2d(x, w, b, 1, [1, 0, 2, 1]), [X, noise(5, 4, 3, 3), noise(5)]),
    "depthwise": (lambda x, w: F.conv2d(x, w, None, 2, "same", groups=4), [X, noise(8, 1, 3, 3)]),
    "transposed": (lambda x, w, b: F.conv2d_transpose(x, w, b, 2, 1, 1), [X, noise(4, 3, 3, 3), noise(3)]),
    "transposed, padded at the end": (lambda x, w: F.conv2d_transpose(x, w, None, 2, 0, 1), [X, noise(4, 3, 2, 2)]),
    "ReLU": (F.relu, [X]),
    "max-pooling": (lambda x: F.max_pool2d(x, (3, 2), 2, [1, 0]), [noise(2, 16, 9, 8)]),
    "bilinear": (lambda x: F.interpolate(x, size=(5, 13), mode="bilinear"), [X]),
    "bilinear, enlarged": (lambda x: F.interpolate(x, scale_factor=2, mode="bilinear"), [noise(2, 16, 5, 6)]),
    "cross entropy": (lambda x: F.cross_entropy(x, paddle.to_tensor(LABEL), reduction="none", axis=1), [X]),
}


def step(case: str, executions: Executions | None = None, until: int = -1, backward: bool = False) -> list[np.ndarray]:
    """Output and gradients; the execution after `until` others of that pass fails."""
    function, arrays = CASES[case]
    tensors = [paddle.to_tensor(a, stop_gradient=False) for a in arrays]
    if executions and not backward:
        executions.until = until
    y = function(*tensors)
    if executions and backward:
        executions.until = until
    (y * paddle.to_tensor(noise(*y.shape))).sum().backward()
    return [t.numpy() for t in (y, *(t.grad for t in tensors))]


def failures() -> int:
    return sum(number for name, number in onednn.counts.items() if FAILURE in name)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("backward", [False, True])
def test_paddle_takes_over(case: str, backward: bool, executions: Executions, lines: list[str]) -> None:
    expected = step(case)
    happened = 0
    for until in range(30):
        with onednn.convolutions():
            got = step(case, executions, until, backward)
            assert paddle.is_grad_enabled()
            failed = executions.until < 0
            executions.until = -1
            assert max(distance(a, b) for a, b in zip(got, expected)) < 1e-4
            assert failures() == (happened + 1 if failed else happened)
            if not failed:
                break
            happened = failures()
            again = step(case)  # not tried again
            assert max(distance(a, b) for a, b in zip(again, expected)) < 1e-4
            assert failures() == happened + 1
            happened += 1
        functional._refused.clear()
    else:
        pytest.fail("more executions than expected")
    if happened:
        said = [line for line in lines if FAILURE in line]
        assert len(said) == len({name for name in onednn.counts if FAILURE in name})
        assert all(s.startswith("convolutions: Paddle's kernel for input [2, ") for s in said)
        assert all(s.endswith("(later ones are only counted)") for s in said)
    else:
        assert (case, backward) == ("cross entropy", True), "its gradient alone needs nothing of oneDNN"


@pytest.mark.parametrize("backward", [False, True])
def test_convolutions_with_batch_norm(backward: bool, executions: Executions, lines: list[str]) -> None:
    def trained(until: int = -1) -> dict[str, np.ndarray]:
        paddle.seed(3)
        model = paddle.nn.Sequential(ConvBNReLU(4, 8, 3), ConvBN(8, 4, 3))
        x = paddle.to_tensor(X, stop_gradient=False)
        executions.until = -1 if backward else until
        y = model(x)
        executions.until = until if backward else executions.until
        (y * paddle.to_tensor(noise(*y.shape))).sum().backward()
        found = {name: p.numpy() for name, p in model.named_parameters()}
        found.update((f"{name}'s", p.grad.numpy()) for name, p in model.named_parameters() if p.grad is not None)
        return {"y": y.numpy(), "x": x.grad.numpy(), **found}

    expected = trained()
    for until in range(60):
        before = failures()
        with onednn.convolutions():
            got = trained(until)
        assert got.keys() == expected.keys()
        for name, b in expected.items():
            far = np.abs(got[name] - b).max()
            assert far <= 1e-4 * max(np.abs(b).max(), 1), (name, until)
        functional._refused.clear()
        if executions.until >= 0:
            break
        assert failures() == before + 1
    assert until > 2
    assert any("convolution and BatchNorm one by one" in line for line in lines) or backward
