"""One training step of PaddleSeg's or torch's model, by their own interpreter: `PYTHON train_step_peer.py JOB`.

JOB is JSON: model, arguments, shape, steps, untimed, threads, clock (a function of `time`), way ("PaddleSeg", or one of
torch's: plain, channels-last, bf16).
"""

from __future__ import annotations

import json
import math
import resource
import sys
import time
from collections.abc import Callable
from typing import Any


def paddleseg(job: dict[str, Any]) -> tuple[Any, Callable[[], float]]:
    """Network and a function that makes one step of PaddleSeg's model and returns the loss."""
    import paddle
    import paddle.nn.functional as F
    from paddleseg import models

    paddle.seed(1)
    net = getattr(models, job["model"])(**job["arguments"])
    optimizer = paddle.optimizer.Momentum(0.01, parameters=net.parameters())
    batch, _, height, width = job["shape"]
    image = paddle.randn(job["shape"])
    label = paddle.randint(0, job["arguments"]["num_classes"], [batch, height, width])

    def step():
        loss = sum(F.cross_entropy(y, label, axis=1) for y in net(image))
        loss.backward()
        optimizer.step()
        optimizer.clear_grad()
        return float(loss)

    return net, step


def torch_step(job: dict[str, Any]) -> tuple[Any, Callable[[], float]]:
    """Network and a function that makes one step of a torch model and returns the loss."""
    import torch
    import torch_networks_peer as networks

    torch.manual_seed(1)
    torch.set_num_threads(job["threads"])
    classes = job["arguments"]["num_classes"]
    net = getattr(networks, job["model"])(**job["arguments"])
    optimizer = torch.optim.SGD(net.parameters(), 0.01, momentum=0.9)
    batch, _, height, width = job["shape"]
    image, label = torch.randn(job["shape"]), torch.randint(0, classes, (batch, height, width))
    if job["way"] != "plain":
        net, image = (part.to(memory_format=torch.channels_last) for part in (net, image))

    def step():
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=job["way"] == "bf16"):
            scores = net(image)
        loss = sum(torch.nn.functional.cross_entropy(y.float(), label) for y in scores)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return float(loss.detach())

    return net, step


def main(job: dict[str, Any]) -> None:
    """Print seconds of each step after the untimed ones, peak memory, number of parameters and the last loss."""
    clock = getattr(time, job["clock"])
    net, step = paddleseg(job) if job["way"] == "PaddleSeg" else torch_step(job)
    seconds = []
    for _ in range(job["untimed"] + job["steps"]):
        start = clock()
        loss = step()
        seconds.append(clock() - start)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**30 if sys.platform == "darwin" else 2**20)
    parameters = sum(math.prod(p.shape) for p in net.parameters())
    found = {"seconds": seconds[job["untimed"] :], "memory": memory, "parameters": parameters, "loss": loss}
    print("\n" + json.dumps(found))


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
