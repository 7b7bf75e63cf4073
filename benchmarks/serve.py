"""Requests a second and latency of `segkit serve` with and without batching, and its memory over thousands of requests.

The server is a process of its own, the clients are threads of this one, on the same machine. The model is BiSeNetV2 at
512x512 with random weights, exported in every format, unless --model names an exported folder; the photo a JPEG.
"""

from __future__ import annotations

import http.client
import itertools
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Iterator

import numpy as np
import yaml

from benchmarks import harness, startup
from benchmarks.memory_soak import look
from segkit._cv2 import cv2

BATCHES, CLIENTS = (1, 8), (1, 16)
_START = 120  # seconds


def export(folder: Path) -> Path:
    """BiSeNetV2 at 512x512 with random weights, exported."""
    startup.write_data(folder)
    path = folder / "config.yml"
    node = yaml.safe_load(path.read_text(encoding="utf-8"))
    node["model"] = {"type": "BiSeNetV2"}
    node["loss"]["coef"] = [1] * 5
    node["val_dataset"]["transforms"] = [{"type": "Resize", "target_size": [512, 512]}, {"type": "Normalize"}]
    path.write_text(yaml.safe_dump(node), encoding="utf-8")
    startup.write_weights(folder)
    out = folder / "exported"
    command = [sys.executable, "-m", "segkit", "export", "--config", path, "--model_path", folder / "model.pdparams"]
    subprocess.run([*map(str, command), "--save_dir", str(out), "--format", "all"], check=True, cwd=harness.ROOT)
    return out


class Server:
    """`segkit serve` in a process, and a way to ask it."""

    def __init__(self, process: subprocess.Popen, port: int):
        self.process, self.port = process, port

    def ask(self, body: bytes) -> tuple[int, float]:
        """(status, seconds) of one request on a connection of its own."""
        begin = time.perf_counter()
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=_START)
        try:
            connection.request("POST", "/predict", body, {"Content-Type": "image/jpeg"})
            reply = connection.getresponse()
            reply.read()
            return reply.status, time.perf_counter() - begin
        finally:
            connection.close()


@contextmanager
def serving(model: Path, *flags: str) -> Iterator[Server]:
    """A server on a free port, stopped by SIGTERM at the end."""
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log"
        with open(log, "w", encoding="utf-8") as file:
            command = [sys.executable, "-m", "segkit", "serve", f"model={model}", "--port", "0", *flags]
            process = subprocess.Popen(command, stderr=file, cwd=harness.ROOT)
        try:
            end = time.monotonic() + _START
            while "is ready" not in (text := log.read_text(encoding="utf-8")) or "http://" not in text:
                if process.poll() is not None or time.monotonic() > end:
                    raise SystemExit(f"serve: the server did not start:\n{text}")
                time.sleep(0.1)
            print("\n".join(line for line in text.splitlines() if "engine" in line or "ready" in line), file=sys.stderr)
            yield Server(process, int(re.findall(r"http://127\.0\.0\.1:(\d+)", text)[0]))
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait()


def load(server: Server, bodies: list[bytes], requests: int, clients: int) -> harness.Result:
    """So many requests by so many clients that each wait for their reply."""
    turns = itertools.cycle(bodies)
    lock = threading.Lock()

    def ask(_: int) -> tuple[int, float]:
        with lock:
            body = next(turns)
        return server.ask(body)

    result: harness.Result = {}
    with ThreadPoolExecutor(clients) as pool, harness.watched(result):
        answers = list(pool.map(ask, range(requests)))
    seconds = [second for status, second in answers if status == 200]
    return {
        **result,
        "seconds": seconds,
        "rate": requests / result["wall"],
        "p50": 1000 * statistics.median(seconds),
        "p99": 1000 * float(np.percentile(seconds, 99)),
        "statuses": dict(Counter(status for status, _ in answers)),
    }


def soak(server: Server, right: bytes, requests: int) -> list[list[object]]:
    """Rows of (requests, resident MiB, open files, statuses), with every third request wrong."""
    wrong = [b"nothing", right[: len(right) // 2], bytes(1 << 21)]
    bodies = [body for bad in wrong for body in (right, right, bad)]
    rows: list[list[object]] = [[0, *(f"{value:.0f}" for value in look(server.process.pid)), "-"]]
    for done in range(requests // 8, requests + 1, requests // 8):
        found = load(server, bodies, requests // 8, 16)
        statuses = ", ".join(f"{count} x {status}" for status, count in sorted(found["statuses"].items()))
        rows.append([done, *(f"{value:.0f}" for value in look(server.process.pid)), statuses])
    return rows


def main() -> None:
    """Print the tables."""
    parser = harness.parser(__doc__, rounds=2)
    parser.add_argument("--model", type=Path, help="an exported folder")
    parser.add_argument("--photo", type=Path, help="a photo (default: a drawn 640x480 JPEG)")
    parser.add_argument("--requests", type=int, default=100, help="of each measurement (default %(default)s)")
    parser.add_argument("--soak", type=int, default=2000, help="requests while memory is watched (default %(default)s)")
    parser.add_argument("--flags", default="", help="further flags of `segkit serve`, in one string")
    args = parser.parse_args()
    flags = args.flags.split()
    sides = [(batch, clients) for batch in BATCHES for clients in CLIENTS]
    results: dict[str, list[harness.Result]] = {
        f"--max_batch {batch}, {clients} clients": [] for batch, clients in sides
    }
    with tempfile.TemporaryDirectory() as folder:
        model = args.model or export(Path(folder))
        coarse = np.random.default_rng(0).integers(0, 256, (30, 40, 3), np.uint8)
        drawn = cv2.imencode(".jpg", cv2.resize(coarse, (640, 480)))[1].tobytes()
        photo = args.photo.read_bytes() if args.photo else drawn
        for number, (batch, clients) in itertools.product(range(args.rounds), sides):
            print(f"round {number + 1}: --max_batch {batch}, {clients} clients", file=sys.stderr)
            with serving(model, "--max_batch", str(batch), *flags) as server:
                load(server, [photo], 8, clients)
                found = load(server, [photo], args.requests, clients)
            results[f"--max_batch {batch}, {clients} clients"].append(found)
            print(
                f"{found['rate']:.2f} requests/s, p50 {found['p50']:.0f} ms, p99 {found['p99']:.0f} ms", file=sys.stderr
            )
        rows = [
            [name, *(statistics.median(run[key] for run in runs) for key in ("rate", "p50", "p99", "others"))]
            for name, runs in results.items()
            if runs
        ]
        about = harness.machine("fastapi", "uvicorn", "onnxruntime", "openvino", "paddlepaddle")
        print(about + "\n")
        print(harness.markdown(["side", "requests/s", "p50 ms", "p99 ms", "others' cores"], rows))
        watched: list[list[object]] = []
        if args.soak:
            with serving(model, "--max_body_mb=1", *flags) as server:
                watched = soak(server, photo, args.soak)
            print("\n" + harness.markdown(["requests", "resident MiB", "open files", "answers"], watched))
        harness.write_json(args.json, {"sides": results, "soak": watched}, about)


if __name__ == "__main__":
    main()
