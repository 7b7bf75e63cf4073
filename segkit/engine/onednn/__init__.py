"""Convolutions and what stands between them on the CPU by oneDNN, which every Paddle wheel for Linux brings.

Paddle's own CPU kernels unfold the image and multiply matrices; oneDNN's are two to five times faster.
"""

from __future__ import annotations

from segkit.engine.onednn.context import convolutions
from segkit.engine.onednn.functional import counts

__all__ = ["convolutions", "counts"]
