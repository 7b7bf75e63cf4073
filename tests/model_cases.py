"""Small models of every kind, and noise to feed them."""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import paddle
import pytest

from segkit.build import build
from segkit.registry import BACKBONES, MODELS, Registry
from tests.tiny_backbone import TinyBackbone

NAMES = [name for name in MODELS.names() if MODELS.get(name).__module__.startswith("segkit.")]  # not other tests' own
TINY_VIT = {"type": "VisionTransformer", "img_size": 32, "embed_dim": 16, "depth": 2, "num_heads": 2}
TINY_CAE = {**TINY_VIT, "type": "CAE", "qkv_bias": True, "init_values": 0.1, "use_rel_pos_bias": True}
TINY_ADAPTER = {
    "type": "ViTAdapter", "pretrain_size": 32, "embed_dim": 16, "depth": 4, "num_heads": 2, "conv_inplane": 4,
    "deform_num_heads": 2, "n_points": 2, "init_values": 0.5, "interaction_indexes": [[0, 0], [1, 1], [2, 2], [3, 3]],
}  # fmt: skip

# What makes a model small: tests are about what it does, not about how much. Nodes as in a config; a model that is
# not here has its defaults, `TinyBackbone` in the place of its backbone.
SMALL: dict[str, dict] = {
    "ANN": {"key_value_channels": 8, "inter_channels": 16},
    "AttentionUNet": {"base_channels": 4},
    "DDRNet_23": {"base_channels": 8, "enable_auxiliary_loss": True},
    "DMNet": {"mid_channels": 8},
    "DecoupledSegNet": {"aspp_out_channels": 16},
    "DoveNet": {"base_channels": 4},
    "EMANet": {"ema_channels": 16, "gc_channels": 8, "num_bases": 4},
    "ENCNet": {"mid_channels": 16, "num_codes": 4, "add_lateral": True},
    "EfficientFormerSeg": {"backbone": {"type": "EfficientFormerv2_s0", "resolution": 64}, "head_channels": 8},
    "FastFCN": {"mid_channels": 16, "num_codes": 4, "add_lateral": True},
    "GCNet": {"gc_channels": 16},
    "GINet": {"jpu": False},
    "GSCNN": {"aspp_out_channels": 16},
    "GloRe": {"gru_channels": 16, "gru_num_state": 8, "gru_num_node": 4},
    "HRNetW48Contrast": {"proj_dim": 8, "backbone": {"type": "HRNet_W18_Small_V1"}},
    "ISANet": {"isa_channels": 8},
    "KNet": {"channels": 256, "enable_auxiliary_loss": True},
    "HarDNet": {"stem_channels": [4, 4, 8, 8], "ch_list": [8, 8, 16], "gr": [4, 4, 4], "n_layers": [4, 4, 8]},
    "LPSNet": {"depths": [1, 1, 1, 1, 2], "channels": [4, 4, 8, 8, 8]},
    "LRASPP": {"backbone": {"type": "MobileNetV3_small_x0_35"}},
    "LinearSegmenter": {"backbone": TINY_VIT},
    "MLATransformer": {"mlahead_channels": 8, "aux_channels": 8},
    "MaskFormer": {"decoder_layers": 2},
    "MaskSegmenter": {"backbone": TINY_VIT, "h_embed_dim": 8, "h_num_heads": 2},
    "MobileSeg": {"backbone": {"type": "MobileNetV3_small_x0_35"}},
    "MscaleOCRNet": {"backbone_indices": [-1]},
    "OCRNet": {"backbone_indices": [-1], "ocr_mid_channels": 16, "ocr_key_channels": 8},
    "PFPNNet": {"channels": 16},
    "PIDNet": {"backbone": {"type": "PIDNet_Small", "base_channels": 8}, "head_channels": 16},
    "PPLiteSeg": {"backbone": {"type": "STDC1", "base_channels": 8}, "arm_out_chs": [8]},
    "PPMobileSeg": {"backbone": {"type": "MobileSeg_Tiny"}},
    "PSPNet": {"pp_out_channels": 32},
    "PointRend": {"fpn_outplanes": 16, "point_out_channels": 16, "point_num_points": 8, "PFN_channels": 8},
    "PortraitNet": {"backbone": {"type": "MobileNetV2_x0_25"}},
    "RTFormer": {"base_channels": 8, "head_channels": 8, "spp_channels": 8, "cross_size": 4},
    "STDCSeg": {
        "backbone": {"type": "STDC1", "base_channels": 8},
        **{f"use_boundary_{scale}": True for scale in (2, 4, 16)},  # weights hold these heads, used or not
    },
    "SeaFormerSeg": {"backbone": {"type": "SeaFormer_tiny"}, "head_channels": 8, "embed_dims": [8, 8]},
    "SegFormer": {"embedding_dim": 32},
    "STFPM": {"backbone": {"type": "ResNet18"}},
    "SegNeXt": {
        "decoder_cfg": {"channels": 16, "ham_channels": 16, "num_groups": 4, "ham_kwargs": {"MD_R": 4}},
    },
    "SegNet": {"base_channels": 4},
    "SegmentationTransformer": {"backbone": TINY_VIT, "backbone_indices": [0, 1]},
    "TopFormer": {"backbone": {"type": "TopTransformer_Tiny"}},
    "U2Net": {"base_channels": 8},
    "U2Netp": {"base_channels": 8},
    "UNet": {"base_channels": 4},
    "UNet3Plus": {"base_channels": 4},
    "UNetPlusPlus": {"base_channels": 4},
    "UPerNet": {"channels": 16},
    "UPerNetCAE": {"channels": 16, "fpn_channels": 16, "backbone_indices": [0, 0, 1, 1], "backbone": TINY_CAE},
    "UPerNetViTAdapter": {"channels": 16, "aux_channels": 8, "backbone": TINY_ADAPTER},
}
SINGLE = {"STFPM"}  # can have one output channel alone


def channels(name: str) -> int:
    """Output channels of what `make` gives."""
    return 1 if name in SINGLE else 3


def make(name: str, num_classes: int | None = None, in_channels: int = 3, **arguments) -> paddle.nn.Layer:
    """A small model of that name, made as from a config."""
    num_classes = channels(name) if num_classes is None else num_classes
    node = {"type": name, **SMALL.get(name, {}), **arguments}
    if "backbone" in inspect.signature(MODELS.get(name)).parameters:
        node.setdefault("backbone", {"type": TinyBackbone.__name__})
    paddle.seed(0)
    return build(MODELS, node, num_classes=num_classes, in_channels=in_channels)


def noise(*shape: int) -> paddle.Tensor:
    return paddle.to_tensor(np.random.RandomState(0).standard_normal(shape).astype("float32"))


@contextmanager
def backbones_once(made: dict[str, Any]) -> Iterator[None]:
    """Building takes longest with backbones, and most are those of several configs: inside, a node is built once.

    Models then share layers: for tests that look at shapes alone. `made`: those of earlier blocks, by their nodes.
    """

    def once(registry: Registry, node: dict[str, Any], **defaults: Any) -> Any:
        if registry is not BACKBONES:
            return build(registry, node, **defaults)
        key = json.dumps([node, defaults], sort_keys=True)
        if key not in made:
            made[key] = build(registry, node, **defaults)
        return made[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("segkit.build.build", once)
        yield
