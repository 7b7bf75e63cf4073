"""Seconds and memory of a training step on the CPU: Paddle's convolutions, oneDNN's, PaddleSeg, torch.

Every measurement is a process of its own; the sides take turns. With `--paddleseg PYTHON` and `--torch PYTHON` their
models of the same shape take part: PaddleSeg's as it comes (Paddle sets one thread), torch's layer for layer the same.
"""

from __future__ import annotations

import json
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks import harness
from segkit import registry, runtime

# name: (precision or None for Paddle's own convolutions, malloc tuned, threads as Paddle sets them)
WAYS = {
    "Paddle as it comes (1 thread)": (None, False, True),
    "Paddle": (None, False, False),
    "Paddle + malloc": (None, True, False),
    "oneDNN": ("fp32", False, False),
    "oneDNN + malloc": ("fp32", True, False),
    "oneDNN bf16": ("bf16", False, False),
    "oneDNN bf16 + malloc": ("bf16", True, False),
}
TORCH_WAYS = ("plain", "channels-last", "bf16")
MODELS = {
    "UNet16": ("UNet", {"num_classes": 2, "base_channels": 16}, (4, 3, 224, 224)),
    "UNet": ("UNet", {"num_classes": 2}, (2, 3, 512, 512)),
    "BiSeNetV2": ("BiSeNetV2", {"num_classes": 2}, (4, 3, 512, 512)),
}
SEED = 1


def described(model: str) -> tuple[str, dict[str, Any], tuple[int, ...]]:
    """Class, arguments and input shape of a name of `MODELS`, or of the same three as JSON."""
    return MODELS[model] if model in MODELS else tuple(json.loads(model))


def measure(model: str, way: str, steps: int, untimed: int = 1, one_thread: bool = False) -> dict[str, Any]:
    """Seconds of each of `steps` steps after the `untimed` ones, peak memory and the last loss, in this process.

    `one_thread`: processor seconds, which other programs disturb less.
    """
    clock = time.process_time if one_thread else time.perf_counter
    precision, malloc, _ = WAYS[way]
    runtime.require_paddle()
    import paddle
    import paddle.nn.functional as F

    from segkit.engine.memory import tune_malloc
    from segkit.engine.onednn import convolutions, counts

    malloc = malloc and tune_malloc()
    name, arguments, shape = described(model)
    paddle.seed(SEED)
    net = registry.MODELS.get(name)(**arguments)
    optimizer = paddle.optimizer.Momentum(0.01, parameters=net.parameters())
    image, label = paddle.randn(shape), paddle.randint(0, arguments["num_classes"], [shape[0], *shape[2:]])
    seconds = []
    with convolutions(precision is not None, precision or "fp32"):
        for _ in range(untimed + steps):
            start = clock()
            loss = sum(F.cross_entropy(y, label, axis=1) for y in net(image))
            loss.backward()
            optimizer.step()
            optimizer.clear_grad()
            value = float(loss)
            seconds.append(clock() - start)
    return {
        "seconds": seconds[untimed:],
        "memory": harness.this_process(),
        "loss": value,
        "parameters": sum(p.size for p in net.parameters() if not p.stop_gradient),
        "malloc": malloc,
        "convolutions": dict(counts),
    }


def in_process(model: str, way: str, steps: int, untimed: int = 1, one_thread: bool = False) -> dict[str, Any]:
    """`measure` in a new process."""
    command = [sys.executable, "-m", "benchmarks.train_step", "--one", model, way]
    command += ["--steps", str(steps), "--untimed", str(untimed), *(["--one-thread"] if one_thread else [])]
    environment = {"OMP_NUM_THREADS": "1" if WAYS[way][2] or one_thread else None}
    if WAYS[way][2]:  # 1 is what Paddle sets when nobody else does, 0 MKL's own choice
        environment[runtime.MKL_KERNELS] = "0"
    return harness.child(command, environment)


def of_peer(
    python: str, script: str, model: str, way: str, steps: int, untimed: int = 1, one_thread: bool = False
) -> dict[str, Any]:
    """The same step by another toolkit in its own interpreter."""
    name, arguments, shape = described(model)
    job = {"model": name, "arguments": arguments, "shape": shape, "way": way}
    job.update(steps=steps, untimed=untimed, threads=1 if one_thread else runtime.physical_cores())
    job["clock"] = "process_time" if one_thread else "perf_counter"
    command = [python, str(Path(__file__).with_name(script)), json.dumps(job)]
    return harness.child(command, {"OMP_NUM_THREADS": None})


def sides(args: Any, model: str) -> dict[str, Any]:
    """What is to be measured of one model: name -> a function that measures it once."""
    found = {}
    _, arguments, _ = MODELS[model]
    steps = args.steps, args.untimed, args.one_thread
    if args.paddleseg and "base_channels" not in arguments:  # its U-Net has one width
        found["PaddleSeg"] = partial(of_peer, args.paddleseg, "train_step_peer.py", model, "PaddleSeg", *steps)
    found.update({way: partial(in_process, model, way, *steps) for way in args.ways})
    if args.torch:
        for way in args.torch_ways:
            found[f"torch {way}"] = partial(of_peer, args.torch, "train_step_peer.py", model, way, *steps)
    return found


def onednn() -> str:
    """The oneDNN that Paddle's wheel brings."""
    runtime.require_paddle()
    from segkit.engine.onednn import library

    try:
        found = library.load()
    except library.Unavailable as reason:
        return f"no oneDNN: {reason}"
    return f"oneDNN {found.version}, instruction set {found.isa:#x}, {found.threads} threads"


def main() -> None:
    """Print one table a model."""
    parser = harness.parser(__doc__, rounds=3, peers=("paddleseg", "torch"))
    parser.add_argument("--models", nargs="+", default=["UNet16", "BiSeNetV2"], choices=list(MODELS))
    parser.add_argument("--ways", nargs="+", default=list(WAYS), choices=list(WAYS))
    parser.add_argument("--torch-ways", nargs="+", default=list(TORCH_WAYS), choices=TORCH_WAYS)
    parser.add_argument("--steps", type=int, default=4, help="steps timed in each process")
    parser.add_argument("--untimed", type=int, default=2, help="steps before them: memory is first touched there")
    text = "processor seconds with one thread: on a machine that others use, too"
    parser.add_argument("--one-thread", action="store_true", help=text)
    parser.add_argument("--busy", type=int, default=0, help="niced processes that compute beside it")
    parser.add_argument("--one", nargs=2, metavar=("MODEL", "WAY"), help="measure in this process, print JSON")
    args = parser.parse_args()
    if args.one:
        print(json.dumps(measure(*args.one, args.steps, args.untimed, args.one_thread)))
        return
    if args.paddleseg:
        harness.require_python(args.paddleseg, "paddleseg", "--paddleseg")
    if args.torch:
        harness.require_python(args.torch, "torch", "--torch")
    about = f"{harness.machine('paddlepaddle')}, {onednn()}"
    turns = f"{args.rounds} rounds of {args.steps} steps after {args.untimed} untimed"
    turns += ", processor seconds of one thread" * args.one_thread
    print(f"{about}; {turns}, {args.busy} busy processes beside", flush=True)
    everything = {}
    for model in args.models:
        with harness.busy(args.busy):
            results = harness.alternate(sides(args, model), args.rounds)
        shape = "x".join(str(n) for n in MODELS[model][2])
        print(f"\n{model}, {shape}\n\n{harness.compared(results, next(iter(results)), 's/step')}", flush=True)
        for key, form in (("loss", ".5f"), ("parameters", ",")):
            numbers = (f"{name} {runs[0][key]:{form}}" for name, runs in results.items())
            print(f"{key}: {'; '.join(numbers)}", flush=True)
        everything[model] = results
        plot = args.plot and args.plot.with_name(f"{args.plot.stem}_{model}{args.plot.suffix}")
        harness.bars(plot, results, f"A training step of {model}, {shape}, on the CPU")
    harness.write_json(args.json, everything, about)


if __name__ == "__main__":
    main()
