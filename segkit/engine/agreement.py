"""Whether an exported model says what the trained one says."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any, Optional

import numpy as np
import paddle

from segkit.build import build_dataset, build_transforms, data_info
from segkit.config import Config
from segkit.deploy import infer
from segkit.deploy.backends import open_backend
from segkit.deploy.backends.base import last_line
from segkit.deploy.backends.choice import COMPARED, MIN_AGREEMENT, made_up_photo
from segkit.deploy.pipeline import Image, Photo, Segmenter, mask_of
from segkit.deploy.spec import DeploySpec
from segkit.deploy.windows import Windows, windows_as
from segkit.engine import apply
from segkit.errors import InputError
from segkit.log import logger
from segkit.options import InferOptions

# Share of the largest score: float32 kernels in another order stay far below.
MAX_DIFFERENCE = 1e-3
Expected = list[tuple[Photo, np.ndarray]]  # photos, and scores of them: float32 [classes, H, W]
_ENOUGH_PIXELS = 500_000
_RANDOM, _ANOTHER = (480, 640), (333, 421)  # (height, width) of made-up photos


@dataclasses.dataclass
class MadeUp(Photo):
    """A random photo. A trained model is sure of little in it, so that not its pixels count but its scores. It is
    `optional` where the trained model may be unable to take its size."""

    optional: bool = False


def sample_photos(cfg: Config, shape: list[int], windows: Optional[Windows] = None) -> list[Photo]:
    """The first photos of the val set where they are there, else a random one, through the export transforms; with
    `windows` the first window of each. Where `shape` leaves the size open, a random one of another size comes last."""
    info = data_info(cfg)
    channels = info.img_channels
    transforms = build_transforms(cfg, "export")
    model = Segmenter(lambda x: x, transforms, [], None, channels, nodata=info.nodata, windows=windows)

    def prepared(image: Image, name: str = "") -> Photo:
        photo = model.prepare(image, name)
        return dataclasses.replace(photo, x=model.first_batch(photo)[0])

    photos: list[Photo] = []
    try:
        for path, *_ in build_dataset(cfg, "val").files[:COMPARED]:
            photos.append(prepared(path))
            if sum(photo.x[0].size for photo in photos) > _ENOUGH_PIXELS:
                break
    except InputError as error:
        logger.info("no photo of val_dataset is at hand (%s): checking on random ones", str(error).splitlines()[0])
        photos = []
    sizes = [] if photos else [(_RANDOM, False)]
    if max(shape[2:]) < 0:
        sizes.append(
            (_ANOTHER, True)
        )  # val photos, often all of one size, would not show a size that is fixed in the graph
    for size, optional in sizes:
        whole = [fixed if fixed > 0 else default for fixed, default in zip(shape[2:], size)]
        try:
            photo = prepared(made_up_photo(*whole, channels), f"a random photo of {whole[1]}x{whole[0]} pixels")
        except InputError as error:  # say of Padding, which takes photos up to a size
            if not optional:
                raise
            logger.info("not checked on %s", error)
            continue
        path = f"a random photo of {photo.x.shape[2]}x{photo.x.shape[1]} pixels"  # as the network sees it
        photos.append(MadeUp(path, photo.image, photo.x, photo.geometry, optional=optional))
    return photos


def check_agreement(expected: Expected, spec: DeploySpec, engine: str) -> dict[str, Any]:
    """Run the export in `engine` on photos of which the trained model's scores are `expected`. Returns `max_difference`
    from those (None with argmax) and `agreement`, the share of pixels with the same class, of the worst photo;
    `RuntimeError` where they disagree."""
    options = InferOptions(config=str(spec.folder), backend=engine)
    windows = windows_as(options, spec.test_config)
    exported = infer.segmenter(spec, open_backend(spec, options), windows)
    return worst(_check(scores, spec, exported, photo, engine) for photo, scores in expected)


def trained_scores(model: paddle.nn.Layer, photos: list[Photo]) -> Expected:
    """What the trained model says of `photos`. An optional one is left out where the model cannot take its size."""
    found: Expected = []
    for photo in photos:
        try:
            found.append((photo, apply.scores(model, photo.x[None])[0]))
        except Exception as error:  # whatever the user's own network raises
            if not (isinstance(photo, MadeUp) and photo.optional):
                raise
            said = "not checked on %s, which the trained model cannot take: %s. The export is for sizes that it takes."
            logger.info(said, photo.path, last_line(error))
    return found


def worst(found: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """The largest `max_difference` and the smallest `agreement` of several."""
    rows = list(found)
    differences = [row["max_difference"] for row in rows if row["max_difference"] is not None]
    return {
        "max_difference": max(differences, default=None),
        "agreement": min(row["agreement"] for row in rows),
    }


def _check(expected: np.ndarray, spec: DeploySpec, exported: Segmenter, photo: Photo, engine: str) -> dict[str, Any]:
    trained = Segmenter(lambda x: x, [], [], None, spec.img_channels, None, spec.multilabel, scores_are=spec.scores_are)
    x = photo.x if spec.input_dtype == "float32" else exported.first_batch(exported.prepare(photo.image))[0]
    got = exported.run(x[None])[0]
    same = trained.mask(expected, []) == mask_of(got, [], None, spec.multilabel, spec.scores_are)
    share = float(same.mean())
    difference, scale = _difference(expected, got, spec)
    shown = "" if difference is None else f"largest difference {difference:.3g} (scores up to {scale:.3g}), "
    logger.info("%s agrees with the trained model on %s: %s%.4f %% of pixels", engine, photo.path, shown, 100 * share)
    by_scores = difference is not None
    by_pixels = not (by_scores and isinstance(photo, MadeUp))
    if (by_pixels and share < MIN_AGREEMENT) or (by_scores and not difference <= MAX_DIFFERENCE * max(1.0, scale)):
        raise RuntimeError(
            f"the model exported for {engine} disagrees with the trained one on {photo.path}: {shown}{100 * share:.3f} "
            f"% of pixels agree (expected at least {100 * MIN_AGREEMENT} %). Nothing was written. Where only photos of "
            "one size agree, fix it with --input_shape N C H W."
        )
    return {"max_difference": difference, "agreement": share}


def _difference(expected: np.ndarray, got: np.ndarray, spec: DeploySpec) -> tuple[Any, float]:
    """(largest difference, largest value) of scores, or of probabilities where the graph ends in them."""
    if got.dtype.kind in "iu":
        return None, 1.0
    if spec.output_op == "softmax":
        from segkit.postprocess import probabilities

        expected, got = (probabilities(scores, [], spec.multilabel, spec.scores_are) for scores in (expected, got))
    return float(np.abs(expected - got).max()), float(np.abs(expected).max())
