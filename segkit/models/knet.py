"""K-Net: a kernel for each class, updated in rounds from the pixels that it finds
(Zhang et al., https://arxiv.org/abs/2106.14855)."""

from __future__ import annotations

from typing import Any, Sequence

import paddle
import paddle.nn.functional as F
from paddle import Tensor, nn

from segkit.errors import InputError
from segkit.models.backboned import BackboneModel
from segkit.models.layers import AuxHead, ConvBNReLU, resize_to, to_map
from segkit.models.parts import made
from segkit.models.uperhead import UPerHead
from segkit.registry import MODELS

_GROUP = 256


class _ConvHead(nn.Layer):
    """The last map -> its features [N, channels, h, w], after `num_convs` convolutions.

    `in_channels`: as configs give it; the backbone is asked instead."""

    def __init__(
        self,
        num_classes: int,
        widths: list[int],
        channels: int = 512,
        num_convs: int = 2,
        concat_input: bool = True,
        dropout_prob: float = 0.1,
        in_channels: int | None = None,
    ):
        super().__init__()
        width = widths[0]
        inputs = [width, *[channels] * (num_convs - 1)]
        self.convs = nn.Sequential(*(ConvBNReLU(before, channels, 3) for before in inputs))
        self.conv_cat = ConvBNReLU(width + channels, channels, 3) if concat_input else None
        self.conv_seg = nn.Conv2D(channels, num_classes, 1)
        self.dropout = nn.Dropout2D(dropout_prob)

    def features(self, maps: list[Tensor]) -> Tensor:
        x = self.convs(maps[0])
        return self.dropout(x if self.conv_cat is None else self.conv_cat(paddle.concat([maps[0], x], axis=1)))


class _PyramidHead(UPerHead):
    """`UPerHead`'s features and scores. `fpn_inplanes`: as configs give it; the backbone is asked instead."""

    def __init__(
        self,
        num_classes: int,
        widths: list[int],
        channels: int = 512,
        dropout_prob: float = 0.1,
        enable_auxiliary_loss: bool = False,
        align_corners: bool = False,
        fpn_inplanes: Sequence[int] | None = None,
    ):
        super().__init__(num_classes, widths, channels, dropout_prob, enable_auxiliary_loss, align_corners)


_GENERATORS = {"FCNKernelHead": _ConvHead, "UPerKernelHead": _PyramidHead}


class _Updator(nn.Layer):
    """Kernels [M, 256] and what they found [M, 256] -> kernels, each mixed of both through gates."""

    def __init__(self):
        super().__init__()
        self.dynamic_layer = nn.Linear(_GROUP, 2 * _GROUP)
        self.input_layer = nn.Linear(_GROUP, 2 * _GROUP)
        self.input_gate = nn.Linear(_GROUP, _GROUP)
        self.update_gate = nn.Linear(_GROUP, _GROUP)
        self.norm_in = nn.LayerNorm(_GROUP)
        self.norm_out = nn.LayerNorm(_GROUP)
        self.input_norm_in = nn.LayerNorm(_GROUP)
        self.input_norm_out = nn.LayerNorm(_GROUP)
        self.fc_layer = nn.Linear(_GROUP, _GROUP)
        self.fc_norm = nn.LayerNorm(_GROUP)

    def forward(self, found: Tensor, kernels: Tensor) -> Tensor:
        new_in, new_out = self.dynamic_layer(found).split(2, axis=-1)
        old_in, old_out = self.input_layer(kernels).split(2, axis=-1)
        both = new_in * old_in
        keep = F.sigmoid(self.input_norm_in(self.input_gate(both)))
        take = F.sigmoid(self.norm_in(self.update_gate(both)))
        mixed = take * self.norm_out(new_out) + keep * self.input_norm_out(old_out)
        return F.relu(self.fc_norm(self.fc_layer(mixed)))


class _FeedForward(nn.Layer):
    """[..., C] -> [..., C], added to the input."""

    def __init__(self, channels: int, hidden: int, dropout: float):
        super().__init__()
        first = nn.Sequential(nn.Linear(channels, hidden), nn.ReLU(), nn.Dropout(dropout))
        self.layers = nn.Sequential(first, nn.Linear(hidden, channels), nn.Dropout(dropout))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x)


class _Alone(nn.Layer):
    """The weights of an attention in which every kernel sees itself alone, so that only values count.

    PaddleSeg attends across the images of a batch at this place, by mistake: on one image it is this. `q_proj` and
    `k_proj` are in published weights and unused."""

    def __init__(self, channels: int):
        super().__init__()
        self.q_proj = nn.Linear(channels, channels)
        self.k_proj = nn.Linear(channels, channels)
        self.v_proj = nn.Linear(channels, channels)
        self.out_proj = nn.Linear(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.out_proj(self.v_proj(x))


class _UpdateHead(nn.Layer):
    """Features [N, C, h, w], kernels [N, K, C] and scores [N, K, h, w] -> new scores and kernels.

    `num_heads`: as configs give it; see `_Alone`."""

    def __init__(
        self,
        in_channels: int = 256,
        out_channels: int = 256,
        num_heads: int = 8,
        num_mask_fcs: int = 1,
        feedforward_channels: int = 2048,
        dropout: float = 0.0,
        conv_kernel_size: int = 1,
        with_ffn: bool = True,
    ):
        super().__init__()
        if conv_kernel_size != 1 or in_channels % _GROUP or in_channels != out_channels:
            raise InputError(
                "model.kernel_update_head_params: not a layout that published weights have (got conv_kernel_size "
                f"{conv_kernel_size}, in_channels {in_channels}, out_channels {out_channels}; expected 1, a multiple "
                f"of {_GROUP}, and the same). Correct them."
            )
        width = in_channels
        self.attention = _Alone(width)
        self.attention_norm = nn.LayerNorm(width)
        self.kernel_update_conv = _Updator()
        self.feat_transform = nn.Conv2D(width, width, 1)
        self.ffn = _FeedForward(width, feedforward_channels, dropout) if with_ffn else nn.Identity()
        self.ffn_norm = nn.LayerNorm(width) if with_ffn else nn.Identity()
        self.mask_fcs = nn.LayerList()
        for _ in range(num_mask_fcs):
            self.mask_fcs.extend([nn.Linear(width, width, bias_attr=False), nn.LayerNorm(width), nn.ReLU()])
        self.fc_mask = nn.Linear(width, width)

    def forward(self, features: Tensor, kernels: Tensor, scores: Tensor) -> tuple[Tensor, Tensor]:
        features = self.feat_transform(features)
        shares = F.softmax(scores, axis=1).flatten(2)
        found = paddle.matmul(shares, features.flatten(2), transpose_y=True)
        new = self.kernel_update_conv(found.reshape([-1, _GROUP]), kernels.reshape([-1, _GROUP]))
        new = self.attention_norm(self.attention(new.reshape([-1, *kernels.shape[1:]])))
        new = self.ffn_norm(self.ffn(new))
        masks = new
        for layer in self.mask_fcs:
            masks = layer(masks)
        return to_map(paddle.matmul(self.fc_mask(masks), features.flatten(2)), features), new


def _layout(params: dict[str, Any]) -> dict[str, Any]:
    """A part's own arguments."""
    return {key: value for key, value in params.items() if key not in ("num_classes", "head_layer")}


@MODELS.register
class KNet(BackboneModel):
    """[N, in_channels, H, W] -> [[N, num_classes, H, W]] in evaluation, of the last round; in training those of the
    first scores, of each of the `num_stages` rounds and, with `enable_auxiliary_loss`, of the auxiliary head.

    `kernel_generate_head_params`: `head_layer` FCNKernelHead (one map) or UPerKernelHead (four) and its arguments.
    `kernel_update_head_params`: those of the rounds. Keys and outputs are PaddleSeg's for one image at a time; in a
    batch, its images leak into each other and here they do not.
    """

    def __init__(
        self,
        num_classes: int,
        backbone: nn.Layer | None = None,
        backbone_indices: Sequence[int] = (3,),
        kernel_update_head_params: dict | None = None,
        kernel_generate_head_params: dict | None = None,
        num_stages: int = 3,
        channels: int = 512,
        enable_auxiliary_loss: bool = False,
        align_corners: bool = False,
        dropout_prob: float = 0.1,
        in_channels: int = 3,
        pretrained: str | None = None,
    ):
        super().__init__(backbone, backbone_indices, in_channels, align_corners, pretrained)
        generate = kernel_generate_head_params or {"channels": channels, "dropout_prob": dropout_prob}
        update = kernel_update_head_params or {"in_channels": channels, "out_channels": channels}
        kind = generate.get("head_layer", "UPerKernelHead" if len(self.map_channels) > 1 else "FCNKernelHead")
        if kind not in _GENERATORS:
            raise InputError(
                f"model.kernel_generate_head_params.head_layer: no such head (got {kind}, expected "
                f"{' or '.join(_GENERATORS)}). Correct it."
            )
        self.kernel_update_head = nn.LayerList(
            [made(_UpdateHead, _layout(update), "model.kernel_update_head_params") for _ in range(num_stages)]
        )
        self.kernel_generate_head = made(
            _GENERATORS[kind], _layout(generate), "model.kernel_generate_head_params", num_classes, self.map_channels
        )
        self.aux_head = None
        if enable_auxiliary_loss:
            self.aux_head = AuxHead(self.backbone.feat_channels[2], 256, num_classes, dropout_prob)

    def forward(self, x: Tensor) -> list[Tensor]:
        found = self.backbone(x)
        head = self.kernel_generate_head
        features = head.features([found[index] for index in self.backbone_indices])
        scores = [head.conv_seg(features)]
        kernels = head.conv_seg.weight.flatten(1).unsqueeze(0).expand([paddle.shape(features)[0], -1, -1])
        for update in self.kernel_update_head:
            new, kernels = update(features, kernels, scores[-1])
            scores.append(new)
        if not self.training:
            scores = scores[-1:]
        elif self.aux_head is not None:
            scores.append(self.aux_head(found[2]))
        return [resize_to(score, x, align_corners=self.align_corners) for score in scores]
