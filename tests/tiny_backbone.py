"""A backbone of four narrow maps, so that tests of heads do not pay for a real one."""

from __future__ import annotations

from paddle import Tensor, nn

from segkit.models.backbones.hrformer import HRFormer
from segkit.models.backbones.lite_hrnet import LiteHRNet
from segkit.models.backbones.resnet import ResNet18
from segkit.models.layers import ConvBNReLU
from segkit.registry import BACKBONES


@BACKBONES.register
class TinyBackbone(nn.Layer):
    """[N, in_channels, H, W] -> maps at 1/4, 1/8, 1/16, 1/32 of 16, 32, 64 and 128 channels."""

    def __init__(self, in_channels: int = 3, pretrained: str | None = None):
        super().__init__()
        self.in_channels = in_channels
        self.pretrained = pretrained
        self.feat_channels = [16, 32, 64, 128]
        self.first = ConvBNReLU(in_channels, 64, 3, stride=2, padding=1)
        widths = [64, *self.feat_channels]
        self.convs = nn.LayerList([ConvBNReLU(a, b, 3, stride=2, padding=1) for a, b in zip(widths, widths[1:])])

    def stem(self, x: Tensor) -> Tensor:
        """[N, in_channels, H, W] -> [N, 64, H/2, W/2]."""
        return self.first(x)

    def stages(self, x: Tensor) -> list[Tensor]:
        """The stem's map -> the four maps."""
        maps = []
        for conv in self.convs:
            x = conv(x)
            maps.append(x)
        return maps

    def forward(self, x: Tensor) -> list[Tensor]:
        return self.stages(self.stem(x))


@BACKBONES.register
class TinyResNet(ResNet18):
    """`ResNet18` of one block a stage."""

    depths = (1, 1, 1, 1)


@BACKBONES.register
class TinyHRFormer(HRFormer):
    """`HRFormer` of two branches with a block each, 8 wide."""

    width, heads, windows, modules, blocks = 8, (1, 2), (3,), (1,), 1


@BACKBONES.register
class TinyLiteHRNet(LiteHRNet):
    """`LiteHRNet` of two branches."""

    modules = (1,)
