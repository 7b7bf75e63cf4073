"""How a model is applied to photos of one size: plain, over scales and flips, or window by window."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import paddle
import paddle.nn.functional as F

from segkit.deploy import windows
from segkit.deploy.windows import Windows, windows_as
from segkit.engine.folding import folded
from segkit.engine.onednn import convolutions
from segkit.engine.resizing import bilinear_by_opencv
from segkit.errors import InputError
from segkit.options import EvalOptions, TestTimeOptions, check_idle
from segkit.postprocess import undo

T = TypeVar("T")
# Photos of one size go to the device together up to so many pixels.
_PIXELS_AT_ONCE = 2**20
_CORNER = 128  # pixels a side of the photo's corner that shows which BatchNorm follows which convolution


@dataclass(frozen=True)
class TestTime:
    """`scales` and flips to average over; `window` and `stride` as (width, height), None without a window."""

    __test__ = False  # not a test class, whatever pytest thinks of its name

    scales: tuple[float, ...] = (1.0,)
    flip_horizontal: bool = False
    flip_vertical: bool = False
    windows: Windows | None = None
    precision: str = "fp32"
    onednn: bool = True

    @property
    def plain(self) -> bool:
        """Whether it is one pass over the whole photo."""
        return self.scales == (1.0,) and len(self.flips) == 1 and self.windows is None

    @property
    def pixels_together(self) -> int:
        """Photos of one size go through the network together up to so many pixels; other ways bring their own."""
        return _PIXELS_AT_ONCE if self.plain else 0

    @property
    def flips(self) -> list[tuple[bool, bool]]:
        """(horizontal, vertical) of every pass; both together where both are asked for, as PaddleSeg."""
        both = ((False, False), (True, False), (False, True), (True, True))
        return [(h, v) for h, v in both if h <= self.flip_horizontal and v <= self.flip_vertical]


def test_time(options: TestTimeOptions, test_config: Mapping[str, Any] | None = None) -> TestTime:
    """Flags over `test_config` over defaults, checked. `aug_eval` counts for val, `aug_pred` for predict."""
    config = dict(test_config or {})
    augment_key = "aug_eval" if isinstance(options, EvalOptions) else "aug_pred"

    def setting(name: str, default: Any = None) -> Any:
        given = getattr(options, name)
        return config.get(name, default) if given is None else given

    augment = bool(setting(augment_key, False))
    check_idle(options, augment_key, augment, ("scales", "flip_horizontal", "flip_vertical"))
    result: dict[str, Any] = {"precision": options.precision, "onednn": not options.no_onednn}
    if augment:
        result["scales"] = _scales(setting("scales", 1.0))
        result["flip_horizontal"] = bool(setting("flip_horizontal", False))
        result["flip_vertical"] = bool(setting("flip_vertical", False))
    return TestTime(windows=windows_as(options, config), **result)


test_time.__test__ = False  # type: ignore[attr-defined]


def windows_alone(how: TestTime) -> Windows | None:
    """The windows of an exported model. Errors: scales or flips, which it is not averaged over."""
    if how.scales != (1.0,) or len(how.flips) > 1:
        raise InputError(
            "an exported model is applied plainly or in windows: leave out --aug_eval and --aug_pred, or give the "
            "trained weights."
        )
    return how.windows


def _scales(value: Any) -> tuple[float, ...]:
    values = value if isinstance(value, (list, tuple)) else [value]
    if not values or not all(isinstance(item, (int, float)) and item > 0 for item in values):
        raise InputError(f"scales: expected numbers above 0 (got {value}), such as 0.75 1.0 1.25.")
    return tuple(float(item) for item in values)


class Applied:
    """A model applied as `how` says, to as many photos as come while the context is open.

    Inside, the model is in evaluation mode and its convolutions compute their BatchNorms too (see `folding`);
    afterwards it is as before. With `onednn=False` every layer is computed by Paddle's own kernels.
    """

    def __init__(self, model: paddle.nn.Layer, how: TestTime | None = None):
        self.model = model
        self.how = how or TestTime()
        self._stack = contextlib.ExitStack()
        self._folded = not self.how.onednn

    def __enter__(self) -> Applied:
        with contextlib.ExitStack() as stack:
            stack.enter_context(evaluation_mode(self.model))
            stack.enter_context(computing(self.how))
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: Any) -> None:
        self._stack.close()
        self._folded = not self.how.onednn

    def _fold(self, x: np.ndarray) -> None:
        """Fold BatchNorms once the first photo is here, of which a corner shows how the layers follow each other."""
        if self._folded:
            return
        self._folded = True
        corner = np.ascontiguousarray(x[:1, :, :_CORNER, :_CORNER])
        with computing(TestTime()):
            self._stack.enter_context(folded(self.model, paddle.to_tensor(corner)))

    def scores(self, x: np.ndarray) -> np.ndarray:
        """`scores` of float32 [N, channels, H, W]."""
        self._fold(x)
        return _scores(self.model, x, self.how)

    def classes(self, x: np.ndarray) -> np.ndarray:
        """Class numbers [N, H, W] (uint8 up to 256 classes, else int32) of one plain pass, decided on the GPU so that
        the scores stay there; on the CPU, where that is slower, and of a single-channel model, the scores themselves,
        float32 [N, C, H, W]."""
        self._fold(x)
        with paddle.no_grad(), _casting(self.how):
            found = _forward(self.model, x)
            if found.shape[1] == 1 or found.place.is_cpu_place():
                return _host(found)
            return _numbers(found)


def _numbers(found: paddle.Tensor) -> np.ndarray:
    """The best class of every pixel of scores [N, C, H, W], in as few bytes as leave the device."""
    numbers = paddle.argmax(found, axis=1, dtype="int32")
    return (numbers.astype("uint8") if found.shape[1] <= 256 else numbers).numpy()


def scores(model: paddle.nn.Layer, x: np.ndarray, how: TestTime | None = None) -> np.ndarray:
    """Logits float32 [N, C, H, W] for preprocessed photos x, float32 [N, channels, H, W].

    Over scales and flips the logits are averaged, and so are those of overlapping windows (both as
    PaddleSeg). Windows are summed up on the host. The model must be in evaluation mode.
    """
    how = how or TestTime()
    with computing(how):
        return _scores(model, x, how)


def _scores(model: paddle.nn.Layer, x: np.ndarray, how: TestTime) -> np.ndarray:
    with paddle.no_grad(), _casting(how):
        if how.scales == (1.0,) and len(how.flips) == 1:
            return _host(_one_pass(model, x, how))
        return _host(_averaged(model, x, how))


def together(items: Iterable[T], shape: Callable[[T], Sequence[int] | None], pixels: int) -> Iterator[list[T]]:
    """Neighbours of one `shape` [..., H, W], as many as have so many pixels (at least one), in order; what has no
    shape stays alone."""
    batch: list[T] = []
    now: Sequence[int] | None = None
    for item in items:
        new = shape(item)
        if batch and (new is None or new != now or (len(batch) + 1) * new[-2] * new[-1] > pixels):
            yield batch
            batch = []
        batch.append(item)
        now = new
    if batch:
        yield batch


@contextlib.contextmanager
def evaluation_mode(model: paddle.nn.Layer) -> Iterator[None]:
    """Evaluation mode inside, the previous mode of every layer afterwards."""
    before = [(layer, layer.training) for layer in model.sublayers(include_self=True)]
    model.eval()
    try:
        yield
    finally:
        for layer, training in before:
            layer.training = training


@contextlib.contextmanager
def computing(how: TestTime) -> Iterator[None]:
    """The CPU's kernels as `how` says; nothing on a GPU."""
    if paddle.device.get_device() != "cpu":
        yield
        return
    if how.precision == "fp16":
        raise InputError("--precision fp16 needs a GPU (got --device cpu). Use bf16 or fp32 on the CPU.")
    with convolutions(how.onednn, how.precision), bilinear_by_opencv() if how.onednn else contextlib.nullcontext():
        yield


def _casting(how: TestTime) -> contextlib.AbstractContextManager[None]:
    """Mixed precision on a GPU."""
    if how.precision == "fp32" or paddle.device.get_device() == "cpu":
        return contextlib.nullcontext()
    return paddle.amp.auto_cast(dtype="float16" if how.precision == "fp16" else "bfloat16")


def _forward(model: paddle.nn.Layer, x: np.ndarray | paddle.Tensor) -> paddle.Tensor:
    """The main output of the model as float32 on the device."""
    return model(x if isinstance(x, paddle.Tensor) else paddle.to_tensor(x))[0].astype("float32")


def _host(x: np.ndarray | paddle.Tensor) -> np.ndarray:
    """As numpy; on the CPU the tensor's own memory, where this Paddle can share it."""
    if isinstance(x, np.ndarray):
        return x
    if x.place.is_cpu_place() and hasattr(x, "__dlpack__"):
        return np.from_dlpack(x)
    return x.numpy()


def _one_pass(model: paddle.nn.Layer, x: Any, how: TestTime) -> Any:
    if how.windows is None:
        return _forward(model, x)
    return windows.scores(lambda crops: _host(_forward(model, crops)), x, how.windows)


def _averaged(model: paddle.nn.Layer, x: np.ndarray, how: TestTime) -> Any:
    """Mean over scales and flips: on the device, or on the host (numpy) with windows."""
    source = x if how.windows is not None else paddle.to_tensor(x)
    height, width = x.shape[2:]
    total: Any = None
    for scale in how.scales:
        scaled = _resize(source, (int(height * scale + 0.5), int(width * scale + 0.5)))
        for flip in how.flips:
            found = _resize(_flip(_one_pass(model, _flip(scaled, flip), how), flip), (height, width))
            total = found if total is None else total + found
    return total / (len(how.scales) * len(how.flips))


def _flip(x: Any, flip: tuple[bool, bool]) -> Any:
    axes = [axis for axis, on in ((3, flip[0]), (2, flip[1])) if on]
    if not axes:
        return x
    return np.ascontiguousarray(np.flip(x, axes)) if isinstance(x, np.ndarray) else paddle.flip(x, axes)


def _resize(x: Any, size: tuple[int, int]) -> Any:
    """Half-pixel bilinear to (height, width), at least one pixel each."""
    size = (max(1, size[0]), max(1, size[1]))
    if tuple(x.shape[2:]) == size:
        return x
    if isinstance(x, np.ndarray):
        step = {"op": "resize", "from": list(size), "to": list(x.shape[2:])}
        return np.stack([undo(image, [step], interp="linear") for image in x])
    return F.interpolate(x, size, mode="bilinear", align_corners=False)
