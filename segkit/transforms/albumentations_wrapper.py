"""A door to the augmentations of the albumentations library (optional extra `segkit[albumentations]`)."""

from __future__ import annotations

import inspect
import os
from typing import Any

import numpy as np

from segkit.errors import InputError
from segkit.registry import TRANSFORMS, nearest
from segkit.transforms import base
from segkit.transforms.base import Sample

_INSTALL = "pip install 'albumentations>=2' (the extra albumentations)"


def _library() -> Any:
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # importing it would ask the network for a newer version
    try:
        import albumentations
    except ImportError as error:
        raise InputError(f"Albumentations: the library cannot be loaded ({error}). Install it: {_INSTALL}") from error
    return albumentations


@TRANSFORMS.register
class Albumentations:
    """Augmentations of the albumentations library, written as in a config:

    `transforms: [{type: HorizontalFlip, p: 0.5}, {type: OneOf, transforms: [...]}]`, names and arguments being
    that library's. Labels follow by nearest neighbour and are padded with `label_padding_value` where the user gives
    no `fill_mask`. Random by the sample's generator alone. What it does to the geometry cannot be undone: for
    training only.
    """

    raw_arguments = ("transforms",)  # nodes of another library: not to be built or checked by segkit's registry

    def __init__(self, transforms: list[dict], label_padding_value: int = 255):
        base.require(isinstance(transforms, (list, tuple)), self, "transforms", transforms, "a list of {type: ...}")
        base.check_padding(self, 0, label_padding_value)
        self.label_value = label_padding_value
        library = _library()
        self._chain = library.Compose(
            [self._build(library, node) for node in transforms],
            additional_targets=dict.fromkeys(base.LABEL_KEYS, "mask"),
        )
        if not hasattr(self._chain, "set_random_seed"):
            raise InputError(
                f"Albumentations: version {library.__version__} cannot be seeded (expected 2.0 or newer). {_INSTALL}"
            )

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        labels = {key: sample[key] for key in base.LABEL_KEYS if sample.get(key) is not None}
        self._chain.set_random_seed(int(rng.integers(2**32)))
        out = self._chain(image=np.ascontiguousarray(sample["image"]), **labels)
        image = out["image"] if out["image"].ndim == 3 else out["image"][..., None]
        before = base.size_of(sample)
        sample["image"] = image
        sample.update({key: out[key] for key in labels})
        base.record(sample, {"op": "warp", "from": list(before), "to": list(image.shape[:2])})
        return sample

    def _build(self, library: Any, node: Any) -> Any:
        """One augmentation of a node {type, arguments}, those inside it (OneOf, SomeOf, ...) first."""
        if not isinstance(node, dict) or not isinstance(node.get("type"), str):
            base.require(False, self, "transforms", node, "{type: <name>, <argument>: ...}")
        arguments = {key: value for key, value in node.items() if key != "type"}
        cls = getattr(library, node["type"], None)
        if not inspect.isclass(cls):
            known = [name for name in dir(library) if inspect.isclass(getattr(library, name))]
            raise InputError(f"Albumentations: no such augmentation '{node['type']}'.{nearest(node['type'], known)}")
        takes = inspect.signature(cls.__init__).parameters
        unknown = sorted(set(arguments) - set(takes))
        if unknown:
            hints = "".join(nearest(name, list(takes)[1:]) for name in unknown)
            raise InputError(f"Albumentations: {node['type']} takes no {', '.join(unknown)}.{hints}")
        if "transforms" in arguments:
            arguments["transforms"] = [self._build(library, child) for child in arguments["transforms"]]
        if "fill_mask" in takes:
            arguments.setdefault("fill_mask", self.label_value)
        try:
            return cls(**arguments)
        except (TypeError, ValueError) as error:
            raise InputError(f"Albumentations: {node['type']} refuses its arguments: {error}") from error
