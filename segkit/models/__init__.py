"""Model architectures, one file each.

A model is a `paddle.nn.Layer`, registered by `@MODELS.register`, whose `forward` takes photos [N, in_channels, H, W] of
any H and W and returns a list of scores [N, num_classes, H, W]: in evaluation the main output alone, in training the
auxiliary ones after it. Only `num_classes` is a required argument. It may say of itself, as class attributes:

- `scores_are`: what its scores are: "logits" (that is so where it says nothing), "probabilities" or "distances", as
  `segkit.postprocess.ScoresAre` explains them. Masks, thresholds, probabilities, metrics and exported graphs go by it.
- `train_outputs`: how many outputs it gives in training, for the check of the losses' coefficients.
"""

from __future__ import annotations

from segkit.postprocess import ScoresAre


def scores_are(model: object) -> ScoresAre:
    """What the scores of a model, or of an engine of one, are: its attribute of this name, else logits."""
    return getattr(model, "scores_are", "logits")
