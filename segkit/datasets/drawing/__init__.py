"""Draws pictures of doves with exact labels: numpy and OpenCV only."""

from segkit.datasets.drawing.photo import draw_photo

__all__ = ["draw_photo"]
