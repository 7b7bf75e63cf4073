"""BatchNorm folded into convolutions: the same scores, found by tracing, and everything put back."""

from __future__ import annotations

import numpy as np
import paddle
import pytest
from paddle import nn

from segkit.engine import apply
from segkit.engine.folding import folded
from segkit.models.bisenet import BiSeNetV2
from segkit.models.unet import UNet


class Net(nn.Layer):
    """A convolution and a BatchNorm, put together by `how(self, x)`."""

    def __init__(self, how, **convolution):
        super().__init__()
        self.convolution = nn.Conv2D(3, 6, 3, padding=1, **convolution)
        self.norm = nn.BatchNorm2D(6)
        self.how = how

    def forward(self, x):
        return [self.how(self, x)]


def statistics(model):
    """Random statistics, scales and shifts."""
    paddle.seed(5)
    for layer in model.sublayers():
        if isinstance(layer, nn.BatchNorm2D):
            layer._mean.set_value(0.2 * paddle.randn(layer._mean.shape))
            layer._variance.set_value(paddle.rand(layer._mean.shape) + 0.5)
            layer.weight.set_value(1 + 0.2 * paddle.randn(layer._mean.shape))
            layer.bias.set_value(0.2 * paddle.randn(layer._mean.shape))
    model.eval()
    return model


@pytest.fixture
def x():
    paddle.seed(1)
    return paddle.randn([2, 3, 64, 96])


def close(found, expected, share=1e-5):
    np.testing.assert_allclose(found, expected, atol=share * float(expected.abs().max()))


@pytest.mark.parametrize("options", [{}, {"bias_attr": False}, {"groups": 3}, {"stride": 2, "dilation": 2}])
def test_the_same_scores(options, x):
    model = statistics(Net(lambda self, x: nn.functional.relu(self.norm(self.convolution(x))), **options))
    expected = model(x)[0]
    with folded(model, x[:1, :, :32, :32]) as pairs:
        assert pairs == 1
        assert model.norm(x) is x
        close(model(x)[0], expected)
    np.testing.assert_array_equal(model(x)[0], expected)


def test_whole_models(x):
    for model, least in ((UNet(num_classes=3, base_channels=4), 18), (BiSeNetV2(num_classes=3), 50)):
        statistics(model)
        expected = model(x)[0]
        with folded(model, x[:1]) as pairs:
            assert pairs >= least
            close(model(x)[0], expected, 5e-5)  # BiSeNetV2's 50 layers amplify rounding: 1.7e-5 with MKL's AVX2 kernels
        np.testing.assert_array_equal(model(x)[0], expected)


def test_the_state_is_not_touched(x):
    model = statistics(Net(lambda self, x: self.norm(self.convolution(x)), bias_attr=False))
    before = {name: value.numpy() for name, value in model.state_dict().items()}
    own = {name: dict(vars(layer)) for name, layer in model.named_sublayers()}
    with pytest.raises(KeyboardInterrupt), folded(model, x):
        now = model.state_dict()
        raise KeyboardInterrupt
    for state in (now, model.state_dict()):
        assert list(state) == list(before)
        for name, value in state.items():
            np.testing.assert_array_equal(value, before[name])
    for name, layer in model.named_sublayers():
        assert vars(layer).keys() == own[name].keys()
        assert layer.training is False


@pytest.mark.parametrize(
    "how",
    [
        lambda self, x: self.norm(self.convolution(x) * 2),
        lambda self, x: self.norm(nn.functional.relu(self.convolution(x))),
        lambda self, x: self.norm(self.convolution(x)) + self.convolution(x),
        lambda self, x: self.norm(self.norm(self.convolution(x))),
        lambda self, x: (lambda y: self.norm(y) + y)(self.convolution(x)),
        lambda self, x: self.norm(self.convolution(x)) if x.shape[3] > 64 else 1 / 0,
    ],
    ids=["scaled", "relu between", "convolution twice", "norm twice", "output used twice", "refuses small photos"],
)
def test_other_nets_stay_as_they_are(how, x):
    model = statistics(Net(how))
    expected = model(x)[0]
    with folded(model, x[:1, :, :32, :32]) as pairs:
        assert pairs == 0
        np.testing.assert_array_equal(model(x)[0], expected)


def test_batch_statistics_are_not_folded(x):
    model = statistics(Net(lambda self, x: self.norm(self.convolution(x))))
    model.norm._use_global_stats = False
    with folded(model, x) as pairs:
        assert pairs == 0
    model.norm._use_global_stats = None
    model.norm.train()
    with folded(model, x) as pairs:
        assert pairs == 0


def test_a_compiled_model_is_left_alone(x):
    model = paddle.jit.to_static(statistics(UNet(num_classes=3, base_channels=4)), full_graph=True)
    with folded(model, x[:1]) as pairs:
        assert pairs == 0
    expected = model(x)[0]
    with folded(model, x[:1]) as pairs:
        assert pairs == 0
        np.testing.assert_array_equal(model(x)[0], expected)


def test_applied_folds_unless_told_not_to(x):
    model = statistics(UNet(num_classes=3, base_channels=4))
    model.train()
    norm = model.encode.double_conv[0]._batch_norm
    for onednn in (True, False):
        with apply.Applied(model, apply.TestTime(onednn=onednn)) as applied:
            found = applied.scores(x.numpy())
            assert ("forward" in vars(norm)) == onednn
            assert not model.training
        assert model.training and "forward" not in vars(norm)
        model.eval()
        close(paddle.to_tensor(found), model(x)[0])
        model.train()
