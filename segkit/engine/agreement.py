"""Whether an exported model says what the trained one says."""

from __future__ import annotations

from typing import Any

import numpy as np
import paddle

from segkit.build import build_dataset, build_transforms, data_info
from segkit.config import Config
from segkit.deploy import infer
from segkit.deploy.backends import open_backend
from segkit.deploy.pipeline import Photo, Segmenter
from segkit.deploy.spec import DeploySpec
from segkit.engine import apply
from segkit.errors import InputError
from segkit.log import logger
from segkit.options import InferOptions

# Shares of the largest score, and of the pixels: float32 kernels in another order stay far below.
MAX_DIFFERENCE = 1e-3
MIN_AGREEMENT = 0.999


def sample_photo(cfg: Config, shape: list[int]) -> Photo:
    """The first photo of the val set where it is there, else a random one, through the export transforms."""
    info = data_info(cfg)
    channels = info.img_channels
    model = Segmenter(lambda x: x, build_transforms(cfg, "export"), [], None, channels, nodata=info.nodata)
    try:
        return model.prepare(build_dataset(cfg, "val").files[0][0])
    except InputError as error:
        logger.info("no photo of val_dataset is at hand (%s): checking on a random one", str(error).splitlines()[0])
    size = [fixed if fixed > 0 else default for fixed, default in zip(shape[2:], (480, 640))]
    coarse = np.random.default_rng(0).integers(0, 256, (-(-size[0] // 16), -(-size[1] // 16), channels), np.uint8)
    image = coarse.repeat(16, axis=0).repeat(16, axis=1)[: size[0], : size[1]]
    photo = model.prepare(np.ascontiguousarray(image))
    photo.path = "a random photo"
    return photo


def check_agreement(model: paddle.nn.Layer, spec: DeploySpec, photo: Photo) -> dict[str, Any]:
    """Run both on one photo. Returns `max_difference` of the scores (None with argmax) and `agreement`, the share
    of pixels with the same class; `RuntimeError` where they disagree."""
    backend = open_backend(spec, InferOptions(config=str(spec.folder), backend="paddle"))
    exported = infer.segmenter(spec, backend)
    expected = apply.scores(model, photo.x[None], apply.TestTime(onednn=False))[0]
    trained = Segmenter(lambda x: x, [], [], None, spec.img_channels, None, spec.multilabel)
    got = exported.output(photo)
    same = trained.mask(expected, []) == exported.mask(got, [])
    share = float(same.mean())
    difference, scale = _difference(expected, got, spec)
    shown = "" if difference is None else f"largest difference {difference:.3g} (scores up to {scale:.3g}), "
    logger.info("agreement with the trained model on %s: %s%.4f %% of pixels", photo.path, shown, 100 * share)
    if share < MIN_AGREEMENT or (difference is not None and not difference <= MAX_DIFFERENCE * max(1.0, scale)):
        raise RuntimeError(
            f"the exported model disagrees with the trained one on {photo.path}: {shown}{100 * share:.3f} % of pixels "
            f"agree (expected at least {100 * MIN_AGREEMENT} %). Nothing was written."
        )
    return {"max_difference": difference, "agreement": share}


def _difference(expected: np.ndarray, got: np.ndarray, spec: DeploySpec) -> tuple[Any, float]:
    """(largest difference, largest value) of scores, or of probabilities where the graph ends in them."""
    if got.dtype.kind in "iu":
        return None, 1.0
    if spec.output_op == "softmax":
        from segkit.postprocess import probabilities

        expected, got = (probabilities(scores, [], spec.multilabel) for scores in (expected, got))
    return float(np.abs(expected - got).max()), float(np.abs(expected).max())
