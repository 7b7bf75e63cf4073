"""A loop over photos that reads, runs and writes in turn; prints what each took as one line of JSON.

`python infer_pipeline_peer.py EXPORTED PHOTOS OUT ENGINE SIZE`
"""

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

WARM_UP = 3
Engine = Callable[[np.ndarray], np.ndarray]  # float32 [1, 3, size, size] -> scores [1, classes, h, w]


def paddle_engine(folder: Path) -> Engine:
    """Paddle Inference with oneDNN as segkit sets it, so that the loop alone differs."""
    os.environ.setdefault("OMP_NUM_THREADS", str(os.cpu_count()))
    from paddle import inference

    config = inference.Config(str(folder / "model.json"), str(folder / "model.pdiparams"))
    config.disable_glog_info()
    config.disable_gpu()
    config.set_cpu_math_library_num_threads(os.cpu_count())
    config.enable_mkldnn()
    config.delete_pass("onednn_placement_pass")
    predictor = inference.create_predictor(config)
    first = predictor.get_input_handle(predictor.get_input_names()[0])
    last = predictor.get_output_handle(predictor.get_output_names()[0])

    def run(x: np.ndarray) -> np.ndarray:
        first.copy_from_cpu(x)
        predictor.run()
        return last.copy_to_cpu()

    return run


def openvino_engine(folder: Path) -> Engine:
    """OpenVINO for the shortest latency in float32, on all cores."""
    import openvino

    settings = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
    request = openvino.Core().compile_model(str(folder / "model.xml"), "CPU", settings).create_infer_request()
    return lambda x: request.infer([x])[0]


def read(path: Path, size: int) -> tuple[np.ndarray, tuple[int, int]]:
    """float32 [1, 3, size, size], and the photo's width and height."""
    image = cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB)
    width_height = image.shape[1::-1]
    image = cv2.resize(image, (size, size)).astype(np.float32) / 255
    return np.ascontiguousarray(((image - 0.5) / 0.5).transpose(2, 0, 1)[None]), width_height


def write(scores: np.ndarray, width_height: tuple[int, int], path: Path) -> None:
    """The classes at the photo's own size as a palette PNG; scores are enlarged first, as infer does."""
    scores = cv2.resize(scores[0].transpose(1, 2, 0), width_height)
    picture = Image.fromarray(scores.argmax(axis=2).astype(np.uint8), "P")
    picture.putpalette(np.random.default_rng(0).integers(0, 256, 768, np.uint8).tolist())
    picture.save(path)


def main() -> None:
    """Run the loop."""
    exported, photos, out, engine, size = sys.argv[1:]
    run = {"paddle": paddle_engine, "openvino": openvino_engine}[engine](Path(exported))
    Path(out).mkdir(exist_ok=True)
    paths = sorted(Path(photos).iterdir())
    for _ in range(WARM_UP):
        run(read(paths[0], int(size))[0])
    spent = {"read": 0.0, "run": 0.0, "mask": 0.0, "write": 0.0}
    begin = time.perf_counter()
    for path in paths:
        start = time.perf_counter()
        x, width_height = read(path, int(size))
        has_read = time.perf_counter()
        scores = run(x)
        has_run = time.perf_counter()
        write(scores, width_height, Path(out) / f"{path.stem}.png")
        for name, seconds in (
            ("read", has_read - start),
            ("run", has_run - has_read),
            ("write", time.perf_counter() - has_run),
        ):
            spent[name] += seconds
    seconds = time.perf_counter() - begin
    threads = dict.fromkeys(spent, 1)
    print(json.dumps({"seconds": seconds, "images": len(paths), "seconds_by_stage": spent, "threads": threads}))


if __name__ == "__main__":
    main()
