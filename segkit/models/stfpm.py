"""STFPM: what a student cannot imitate of its teacher's features is abnormal (Wang et al.,
https://arxiv.org/abs/2103.04257)."""

from __future__ import annotations

import math

import paddle
import paddle.nn.functional as F
from paddle import Tensor, nn

from segkit.errors import InputError
from segkit.models.layers import resize_to
from segkit.registry import BACKBONES, MODELS


class _Features(nn.Layer):
    """A ResNet's maps at 1/4, 1/8 and 1/16, under the keys of its parts' numbers."""

    def __init__(self, net: nn.Layer):
        super().__init__()
        stages = [getattr(net, f"layer{number}") for number in range(1, 5)]
        self.model = nn.Sequential(net.conv1, net.bn1, net.relu, net.maxpool, *stages)

    def forward(self, x: Tensor) -> list[Tensor]:
        maps = []
        for number, layer in enumerate(self.model[:7]):
            x = layer(x)
            if number >= 4:
                maps.append(x)
        return maps


@MODELS.register
class STFPM(nn.Layer):
    """[N, in_channels, H, W] -> in evaluation [[N, 1, H, W]], how abnormal each pixel is: the product over three
    scales of the squared distance of student and teacher, 0 where they agree; in training [[maps of the student, maps
    of the teacher]], which DistillationLoss compares. Training shows normal pictures alone.

    The mask is what is above `abnormal_from`, in units of which the map is given: 1 where student and teacher point 60
    degrees apart at every scale. How far normal photos stay below it depends on the data: `segkit report` shows the
    scores at each threshold of the probability d / (1 + d), of which `--threshold` takes the best.

    `backbone`: a ResNet of torchvision's kind (None: ResNet18), the teacher, with its classification weights
    (`pretrained`), which stays as it is; the student is another of its kind. `num_classes` can only be 1. Keys and
    outputs are PaddleSeg's.
    """

    train_outputs = 1
    scores_are = "distances"

    def __init__(
        self,
        num_classes: int,
        backbone: nn.Layer | None = None,
        in_channels: int = 3,
        abnormal_from: float = 1.0,
        pretrained: str | None = None,
    ):
        super().__init__()
        if not abnormal_from > 0:
            raise InputError(
                f"model.abnormal_from: not a distance (got {abnormal_from}, expected a number above 0). Leave it out "
                "for 1.0."
            )
        if num_classes != 1:
            raise InputError(
                f"model.num_classes: it tells the abnormal from the normal (got {num_classes}, expected 1). Write "
                "num_classes: 1 under model; the data set has the two classes."
            )
        if backbone is None:
            backbone = BACKBONES.get("ResNet18")(in_channels=in_channels)
        if not hasattr(backbone, "layer1"):
            raise InputError(
                f"model.backbone: cannot be a teacher (got {type(backbone).__name__}, expected ResNet18, ResNet34 or "
                "ResNet50). Choose one of them."
            )
        self.teacher = _Features(backbone)
        self.student = _Features(type(backbone)(in_channels=backbone.in_channels))
        self._given = [backbone]  # in a list, so that its parts have no second key
        self.pretrained = pretrained
        self.abnormal_from = abnormal_from

    @property
    def backbone(self) -> nn.Layer:
        """The teacher as it was given, for its weights to be loaded."""
        return self._given[0]

    def train(self) -> None:
        """Training mode for the student alone: the teacher's BatchNorms keep their statistics."""
        super().train()
        self.teacher.eval()

    def forward(self, x: Tensor) -> list:
        with paddle.no_grad():
            taught = self.teacher(x)
        learned = self.student(x)
        if self.training:
            return [[learned, taught]]
        distances = [
            (F.normalize(student, axis=1) - F.normalize(teacher, axis=1)).square().sum(1, keepdim=True)
            for student, teacher in zip(learned, taught)
        ]
        return [math.prod(resize_to(distance, x) for distance in distances) / self.abnormal_from]
