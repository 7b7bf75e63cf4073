"""Weights files: formats, reports, and writing whole or not at all."""

from __future__ import annotations

import os
import pickle

import numpy as np
import paddle
import pytest

from segkit.engine import safetensors
from segkit.engine.weights import load_objects, load_state, load_weights, save_state
from segkit.errors import InputError
from segkit.models.unet import UNet
from segkit.registry import BACKBONES
from tests.weight_cases import Net, assert_same, every_type, values


@pytest.mark.parametrize("protocol", [2, 3, 4])
def test_reads_what_paddle_saves(tmp_path, protocol):
    model = Net()
    paddle.save(model.state_dict(), str(tmp_path / "model.pdparams"), protocol=protocol)
    assert_same(load_state(tmp_path / "model.pdparams"), values(model))


def test_reads_pairs_of_name_and_array_and_wrapped_dicts(tmp_path):
    model = Net()
    paddle.save({"epoch": 3, "state_dict": dict(model.state_dict())}, str(tmp_path / "a.pdparams"))
    raw = pickle.loads((tmp_path / "a.pdparams").read_bytes())
    assert isinstance(raw["state_dict"]["body.weight"], tuple)
    assert_same(load_state(tmp_path / "a.pdparams"), values(model))


def test_reads_arrays_that_protocol_2_cut_into_slices(tmp_path):
    whole = np.arange(12, dtype="float32").reshape(3, 4)
    slices = {"w@@.0": whole.ravel()[:5], "w@@.1": whole.ravel()[5:]}
    content = {**slices, "UnpackBigParamInfor@@": {"w": {"OriginShape": (3, 4), "slices": list(slices)}}}
    (tmp_path / "a.pdparams").write_bytes(pickle.dumps(content, protocol=2))
    assert_same(load_state(tmp_path / "a.pdparams"), {"w": whole})
    for part in ({"OriginShape": (3, 5), "slices": list(slices)}, {"OriginShape": (3, 4), "slices": ["w@@.2"]}):
        content["UnpackBigParamInfor@@"] = {"w": part}
        (tmp_path / "a.pdparams").write_bytes(pickle.dumps(content, protocol=2))
        with pytest.raises(InputError, match=r"a\.pdparams: truncated or not a weights file \((ValueError|KeyError): "):
            load_state(tmp_path / "a.pdparams")


def test_reads_numpy_1_and_2_and_protocol_5(tmp_path):
    array = np.arange(6, dtype="float32").reshape(2, 3)
    path = tmp_path / "a.pdparams"
    for protocol in (0, 1, 2, 5):
        data = pickle.dumps({"w": array, "n": np.float32(2)}, protocol=protocol)
        path.write_bytes(data)
        found = load_state(path)
        np.testing.assert_array_equal(found["w"], array)
        assert found["n"] == 2
    data = pickle.dumps({"w": array}, protocol=2)
    old, new = b"numpy.core.multiarray", b"numpy._core.multiarray"
    for source, target in ((new, old), (old, new)):
        path.write_bytes(data.replace(source, target))  # protocol 2 writes module names as lines of text
        np.testing.assert_array_equal(load_state(path)["w"], array)


def test_safetensors_agree_with_the_format_s_own_package(tmp_path):
    numpy_format = pytest.importorskip("safetensors.numpy")
    state = every_type()
    numpy_format.save_file(state, str(tmp_path / "theirs.safetensors"), metadata={"format": "pt"})
    save_state(state, tmp_path / "ours.safetensors")
    for found in (load_state(tmp_path / "theirs.safetensors"), numpy_format.load_file(tmp_path / "ours.safetensors")):
        assert set(found) == set(state)
        for key, value in state.items():
            assert found[key].dtype == value.dtype and found[key].shape == value.shape
            np.testing.assert_array_equal(found[key], value)


def test_safetensors_of_a_model_and_in_bfloat16(tmp_path):
    source, target = Net(), Net()
    save_state(source.state_dict(), tmp_path / "model.safetensors")
    assert load_weights(target, tmp_path, strict=True).complete
    assert_same(values(source), values(target))
    header = b'{"w":{"dtype":"BF16","shape":[2],"data_offsets":[0,4]}}'
    (tmp_path / "half.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + b"\x80\x3f\x00\xc0")
    assert load_state(tmp_path / "half.safetensors")["w"].tolist() == [1, -2]


def test_damaged_safetensors(tmp_path):
    save_state(every_type(), tmp_path / "good.safetensors")
    data = (tmp_path / "good.safetensors").read_bytes()
    bad = tmp_path / "bad.safetensors"
    size = int.from_bytes(data[:8], "little")
    header = data[8 : 8 + size]
    texts = [header.replace(b'"F32"', b'"F8"'), header.replace(b"[3, 5]", b"[3, 6]"), header.replace(b"[3, 5]", b"[-3, -5]"),
             header.replace(b"[0, ", b"[1, "), b"[]", b'{"a": 1}', b"[" * 100_000]  # fmt: skip
    wrong = [len(text).to_bytes(8, "little") + text + data[8 + size :] for text in texts]
    wrong += [data[:length] for length in (0, 3, 8, 100, len(data) // 2, len(data) - 1)]
    for content in (*wrong, data + b"x", b"nonsense", b"\xff" * 8 + data):
        bad.write_bytes(content)
        with pytest.raises(InputError, match=r"bad\.safetensors: not a readable safetensors file .*copy it again"):
            load_state(bad)
    with pytest.raises(InputError, match=r"cannot be read \(Is a directory\)"):
        (tmp_path / "folder.safetensors").mkdir()
        safetensors.read(tmp_path / "folder.safetensors")


def test_bfloat16_comes_as_float32_and_goes_back(tmp_path):
    model = Net()
    half = {key: value.astype("bfloat16") for key, value in model.state_dict().items()}
    save_state(half, tmp_path / "model.pdparams")
    found = load_state(tmp_path)
    np.testing.assert_allclose(found["body.weight"], model.body.weight.numpy(), rtol=1e-2)
    target = Net()
    target.to(dtype="bfloat16")
    load_weights(target, tmp_path)
    assert target.body.weight.dtype == paddle.bfloat16
    np.testing.assert_array_equal(target.body.weight.astype("float32").numpy(), found["body.weight"])


class Deep(paddle.nn.Layer):
    """Blocks of two matrices each, and a head."""

    def __init__(self, blocks: int, head: bool = True):
        super().__init__()
        make = lambda: paddle.nn.Sequential(paddle.nn.Linear(3, 3), paddle.nn.Linear(3, 3))  # noqa: E731
        self.stage = paddle.nn.Sequential(*(make() for _ in range(blocks)))
        if head:
            self.head = paddle.nn.Sequential(paddle.nn.Linear(3, 3), paddle.nn.Linear(3, 2))


@pytest.mark.parametrize("theirs, ours, block", [(3, 2, "file  stage.2"), (2, 3, "model stage.2")])
def test_weights_of_another_depth_are_refused(tmp_path, theirs, ours, block):
    save_state(Deep(theirs).state_dict(), tmp_path / "model.pdparams")
    model = Deep(ours)
    before = values(model)
    with pytest.raises(
        InputError, match=rf"model.pdparams: weights of a Deep of another depth, nothing (.|\n)*{block}"
    ):
        load_weights(model, tmp_path)
    assert_same(values(model), before)


def test_a_missing_or_further_head_is_no_other_depth(tmp_path):
    for theirs, ours in ((True, False), (False, True)):
        save_state(Deep(2, theirs).state_dict(), tmp_path / "model.pdparams")
        assert len(load_weights(Deep(2, ours), tmp_path).matched) == 8


def test_a_deeper_resnets_weights_are_refused(tmp_path):
    save_state(BACKBONES.get("ResNet34")().state_dict(), tmp_path / "model.pdparams")
    with pytest.raises(InputError, match=r"weights of a ResNet18 of another depth(.|\n)*file  layer1\.2"):
        load_weights(BACKBONES.get("ResNet18")(), tmp_path)


def test_report_and_partial_load(tmp_path):
    source, target = Net(classes=5), Net(classes=2)
    state = dict(source.state_dict())
    del state["norm.bias"]
    save_state({**state, "extra.weight": np.zeros(3, "float32")}, tmp_path / "model.pdparams")
    before = values(target)
    report = load_weights(target, tmp_path)
    assert report.matched == ["body.weight", "body.bias", "norm.weight", "norm._mean", "norm._variance"]
    assert report.shape_mismatch == [("head.weight", [3, 5], [3, 2]), ("head.bias", [5], [2])]
    assert report.missing == ["norm.bias"] and report.unexpected == ["extra.weight"]
    assert not report.complete
    text = str(report)
    assert "5 loaded, 2 skipped by shape, 1 missing in the file, 1 unknown to the model" in text
    assert "head.weight: got [3, 5], expected [3, 2]" in text and "unknown  extra.weight" in text
    after = values(target)
    np.testing.assert_array_equal(after["body.weight"], source.body.weight.numpy())
    np.testing.assert_array_equal(after["head.weight"], before["head.weight"])
    with pytest.raises(InputError, match=r"not those of this Net(.|\n)*head\.weight: got \[3, 5\], expected \[3, 2\]"):
        load_weights(Net(), tmp_path, strict=True)


def test_strict_leaves_the_model_alone_when_it_refuses(tmp_path):
    save_state(Net(classes=5).state_dict(), tmp_path / "model.pdparams")
    target = Net()
    before = values(target)
    with pytest.raises(InputError, match="Give its own weights"):
        load_weights(target, tmp_path, strict=True)
    assert_same(values(target), before)


def test_weights_of_another_model(tmp_path):
    save_state(UNet(2, base_channels=2).state_dict(), tmp_path / "model.pdparams")
    message = r"weights of another model, nothing was loaded \(got \d+ arrays of which none fits Net's 8\)"
    with pytest.raises(InputError, match=message + r"(.|\n)*encode\.double_conv(.|\n)*body\.weight \[4, 3\]"):
        load_weights(Net(), tmp_path)
    save_state({"body.weight": np.zeros((9, 9), "float32")}, tmp_path / "model.pdparams")
    with pytest.raises(InputError, match=r"body\.weight: got \[9, 9\], expected \[4, 3\]"):
        load_weights(Net(), tmp_path)


def test_strict_round_trip_is_exact_and_paddle_reads_it(tmp_path):
    source, target = Net(), Net()
    save_state(source.state_dict(), tmp_path / "model.pdparams")
    report = load_weights(target, tmp_path, strict=True)
    assert report.complete and str(report).endswith("8 loaded, 0 skipped by shape, 0 missing in the file, 0 unknown "
                                                    "to the model")  # fmt: skip
    assert_same(values(source), values(target))
    other = Net()
    assert other.set_state_dict(paddle.load(str(tmp_path / "model.pdparams"))) == ([], [])
    assert_same(values(source), values(other))


def test_a_layer_with_two_names_needs_only_one_of_them(tmp_path):
    state = values(UNet(2, base_channels=2))
    for name in ("conv.weight", "conv.bias"):
        del state[name]
    save_state(state, tmp_path / "model.pdparams")
    target = UNet(2, base_channels=2)
    assert load_weights(target, tmp_path, strict=True).missing == []
    np.testing.assert_array_equal(target.conv.weight.numpy(), state["cls.weight"])


def test_key_map_by_prefix_and_by_method(tmp_path):
    source = Net()
    save_state({f"old.{key}": value for key, value in values(source).items()}, tmp_path / "model.pdparams")
    by_prefix = Net()
    by_prefix.key_map = {"old.": ""}
    assert load_weights(by_prefix, tmp_path, strict=True).complete

    class Mapped(Net):
        def key_map(self, key: str) -> str:
            return key.replace("old.", "")

    by_method = Mapped()
    assert load_weights(by_method, tmp_path, strict=True).complete
    assert_same(values(by_method), values(source))


def test_optimizer_state_and_plain_values_survive(tmp_path):
    model = Net()
    schedule = paddle.optimizer.lr.PolynomialDecay(0.1, 10)
    optimizer = paddle.optimizer.AdamW(schedule, parameters=model.parameters())
    model.head(model.body(paddle.ones([2, 4]))).sum().backward()
    optimizer.step()
    save_state(optimizer.state_dict(), tmp_path / "model.pdopt")
    found = load_objects(tmp_path / "model.pdopt")
    assert found["LR_Scheduler"]["last_lr"] == pytest.approx(0.1)
    for key, value in optimizer.state_dict().items():
        if key != "LR_Scheduler":
            np.testing.assert_array_equal(found[key], value.numpy())
    nested = {"step": 3, "best": None, "scaler": {"scale": paddle.to_tensor(2.0)}, "position": [1, 2]}
    save_state(nested, tmp_path / "trainer.pdstate")
    assert load_objects(tmp_path / "trainer.pdstate") == {**nested, "scaler": {"scale": np.float32(2)}}


def test_a_full_disk_leaves_the_old_file(tmp_path, monkeypatch):
    import errno

    path = tmp_path / "model.pdparams"
    save_state({"w": np.ones(2, "float32")}, path)

    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(InputError, match=r"model\.pdparams: cannot be written \(No space left on device\)"):
        save_state({"w": np.zeros(2, "float32")}, path)
    monkeypatch.undo()
    np.testing.assert_array_equal(load_state(path)["w"], 1)
    assert os.listdir(tmp_path) == ["model.pdparams"]
