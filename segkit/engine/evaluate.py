"""Scores of a model on a labelled set: one streaming confusion matrix at the size of the labels."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Optional, Union

import numpy as np
import paddle

from segkit import io, postprocess
from segkit.deploy import windows
from segkit.deploy.background import Background
from segkit.deploy.pipeline import Run, check_scores, mask_of
from segkit.dist import is_main, world_size
from segkit.engine import apply
from segkit.engine.apply import Applied, TestTime
from segkit.engine.loader import EvalSample, eval_loader
from segkit.errors import InputError, enough_memory
from segkit.log import logger
from segkit.metrics import ConfusionMatrix, MultiLabelMatrix, RocCurves
from segkit.models import scores_are
from segkit.options import EvalOptions
from segkit.progress import progress

Model = Union[paddle.nn.Layer, Run]
Observer = Callable[[EvalSample, np.ndarray, np.ndarray], None]
"""gets each sample with its mask and its probabilities, float32 [C, H0, W0], in order, in a thread of its own"""
Masks = Callable[[str, np.ndarray], None]
"""gets each photo's path and its mask alone, in the same way"""


def evaluate(
    model: Model,
    dataset: Any,
    options: Optional[EvalOptions] = None,
    test_config: Optional[Mapping[str, Any]] = None,
    observer: Optional[Observer] = None,
    masks: Optional[Masks] = None,
) -> dict[str, Any]:
    """Metrics (see `ConfusionMatrix.compute`) of a model, or of an engine's `run`, on every sample of `dataset`.

    Masks are made as predict makes them and compared with labels of the photos' own size. Ranks share the
    samples and add up their matrices; the main one logs, and writes `options.save_dir/metrics.json`. The mode of
    the model is put back.
    """
    options = options or EvalOptions()
    how = apply.test_time(options, test_config)
    multilabel = _multilabel(dataset, options)
    names, ignored = dataset.class_names, dataset.ignore_index
    matrix = (MultiLabelMatrix if multilabel else ConfusionMatrix)(dataset.num_classes, ignored, names)
    curves = RocCurves(dataset.num_classes, ignored) if options.auc_roc else None
    judge = _Judge(matrix, curves, multilabel, scores_are(model), observer, masks)
    with contextlib.ExitStack() as stack:
        segment = stack.enter_context(_prepared(model, how, multilabel, judge.needs_scores))
        samples = stack.enter_context(eval_loader(dataset, options.num_workers))
        bar = stack.enter_context(progress(len(samples), "val"))
        background = stack.enter_context(Background())
        pixels = how.pixels_together if isinstance(model, paddle.nn.Layer) else 0
        for batch in apply.together(samples, _shape, pixels):
            x = np.concatenate([np.asarray(sample.image) for sample in batch])
            with enough_memory(lambda batch=batch, x=x: _too_big(batch[0].path, x)):
                outputs = segment(x, [sample.geometry for sample in batch])
            for output, sample in zip(outputs, batch):
                background.submit(output.nbytes + sample.label.nbytes, judge, output, sample)
                bar.update()
    return _finish(matrix, curves, options)


def _shape(sample: EvalSample) -> list[int]:
    _check_sample(sample)
    return list(sample.image.shape)


class _Judge:
    """Counts what the outputs of single samples are worth, in a thread of its own."""

    def __init__(
        self,
        matrix: ConfusionMatrix,
        curves: Optional[RocCurves],
        multilabel: bool,
        kind: postprocess.ScoresAre,
        observer: Optional[Observer],
        masks: Optional[Masks],
    ):
        self.multilabel, self.kind = multilabel, kind
        self.matrix, self.curves, self.observer, self.masks = matrix, curves, observer, masks
        self.needs_scores = curves is not None or observer is not None

    def __call__(self, output: np.ndarray, sample: EvalSample) -> None:
        """One output, [C, h, w] or class numbers [h, w], against its label."""
        _check_channels(output, self.matrix.num_classes, sample.path)
        mask = mask_of(output, sample.geometry, None, self.multilabel, self.kind)
        try:
            self.matrix.update(mask, sample.label)
        except InputError as error:
            raise InputError(f"{sample.path}: {error}") from error
        if self.masks is not None:
            self.masks(sample.path, mask)
        if not self.needs_scores:
            return
        check_scores(output)
        found = postprocess.probabilities(output, sample.geometry, self.multilabel, self.kind)
        if self.curves is not None:
            self.curves.update(found, sample.label)
        if self.observer is not None:
            self.observer(sample, mask, found)


def predict_sample(
    model: Model,
    dataset: Any,
    index: int,
    options: Optional[EvalOptions] = None,
    test_config: Optional[Mapping[str, Any]] = None,
) -> np.ndarray:
    """The mask of one sample of `dataset` at the photo's own size: uint8 [H, W]."""
    options = options or EvalOptions()
    how = apply.test_time(options, test_config)
    sample = dataset.get(index, np.random.default_rng(index))
    x = np.ascontiguousarray(sample["image"].transpose(2, 0, 1)[None], dtype=np.float32)
    multilabel = _multilabel(dataset, options)
    with _prepared(model, how, multilabel) as segment:
        output = segment(x, [sample["geometry"]])[0]
        return mask_of(output, sample["geometry"], None, multilabel, scores_are(model))


def _multilabel(dataset: Any, options: EvalOptions) -> bool:
    return options.use_multilabel or bool(getattr(dataset, "use_multilabel", False))


@contextlib.contextmanager
def _prepared(model: Model, how: TestTime, multilabel: bool, scores_needed: bool = False) -> Any:
    """`(x [N, C, H, W], geometries) -> outputs` of a model in evaluation mode, or of an engine."""
    if not isinstance(model, paddle.nn.Layer):
        over = apply.windows_alone(how)
        yield lambda x, geometries: model(x) if over is None else windows.scores(model, x, over)
        return

    def segment(x: np.ndarray, geometries: list[list[dict[str, Any]]]) -> np.ndarray:
        resized = any(map(postprocess.is_resized, geometries))
        if how.plain and not (resized or multilabel or scores_needed):
            return applied.classes(x)
        return applied.scores(x)

    with Applied(model, how) as applied:
        yield segment


def _check_sample(sample: EvalSample) -> None:
    if sample.label is None:
        raise InputError(f"{sample.path}: the list names no label for it. Evaluate on a list with labels.")
    if any(step["op"] == "crop" for step in sample.geometry):
        raise InputError(
            "val_dataset.transforms: a transform cuts parts of the photo off, and nothing can be predicted there. Take "
            "the crop out; for big photos use --is_slide."
        )


def _too_big(path: str, x: np.ndarray) -> str:
    return (
        f"{path}: the memory does not suffice to evaluate it (got {x.shape[3]}x{x.shape[2]} pixels, {len(x)} at a "
        "time). Go over it in windows, with --is_slide --crop_size 512 512 or test_config: {is_slide: True, "
        "crop_size: [512, 512]}, or add Resize to val_dataset.transforms."
    )


def _check_channels(output: np.ndarray, num_classes: int, path: str) -> None:
    """A model of another number of classes; one channel stands for background and foreground."""
    if output.dtype.kind in "iu" or len(output) == num_classes or (len(output) == 1 and num_classes == 2):
        return
    raise InputError(
        f"{path}: the model gives {len(output)} classes, but the data set has {num_classes}. Evaluate the model "
        "with its own config, or mend num_classes."
    )


def _finish(matrix: ConfusionMatrix, curves: Optional[RocCurves], options: EvalOptions) -> dict[str, Any]:
    matrix.matrix = _over_ranks(matrix.matrix)
    matrix.num_images = int(_over_ranks(np.array([matrix.num_images], np.int64))[0])
    result = matrix.compute()
    if curves is not None:
        curves.histograms = _over_ranks(curves.histograms)
        result["auc_roc"], result["class_auc_roc"] = curves.compute(), curves.class_areas()
    if is_main():
        report(result)
        if options.save_dir:
            path = Path(options.save_dir) / "metrics.json"
            io.write_bytes_atomic(path, (json.dumps(result, indent=1, ensure_ascii=False) + "\n").encode())
    return result


def _over_ranks(counts: np.ndarray) -> np.ndarray:
    """The sum over all ranks, exact (int64)."""
    if world_size() == 1 or not paddle.distributed.is_initialized():
        return counts
    tensor = paddle.to_tensor(counts)
    paddle.distributed.all_reduce(tensor)
    return tensor.numpy()


def report(metrics: Mapping[str, Any], log: Callable[..., None] = logger.info) -> None:
    """The [EVAL] line, then IoU, precision and recall of each class as a table."""
    from prettytable import PrettyTable

    line = "[EVAL] #Images: {num_images} mIoU: {mIoU:.4f} Acc: {Acc:.4f} Kappa: {Kappa:.4f} Dice: {mDice:.4f}"
    auc = f" Auc_roc: {metrics['auc_roc']:.4f}" if "auc_roc" in metrics else ""
    log("%s", line.format(**metrics) + auc)
    table = PrettyTable(["class", "IoU", "Precision", "Recall"], align="r")
    table.align["class"] = "l"
    columns = ("class_iou", "class_precision", "class_recall")
    for number, name in enumerate(metrics["class_names"]):
        values = [metrics[column][number] for column in columns]
        table.add_row([name, *("-" if value is None else f"{value:.4f}" for value in values)])
    log("[EVAL] by class:\n%s", table.get_string())
    if metrics["absent_classes"]:
        log("[EVAL] neither labelled nor predicted, left out of the means: %s", ", ".join(metrics["absent_classes"]))
    counts = np.array(metrics["confusion_matrix"])
    if counts.ndim == 2 and (counts.sum(1) > 0).sum() > 1 and (counts.sum(0) > 0).sum() == 1:
        log(
            "[EVAL] every pixel is predicted as %s. In the first iterations that is usual; later, balance the classes "
            "(weight: auto in the loss), try another learning rate, and look at the labels with segkit data check.",
            metrics["class_names"][int(counts.sum(0).argmax())],
        )
