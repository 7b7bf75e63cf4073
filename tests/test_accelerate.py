"""What a GPU is asked for, judged on the CPU: which switches are set when, and that fused updates are the same."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import paddle
import pytest
from paddle import nn

from segkit import build, log, optim
from segkit.config import Config
from segkit.engine import accelerate, sync_batch_norm
from segkit.engine.checkpoint import TrainState
from segkit.engine.ema import WeightAverage
from segkit.engine.loader import scaled
from segkit.engine.train import Step, freeze, train
from segkit.engine.trainlog import TrainLog
from segkit.errors import InputError
from segkit.options import TrainOptions
from segkit.registry import LOSSES
from tests.tiny import make_data, tiny_config


@pytest.fixture
def flags(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Every change of cuDNN's search, in order."""
    changes: list[bool] = []
    monkeypatch.setattr(paddle, "set_flags", lambda new: changes.append(new["FLAGS_cudnn_exhaustive_search"]))
    return changes


def image(height: int, width: int) -> paddle.Tensor:
    return paddle.zeros([1, 3, height, width])


def test_the_search_lasts_while_batches_have_one_size(flags: list[bool], caplog: pytest.LogCaptureFixture) -> None:
    search = accelerate.Search("gpu:0", deterministic=False)
    with search.over(image(8, 8)):
        assert flags == [True]
    with pytest.raises(KeyError), search.over(image(8, 8)):
        raise KeyError
    assert flags == [True, False, True, False]  # off again outside the step, whatever happens in it
    log.logger.addHandler(caplog.handler)
    with caplog.at_level(logging.INFO, logger="segkit"):
        for size in ((8, 16), (8, 8), (8, 8)):
            with search.over(image(*size)):
                pass
    log.logger.removeHandler(caplog.handler)
    assert len(flags) == 4
    assert [record.getMessage() for record in caplog.records].count(
        "the batches differ in size: cuDNN's algorithms are chosen by rule, no longer by search"
    ) == 1


@pytest.mark.parametrize("device, deterministic", [("cpu", False), ("gpu:0", True)])
def test_no_search(device: str, deterministic: bool, flags: list[bool]) -> None:
    with accelerate.Search(device, deterministic).over(image(8, 8)):
        pass
    assert not flags


def test_channels_last_acts_in_half_precision_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    asked, said = [], []
    monkeypatch.setattr(paddle.incubate.autotune, "set_config", asked.append)
    monkeypatch.setattr(accelerate, "warn_once", said.append)
    for device, precision in (("cpu", "fp32"), ("cpu", "bf16"), ("gpu:0", "fp32")):
        accelerate.channels_last("NCHW", precision, device)
        accelerate.channels_last("NHWC", precision, device)
    assert not asked and len(said) == 3
    assert said[0].startswith("--data_format NHWC: the models compute in NCHW, results are the same. It acts with")
    for precision in ("fp16", "bf16"):
        accelerate.channels_last("NCHW", precision, "gpu:0")
        accelerate.channels_last("NHWC", precision, "gpu:0")
    assert asked == [{"layout": {"enable": True}}] * 2 and len(said) == 3


def test_which_optimizers_update_all_tensors_at_once() -> None:
    momentum = {"type": "SGD", "momentum": 0.9}
    assert accelerate.fused(momentum, "gpu:0") == {**momentum, "use_multi_tensor": True}
    assert accelerate.fused({"type": "adam"}, "gpu:1") == {"type": "adam", "use_multi_tensor": True}
    for node in ({"type": "SGD"}, {"type": "AdamW"}, {"type": "Adam", "use_multi_tensor": False}):
        assert accelerate.fused(node, "gpu:0") == node
    assert accelerate.fused(momentum, "cpu") == momentum


def trained(node: dict, steps: int, state: dict | None = None) -> tuple[nn.Layer, paddle.optimizer.Optimizer]:
    """A small net after so many steps of that optimizer; `state`: continued from [weights, optimizer]."""
    paddle.seed(0)
    with paddle.utils.unique_name.guard():
        net = nn.Sequential(nn.Conv2D(3, 4, 3, bias_attr=False), nn.BatchNorm2D(4), nn.ReLU(), nn.Conv2D(4, 2, 1))
        schedule = optim.build_scheduler({"type": "PolynomialDecay", "learning_rate": 0.05}, 10)
        optimizer = optim.build_optimizer(node, schedule, net)
        first = 0
        if state is not None:
            net.set_state_dict(state["net"])
            optimizer.set_state_dict(state["optimizer"])  # the schedule with it
            first = state["done"]
        for step in range(first, steps):
            paddle.seed(step)
            net(paddle.randn([2, 3, 8, 8])).square().mean().backward()
            optimizer.step()
            optimizer.clear_grad(set_to_zero=False)
            schedule.step()
    return net, optimizer


NODES = [
    {"type": "Momentum", "weight_decay": 4e-3},
    {"type": "Adam", "grad_clip": {"name": "ClipGradByGlobalNorm", "clip_norm": 0.1}},
    {"type": "Adam", "weight_decay": 4e-3, "custom_cfg": [{"name": "3.", "lr_mult": 0.1, "weight_decay_mult": 0.0}]},
]


@pytest.mark.parametrize("node", NODES, ids=lambda node: node["type"] + str(len(node)))
def test_fused_updates_are_those_of_the_plain_optimizer(node: dict) -> None:
    """Tolerance: rounding; Adam's kernels divide in another order."""
    plain, _ = trained(node, 5)
    fused, _ = trained(accelerate.fused(node, "gpu:0"), 5)
    for (name, a), b in zip(plain.named_parameters(), fused.parameters()):
        np.testing.assert_allclose(b.numpy(), a.numpy(), atol=2e-6, err_msg=name)


@pytest.mark.parametrize("node", NODES[:2], ids=["Momentum", "Adam"])
def test_fused_updates_resume_exactly(node: dict) -> None:
    node = accelerate.fused(node, "gpu:0")
    whole, _ = trained(node, 6)
    half, optimizer = trained(node, 3)
    state = {"net": {key: value.numpy() for key, value in half.state_dict().items()}, "done": 3}
    state["optimizer"] = {
        key: value.numpy() if isinstance(value, paddle.Tensor) else value
        for key, value in optimizer.state_dict().items()
    }
    resumed, _ = trained(node, 6, state)
    for a, b in zip(whole.parameters(), resumed.parameters()):
        np.testing.assert_array_equal(a.numpy(), b.numpy())


class NoCopy(Exception):
    """A tensor was read by the host."""


def refuse_reading(monkeypatch: pytest.MonkeyPatch) -> None:
    """From here on, what reads a tensor's values raises `NoCopy`."""

    def refuse(*_: object, **__: object) -> None:
        raise NoCopy

    for name in ("numpy", "item", "tolist", "__bool__", "__float__", "__int__", "__array__", "__index__"):
        monkeypatch.setattr(paddle.Tensor, name, refuse)


def test_bytes_are_normalised_on_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    image, table = paddle.full([1, 3, 2, 2], 51, "uint8"), paddle.linspace(-1.0, 4.1, 256).unsqueeze(1).tile([1, 3])
    refuse_reading(monkeypatch)
    found = scaled(image, table)
    monkeypatch.undo()
    np.testing.assert_allclose(found.numpy(), np.full((1, 3, 2, 2), 0.02), atol=1e-6)


# Distances and connected parts are found on the host.
READ_BY_DESIGN = {"BoundaryLoss", "SemanticConnectivityLoss"}


def test_losses_read_nothing_back() -> None:
    """All losses that compare class scores with a label of the same size."""
    done, read = [], set()
    for name in LOSSES.names():
        logits, label = paddle.randn([2, 2, 32, 32]), paddle.randint(0, 2, [2, 32, 32])
        logits.stop_gradient = False
        try:
            loss = LOSSES.get(name)()
            loss(logits, label).backward()
        except (TypeError, ValueError, InputError):  # it compares something else
            continue
        done.append(name)
        with pytest.MonkeyPatch.context() as patch:
            refuse_reading(patch)
            try:
                loss(logits, label).backward()
            except NoCopy:
                read.add(name)
    assert len(done) > 20
    assert read == READ_BY_DESIGN


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"loss": {"types": [{"type": "DiceLoss"}], "coef": [1]}},
        {"loss": {"types": [{"type": "OhemCrossEntropyLoss"}], "coef": [1]}},
        {"loss": {"types": [{"type": "LovaszSoftmaxLoss"}], "coef": [1]}},
        {"optimizer": {"type": "Adam", "grad_clip": {"name": "ClipGradByGlobalNorm", "clip_norm": 0.1}}},
    ],
    ids=["cross entropy", "dice", "ohem", "lovasz", "adam"],
)
def test_a_step_on_a_gpu_reads_nothing_back(changes: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading a tensor waits for the GPU. A Step that believes to be on one does it in `check` alone."""
    monkeypatch.setattr(paddle, "set_flags", lambda new: None)
    cfg = Config(tiny_config(make_data(tmp_path / "data"), tmp_path / "c.yml", **changes))
    model = build.build_model(cfg)
    schedule = optim.build_scheduler(cfg.data["lr_scheduler"], cfg.iters)
    optimizer = optim.build_optimizer(accelerate.fused(cfg.data["optimizer"], "gpu:0"), schedule, model)
    options = TrainOptions(save_dir=str(tmp_path), seed=1, use_ema=True)
    step = Step(cfg, options, TrainState(model, optimizer, WeightAverage(model)), "gpu:0")
    batch = {"image": paddle.randn([2, 3, 16, 16]), "label": paddle.randint(0, 2, [2, 16, 16]), "path": ["a", "b"]}
    train_log = TrainLog(tmp_path, 2, (0, 0), 1.0, 2)
    step([batch], 1, train_log)  # Paddle may read once, when it sets things up
    refuse_reading(monkeypatch)
    with pytest.raises(NoCopy):
        bool(batch["image"].sum() > 0)
    losses = step([batch], 2, train_log)
    with pytest.raises(NoCopy):
        step.check(losses, 2)
    monkeypatch.undo()
    assert np.isfinite(step.check(losses, 2)["loss"])
    train_log.close()


def test_a_frozen_batch_norm_is_not_synchronised(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sync_batch_norm, "world_size", lambda: 2)
    for device, kind in (("gpu:0", nn.SyncBatchNorm), ("cpu", sync_batch_norm.GlooBatchNorm2D)):
        model = nn.Sequential(
            nn.Conv2D(3, 4, 1), nn.BatchNorm2D(4), nn.Sequential(nn.Conv2D(4, 4, 1), nn.BatchNorm2D(4))
        )
        freeze(model, ["2"])
        model[1].weight.set_value(paddle.full([4], 3.0))
        keys, weight = list(model.state_dict()), model[1].weight
        model = sync_batch_norm.synchronise(model, device)
        assert type(model[1]) is kind and model[1].weight is weight
        assert type(model[2][1]) is nn.BatchNorm2D and model[2][1]._use_global_stats
        assert sorted(model.state_dict()) == sorted(keys)


@pytest.mark.parametrize("bare", [False, True])
def test_statistics_over_cpu_ranks_are_exact_far_from_zero(bare: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Values around 100 that differ by 0.1, on which float32's E[x^2] - E[x]^2 is nothing but rounding."""
    monkeypatch.setattr(sync_batch_norm.dist, "all_reduce", lambda tensor: None)  # one rank alone
    paddle.seed(0)
    x = paddle.randn([4, 3, 8, 8]) * 0.1 + 100
    attributes = {"weight_attr": False, "bias_attr": False} if bare else {}
    plain, ours = nn.BatchNorm2D(3, **attributes), sync_batch_norm.GlooBatchNorm2D(3, **attributes)
    upstream, found = paddle.randn(x.shape), []
    for norm in (plain, ours):
        leaf = x.detach()
        leaf.stop_gradient = False
        y = norm(leaf)
        (y * upstream).sum().backward()
        found.append([y.numpy(), leaf.grad.numpy(), norm._mean.numpy(), norm._variance.numpy()])
    centred = x.numpy().astype("float64") - x.numpy().astype("float64").mean((0, 2, 3), keepdims=True)
    wanted = centred / np.sqrt((centred**2).mean((0, 2, 3), keepdims=True) + 1e-5)
    np.testing.assert_allclose(found[1][0], wanted, atol=2e-3)
    for got, expected in zip(found[1][1:], found[0][1:]):
        np.testing.assert_allclose(got, expected, rtol=1e-3, atol=1e-2)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"cinn": True}, "--cinn compiles the graph of --to_static_training. Add --to_static_training."),
        ({"cinn": True, "to_static_training": True}, r"--cinn needs a GPU and a Paddle that is built with CINN \(got "),
    ],
)
def test_cinn_where_it_cannot_be_had(changes: dict, message: str, tmp_path: Path) -> None:
    cfg = Config(tiny_config(make_data(tmp_path / "data"), tmp_path / "c.yml"))
    with pytest.raises(InputError, match=message):
        train(cfg, TrainOptions(save_dir=str(tmp_path / "out"), device="cpu", num_workers=0, **changes))


@pytest.mark.parametrize("cinn, backend", [(False, None), (True, "CINN")])
def test_cinn_is_used_only_where_asked(cinn: bool, backend: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = {}
    monkeypatch.setattr(paddle.jit, "to_static", lambda model, **how: asked.update(how) or model)
    monkeypatch.setattr(paddle, "is_compiled_with_cinn", lambda: True)
    accelerate.check_cinn(cinn, True, "gpu:0")
    assert accelerate.compiled(nn.Linear(1, 1), cinn) is not None
    assert asked == {"full_graph": True, "backend": backend}
