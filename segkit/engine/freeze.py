"""Parts of a model that are not trained."""

from __future__ import annotations

import fnmatch

import paddle

from segkit.errors import InputError


def freeze(model: paddle.nn.Layer, patterns: list[str]) -> None:
    """Stop the training of the parameters whose names match (`fnmatch`, or a prefix), and with them the statistics
    of BatchNorms that are wholly frozen."""
    names = [name for name, _ in model.named_parameters()]
    for pattern in patterns:
        found = [name for name in names if fnmatch.fnmatch(name, pattern) or name.startswith(pattern.rstrip(".") + ".")]
        if not found:
            heads = ", ".join(dict.fromkeys(name.split(".")[0] for name in names))
            raise InputError(
                f"freeze: '{pattern}' matches no parameter. They start with {heads}; * stands for anything."
            )
        parameters = dict(model.named_parameters())
        for name in found:
            parameters[name].stop_gradient = True
            parameters[name].trainable = False
    for layer in model.sublayers():
        if isinstance(layer, paddle.nn.layer.norm._BatchNormBase) and all(p.stop_gradient for p in layer.parameters()):
            layer._use_global_stats = True
