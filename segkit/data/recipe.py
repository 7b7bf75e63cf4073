"""A config of a data set's fingerprint: model, crop, batch, loss and schedule, each choice explained in a comment."""

from __future__ import annotations

import importlib.metadata
import json
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

import numpy as np

from segkit import runtime
from segkit.data.facts import Facts
from segkit.io import write_bytes_atomic

CPU_MINUTES = 7.0  # of training on the CPU; evaluation comes on top
CORE_SECONDS = {True: 2.8, False: 8.5}
"""of a CPU core per megapixel of training a U-Net of 16 channels, with AVX-512 (benchmarks/real_data.py) and without
(0.26 to 0.32 s a step of the doves on two cores, docs/measurements.md)"""
FAST_COST = 0.75  # of that time, for BiSeNetV2: 4.4 s against 5.8 s for 4 crops of 256x256
CONFIG = "segkit.yml"
RARE = 0.02  # below this share of the pixels a class gets a weight
MOST_WEIGHT = 5.0
GPU_BYTES = 9000  # of memory per pixel of a crop, U-Net of 32 channels in float32
FEW = 50  # photos: below it they are varied more
_DISTORT = "type: RandomDistort, brightness_range: 0.3, contrast_range: 0.3, saturation_range: 0.3, hue_range: 10"
SMALL = 250  # pixels that an object should keep after shrinking
THIN = (
    4.0  # pixels of typical thickness that the thinnest class should keep after shrinking: its thin parts keep 2 to 3
)
COARSE = 24.0  # pixels: thinner parts are lost on the grid of 8 pixels on which the fast models decide
LARGE = 640  # pixels of the long side: below it U-Net is fast enough
ENOUGH = 500  # photos to train the fast models from scratch
OUTPUTS = {"UNet": 1, "BiSeNetV2": 5, "PPLiteSeg": 3}  # scores in training, each with its coefficient in the loss


@dataclass
class Device:
    """Where training will run."""

    gpu: bool
    cores: int
    memory_gb: float
    """Of the GPU; 0 where there is none."""
    avx512: bool = False
    """Whether the CPU has it: convolutions take a third of the time."""

    @classmethod
    def here(cls) -> Device:
        """This machine: a GPU counts where its driver and Paddle's GPU build are there. Paddle is not imported."""
        memory = 0.0
        if runtime.has_nvidia_gpu() and _installed("paddlepaddle-gpu"):
            command = ["nvidia-smi", "--query-gpu=memory.total", "--format=csv,noheader,nounits"]
            try:
                said = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True).stdout
                memory = min(float(line) for line in said.split()) / 1024
            except (OSError, ValueError, subprocess.SubprocessError):
                memory = 0.0
        return cls(memory > 0, runtime.physical_cores(), memory, "avx512f" in runtime.cpu_facts().get("flags", ""))


def _installed(name: str) -> bool:
    try:
        importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


@dataclass
class Recipe:
    """The numbers of a config, and `why` each is as it is."""

    long: int
    """Photos are shrunk to this long side; 0: they are not."""
    crop: tuple[int, int]
    """Width and height."""
    channels: int
    batch: int
    iters: int
    weights: list[float]
    """One a class; empty: none."""
    slide: bool
    why: dict[str, str]
    model: str = "UNet"


def choose(facts: Facts, device: Device) -> Recipe:
    """The recipe for these data on this device."""
    why: dict[str, str] = {}
    long = _long(facts, device, why)
    crop = _crop(facts, device, long, why)
    channels = 32 if device.gpu or device.cores >= 8 else 16
    model = _model(facts, device, long, channels, why)
    batch, iters = _schedule(facts, device, crop, (model, channels), why)
    weights = _weights(facts, why)
    longest = long or int(facts.sizes.max())
    return Recipe(long, crop, channels, batch, iters, weights, longest > 2048, why, model)


def _long(facts: Facts, device: Device, why: dict[str, str]) -> int:
    """What photos are shrunk to: as far as the device asks for it and small classes allow it."""
    sides = facts.sizes.max(axis=1)
    typical, longest = int(np.median(sides)), int(sides.max())
    most = 1024 if device.gpu else 320
    parts = facts.objects[1:][facts.present[1:] > 0]
    area = float(np.median(facts.sizes.prod(axis=1)))
    small = float(parts.min()) if len(parts) else 1.0
    for_area = typical * np.sqrt(SMALL / max(small * area, 1e-9))
    thinnest = _thinnest(facts)
    for_thin = THIN / thinnest[0] if thinnest else 0.0
    needed = int(np.ceil(min(max(for_area, for_thin), 1e6) / 32)) * 32
    long = max(most, min(needed, 2048))
    thin = ""
    if thinnest and for_thin > max(for_area, most):
        thin = f"'{thinnest[1]}' is typically {thinnest[0] * typical:.0f} pixels thick"
    if longest <= long * 1.25:
        why["size"] = f"photos are {typical} pixels long, which this device takes as they are"
        if thin and longest > most * 1.25:
            why["size"] = f"photos are {typical} pixels long; {thin}, and shrinking would make it vanish"
        return 0
    why["size"] = f"photos are {typical} pixels long (median; longest {longest}); shrunk to {long} " + (
        f"and no further, as {thin}"
        if thin
        else f"and no further, so that the smallest class (typically {small:.2%} of a photo) keeps its shape"
        if needed > most
        else "to be quick, which the classes are large enough for"
    )
    return long


def _thinnest(facts: Facts) -> Optional[tuple[float, str]]:
    """Thickness of the thinnest class, as a share of the long side, and its name; None where it is not known."""
    if facts.thickness is None or np.isnan(facts.thickness).all():
        return None
    number = int(np.nanargmin(facts.thickness))
    return float(facts.thickness[number]), facts.class_names[number]


def _model(facts: Facts, device: Device, long: int, channels: int, why: dict[str, str]) -> str:
    """A fast model for large photos of thick objects where there are enough of them, else a U-Net."""
    side = long or int(np.median(facts.sizes.max(axis=1)))
    train, original = facts.photos["train"], int(np.median(facts.sizes.max(axis=1)))
    thinnest = _thinnest(facts)
    if train < ENOUGH:
        reason = "learns from few photos and needs no pretrained weights"
    elif original < LARGE:
        reason = "photos are small, so that it is fast enough, and it needs no pretrained weights"
    elif thinnest is None or thinnest[0] * side < COARSE:
        thin = f"'{thinnest[1]}' is about {thinnest[0] * side:.0f} pixels thick" if thinnest else "objects may be thin"
        reason = f"{thin}, and it decides at full resolution; needs no pretrained weights"
    else:
        model = "PPLiteSeg" if device.gpu else "BiSeNetV2"
        name = "PP-LiteSeg on STDC1" if device.gpu else "BiSeNetV2"
        why["model"] = (
            f"{name}: fast on large photos. Their objects are thick enough for its coarse grid, and {train} photos "
            "are enough to train it from scratch. The surer choice: UNet, with loss coef [1]"
        )
        return model
    why["model"] = f"U-Net of {channels} channels: {reason}" + (
        "" if channels == 32 else "; 16 channels because this machine has few CPU cores. More: 32 or 64"
    )
    return "UNet"


def _crop(facts: Facts, device: Device, long: int, why: dict[str, str]) -> tuple[int, int]:
    """Width and height, multiples of 32: most of a typical photo as far as the device can take it."""
    height, width = np.median(facts.sizes, axis=0)
    scale = long / max(height, width) if long else 1.0
    most = 512 if device.gpu else 256
    crop = tuple(int(np.clip(side * scale // 32 * 32, 64, most)) for side in (width, height))
    share = min(1.0, crop[0] * crop[1] / (height * width * scale**2))
    what = "most of a photo" if share > 0.5 else f"a window of {share:.0%} of a photo"
    why["crop"] = f"{what}, in multiples of 32, at most {most} on this device"
    return crop


def _schedule(
    facts: Facts, device: Device, crop: tuple[int, int], model: tuple[str, int], why: dict[str, str]
) -> tuple[int, int]:
    """Photos an iteration, and iterations, of a model of this name and (U-Net) width."""
    name, channels = model
    train = max(facts.photos["train"], 1)
    megapixels = crop[0] * crop[1] / 1e6
    if device.gpu:
        each = GPU_BYTES * channels / 32 + 16 * len(facts.class_names) * (OUTPUTS[name] - 1)
        fits = int(device.memory_gb * 0.6 * 2**30 / (crop[0] * crop[1] * each))
        batch = int(np.clip(fits, 1 if name == "UNet" else 2, 16))  # pooled maps of one photo have no variance
        iters = int(np.clip(train * 100 / batch, 3000, 80000))
        why["batch"] = f"fits {device.memory_gb:.0f} GB with room to spare"
        why["iters"] = f"{iters * batch / train:.0f} passes over {_photos(train)}"
        return batch, iters
    batch = 8 if train >= 64 and megapixels <= 0.04 else 4
    cost = (channels / 16) ** 1.8 if name == "UNet" else FAST_COST
    second = CORE_SECONDS[device.avx512] / device.cores * megapixels * batch * cost
    fits = int(CPU_MINUTES * 60 / second / 50) * 50
    enough = max(600, int(train * 250 / batch / 50) * 50)
    iters = int(np.clip(min(fits, enough), 200, 20000))
    why["batch"] = "small batches learn fast from few photos" if batch == 4 else "small crops: 8 steady the statistics"
    why["iters"] = (
        f"about {_minutes(iters * second)} of training on {device.cores} CPU cores, evaluations on top; "
        f"{iters * batch / train:.0f} passes over {_photos(train)}"
        + ("; more iterations would still help" if fits < enough else "")
    )
    return batch, iters


def _minutes(seconds: float) -> str:
    minutes = max(1, round(seconds / 60))
    return f"{minutes} minute{'s' * (minutes != 1)}"


def _photos(count: int) -> str:
    return f"{count} photo{'s' * (count != 1)}"


def _weights(facts: Facts, why: dict[str, str]) -> list[float]:
    """Class weights where a class is rare: the root of median frequency balancing (Eigen and Fergus,
    https://arxiv.org/abs/1411.4734), which moves precision less than the full weights do."""
    shares = facts.shares
    there = shares > 0
    rare = float(shares[there].min()) if there.any() else 1.0
    if rare >= RARE:
        why["loss"] = f"the rarest class has {rare:.1%} of the pixels: no class weights. Dice minds small areas"
        return []
    weights = np.ones(len(shares))
    weights[there] = np.sqrt(np.median(shares[there]) / shares[there])
    weights = np.clip(weights / np.median(weights[there]), 1 / MOST_WEIGHT, MOST_WEIGHT)
    name = facts.class_names[int(np.where(there, shares, 2).argmin())]
    why["loss"] = f"'{name}' has {rare:.2%} of the pixels, so rare classes weigh more. Dice minds small areas"
    return [round(float(weight), 2) for weight in weights]


def write_config(config: Path, facts: Facts, recipe: Recipe, below: Optional[Path] = None) -> None:
    """Write the config that will lie at `config` (for now into the folder `below`). It names its data by the path from
    the folder above its own, which is found from the working directory and from the config's place, so that both can
    be moved together; data elsewhere by their absolute path."""
    try:
        root = facts.root.absolute().relative_to(config.absolute().parent.parent).as_posix()
    except ValueError:
        root = str(facts.root.absolute())
    path = config if below is None else below / config.name
    write_bytes_atomic(path, config_text(facts, recipe, root).encode("utf-8"))


def config_text(facts: Facts, recipe: Recipe, root: str) -> str:
    """The YAML file. `root` is how it names the data set's folder."""
    why = recipe.why
    shares = ", ".join(f"{name} {share:.1%}" for name, share in zip(facts.class_names, facts.shares))
    parts = ", ".join(f"{part} {count}" for part, count in facts.photos.items() if count)
    dataset = _dataset(facts, root)
    lines = [
        "# Chosen by segkit for these data and this machine. Train: segkit train <this file> --do_eval",
        f"# Photos: {parts}. Pixels of the train part: {shares}.",
        *([] if recipe.long else [f"# No resizing: {why['size']}."]),
        f"batch_size: {recipe.batch}  # {why['batch']}",
        f"iters: {recipe.iters}  # {why['iters']}",
        "train_dataset:",
        *(f"  {line}" for line in [*dataset, "mode: train", "transforms:", *_train(facts, recipe)]),
        "val_dataset:",
        *(f"  {line}" for line in [*dataset, "mode: val", "transforms:", *_resize(recipe), _normalize(facts)]),
        f"# {why['model']}.",
        "model:",
        f"  type: {recipe.model}",
        *([f"  base_channels: {recipe.channels}"] if recipe.model == "UNet" else []),
        *([f"  in_channels: {facts.img_channels}"] if facts.img_channels != 3 else []),
        "optimizer: {type: AdamW, weight_decay: 0.01}  # trains from scratch in few iterations",
        "lr_scheduler:  # falls to 0 at the end",
        "  type: PolynomialDecay",
        f"  learning_rate: {0.003 if recipe.model == 'UNet' else 0.001}",
        "  power: 0.9",
        "  end_lr: 0",
        "  warmup_iters: 50",
        *_loss(recipe),
    ]
    if recipe.slide:
        lines += [
            "# Photos are large: they are evaluated and predicted window by window.",
            "test_config: {is_slide: true, crop_size: [1024, 1024], stride: [768, 768]}",
        ]
    return "\n".join([*lines, ""])


def _dataset(facts: Facts, root: str) -> list[str]:
    names = ", ".join(_quoted(name) for name in facts.class_names)
    return [
        "type: Dataset",
        f"dataset_root: {_quoted(root)}",
        f"num_classes: {len(facts.class_names)}",
        f"class_names: [{names}]",
        *([f"img_channels: {facts.img_channels}"] if facts.img_channels != 3 else []),
        *([f"nodata: {facts.nodata:g}"] if facts.nodata is not None else []),
        *([f"palette: {facts.palette}"] if facts.palette else []),
    ]


def _train(facts: Facts, recipe: Recipe) -> list[str]:
    """Transforms of the train part."""
    few = facts.photos["train"] < FEW
    low, high = (0.7, 1.5) if few else (0.75, 1.25)
    return [
        *([f"  # {recipe.why['size']}", *_resize(recipe)] if recipe.long else []),
        f"  - {{type: ResizeStepScaling, min_scale_factor: {low}, max_scale_factor: {high}, scale_step_size: 0}}",
        *(["  - {type: RandomRotation, max_rotation: 10}  # few photos: more variety"] if few else []),
        f"  # width, height: {recipe.why['crop']}",
        f"  - {{type: RandomPaddingCrop, crop_size: {list(recipe.crop)}}}",
        "  - {type: RandomHorizontalFlip}  # add RandomVerticalFlip where up and down look alike",
        *([f"  - {{{_DISTORT}}}"] if facts.mean is None else []),
        _normalize(facts),
    ]


def _resize(recipe: Recipe) -> list[str]:
    return [f"  - {{type: ResizeByLong, long_size: {recipe.long}}}"] if recipe.long else []


def _normalize(facts: Facts) -> str:
    if facts.mean is None:
        return "  - {type: Normalize}"
    return f"  - {{type: Normalize, mean: {facts.mean}, std: {facts.std}}}  # of each band, over 255"


def _loss(recipe: Recipe) -> list[str]:
    weight = f", weight: {recipe.weights}" if recipe.weights else ""
    outputs = OUTPUTS[recipe.model]
    several = (
        f"# {recipe.model} has {outputs} scores in training, the main one and {outputs - 1} helpers: a coef for each."
    )
    return [
        f"# {recipe.why['loss']}.",
        *([several] if outputs > 1 else []),
        "loss:",
        "  types:",
        "    - type: MixedLoss",
        f"      losses: [{{type: CrossEntropyLoss{weight}}}, {{type: DiceLoss}}]",
        "      coef: [1, 0.5]",
        f"  coef: {[1] * outputs}",
    ]


def _quoted(text: str) -> str:
    """A YAML string."""
    return json.dumps(text, ensure_ascii=False)
