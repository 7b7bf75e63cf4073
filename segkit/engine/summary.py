"""What a model is made of: a table of its layers, its parameters and its multiply-adds."""

from __future__ import annotations

import math
import re
from typing import Any, Iterator, NamedTuple, Sequence

import paddle
from paddle import nn

from segkit.terminal import folded

_HEAD = ("layer", "type", "output", "parameters", "FLOPs")
_NAME = 16  # columns that a layer's name gets at least
_CONVOLUTIONS = (nn.Conv1D, nn.Conv2D, nn.Conv3D)
_TRANSPOSED = (nn.Conv1DTranspose, nn.Conv2DTranspose, nn.Conv3DTranspose)


class Row(NamedTuple):
    """One layer. `params` counts BatchNorm's running mean and variance, as paddle.summary does."""

    name: str
    type: str
    output: list[int]
    params: int
    flops: int


class Description(NamedTuple):
    """`params`, `trainable` and `flops` of the whole model; shared parameters count once."""

    rows: list[Row]
    params: int
    trainable: int
    flops: int

    def table(self, columns: int | None = None) -> str:
        """The layers as a text table, then the sums. Where the table is wider than so many columns, names of layers are
        broken at their dots, and what is still too wide goes without borders."""
        rows = [(row.name, row.type, str(row.output), f"{row.params:,}", f"{row.flops:,}") for row in self.rows]
        return (
            f"{_drawn(rows, columns)}\nparameters: {self.params:,} ({self.trainable:,} trainable)\n"
            f"FLOPs: {self.flops / 1e9:.3f} G (multiply-adds of convolutions and linear layers)"
        )


def _drawn(rows: Sequence[tuple[str, ...]], columns: int | None) -> str:
    from prettytable import PrettyTable

    name, *others = (max(map(len, cells)) for cells in zip(_HEAD, *rows))
    borders = True
    if columns is not None:
        room = columns - sum(others) - len(_HEAD) * 3 - 1
        borders = room >= min(name, _NAME)
        if not borders:
            room = columns - sum(others) - len(others) * 2
        name = max(room, _NAME)
    table = PrettyTable(list(_HEAD), border=borders)
    table.left_padding_width, table.right_padding_width = (1, 1) if borders else (0, 2)
    table.align.update(dict(zip(_HEAD, "lllrr")))
    for layer, *cells in rows:
        table.add_row(["\n".join(folded(re.findall(r"[^.]+\.?", layer), name, " ")), *cells])
    return "\n".join(line.rstrip() for line in str(table).splitlines())


def learned(model: nn.Layer) -> list[paddle.Tensor]:
    """The parameters, frozen ones too, without BatchNorm's running mean and variance, which Paddle counts."""
    return [p for name, p in model.named_parameters() if not name.endswith(("._mean", "._variance"))]


def describe(model: nn.Layer, input_shape: Sequence[int]) -> Description:
    """Run the model once in evaluation on zeros of `input_shape` [N, C, H, W], and describe it.

    Layers that hold parameters or have no layers of their own are listed in the order of their first use; a layer
    with the attribute `one_row` stands for all within it. FLOPs counts a multiply-add as one, over all uses of a
    layer. The model's mode and weights stay as they are.
    """
    rows: dict[str, Row] = {}
    hooks = []
    for name, layer, row in _listed(model):
        hooks.append(layer.register_forward_post_hook(_recorder(rows, name, row)))
    modes = [(layer, layer.training) for layer in model.sublayers(include_self=True)]
    try:
        model.eval()
        with paddle.no_grad():
            model(paddle.zeros(list(input_shape)))
    finally:
        for hook in hooks:
            hook.remove()
        for layer, mode in modes:
            layer.training = mode
    parameters = {id(parameter): parameter for parameter in model.parameters()}.values()
    return Description(
        list(rows.values()),
        _size(parameters),
        _size(parameter for parameter in parameters if not parameter.stop_gradient),
        sum(row.flops for row in rows.values()),
    )


def _size(parameters: Any) -> int:
    return sum(math.prod(parameter.shape) for parameter in parameters)


def _listed(model: nn.Layer) -> Iterator[tuple[str, nn.Layer, str]]:
    """(name, layer, name of the row it counts to) of every layer that does something of its own."""
    row, inside = "", ()
    for name, layer in model.named_sublayers():
        if getattr(layer, "one_row", False):
            row, inside = name, {id(part) for part in layer.sublayers()}
            yield name, layer, name
        elif id(layer) in inside:
            yield name, layer, row
        elif layer.parameters(include_sublayers=False) or not list(layer.children()):
            yield name, layer, name


def _recorder(rows: dict[str, Row], name: str, row: str) -> Any:
    """A hook that adds a layer's share to its row; the row's own layer, which comes last, says type and output."""
    used = False

    def record(layer: nn.Layer, inputs: Any, output: Any) -> None:
        nonlocal used
        first = output[0] if isinstance(output, (list, tuple)) else output
        before = rows.get(row, Row(row, "", [], 0, 0))
        if name == row:
            before = before._replace(type=type(layer).__name__.lstrip("_"), output=list(first.shape))
        params = 0 if used else _size(layer.parameters(include_sublayers=False))
        used = True
        flops = _multiply_adds(layer, inputs[0], first)
        rows[row] = before._replace(params=before.params + params, flops=before.flops + flops)

    return record


def _multiply_adds(layer: nn.Layer, x: Any, y: Any) -> int:
    """A filter of a convolution is applied once for each output pixel, of a transposed one for each input pixel."""
    if isinstance(layer, _CONVOLUTIONS):
        return math.prod(y.shape) * math.prod(layer.weight.shape[1:])
    if isinstance(layer, _TRANSPOSED):
        return math.prod(x.shape) * math.prod(layer.weight.shape[1:])
    if isinstance(layer, nn.Linear):
        return math.prod(y.shape) * layer.weight.shape[0]
    return 0
