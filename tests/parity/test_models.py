"""Every model that PaddleSeg's reference numbers know and the registry has: keys, start, outputs, training outputs.

`../shared/parity/README.md` says how the numbers were made. One size by default; the other and the biggest models
take `--slow`. The convolutions are oneDNN's, which is several times as fast and tries them on every architecture;
with SEGKIT_ONEDNN=0 they are Paddle's own.
"""

from __future__ import annotations

import contextlib
import functools
import json
import warnings
import zlib
from collections import Counter
from pathlib import Path

import numpy as np
import paddle
import pytest

from segkit.build import build
from segkit.engine.onednn import convolutions
from segkit.registry import BACKBONES, MODELS

pytestmark = pytest.mark.filterwarnings("ignore:Skip loading")  # of integers, which the references do not fill
FOLDER = Path(__file__).resolve().parents[3] / "shared/parity/models"
BIG, HUGE = 40_000_000, 120_000_000
"""Parameters beyond which only keys and one output are compared without --slow, and beyond which nothing is."""
SAMPLED = 100_000
"""Values of a parameter that its start is judged by."""
OTHER_START = {"MaskFormer", "SeaFormerSeg"}
"""Models whose start in PaddleSeg is a mistake that is not repeated; their docstring says which."""


def _read(path: Path) -> dict:
    return json.loads(path.read_text())


def _types(node: object) -> set[str]:
    """The `type` of every node inside `node`."""
    if isinstance(node, dict):
        return {node["type"], *_types(list(node.values()))} if "type" in node else _types(list(node.values()))
    return set().union(*map(_types, node)) if isinstance(node, list) else set()


def _is_here(description: dict) -> bool:
    components = _types(description["kwargs"])
    return description["model"] in MODELS and all(name in BACKBONES or name in MODELS for name in components)


DESCRIPTIONS = {path.stem: _read(path) for path in sorted(FOLDER.glob("*.json"))}
HERE = [name for name, description in DESCRIPTIONS.items() if _is_here(description)]
PARAMS = [
    pytest.param(name, marks=pytest.mark.slow if DESCRIPTIONS[name].get("num_params", 0) > HUGE else ())
    for name in HERE
]


def test_fixtures_and_what_is_missing(shared):
    missing = sorted(set(DESCRIPTIONS) - set(HERE))
    assert len(HERE) >= 4, "the registry was not read"
    if missing:
        warnings.warn(
            f"{len(missing)} of {len(DESCRIPTIONS)} fixtures have no model yet: {', '.join(missing)}", stacklevel=1
        )


def _draw(key: str, shape: tuple[int, ...]) -> np.ndarray:
    """The value of one entry."""
    rng = np.random.RandomState(zlib.crc32(key.encode()) & 0x7FFFFFFF)
    last = key.split(".")[-1]
    if len(shape) >= 2 and last == "weight":
        fan_in = shape[0] if len(shape) == 2 else np.prod(shape[1:])
        value = rng.standard_normal(shape) * np.sqrt(2 / fan_in)
    elif len(shape) == 1 and (key.endswith("_variance") or last == "weight"):
        value = rng.uniform(0.5, 1.5, shape)
    elif len(shape) == 1 and (key.endswith("_mean") or last == "bias"):
        value = rng.standard_normal(shape) * 0.1
    else:
        value = rng.standard_normal(shape) * 0.02
    return value.astype("float32")


ENTRIES = Counter((key, tuple(shape)) for description in DESCRIPTIONS.values() for key, shape, _ in description["keys"])
"""How many fixtures have an entry: backbones are shared, and drawing takes longer than running."""
_draw_once = functools.lru_cache(maxsize=600)(_draw)  # two ResNet101


def reference_weights(description: dict) -> dict[str, np.ndarray]:
    """The weights that the README describes, without the integers."""
    integers = {key for key, _, _ in description["int_entries"]}
    found = {
        key: (_draw_once if ENTRIES[key, tuple(shape)] > 1 else _draw)(key, tuple(shape))
        for key, shape, dtype in description["keys"]
        if key not in integers and dtype.startswith("float")
    }
    for shared_names in description["aliases"]:
        for key in shared_names[:-1]:
            found[key] = found[shared_names[-1]]
    return found


_last: tuple[str, dict[str, np.ndarray]] = ("", {})


def _filled(description: dict, gain: float) -> dict[str, np.ndarray]:
    """`reference_weights`, those of the last model kept: drawing them takes longer than the model."""
    global _last
    if _last[0] != description["name"]:
        _last = (description["name"], reference_weights(description))
    is_scaled = {key: len(shape) >= 2 and key.split(".")[-1] == "weight" for key, shape, _ in description["keys"]}
    return {key: value * np.float32(gain) if is_scaled[key] else value for key, value in _last[1].items()}


@pytest.fixture(scope="module", autouse=True)
def fast_convolutions():
    with convolutions():
        yield


@pytest.fixture(scope="module", params=PARAMS)
def case(request):
    """A fixture's description, its arrays, and the model as constructed; a big one without a start of its own, which
    would take seconds to draw."""
    description = DESCRIPTIONS[request.param]
    paddle.seed(1)
    with contextlib.nullcontext() if _starts(request, description) else paddle.LazyGuard():
        model = build(MODELS, {"type": description["model"], **description["kwargs"]})
    if not _starts(request, description):
        model.set_state_dict(_filled(description, 1.0))
    return description, np.load(FOLDER / f"{request.param}.npz"), model


def _starts(request: pytest.FixtureRequest, description: dict) -> bool:
    return description["num_params"] <= BIG or request.config.getoption("--slow")


def test_keys_start_and_layers(request, case):
    description, _, model = case
    state = model.state_dict()
    assert {key: (value.shape, str(value.dtype).split(".")[-1]) for key, value in state.items()} == {
        key: (shape, dtype) for key, shape, dtype in description["keys"]
    }
    for (key, _, dtype), stats in zip(description["keys"], description["init_stats"]):
        known = _starts(request, description) and description["model"] not in OTHER_START
        if dtype.startswith("float") and stats is not None and known:
            mean, std = stats
            value = state[key].numpy().ravel()
            value = value[:: 1 + value.size // SAMPLED].astype("float64")
            assert value.std() == pytest.approx(std, rel=6 / np.sqrt(2 * value.size) + 1e-3, abs=1e-9), key
            assert value.mean() == pytest.approx(mean, abs=9 * std / np.sqrt(value.size) + 1e-5 * abs(mean) + 1e-6), key
    for first, *others in description["aliases"]:
        assert all(state[first] is state[other] for other in others)
    for key, _, checksum in description["int_entries"]:
        assert zlib.crc32(state[key].numpy().astype("<i8").tobytes()) == checksum, key
    assert _norms(model) == {
        how: count if isinstance(count, int) else len(count) for how, count in description["bn_layers"].items()
    }
    dropouts = [layer for layer in model.sublayers() if type(layer).__name__ in ("Dropout", "Dropout2D")]
    expected = [entry[1:] for entry in description["dropouts"] if entry[1] in ("Dropout", "Dropout2D") and entry[2]]
    assert sorted([type(layer).__name__, layer.p] for layer in dropouts if layer.p) == sorted(expected)
    assert sum(value.size for value in model.parameters() if not value.stop_gradient) == description["num_params"]


def _norms(model: paddle.nn.Layer) -> dict[str, int]:
    kinds = (paddle.nn.BatchNorm1D, paddle.nn.BatchNorm2D, paddle.nn.SyncBatchNorm)
    layers = [layer for layer in model.sublayers() if isinstance(layer, kinds)]
    ends = [" global_stats" if layer._use_global_stats else "" for layer in layers]
    return Counter(f"momentum={layer._momentum:g} eps={layer._epsilon:g}{end}" for layer, end in zip(layers, ends))


@pytest.fixture
def unless_big(request, case):
    if not _starts(request, case[0]):
        pytest.skip("a big model; run with --slow")


def test_outputs(case):
    _compare(case, case[0]["sizes"][:1], "s")


def test_outputs_where_activations_stay_small(case, unless_big):
    description = case[0]
    if description.get("tame"):
        _compare(case, [description["tame"]], "t", description["tame"]["gain"])


@pytest.mark.slow
def test_outputs_at_an_odd_size(case):
    _compare(case, case[0]["sizes"][1:], "s")


def _compare(case: tuple, entries: list, prefix: str, gain: float = 1.0) -> None:
    description, arrays, model = case
    model.set_state_dict(_filled(description, gain))
    for entry in entries:
        image = _image(description, entry["size"])
        model.eval()
        with paddle.no_grad():
            outputs = model(image)
        assert len(outputs) == 1
        if len(entry["outputs"]) > 1:  # PaddleSeg's auxiliary heads in evaluation: here they answer in training alone
            _train_without_batch_statistics(model)
            with paddle.no_grad():
                outputs = model(image)
        for number, (output, expected) in enumerate(zip(_tensors(outputs), entry["outputs"])):
            if list(output.shape) != expected["shape"]:  # PaddleSeg's size is not the input's
                assert list(output.shape) == [*expected["shape"][:2], *entry["size"]]
                continue
            place = f"{prefix}{entry['size'][0]}x{entry['size'][1]}"
            names = {"sample": f"{place}_o{number}", "corner": f"{place}_o{number}_br"}
            if number == 0:
                names["argmax"] = f"{place}_argmax"
            stored = {part: arrays[name] for part, name in names.items() if name in arrays.files}
            sensitivity = max(item.get("sens") or 0 for item in (expected, description["sizes"][0]["outputs"][number]))
            _near(output.numpy(), expected, stored, sensitivity)


def _tensors(outputs: list) -> list[paddle.Tensor]:
    """The outputs, pairs of them taken apart."""
    return [x for output in outputs for x in (output if isinstance(output, tuple) else [output])]


def _near(found: np.ndarray, expected: dict, stored: dict, sensitivity: float) -> None:
    limit = max(1e-5, 20 * sensitivity) * max(abs(expected["min"]), abs(expected["max"]))
    stride = expected["stride"]
    assert np.abs(found[..., ::stride, ::stride] - stored["sample"]).max() <= limit
    if "corner" in stored:
        height, width = stored["corner"].shape[-2:]
        assert np.abs(found[..., -height:, -width:] - stored["corner"]).max() <= limit
    if "argmax" in stored:
        assert (found.argmax(1) == stored["argmax"]).mean() > 0.999


def _image(description: dict, size: list[int]) -> paddle.Tensor:
    shape = (1, description["in_channels"], *size)
    return paddle.to_tensor(np.random.RandomState(0).standard_normal(shape).astype("float32"))


def _train_without_batch_statistics(model: paddle.nn.Layer) -> None:
    """Training mode but for what is random or looks at the batch."""
    model.train()
    for layer in model.sublayers():
        if type(layer).__name__.startswith(("BatchNorm", "SyncBatchNorm", "Drop")):
            layer.eval()


def test_sizes_that_the_reference_cannot_do(request, case):
    description, _, model = case
    model.eval()
    entries = description["unsupported"]
    for entry in entries if request.config.getoption("--slow") else entries[:1]:
        with paddle.no_grad():
            (output,) = model(_image(description, entry["size"]))
        assert output.shape[2:] == entry["size"]
        assert bool(paddle.isfinite(output).all())


def test_training_outputs(case, unless_big):
    description, _, model = case
    expected = description["train_outputs"]
    model.train()
    with paddle.no_grad():
        outputs = model(paddle.randn(expected["input"]))
    if "error" in expected:  # PaddleSeg cannot train it here
        assert all(output.shape[2:] == expected["input"][2:] for output in outputs)
        return
    assert len(outputs) == expected["n"]
    assert _shapes(outputs) == expected["shapes"]


def _shapes(outputs: object) -> object:
    if isinstance(outputs, paddle.Tensor):
        return list(outputs.shape)
    if isinstance(outputs, dict):
        return {key: _shapes(output) for key, output in outputs.items()}
    return [_shapes(output) for output in outputs]
