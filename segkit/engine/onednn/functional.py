"""Convolutions of Paddle tensors through oneDNN, with gradients; what cannot go that way is counted and said once."""

from __future__ import annotations

from collections import Counter
from typing import Any, Callable, Hashable, Sequence, TypeVar

import paddle
from paddle.autograd import PyLayer

from segkit.engine.onednn.convolution import Convolution, Geometry
from segkit.engine.onednn.library import Library, OneDNNError
from segkit.engine.onednn.primitives import Cache
from segkit.log import logger

CACHE_LIMIT = 256  # convolutions of different shapes kept ready, a quarter of a megabyte each; BiSeNetV2 has about 60
ONEDNN = "oneDNN"

counts: Counter[str] = Counter()  # ONEDNN, and every reason for which Paddle's kernel was used
_cache = Cache(CACHE_LIMIT)
_refused: dict[Hashable, str] = {}
_T = TypeVar("_T")


class Fallback(Exception):
    """Paddle's kernel computes this one; the message is the reason."""


class Kernel:
    """What oneDNN has ready for one key of the cache. What fails when it runs is not tried again."""

    def __init__(self, library: Library, key: Hashable, primitives: Any):
        self.library, self.key, self.primitives = library, key, primitives

    def forward(self, compute: Callable[[], _T]) -> _T:
        """What `compute` gives inside a session. Raises `Fallback` where oneDNN fails."""
        try:
            with self.library.session():
                return compute()
        except OneDNNError as error:
            _refused[self.key] = str(error)
            raise Fallback(str(error)) from error

    def backward(self, compute: Callable[[], _T], instead: Callable[[], _T], *tensors: Any) -> _T:
        """The same with nobody behind it to take over: what `instead` gives. `tensors` as for `fell_back`."""
        try:
            return self.forward(compute)
        except Fallback as reason:
            fell_back(str(reason), *tensors)
        with self.library.session():  # for what it asks oneDNN to put into Paddle's layout again
            return instead()


def paddles_gradients(
    function: Callable[..., Any], tensors: Sequence[Any], wants: Sequence[bool], gradient: Any
) -> list[Any]:
    """Gradients of the tensors (which may be None) by those of Paddle's own `function`, None where not wanted."""
    with paddle.enable_grad():
        copies = [None if t is None else t.detach() for t in tensors]
        for copy, wanted in zip(copies, wants):
            if copy is not None:
                copy.stop_gradient = not wanted
        function(*copies).backward(gradient)
    return [copy.grad if wanted else None for copy, wanted in zip(copies, wants)]


def saved(ctx: Any, *tensors: paddle.Tensor) -> None:
    """Keep tensors for `unchanged` in the backward pass."""
    ctx.versions = [t.inplace_version for t in tensors]
    ctx.save_for_backward(*tensors)


def unchanged(ctx: Any, what: str) -> list[paddle.Tensor]:
    """What `saved` has kept; `RuntimeError` where it was changed in place since. `what` it belongs to."""
    tensors = list(ctx.saved_tensor())
    for tensor, version in zip(tensors, ctx.versions):
        if tensor.inplace_version != version:
            raise RuntimeError(
                f"a tensor of shape {list(tensor.shape)} that the gradient of {what} needs was changed in place "
                f"after the forward pass (its version is {tensor.inplace_version}, expected {version})"
            )
    return tensors


class _Function(PyLayer):
    """A convolution in Paddle's graph."""

    @staticmethod
    def forward(ctx: Any, x: Any, weight: Any, bias: Any, kernel: Kernel) -> paddle.Tensor:
        addresses = x.data_ptr(), weight.data_ptr(), address(bias)
        y, source = kernel.forward(lambda: kernel.primitives.forward(*addresses))
        ctx.kernel = kernel
        ctx.wants = [t is not None and not t.stop_gradient for t in (x, weight, bias)]
        ctx.inputs = 2 if bias is None else 3
        kept = [weight] if ctx.wants[0] else []
        if ctx.wants[1] or ctx.wants[2]:
            kept.append(x if source is None else source)
        saved(ctx, *kept)
        return y

    @staticmethod
    def backward(ctx: Any, gradient: Any) -> tuple[Any, ...]:
        kept = unchanged(ctx, "a convolution")
        weight = kept.pop(0) if ctx.wants[0] else None
        source = kept.pop(0) if kept else None
        gradient = gradient if gradient.is_contiguous() else gradient.contiguous()
        convolution = ctx.kernel.primitives
        results = ctx.kernel.backward(
            lambda: convolution.backward(gradient.data_ptr(), address(source), address(weight)),
            lambda: _paddles_backward(convolution, gradient, source, weight, ctx.wants),
            gradient,
        )
        return tuple(g if wanted else None for g, wanted in zip(results, ctx.wants))[: ctx.inputs]


def _paddles_backward(
    convolution: Convolution, gradient: Any, source: Any, weight: Any, wants: Sequence[bool]
) -> list[Any]:
    """The gradients of input, weights and bias by Paddle's kernel; what none of them needs may be None."""
    shapes = convolution.geometry
    x = paddle.zeros(shapes.x) if source is None else convolution.restored(source)
    tensors = x, paddle.zeros(shapes.weight) if weight is None else weight
    bias = paddle.zeros([shapes.y[1]]) if shapes.bias else None
    return paddles_gradients(shapes.by_paddle, (*tensors, bias), wants, gradient)


def convolve(
    library: Library, bf16: bool, transposed: bool, x: Any, weight: Any, bias: Any, arguments: dict[str, Any]
) -> paddle.Tensor:
    """The convolution of NCHW float32 tensors. `arguments` are Paddle's own, padding already put as numbers.

    Raises `Fallback` where it is not for oneDNN.
    """
    check_tensors((x, weight, bias), arguments["data_format"])
    shapes = geometry(x.shape, weight.shape, bias is not None, transposed, bf16, arguments)
    graph = paddle.is_grad_enabled()
    trained = [graph and t is not None and not t.stop_gradient for t in (x, weight, bias)]
    prepare = lambda c: c.prepare_backward(trained[0], trained[1] or trained[2])  # noqa: E731
    kernel = cached(library, shapes, lambda: Convolution(library, shapes), prepare)
    tensors = [t if t is None or t.is_contiguous() else t.contiguous() for t in (x, weight, bias)]
    if any(trained):
        y = _Function.apply(*tensors, kernel)
    else:
        y = kernel.forward(lambda: kernel.primitives.forward(*(address(t) for t in tensors)))[0]
    counts[ONEDNN] += 1
    return y


def cached(
    library: Library, key: Hashable, make: Callable[[], Any], prepare: Callable[[Any], None] | None = None
) -> Kernel:
    """The kernel of `key`, its primitives made and prepared where they are not. What oneDNN refused once, or failed
    to run, is a `Fallback` from then on."""
    if key in _refused:
        raise Fallback(_refused[key])
    try:
        with library.session():
            kernel = _cache.get(key, lambda: Kernel(library, key, make()))
            if prepare is not None:
                prepare(kernel.primitives)
    except OneDNNError as error:
        _refused[key] = str(error)
        raise Fallback(str(error)) from error
    return kernel


def fell_back(reason: str, *tensors: Any, instead: str = "Paddle's kernel") -> None:
    """Count what is computed `instead`, and say so the first time for each reason. `tensors`: input, weights."""
    counts[reason] += 1
    if counts[reason] == 1:
        shapes = ", ".join(f"{name} {list(t.shape)}" for name, t in zip(("input", "weights"), tensors))
        logger.info("convolutions: %s for %s: %s (later ones are only counted)", instead, shapes, reason)


def check_tensors(tensors: Sequence[Any], data_format: str, what: str = "", dimensions: bool = True) -> None:
    """`Fallback`, its message after `what`, unless these (None left out) are NCHW float32 tensors on the CPU, the
    first two (where `dimensions` matter) of four dimensions."""
    if data_format not in ("NCHW", "AnyLayout"):
        raise Fallback(f"{what}data format {data_format}")
    for tensor in tensors:
        if tensor is None:
            continue
        if tensor.dtype != paddle.float32:
            raise Fallback(f"{what}data type {str(tensor.dtype).rpartition('.')[2]}")
        if not tensor.place.is_cpu_place():
            raise Fallback(f"{what}tensor on {tensor.place}")
        if tensor.is_dist():
            raise Fallback(f"{what}tensor divided among devices")
    if dimensions and any(t.ndim != 4 for t in tensors[:2]):
        raise Fallback(f"{what}{tensors[0].ndim} dimensions")
    if any(0 in t.shape for t in tensors[:2]):
        raise Fallback(f"{what}empty tensor")


def geometry(
    x: Sequence[int], weight: Sequence[int], bias: bool, transposed: bool, bf16: bool, arguments: dict[str, Any]
) -> Geometry:
    """What `arguments` make of an input of shape x and weights of that shape. Raises `Fallback`."""
    stride, dilation = _pair(arguments["stride"]), _pair(arguments["dilation"])
    size, kernel = tuple(x[2:]), tuple(weight[2:])
    before, after = _padding(arguments["padding"])
    if arguments["algorithm"] == "VALID":
        before = after = (0, 0)
    elif arguments["algorithm"] == "SAME":
        # Paddle's own rule: sized by the undilated kernel, and the dilation then dropped
        # (UpdatePaddingAndDilation in phi/kernels/cpu/conv_util.h).
        total = [max((-(-n // s) - 1) * s + k - n, 0) for n, s, k in zip(size, stride, kernel)]
        before = (total[0] // 2, total[1] // 2)
        after = (total[0] - before[0], total[1] - before[1])
        dilation = (1, 1)
    groups = int(arguments["groups"])
    extent = [d * (k - 1) + 1 for d, k in zip(dilation, kernel)]
    if transposed:
        least = [(n - 1) * s - b - a + e for n, s, b, a, e in zip(size, stride, before, after, extent)]
        out = _transposed_size(least, stride, arguments)
        after = (after[0] - out[0] + least[0], after[1] - out[1] + least[1])
        channels = weight[1] * groups
        fits = x[1] == weight[0]
    else:
        out = [(n + b + a - e) // s + 1 for n, s, b, a, e in zip(size, stride, before, after, extent)]
        channels = weight[0]
        fits = x[1] == weight[1] * groups
    if not fits or min(out) < 1 or x[1] % groups or channels % groups:
        raise Fallback("shapes that do not fit")  # Paddle says what is wrong with them
    shapes = (tuple(x), tuple(weight), (x[0], channels, *out))
    return Geometry(*shapes, stride, dilation, before, after, groups, bias, transposed, bf16)


def _transposed_size(least: Sequence[int], stride: tuple[int, int], arguments: dict[str, Any]) -> list[int]:
    """Height and width of a transposed convolution's output."""
    wanted, extra = arguments["output_size"], arguments["output_padding"]
    if isinstance(wanted, paddle.Tensor) or any(isinstance(n, paddle.Tensor) for n in _sequence(wanted)):
        raise Fallback("output_size as a tensor")
    if _sequence(wanted):
        out = list(_pair(wanted))
    else:
        out = [n + e for n, e in zip(least, _pair(extra) if _sequence(extra) else (0, 0))]
    if any(not n <= o < n + s for n, o, s in zip(least, out, stride)):
        raise Fallback("output size outside the stride")
    return out


def _padding(padding: Any) -> tuple[tuple[int, int], tuple[int, int]]:
    """(top, left), (bottom, right) of Paddle's number, pair or top-bottom-left-right."""
    if len(_sequence(padding)) == 4:
        top, bottom, left, right = (int(p) for p in padding)
        return (top, left), (bottom, right)
    return _pair(padding), _pair(padding)


def _sequence(value: Any) -> Sequence[Any]:
    return value if isinstance(value, (list, tuple)) else (value,)


def _pair(value: Any) -> tuple[int, int]:
    numbers = [int(v) for v in _sequence(value)]
    if len(numbers) not in (1, 2):
        raise Fallback(f"{len(numbers)} numbers for two dimensions")
    return numbers[0], numbers[-1]


def address(tensor: Any) -> int | None:
    """Where the numbers of a tensor are; None for None."""
    return None if tensor is None else tensor.data_ptr()
