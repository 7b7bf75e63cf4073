"""How the stages of ResNets are laid out (He et al., https://arxiv.org/abs/1512.03385), dilated for segmentation."""

from __future__ import annotations

from typing import NamedTuple, Sequence

from segkit.errors import InputError

WIDTHS = (64, 128, 256, 512)
DILATIONS = {8: (1, 1, 2, 4), 16: (1, 1, 1, 2), 32: (1, 1, 1, 1)}


class ResidualStep(NamedTuple):
    """What a residual block is made for; `width` is that of its inner maps."""

    in_channels: int
    width: int
    stride: int
    dilation: int


def residual_steps(
    depths: Sequence[int], expansion: int, output_stride: int, multi_grid: Sequence[int]
) -> list[list[ResidualStep]]:
    """The blocks of the four stages after a stem of 64 channels, `expansion` times as wide outside as inside.

    `output_stride` is the last map's: 8 or 16 (dilated), or 32. `multi_grid` multiplies the dilations of the last
    stage's blocks one by one.
    """
    _check(output_stride, multi_grid, depths[3])
    found, channels = [], WIDTHS[0]
    for stage, (depth, width, dilation) in enumerate(zip(depths, WIDTHS, DILATIONS[output_stride])):
        found.append([])
        for index in range(depth):
            spread = dilation * multi_grid[index] if stage == 3 else dilation
            stride = 2 if index == 0 and stage > 0 and spread == 1 else 1
            found[stage].append(ResidualStep(channels, width, stride, spread))
            channels = width * expansion
    return found


def _check(output_stride: int, multi_grid: Sequence[int], last_depth: int) -> None:
    if output_stride not in DILATIONS:
        raise InputError(
            f"backbone.output_stride: no such layout (got {output_stride}, expected 8, 16 or 32). "
            "8 keeps the most detail and is the slowest."
        )
    if len(multi_grid) < last_depth:
        raise InputError(
            f"backbone.multi_grid: a number for each of the last stage's blocks (got {list(multi_grid)}, expected "
            f"{last_depth} or more). Leave it out for no grid."
        )
