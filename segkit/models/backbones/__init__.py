"""Backbones: one file per family. [N, C, H, W] -> a list of maps, the finest first, of `feat_channels` channels."""
