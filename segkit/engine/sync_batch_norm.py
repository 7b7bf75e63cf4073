"""BatchNorm over all ranks' batches: on a GPU Paddle's own layer, on the CPU, where Paddle has none, this one."""

from __future__ import annotations

import paddle
import paddle.distributed as dist
from paddle import nn
from paddle.autograd import PyLayer

from segkit.dist import world_size

_BATCH_NORMS = (nn.BatchNorm1D, nn.BatchNorm2D, nn.BatchNorm3D)


class _SumOverRanks(PyLayer):
    """Adds a tensor up over the ranks; the gradient of a sum is the sum of the gradients."""

    @staticmethod
    def forward(ctx: object, x: paddle.Tensor) -> paddle.Tensor:
        total = x.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: object, grad: paddle.Tensor) -> paddle.Tensor:
        total = grad.clone()
        dist.all_reduce(total)
        return total


class GlooBatchNorm2D(nn.BatchNorm2D):
    """BatchNorm2D whose training statistics are those of the batches of all ranks together (Ioffe & Szegedy 2015,
    Eq. 1-2, over the global batch). Running statistics use the biased variance, as Paddle's do."""

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        """x: [N, C, H, W] -> the same shape."""
        if not self.training:
            return super().forward(x)
        channels = x.shape[1]
        count = paddle.full([1], x.size // channels, dtype=x.dtype)
        sums = _SumOverRanks.apply(paddle.concat([x.sum(axis=[0, 2, 3]), count]))
        mean = sums[:-1] / sums[-1]
        centred = x - mean.reshape([1, -1, 1, 1])  # a difference of mean squares would be rounding far from zero
        variance = _SumOverRanks.apply((centred * centred).sum(axis=[0, 2, 3])) / sums[-1]
        with paddle.no_grad():
            for running, now in ((self._mean, mean), (self._variance, variance)):
                running.set_value(running * self._momentum + now.detach() * (1 - self._momentum))
        scale = paddle.rsqrt(variance + self._epsilon)
        if self.weight is not None:
            scale = scale * self.weight
        y = centred * scale.reshape([1, -1, 1, 1])
        return y if self.bias is None else y + self.bias.reshape([1, -1, 1, 1])


def synchronise(model: nn.Layer, device: str) -> nn.Layer:
    """The model with its BatchNorms counting over all ranks; unchanged with one rank. Keys stay the same.

    A frozen BatchNorm (`_use_global_stats`) counts nothing and stays as it is.
    """
    if world_size() == 1:
        return model
    for parent in model.sublayers(include_self=True):
        for name, layer in list(parent.named_children()):
            if not isinstance(layer, _BATCH_NORMS) or layer._use_global_stats:
                continue
            if device.startswith("gpu"):
                parent.add_sublayer(name, nn.SyncBatchNorm.convert_sync_batchnorm(layer))
            elif type(layer) is nn.BatchNorm2D:
                layer.__class__ = GlooBatchNorm2D
    return model
