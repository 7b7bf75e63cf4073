"""Functions of Paddle 3.3 that can no longer be written as `.pdmodel`, put back for `--format paddle2`.

Paddle 3.3 hands them straight to its C++ core, which refuses the variables of the older program format. The operators
themselves are still there and still run: here they are added to the program by their names.
"""

from __future__ import annotations

from typing import Any, Callable, Optional

import paddle
from paddle import _C_ops
from paddle.base.framework import Variable
from paddle.base.layer_helper import LayerHelper

# Functions of one tensor that are named as their operators.
_UNARY = ("abs", "ceil", "cos", "exp", "floor", "log", "round", "rsqrt", "sigmoid", "sign", "sin", "sqrt", "tanh")
_BINARY = {"multiply": "elementwise_mul", "maximum": "elementwise_max", "minimum": "elementwise_min", "bmm": "bmm"}


def restore() -> None:
    """In a process with the older format: make the functions work where a program is written, and nowhere else."""
    makers: dict[str, Callable[..., Variable]] = {name: _unary(name) for name in _UNARY}
    makers.update({name: _binary(operator) for name, operator in _BINARY.items()})
    makers.update(
        gelu=_gelu, matmul=_matmul, sum=_sum, roll=_roll, argmax=_argmax, grid_sample=_grid_sample, softplus=_softplus,
        tril=_triangle(True), triu=_triangle(False), expand_as=_expand_as,
    )  # fmt: skip
    for name, make in makers.items():
        if hasattr(_C_ops, name):
            setattr(_C_ops, name, _either(getattr(_C_ops, name), make))
            setattr(Variable, name, make)
    paddle.nn.functional.normalize = _either(paddle.nn.functional.normalize, _normalize)


def _either(original: Callable[..., Any], make: Callable[..., Variable]) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> Any:
        return original(*args, **kwargs) if paddle.in_dynamic_mode() else make(*args, **kwargs)

    return call


def _add(operator: str, inputs: dict[str, Any], kind: Any = None, output: str = "Out", **attributes: Any) -> Variable:
    """The output of one more operator in the program; of the first input's type unless `kind` says otherwise."""
    helper = LayerHelper(operator)
    made = helper.create_variable_for_type_inference(kind or next(iter(inputs.values())).dtype)
    helper.append_op(type=operator, inputs=inputs, outputs={output: made}, attrs=attributes)
    return made


def _unary(operator: str) -> Callable[..., Variable]:
    return lambda x, name=None: _add(operator, {"X": x})


def _binary(operator: str) -> Callable[..., Variable]:
    attributes = {} if operator == "bmm" else {"axis": -1}
    return lambda x, y, name=None: _add(operator, {"X": x, "Y": y}, **attributes)


def _gelu(x: Variable, approximate: bool = False, name: Any = None) -> Variable:
    return _add("gelu", {"X": x}, approximate=approximate)


def _softplus(x: Variable, beta: float = 1, threshold: float = 20, name: Any = None) -> Variable:
    return _add("softplus", {"X": x}, beta=float(beta), threshold=float(threshold))


def _matmul(
    x: Variable, y: Variable, transpose_x: bool = False, transpose_y: bool = False, name: Any = None
) -> Variable:
    return _add("matmul_v2", {"X": x, "Y": y}, trans_x=transpose_x, trans_y=transpose_y)


def _sum(
    x: Variable, axis: Any = None, dtype: Optional[str] = None, keepdim: bool = False, name: Any = None
) -> Variable:
    axes = [] if axis is None else [axis] if isinstance(axis, int) else list(axis)
    made = _add("reduce_sum", {"X": x}, dim=axes or [0], keep_dim=keepdim, reduce_all=not axes)
    return made if dtype is None else paddle.cast(made, dtype)


def _normalize(x: Variable, p: float = 2, axis: int = 1, epsilon: float = 1e-12, name: Any = None) -> Variable:
    length = _add("p_norm", {"X": x}, porder=float(p), axis=axis, keepdim=True, epsilon=float(epsilon))
    return x / paddle.clip(length, min=epsilon)


def _argmax(
    x: Variable, axis: Optional[int] = None, keepdim: bool = False, dtype: str = "int64", name: Any = None
) -> Variable:
    code = paddle.base.framework.convert_np_dtype_to_dtype_(dtype)
    return _add(
        "arg_max", {"X": x}, code, axis=axis or 0, keepdims=keepdim, flatten=axis is None, dtype=int(code)
    )  # fmt: skip


def _roll(x: Variable, shifts: Any, axis: Any = None, name: Any = None) -> Variable:
    both = [[value] if isinstance(value, int) else list(value or []) for value in (shifts, axis)]
    return _add("roll", {"X": x}, shifts=both[0], axis=both[1])


def _triangle(lower: bool) -> Callable[..., Variable]:
    return lambda x, diagonal=0, name=None: _add("tril_triu", {"X": x}, diagonal=diagonal, lower=lower)


def _expand_as(x: Variable, y: Variable, name: Any = None) -> Variable:
    return _add("expand_as_v2", {"X": x, "Y": y}, target_shape=list(y.shape))


def _grid_sample(
    x: Variable,
    grid: Variable,
    mode: str = "bilinear",
    padding_mode: str = "zeros",
    align_corners: bool = True,
    name: Any = None,
) -> Variable:
    return _add(
        "grid_sampler", {"X": x, "Grid": grid}, output="Output",
        mode=mode, padding_mode=padding_mode, align_corners=align_corners,
    )  # fmt: skip
