"""UNet 3+: every decoder stage sees every scale (Huang et al., https://arxiv.org/abs/2004.08790)."""

from __future__ import annotations

import paddle
import paddle.nn.functional as F
from paddle import Tensor, nn

from segkit.errors import InputError
from segkit.models.layers import resize_to
from segkit.models.unet_layers import stage_widths
from segkit.registry import MODELS

STAGES = 5


def _conv(in_channels: int, out_channels: int, norm: bool = True) -> nn.Sequential:
    """3x3 convolution, BatchNorm, ReLU."""
    norms = [nn.BatchNorm2D(out_channels)] if norm else []
    return nn.Sequential(nn.Conv2D(in_channels, out_channels, 3, padding=1), *norms, nn.ReLU())


class _Stage(nn.Layer):
    """[N, in, h, w] -> [N, out, h, w]."""

    def __init__(self, in_channels: int, out_channels: int, norm: bool):
        super().__init__()
        self.conv1 = _conv(in_channels, out_channels, norm)
        self.conv2 = _conv(out_channels, out_channels, norm)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv2(self.conv1(x))


class _Encoder(nn.Layer):
    """[N, in, H, W] -> five maps, at 1, 1/2, 1/4, 1/8 and 1/16."""

    def __init__(self, in_channels: int, widths: list[int], norm: bool):
        super().__init__()
        self.conv1 = _Stage(in_channels, widths[0], norm)
        for stage in range(2, STAGES + 1):
            layers = nn.MaxPool2D(2, 2), _Stage(widths[stage - 2], widths[stage - 1], norm)
            setattr(self, f"poolconv{stage}", nn.Sequential(*layers))

    def forward(self, x: Tensor) -> list[Tensor]:
        maps = [self.conv1(x)]
        for stage in range(2, STAGES + 1):
            maps.append(getattr(self, f"poolconv{stage}")(maps[-1]))
        return maps


class _Decoder(nn.Layer):
    """Five encoder maps -> decoder maps 1 to 5, the finest first; the fifth is the encoder's own.

    Stage s joins finer encoder maps (pooled, `PT`), its own (`Cat`) and coarser decoder maps (raised, `UT`), each
    through its own convolution to widths[0].
    """

    def __init__(self, widths: list[int]):
        super().__init__()
        cat, joined = widths[0], widths[0] * STAGES
        for stage in range(STAGES - 1, 0, -1):
            for source in range(1, STAGES + 1):
                width = widths[source - 1] if source <= stage or source == STAGES else joined
                setattr(self, self.branch(source, stage), _conv(width, cat))
            setattr(self, f"cbr{stage}d_1", _conv(joined, joined))

    @staticmethod
    def branch(source: int, stage: int) -> str:
        """The key of the convolution from map `source` to decoder stage `stage`."""
        if source > stage:
            return f"hd{source}_UT_hd{stage}_cbr"
        return f"h{source}_{'PT' if source < stage else 'Cat'}_hd{stage}_cbr"

    def forward(self, encoded: list[Tensor]) -> list[Tensor]:
        decoded = {STAGES: encoded[-1]}
        for stage in range(STAGES - 1, 0, -1):
            like, parts = encoded[stage - 1], []
            for source in range(1, STAGES + 1):
                x = encoded[source - 1] if source <= stage else decoded[source]
                if source < stage:
                    ratio = 2 ** (stage - source)
                    x = resize_to(F.max_pool2d(x, ratio, ratio, ceil_mode=True), like)
                else:
                    x = resize_to(x, like)
                parts.append(getattr(self, self.branch(source, stage))(x))
            decoded[stage] = getattr(self, f"cbr{stage}d_1")(paddle.concat(parts, axis=1))
        return [decoded[stage] for stage in range(1, STAGES + 1)]


class _DeepSupervision(nn.Layer):
    """The five decoder maps -> class scores of each, the finest first."""

    def __init__(self, widths: list[int], num_classes: int):
        super().__init__()
        self.convup5 = nn.Sequential(nn.Conv2D(widths[-1], num_classes, 3, padding=1))
        for stage in range(4, 1, -1):
            setattr(self, f"convup{stage}", nn.Sequential(nn.Conv2D(widths[0] * STAGES, num_classes, 3, padding=1)))
        self.outconv1 = nn.Conv2D(widths[0] * STAGES, num_classes, 3, padding=1)

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        scores = [self.outconv1(maps[0])]
        if self.training:
            coarser = [getattr(self, f"convup{stage}")(maps[stage - 1]) for stage in range(2, STAGES + 1)]
            scores += [resize_to(score, scores[0]) for score in coarser]
        return scores


def _draw_scales(model: nn.Layer) -> None:
    """PaddleSeg starts the norms' scales like convolutions: around 0 instead of at 1."""
    draw = nn.initializer.KaimingNormal()
    for layer in model.sublayers():
        if isinstance(layer, nn.BatchNorm2D):
            draw(layer.weight)


@MODELS.register
class UNet3Plus(nn.Layer):
    """[N, in_channels, H, W] -> [[N, num_classes, H, W]], for any H and W.

    `is_deepsup` adds in training the scores of decoder stages 2 to 5; `is_batchnorm` is for the encoder.
    `is_CGM`, the paper's classification-guided module, is not here: PaddleSeg's own config leaves it out.
    `base_channels` is the finest stage's width; the deeper ones have 2, 4, 8 and 16 times as many. `pretrained` is
    a path that the engine loads. With 64, keys and outputs are PaddleSeg's.
    """

    def __init__(
        self,
        num_classes: int,
        in_channels: int = 3,
        is_batchnorm: bool = True,
        is_deepsup: bool = False,
        is_CGM: bool = False,
        base_channels: int = 64,
        pretrained: str | None = None,
    ):
        super().__init__()
        if is_CGM:
            raise InputError("model.is_CGM: not available here (got true, expected false). Set it to false.")
        widths = stage_widths(base_channels, (1, 2, 4, 8, 16))
        self.encoder = _Encoder(in_channels, widths, is_batchnorm)
        self.decoder = _Decoder(widths)
        if is_deepsup:
            self.deepsup = _DeepSupervision(widths, num_classes)
        else:
            self.outconv1 = nn.Conv2D(widths[0] * STAGES, num_classes, 3, padding=1)
        self.is_deepsup = is_deepsup
        self.train_outputs = STAGES if is_deepsup else 1
        self.pretrained = pretrained
        _draw_scales(self)

    def forward(self, x: Tensor) -> list[Tensor]:
        maps = self.decoder(self.encoder(x))
        return self.deepsup(maps) if self.is_deepsup else [self.outconv1(maps[0])]
