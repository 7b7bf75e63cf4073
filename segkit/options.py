"""Settings of each tool, declared once: they are the command-line flags and the keywords of the Python API.

`help` of a field is its `--help` line. `None` means "not given": the config or a default decides.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal, Optional

from segkit.errors import InputError


def option(default: Any, help: str, **meta: Any) -> Any:
    """A field with its help text. `meta`: `aliases` (other flag spellings), `nargs`, `metavar`, `required`."""
    return dataclasses.field(default=default, metadata={"help": help, **meta})


def check_idle(options: Any, switch: str, on: bool, names: tuple[str, ...]) -> None:
    """`InputError` where one of the flags `names` is given although `switch`, without which they do nothing, is off."""
    idle = [f"--{name}" for name in names if getattr(options, name) not in (None, False)]
    if idle and not on:
        raise InputError(f"{', '.join(idle)} without --{switch} has no effect. Add --{switch}, or leave it out.")


@dataclass
class CommonOptions:
    """What every tool that runs a model takes."""

    device: Optional[str] = option(None, "gpu, cpu, or gpu:N; default: a GPU when Paddle sees one")
    num_workers: Optional[int] = option(
        None, "processes that read data; default: as fits the machine, 0 reads in the main one"
    )
    precision: Literal["fp32", "fp16", "bf16"] = option("fp32", "compute precision")
    data_format: Literal["NCHW", "NHWC"] = option("NCHW", "NHWC: convolutions channels-last, in fp16 and bf16 on a GPU")
    use_multilabel: bool = option(False, "each pixel may belong to several classes (a label plane a class)")
    no_onednn: bool = option(
        False,
        "on the CPU, use Paddle's own convolutions (val, predict: but for rounding the masks of infer "
        "--enable_mkldnn False)",
    )


@dataclass
class TrainOptions(CommonOptions):
    """Settings of `segkit train`."""

    iters: Optional[int] = option(None, "training iterations (config: iters)")
    batch_size: Optional[int] = option(None, "photos per iteration and process (config: batch_size)")
    learning_rate: Optional[float] = option(None, "base learning rate (config: lr_scheduler.learning_rate)")
    save_dir: str = option("output", "folder for checkpoints and logs")
    use_vdl: bool = option(False, "write VisualDL curves and pictures into save_dir")
    use_tensorboard: bool = option(False, "write TensorBoard curves and pictures into save_dir")
    use_wandb: bool = option(False, "send curves and pictures to Weights & Biases; WANDB_MODE=offline keeps them here")
    do_eval: bool = option(False, "evaluate at every save_interval and keep the best model")
    save_interval: Optional[int] = option(
        None,
        "iterations between checkpoints and evaluations; default: 1000, or a fifth of iters where that is less",
        aliases=("--save_interval_iters",),
    )
    log_iters: int = option(10, "iterations between log lines")
    resume_model: Optional[str] = option(None, "continue from a run folder, an iter_N folder, or 'auto'")
    keep_checkpoint_max: int = option(5, "how many iter_N folders to keep")
    early_stop_intervals: Optional[int] = option(None, "stop after so many evaluations without a better score")
    seed: Optional[int] = option(None, "seed of everything random (config: seed; default 42)")
    amp_level: Literal["O1", "O2"] = option("O1", "mixed precision level: O1 mixes, O2 is nearly all low precision")
    use_ema: bool = option(False, "evaluate and save an exponential moving average of the weights")
    to_static_training: bool = option(False, "train a compiled graph (config: to_static_training)")
    cinn: bool = option(False, "on a GPU, compile the graph of --to_static_training with CINN")
    repeats: int = option(1, "pass over the training list so many times per epoch")
    accumulate_steps: int = option(1, "batches whose gradients are added up before a step")
    deterministic: bool = option(False, "deterministic GPU kernels: reproducible, slower")
    best_metric: str = option("mIoU", "what makes a model the best: mIoU, mDice, Acc, Kappa or IoU/<class>")
    offline: bool = option(False, "download nothing: pretrained weights come from the cache or a path")
    teacher_config: Optional[str] = option(None, "config of the teacher to distil from")
    teacher_model_path: Optional[str] = option(None, "weights of the teacher")


@dataclass
class TestTimeOptions(CommonOptions):
    """How a model is applied to a photo: shared by val and predict."""

    __test__ = False  # not a test class, whatever pytest thinks of its name

    scales: Optional[list[float]] = option(
        None, "with augmentation: sizes to average over (config: test_config.scales)", nargs="+"
    )
    flip_horizontal: Optional[bool] = option(None, "with augmentation: also the mirrored photo")
    flip_vertical: Optional[bool] = option(None, "with augmentation: also the upside-down photo")
    is_slide: Optional[bool] = option(None, "sliding window, for big photos (config: test_config.is_slide)")
    crop_size: Optional[list[int]] = option(None, "window width and height", nargs=2, metavar=("W", "H"))
    stride: Optional[list[int]] = option(None, "window step to the right and down", nargs=2, metavar=("W", "H"))
    backend: Optional[Literal["auto", "paddle", "onnxruntime", "openvino"]] = option(
        None, "engine that runs an exported folder; default: the fastest"
    )


@dataclass
class EvalOptions(TestTimeOptions):
    """Settings of `segkit val`."""

    aug_eval: Optional[bool] = option(None, "average over scales and flips (config: test_config.aug_eval)")
    save_dir: Optional[str] = option(None, "write metrics.json there")
    auc_roc: bool = option(False, "also the area under the ROC curve")


@dataclass
class ReportOptions(EvalOptions):
    """Settings of `segkit report`."""

    save_dir: Optional[str] = option(
        None, "folder for report.html; default: report/ in the run's folder, output/comparison of two runs"
    )
    images: int = option(24, "photos to show, two thirds of them the worst and a third the best")


@dataclass
class PictureOptions:
    """How predictions are drawn and outlined: shared by predict and infer."""

    style: Optional[Literal["filled", "contour", "both"]] = option(
        None, "overlays: classes as colours over the photo (default), as contours, or both"
    )
    opacity: Optional[float] = option(None, "overlays: share of the class colours, 0 to 1 (default 0.4)")
    legend: bool = option(False, "a strip with the classes that occur below the overlay of each photo")
    figures: Optional[Literal["row", "grid"]] = option(
        None,
        "also figures/: input | label | prediction and a legend in one picture; grid: also pages of three in grids/",
    )
    labels: Optional[str] = option(
        None, "for the figures: folder of label PNGs, named and laid out as the photos (for img.png: label.png)"
    )
    polygons: Optional[Literal["labelme", "coco"]] = option(
        None, "also the outlines in polygons/, as labelme's JSON (default) or one COCO file; segkit data convert "
        "reads both, corrected or not", nargs="?", const="labelme",
    )  # fmt: skip


@dataclass
class PredictOptions(TestTimeOptions, PictureOptions):
    """Settings of `segkit predict`."""

    image_path: Optional[str] = option(
        None, "photo, folder, glob, .txt list, video, or number or URL of a camera", required=True
    )
    save_dir: str = option("output/result", "folder for masks and overlays")
    aug_pred: Optional[bool] = option(None, "average over scales and flips (config: test_config.aug_pred)")
    custom_color: Optional[list[int]] = option(None, "R G B of each class in turn", nargs="+", metavar="N")
    save_prob: bool = option(False, "also write the probabilities as prob/<name>.npy, float32 [classes, H, W]")
    threshold: Optional[float] = option(
        None, "one output channel: foreground above it (default 0.5); else pixels less sure than it become 255"
    )


@dataclass
class ExportOptions:
    """Settings of `segkit export`."""

    save_dir: str = option("output/inference_model", "folder for the exported model")
    input_shape: Optional[list[int]] = option(
        None,
        "fixed N C H W, -1 where it may vary; default: as the transforms fix it",
        nargs=4,
        metavar=("N", "C", "H", "W"),
    )
    output_op: Literal["argmax", "softmax", "none"] = option(
        "none", "what the graph ends in: none keeps the scores, so that masks at the photo's size equal predict's"
    )
    format: Literal["paddle", "paddle2", "onnx", "openvino", "all", "safetensors"] = option(
        "paddle",
        "file format; paddle2 is the older .pdmodel, all means paddle, onnx and openvino; "
        "safetensors is the weights alone",
    )
    fold_preprocess: bool = option(
        False, "put Normalize and the layout into the graph: it then takes 8-bit photos [N, H, W, C] as they are"
    )
    precision: Literal["fp32"] = option("fp32", "weights of the exported model")


@dataclass
class QuantizeOptions:
    """Settings of `segkit quantize`."""

    save_dir: str = option("output/int8_model", "folder for the int8 model")
    photos: int = option(100, "photos of the training list that the ranges of int8 are taken from")
    max_drop: float = option(0.01, "mIoU that int8 may cost; beyond it nothing is written")
    max_class_drop: float = option(0.1, "IoU that int8 may cost a single class")
    min_agreement: float = option(0.99, "share of the val set's pixels that must stay as they were")


@dataclass
class EngineOptions:
    """What runs an exported model: shared by infer and serve."""

    device: str = option("cpu", "where the engine runs: cpu, gpu or gpu:N")
    backend: Literal["auto", "paddle", "onnxruntime", "openvino"] = option("auto", "inference engine")
    cpu_threads: Optional[int] = option(None, "threads of the engine; default: the physical cores")
    precision: Literal["fp32", "fp16", "bf16", "int8", "auto"] = option("fp32", "compute precision")
    enable_mkldnn: Optional[bool] = option(
        None, "with Paddle on the CPU: oneDNN's kernels; default: yes. False: Paddle's own, much slower, whose masks "
        "are those of predict --no_onednn but for rounding",
    )  # fmt: skip


@dataclass
class InferOptions(EngineOptions, PictureOptions):
    """Settings of `deploy/python/infer.py` and `segkit infer`."""

    config: str = option("", "deploy.yaml of an exported folder, or the folder", required=True)
    image_path: Optional[str] = option(
        None, "photo, folder, glob, .txt list, video, or number or URL of a camera", required=True
    )
    batch_size: int = option(1, "photos of one size run together")
    save_dir: str = option("output/infer", "folder for the masks")
    use_trt: bool = option(False, "TensorRT, on a GPU")
    use_int8: bool = option(False, "int8 with TensorRT")
    hint: Literal["auto", "latency", "throughput"] = option(
        "auto",
        "with OpenVINO and ONNX Runtime: latency uses all cores for one batch, throughput runs several side by side; "
        "auto: throughput for at least 8 photos a core through a graph of one size, on the CPU, else latency",
    )
    min_subgraph_size: int = option(3, "smallest subgraph that TensorRT takes")
    enable_auto_tune: bool = option(False, "collect TensorRT shape ranges on the photos first")
    auto_tuned_shape_file: str = option("auto_tune_tmp.pbtxt", "where those ranges are kept")
    with_argmax: bool = option(False, "accepted: masks are made of whatever the graph ends in")
    print_detail: bool = option(True, "print what is done")
    benchmark: bool = option(False, "print a table of latencies, throughput, memory and what bounds the run")
    added: bool = option(False, "also write overlays to added_prediction/, of a video or camera as .mp4")
    is_slide: Optional[bool] = option(
        None, "sliding window, for big photos; default: as test_config said when the model was exported"
    )
    crop_size: Optional[list[int]] = option(None, "window width and height", nargs=2, metavar=("W", "H"))
    stride: Optional[list[int]] = option(
        None, "window step to the right and down; default: two thirds of it", nargs=2, metavar=("W", "H")
    )


@dataclass
class ServeOptions(EngineOptions):
    """Settings of `segkit serve`."""

    host: str = option("127.0.0.1", "address to listen on; 0.0.0.0: all of this machine's")
    port: int = option(8000, "port to listen on; 0 takes a free one")
    max_batch: int = option(8, "photos of one network input size that go through the engine together")
    max_wait_ms: float = option(5.0, "milliseconds that a photo may wait for others that are being read")
    max_body_mb: float = option(20.0, "largest request in MiB")
    max_pixels: int = option(40_000_000, "largest photo in pixels, checked in its header")
    max_input_pixels: int = option(
        9_000_000, "largest network input in pixels; a model that takes any size, without windows, gets photos whole"
    )
    queue: int = option(256, "photos taken and not yet answered; more are told to come back later")
    timeout: float = option(30.0, "seconds until the whole of a request must be here")
    stop_timeout: float = option(60.0, "seconds to answer what was accepted, after SIGTERM or Ctrl-C")


@dataclass
class DashboardOptions:
    """Settings of `segkit dashboard`."""

    host: str = option("127.0.0.1", "address to listen on; 0.0.0.0: all of this machine's")
    port: int = option(8040, "port to listen on; 0 takes a free one")
