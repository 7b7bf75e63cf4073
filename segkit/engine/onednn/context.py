"""`convolutions`: inside it, Paddle's two-dimensional convolutions on the CPU are computed by oneDNN."""

from __future__ import annotations

import functools
import threading
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, Callable, Iterator

import paddle
from paddle.nn.functional import activation as paddle_activation
from paddle.nn.functional import common as paddle_common
from paddle.nn.functional import conv as paddle_conv
from paddle.nn.functional import loss as paddle_loss
from paddle.nn.functional import pooling as paddle_pooling

from segkit.engine.onednn import recognition, selfcheck
from segkit.engine.onednn.activation import relu
from segkit.engine.onednn.cross_entropy import cross_entropy
from segkit.engine.onednn.functional import Fallback, convolve, fell_back
from segkit.engine.onednn.library import Library, Unavailable, load
from segkit.engine.onednn.pooling import max_pool
from segkit.engine.onednn.resampling import interpolate
from segkit.errors import InputError, counted
from segkit.log import logger


@dataclass(frozen=True, eq=False)
class _Mode:
    """What one `with convolutions(...)` asks for; `library` None: Paddle's own kernels."""

    library: Library | None = None
    bf16: bool = False
    chains: bool = True  # convolution + BatchNorm + ReLU at once
    compiled: bool = False  # a static graph runs, which oneDNN cannot be put into


CHAINS_IN_BF16 = False  # written, but never run on a CPU that has bf16: tests/test_onednn_chain.py and its speed decide

_modes: list[_Mode] = []  # the last one holds
_lock = threading.RLock()
_said: set[str] = set()
_originals: list[tuple[Any, str, Any]] = []
_ABSENT = object()


@contextmanager
def convolutions(enabled: bool = True, precision: str = "fp32", compiled: bool = False) -> Iterator[None]:
    """Compute Conv2D, Conv2DTranspose and their functional forms by oneDNN while this context is open.

    In training, convolutions with a BatchNorm (and a ReLU) after them are computed with it, several in a row at once.
    For the CPU; nothing happens on a GPU. `precision` bf16 multiplies in bf16 and adds up in float32. One log line
    says what is used, or why Paddle's own kernels stay. The innermost of nested contexts holds, in all threads.
    Graphs made by `to_static` and `jit.save` are never touched: with `compiled`, for runs of those, no context inside
    uses oneDNN.

    Raises `InputError` where bf16 is asked for and cannot be had.
    """
    if not paddle.get_device().startswith("cpu"):
        yield
        return
    mode = _mode(enabled, precision == "bf16", compiled or any(outer.compiled for outer in _modes[-1:]))
    with _opened(mode), mode.library.sleeping_threads() if mode.library else nullcontext():
        yield


def _mode(enabled: bool, bf16: bool, compiled: bool) -> _Mode:
    if not enabled or compiled:
        if bf16:
            raise InputError(
                "--precision bf16: on the CPU only oneDNN's convolutions compute in bf16 "
                f"(got {'--no_onednn' if not enabled else 'to_static_training, whose graph Paddle computes'}). "
                "Drop one of the two."
            )
        why = "as asked" if not enabled else "which a compiled graph (to_static_training) uses"
        _say(f"convolutions: Paddle's own kernels, {why}")
        return _Mode(compiled=compiled)
    try:
        library = load()
        if bf16 and not library.has_bf16:
            raise InputError(
                f"--precision bf16: this CPU has no bf16 (got instruction set {library.isa:#x}, expected AMX or "
                "AVX512-BF16). Drop --precision bf16."
            )
        apart = _check(bf16)
    except Unavailable as reason:
        if bf16:
            raise InputError(
                f"--precision bf16: on the CPU it needs oneDNN, which cannot be used here: {reason}. "
                "Drop --precision bf16."
            ) from reason
        _say(f"convolutions: Paddle's own kernels, because oneDNN cannot be used here: {reason}")
        return _Mode()
    kind = "bf16" if bf16 else "float32"
    _say(f"convolutions: oneDNN {library.version}, {kind}, {counted(library.threads, 'thread')}")
    if apart:
        _say(f"convolutions: BatchNorm by itself, because together with one {apart}")
    return _Mode(library, bf16, chains=apart is None and _chains(bf16))


@functools.cache
def _check(bf16: bool) -> str | None:
    """`Unavailable` unless oneDNN agrees with Paddle and Paddle's functions really lead here; the reason for which
    BatchNorm is not computed with the convolution, if there is one."""
    library = load()
    with _opened(_Mode()):
        selfcheck.agrees(library, bf16)
        expected = selfcheck.chained()
    with _opened(_Mode(library, bf16)):
        selfcheck.reached()
        return selfcheck.difference(selfcheck.chained(), expected, bf16) if _chains(bf16) else None


def _chains(bf16: bool) -> bool:
    return CHAINS_IN_BF16 or not bf16


def _say(line: str) -> None:
    if line not in _said:
        _said.add(line)
        logger.info(line)


@contextmanager
def _opened(mode: _Mode) -> Iterator[None]:
    """`mode` holds inside; the hooks are in Paddle as long as any context is open."""
    with _lock:
        if not _modes:
            for module, name, hook in (
                (paddle_conv, "_conv_nd", _layer_hook),
                (paddle_conv, "_C_ops", _convolution_operators),
                (paddle_common, "_C_ops", _replacing("bilinear_interp", interpolate)),
                (paddle_loss, "_C_ops", _replacing("cross_entropy_with_softmax", cross_entropy, 2)),
                (paddle_activation, "_C_ops", _replacing("relu", relu)),
                (paddle_pooling, "_C_ops", _replacing("pool2d", max_pool)),
                *((kind, "__call__", _call_hook) for kind in recognition.LAYERS),
            ):
                original = getattr(module, name)
                _originals.append((module, name, vars(module).get(name, _ABSENT)))
                setattr(module, name, hook(original))
        _modes.append(mode)
    try:
        yield
    finally:
        with _lock:
            _modes.remove(mode)
            if not _modes:
                for module, name, value in _originals:
                    if value is _ABSENT:
                        delattr(module, name)
                    else:
                        setattr(module, name, value)
                _originals.clear()


def _mode_for(x: Any) -> _Mode | None:
    """None where Paddle's own kernel is to be used: outside of the context, in a graph that is being recorded."""
    modes = _modes[-1:]
    if not modes or modes[0].library is None or not paddle.in_dynamic_mode() or not isinstance(x, paddle.Tensor):
        return None
    return modes[0]


def _try(transposed: bool, x: Any, weight: Any, bias: Any, arguments: dict[str, Any]) -> Any:
    """The result, or None where there is nothing to do. Raises `Fallback`."""
    mode = _mode_for(x)
    return None if mode is None else convolve(mode.library, mode.bf16, transposed, x, weight, bias, arguments)


def _call_hook(original: Callable[..., Any]) -> Callable[..., Any]:
    """Stands in for the `__call__` of a kind of layers."""

    @functools.wraps(original)
    def __call__(layer: Any, *inputs: Any, **kwargs: Any) -> Any:
        if layer.training and len(inputs) == 1 and not kwargs and paddle.is_grad_enabled():
            mode = _mode_for(inputs[0])
            if mode is not None and mode.chains:
                result = recognition.compute(mode.library, mode.bf16, layer, inputs[0])
                if result is not None:
                    return result
        return original(layer, *inputs, **kwargs)

    return __call__


def _layer_hook(original: Callable[..., Any]) -> Callable[..., Any]:
    """Stands in for `_conv_nd`, through which nn.Conv2D goes: here the bias is at hand."""

    @functools.wraps(original)
    def _conv_nd(x: Any, weight: Any, bias: Any = None, *args: Any, **kwargs: Any) -> Any:
        if kwargs.get("op_type") in ("conv2d", "depthwise_conv2d") and not args:
            arguments = {
                "stride": kwargs.get("stride", 1),
                "padding": kwargs.get("padding", 0),
                "algorithm": kwargs.get("padding_algorithm"),
                "dilation": kwargs.get("dilation", 1),
                "groups": kwargs.get("groups", 1),
                "data_format": kwargs.get("data_format", "NCHW"),
            }
            try:
                result = _try(False, x, weight, bias, arguments)
                if result is not None:
                    return result
            except Fallback:  # the original comes by `_Operators`, which counts it
                pass
        return original(x, weight, bias, *args, **kwargs)

    return _conv_nd


class _Operators:
    """Stands in for paddle._C_ops inside one of Paddle's modules: there every functional form ends."""

    def __init__(self, original: Any, hooks: dict[str, Callable[[Any], Any]]):
        self._original = original
        for name, hook in hooks.items():
            if hasattr(original, name):
                setattr(self, name, hook(getattr(original, name)))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._original, name)


def _convolution_operators(original: Any) -> _Operators:
    return _Operators(
        original,
        {
            prefix + "conv2d" + suffix: functools.partial(
                _operator_hook, transposed=bool(suffix), depthwise=bool(prefix)
            )
            for prefix in ("", "depthwise_")
            for suffix in ("", "_transpose")
        },
    )


def _replacing(name: str, kernel: Callable[..., Any], tensors: int = 1) -> Callable[[Any], _Operators]:
    hook = functools.partial(_tensor_hook, kernel=kernel, tensors=tensors)
    return lambda original: _Operators(original, {name: hook})


def _tensor_hook(original: Callable[..., Any], kernel: Callable[..., Any], tensors: int) -> Callable[..., Any]:
    """`kernel` takes the library, the first `tensors` arguments and a tuple of the others; None: Paddle's own."""

    def operator(*args: Any) -> Any:
        mode = _mode_for(args[0])
        if mode is not None:
            try:
                result = kernel(mode.library, *args[:tensors], args[tensors:])
                if result is not None:
                    return result
            except Fallback as reason:
                fell_back(str(reason), args[0])
        return original(*args)

    return operator


def _operator_hook(original: Callable[..., Any], transposed: bool, depthwise: bool) -> Callable[..., Any]:
    names = ["stride", "padding", "algorithm", "dilation", "groups", "data_format"]
    if transposed:
        names = ["stride", "padding", "output_padding", "output_size", "algorithm", "groups", "dilation", "data_format"]
    elif depthwise:
        names = ["stride", "padding", "algorithm", "groups", "dilation", "data_format"]

    def operator(x: Any, weight: Any, *args: Any) -> Any:
        if len(args) == len(names):
            try:
                result = _try(transposed, x, weight, None, dict(zip(names, args)))
                if result is not None:
                    return result
            except Fallback as reason:
                fell_back(str(reason), x, weight)
        return original(x, weight, *args)

    return operator
