"""Convolution, BatchNorm and ReLU computed at once, against Paddle one by one: outputs, gradients, statistics."""

from __future__ import annotations

import copy
from typing import Any, Callable

import numpy as np
import paddle
import pytest
from paddle import nn

from segkit.engine import onednn
from segkit.engine.onednn import chain, context, library, selfcheck
from segkit.engine.onednn.library import Unavailable
from segkit.models.layers import ConvBN, ConvBNReLU, DepthwiseConvBN, SeparableConvBNReLU
from tests.convolution_cases import cosine

try:
    LIBRARY = library.load()
except Unavailable as reason:
    pytest.skip(f"no oneDNN here: {reason}", allow_module_level=True)

PRECISIONS = ["fp32", *(["bf16"] if LIBRARY.has_bf16 and context.CHAINS_IN_BF16 else [])]
SHAPE = (2, 4, 12, 10)


def noise(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype("float32")


def trained(model: nn.Layer, shape: tuple[int, ...], steps: int = 2) -> dict[str, np.ndarray]:
    """Outputs, gradients and running statistics of some steps, by name."""
    paddle.seed(7)
    for step in range(steps):
        x = paddle.to_tensor(noise(shape, step), stop_gradient=False)
        y = model(x)
        y.backward(paddle.to_tensor(noise(tuple(y.shape), step + 100)))
    found = {"y": y.numpy(), "gradient of x": x.grad.numpy()}
    for name, p in model.named_parameters():
        if p.grad is not None:
            found[f"gradient of {name}"] = p.grad.numpy()
        found[name] = p.numpy()
    return found


def compared(model: nn.Layer, shape: tuple[int, ...] = SHAPE, precision: str = "fp32") -> int:
    """How many convolutions went with their BatchNorm; what they give is Paddle's."""
    other = copy.deepcopy(model)
    expected = trained(model, shape)
    before = onednn.counts[chain.CHAIN]
    with onednn.convolutions(precision=precision):
        got = trained(other, shape)
    assert got.keys() == expected.keys()
    biases = [f"gradient of {n}.bias" for n, layer in model.named_sublayers() if isinstance(layer, nn.Conv2D)]
    largest = max(np.abs(a).max() for name, a in expected.items() if name.startswith("gradient"))
    for name, b in expected.items():
        least = largest * (1 if name in biases else 0.01) if name.startswith("gradient") else 0.01
        size = max(np.abs(b).max(), least)  # what a BatchNorm takes away again has no gradient, its mean is 0: rounding
        if precision == "fp32":
            assert np.abs(got[name] - b).max() <= 1e-4 * size, name
        elif np.abs(b).max() > least:
            assert cosine(got[name], b) > 0.97, name  # near 0 rounding decides what a ReLU lets through
    return onednn.counts[chain.CHAIN] - before


def near_zero(model: nn.Layer, shape: tuple[int, ...]) -> bool:
    """Whether what goes into a ReLU is so near 0 that rounding may decide about its gradient."""
    least: list[float] = []
    model = copy.deepcopy(model)
    for layer in model:
        if isinstance(layer, nn.ReLU):
            layer.register_forward_pre_hook(lambda _, inputs: least.append(float(inputs[0].abs().min())))
    trained(model, shape)
    return min(least, default=1.0) < 1e-6


def random_model(seed: int) -> tuple[nn.Layer, tuple[int, ...], int]:
    rng = np.random.default_rng(seed)
    stages = int(rng.integers(1, 4))
    into = int(rng.choice([1, 2, 3, 8, 16]))
    shape = (int(rng.integers(1, 5)), into, int(rng.integers(9, 20)), int(rng.integers(9, 20)))
    layers: list[nn.Layer] = []
    for _ in range(stages):
        groups = int(rng.choice([1, 1, into]))
        out = into * int(rng.integers(1, 4)) if groups > 1 else int(rng.integers(1, 34))
        kernel = int(rng.choice([3, 5] if groups > 1 else [1, 3, 3, 5]))
        padding = rng.choice(["same", "valid"]) if kernel == 3 and rng.random() < 0.4 else kernel // 2
        bias = None if rng.random() < 0.5 else False
        stride, dilation = int(rng.choice([1, 1, 2])), int(rng.choice([1, 1, 2]))
        padding = padding if isinstance(padding, str) else padding * dilation
        layers.append(nn.Conv2D(into, out, kernel, stride, str(padding) if isinstance(padding, str) else padding,
                                dilation, groups, bias_attr=bias))  # fmt: skip
        layers.append(nn.BatchNorm2D(out, momentum=0.8, epsilon=float(rng.choice([1e-5, 1e-3]))))
        if rng.random() < 0.7:
            layers.append(nn.ReLU())
        into = out
    return nn.Sequential(*layers), shape, stages


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("seed", range(24))
def test_equals_paddles(seed: int, precision: str) -> None:
    paddle.seed(seed)
    model, shape, stages = next(m for m in (random_model(n) for n in range(seed, 10000, 100)) if not near_zero(*m[:2]))
    assert compared(model, shape, precision) == 2 * stages


@pytest.mark.parametrize(
    ("make", "stages"),
    [
        (lambda: ConvBN(4, 8, 3), 1),
        (lambda: ConvBNReLU(4, 8, 3, stride=2, bias=False), 1),
        (lambda: ConvBN(4, 8, 3, act=nn.functional.relu), 1),
        (lambda: ConvBN(4, 8, 3, act=nn.functional.sigmoid), 0),
        (lambda: DepthwiseConvBN(4, 8), 1),
        (lambda: SeparableConvBNReLU(4, 8, 3), 2),
        (lambda: nn.Sequential(ConvBNReLU(4, 8, 3), nn.Sequential(ConvBN(8, 4, 1), nn.ReLU()), nn.Sigmoid()), 2),
        (lambda: nn.Sequential(nn.MaxPool2D(2), ConvBNReLU(4, 4, 3), ConvBN(4, 8, 1), nn.Conv2D(8, 2, 1)), 2),
        (lambda: nn.Sequential(nn.Conv2D(4, 8, 1), nn.ReLU(), nn.BatchNorm2D(8)), 0),
        (lambda: nn.Sequential(*[ConvBNReLU(4, 4, 3)] * 2), 2),
    ],
)
def test_layers(make: Callable[[], nn.Layer], stages: int) -> None:
    paddle.seed(1)
    assert compared(make()) == 2 * stages


@pytest.mark.parametrize("frozen", ["x", "first", "convolutions", "norms"])
def test_frozen_parameters(frozen: str) -> None:
    paddle.seed(1)
    model = nn.Sequential(ConvBNReLU(4, 8, 3), ConvBNReLU(8, 8, 3))
    chosen = {
        "x": [],
        "first": model[0].parameters(),
        "convolutions": [p for part in model for p in part._conv.parameters()],
        "norms": [p for part in model for p in part._batch_norm.parameters()],
    }[frozen]
    for p in chosen:
        p.stop_gradient = True
    results = []
    for used in (False, True):
        mine = copy.deepcopy(model)
        with onednn.convolutions(used):
            y = mine(paddle.to_tensor(noise(SHAPE)))
            y.backward(paddle.to_tensor(noise(tuple(y.shape), 1)))
        results.append({n: p.grad.numpy() for n, p in mine.named_parameters() if p.grad is not None})
    assert results[0].keys() == results[1].keys()
    for name, b in results[0].items():
        if not name.endswith("conv.bias"):
            assert np.abs(results[1][name] - b).max() < 1e-4 * np.abs(b).max(), name


def frozen_norm(model: nn.Layer) -> None:
    model[1].eval()


def global_statistics(model: nn.Layer) -> None:
    model[1]._use_global_stats = True


def hook_inside(model: nn.Layer) -> None:
    model[0].register_forward_post_hook(lambda layer, inputs, output: output * 2)


def without_weight(model: nn.Layer) -> None:
    model[1] = nn.BatchNorm2D(8, weight_attr=False)


def reflecting(model: nn.Layer) -> None:
    model[0] = nn.Conv2D(4, 8, 3, padding=1, padding_mode="reflect")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (frozen_norm, "statistics other than the batch's"),
        (global_statistics, "statistics other than the batch's"),
        (hook_inside, "hooks on them"),
        (without_weight, "BatchNorm without weight or bias"),
        (reflecting, "padding or momentum of another kind"),
    ],
)
def test_what_is_computed_one_by_one(change: Callable[[nn.Layer], None], reason: str) -> None:
    paddle.seed(1)
    model = nn.Sequential(nn.Conv2D(4, 8, 3, padding=1), nn.BatchNorm2D(8), nn.ReLU())
    change(model)
    name = f"convolution + BatchNorm: {reason}"
    before = onednn.counts[name]
    assert compared(model) == 0
    assert onednn.counts[name] == before + 2


def test_one_number_a_channel_is_left_to_paddle() -> None:
    paddle.seed(1)
    name = "convolution + BatchNorm: one number a channel"
    before = onednn.counts[name]
    assert compared(ConvBNReLU(4, 8, 1), (1, 4, 1, 1)) == 0
    assert onednn.counts[name] == before + 2


def test_subclasses_are_left_alone() -> None:
    class Doubled(nn.BatchNorm2D):
        def forward(self, x: Any) -> Any:
            return super().forward(x) * 2

    paddle.seed(1)
    assert compared(nn.Sequential(nn.Conv2D(4, 8, 3), Doubled(8), nn.ReLU())) == 0


def test_hooks_of_the_whole_are_called() -> None:
    paddle.seed(1)
    model = nn.Sequential(ConvBNReLU(4, 8, 3), ConvBNReLU(8, 8, 3))
    seen: list[Any] = []
    model.register_forward_post_hook(lambda layer, inputs, output: seen.append(output.shape))
    model[1].register_forward_pre_hook(lambda layer, inputs: seen.append(inputs[0].shape))
    with onednn.convolutions():
        y = model(paddle.to_tensor(noise(SHAPE)))
    assert seen == [[2, 8, 12, 10], y.shape]


def test_evaluation_and_no_grad_are_not_touched() -> None:
    paddle.seed(1)
    model = nn.Sequential(ConvBNReLU(4, 8, 3), ConvBNReLU(8, 8, 3))
    x = paddle.to_tensor(noise(SHAPE))
    before = onednn.counts[chain.CHAIN]
    with onednn.convolutions():
        with paddle.no_grad():
            model(x)
        model.eval()
        state = [p.numpy() for p in model.state_dict().values()]
        model(x)
    assert onednn.counts[chain.CHAIN] == before
    assert all(np.array_equal(a, b.numpy()) for a, b in zip(state, model.state_dict().values()))


def test_running_statistics_are_the_layers_own() -> None:
    """What an EMA or a checkpoint holds on to is what moves."""
    layer = ConvBN(4, 8, 3)
    held = layer._batch_norm._mean
    with onednn.convolutions():
        layer(paddle.to_tensor(noise(SHAPE)))
    assert layer._batch_norm._mean is held
    assert np.abs(held.numpy()).max() > 0


def test_change_in_place_is_noticed() -> None:
    layer = ConvBN(4, 4, 3)
    with onednn.convolutions():
        y = layer(paddle.to_tensor(noise(SHAPE), stop_gradient=False)).sum()
        with paddle.no_grad():
            layer._batch_norm.weight.add_(paddle.ones([4]))
        with pytest.raises((RuntimeError, OSError), match="a convolution with BatchNorm needs was changed in place"):
            y.backward()


def test_disagreement_leaves_them_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    chained = selfcheck.chained
    answers = iter([1.0, 1.5])
    monkeypatch.setattr(selfcheck, "chained", lambda: {n: a * next(answers) for n, a in list(chained().items())[:1]})
    monkeypatch.setattr(context, "_say", said.append)
    context._check.cache_clear()
    try:
        with onednn.convolutions():
            before = onednn.counts[chain.CHAIN]
            ConvBN(4, 4, 3)(paddle.to_tensor(noise(SHAPE)))
            assert onednn.counts[chain.CHAIN] == before
    finally:
        context._check.cache_clear()
    assert said[-1] == (
        "convolutions: BatchNorm by itself, because together with one output of a small one differs from Paddle's by 5.0e-01"
    )
