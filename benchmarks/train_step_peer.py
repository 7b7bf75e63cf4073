"""One training step of PaddleSeg's or torch's model, by their own interpreter: `PYTHON train_step_peer.py JOB`.

JOB is JSON: model, arguments, shape, steps, threads, way ("PaddleSeg", or one of torch's: plain, channels-last, bf16).
"""

import json
import resource
import sys
import time


def paddleseg(job):
    """A function that makes one step of PaddleSeg's model and returns the loss."""
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

    return step


def torch_unet(classes, width):
    """The paper's U-Net with BatchNorm, bilinear enlarging and padding, as segkit's and PaddleSeg's are."""
    import torch
    from torch import nn

    def pair(inputs, outputs):
        layers = []
        for channels in (inputs, outputs):
            layers += [nn.Conv2d(channels, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.ReLU()]
        return nn.Sequential(*layers)

    class UNet(nn.Module):
        def __init__(self):
            super().__init__()
            widths = [width, 2 * width, 4 * width, 8 * width, 8 * width]
            self.first = pair(3, width)
            self.down = nn.ModuleList(pair(a, b) for a, b in zip(widths, widths[1:]))
            self.up = nn.ModuleList(
                pair(2 * skip, out) for skip, out in zip(widths[-2::-1], [4 * width, 2 * width, width, width])
            )
            self.head = nn.Conv2d(width, classes, 3, padding=1)

        def forward(self, x):
            x = self.first(x)
            skips = []
            for block in self.down:
                skips.append(x)
                x = block(nn.functional.max_pool2d(x, 2))
            for block in self.up:
                skip = skips.pop()
                x = nn.functional.interpolate(x, size=skip.shape[2:], mode="bilinear")
                x = block(torch.cat([skip, x], 1))
            return self.head(x)

    return UNet()


def torch_step(job):
    """A function that makes one step of a torch U-Net and returns the loss."""
    import torch

    torch.manual_seed(1)
    torch.set_num_threads(job["threads"])
    classes = job["arguments"]["num_classes"]
    net = torch_unet(classes, job["arguments"].get("base_channels", 64))
    optimizer = torch.optim.SGD(net.parameters(), 0.01, momentum=0.9)
    batch, _, height, width = job["shape"]
    image, label = torch.randn(job["shape"]), torch.randint(0, classes, (batch, height, width))
    if job["way"] != "plain":
        net, image = (part.to(memory_format=torch.channels_last) for part in (net, image))

    def step():
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=job["way"] == "bf16"):
            logits = net(image)
        loss = torch.nn.functional.cross_entropy(logits.float(), label)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return float(loss)

    return step


def main(job):
    """Print seconds of each step after the first, peak memory and the last loss."""
    step = paddleseg(job) if job["way"] == "PaddleSeg" else torch_step(job)
    seconds = []
    for _ in range(job["steps"] + 1):
        start = time.perf_counter()
        loss = step()
        seconds.append(time.perf_counter() - start)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**30 if sys.platform == "darwin" else 2**20)
    print("\n" + json.dumps({"seconds": seconds[1:], "memory": memory, "loss": loss}))


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
