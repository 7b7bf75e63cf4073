"""Ranks of a distributed run, read from the launcher's environment so that asking needs no paddle."""

from __future__ import annotations

import os


def rank() -> int:
    """Number of this process among all (0 without a launcher)."""
    return int(os.environ.get("PADDLE_TRAINER_ID", 0))


def world_size() -> int:
    """How many processes work together (1 without a launcher)."""
    return int(os.environ.get("PADDLE_TRAINERS_NUM", 1))


def local_ranks() -> int:
    """How many of them share this machine."""
    return int(os.environ.get("PADDLE_LOCAL_SIZE", 0)) or world_size()


def is_main() -> bool:
    """Whether this process writes the files and prints."""
    return rank() == 0
