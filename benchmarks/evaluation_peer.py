"""PaddleSeg's side of `benchmarks.evaluation`, run by the Python that has PaddleSeg: one job as JSON in argv."""

from __future__ import annotations

import json
import sys
import time
from typing import Any


def main() -> None:
    job = json.loads(sys.argv[1])
    start = time.perf_counter()
    import paddle
    import paddleseg.models
    from paddleseg import core, datasets, transforms, utils

    mend(paddle)
    imported = time.perf_counter()
    steps = [getattr(transforms, node.pop("type"))(**node) for node in job.get("transforms", [])]
    result: dict[str, Any] = {"import": imported - start}
    if job["tool"] == "matrix":
        result["seconds"] = matrix(paddle, utils, job)
    else:
        model = getattr(paddleseg.models, job["model"])(num_classes=job["num_classes"])
        if job["tool"] == "val":
            utils.utils.load_entire_model(model, job["weights"])
            data = datasets.Dataset(
                mode="val",
                dataset_root=job["data"],
                transforms=steps,
                num_classes=job["num_classes"],
                val_path=f"{job['data']}/val.txt",
            )
            found = core.evaluate(model, data, print_detail=False)
            result["mIoU"] = float(found[0])
        else:
            core.predict(
                model,
                job["weights"],
                transforms.Compose(steps),
                job["images"],
                image_dir=f"{job['data']}/images",
                save_dir=job["out"],
            )
        result["seconds"] = time.perf_counter() - imported
    print(json.dumps(result))


def mend(paddle: Any) -> None:
    """PaddleSeg 2.8.0 joins scalars with `concat`, which Paddle 3 refuses: `stack` does what was meant."""
    concat = paddle.concat

    def join(x: Any, axis: int = 0, name: Any = None) -> Any:
        return paddle.stack(x) if x and getattr(x[0], "ndim", 1) == 0 else concat(x, axis, name)

    paddle.concat = join


def matrix(paddle: Any, utils: Any, job: dict[str, Any]) -> float:
    """Median milliseconds of the pixel counts of one photo."""
    import numpy as np

    rng = np.random.default_rng(0)
    pred, label = (rng.integers(0, job["num_classes"], job["shape"]) for _ in range(2))
    label[: job["shape"][0] // 16] = 255
    tensors = [paddle.to_tensor(array[None, None].astype(kind)) for array, kind in ((pred, "int32"), (label, "int64"))]
    seconds = []
    for _ in range(job["repeats"]):
        start = time.perf_counter()
        found = utils.metrics.calculate_area(*tensors, job["num_classes"], 255)
        [area.numpy() for area in found]
        seconds.append(time.perf_counter() - start)
    return float(np.median(seconds))


if __name__ == "__main__":
    main()
