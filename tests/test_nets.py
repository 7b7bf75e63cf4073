"""Arguments of the stand-alone networks that PaddleSeg's reference numbers do not reach."""

from __future__ import annotations

import pytest

from segkit.errors import InputError
from segkit.models.attention_unet import AttentionUNet
from segkit.models.unet_3plus import UNet3Plus


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: UNet3Plus(2, is_CGM=True), r"model.is_CGM: .*got true, expected false"),
        (lambda: AttentionUNet(2, base_channels=1), r"model.base_channels: .*got 1, expected 2 or more"),
    ],
)
def test_arguments_that_cannot_work_are_refused(build, message):
    with pytest.raises(InputError, match=message):
        build()


def test_unet_3plus_without_batch_norm_in_the_encoder_keeps_its_keys():
    with_norm = set(UNet3Plus(2, base_channels=2).state_dict())
    without = set(UNet3Plus(2, base_channels=2, is_batchnorm=False).state_dict())
    assert without < with_norm
    assert all(key.startswith("encoder.") and ".1." in key for key in with_norm - without)
