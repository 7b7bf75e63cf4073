"""The order of training samples: a function of the seed and the epoch."""

from __future__ import annotations

from typing import Iterator, List, Tuple, Union

import numpy as np

from segkit import dist
from segkit.errors import InputError
from segkit.log import warn_once

Position = Tuple[int, int]
"""(epoch, batch within the epoch) or, of a sample, (epoch, number within the epoch); all from 0."""

_ORDER_STREAM = 2**32 - 1  # no sample has this number: keeps the order's generator apart from the samples'


class EpochSampler:
    """Keys of this rank's batches, epoch after epoch without end: lists of (epoch, number).

    The order of an epoch is a function of (seed, epoch). The global batch is cut into one run of `batch_size` keys
    per rank, so that two ranks together read what one rank with twice the batch size reads. Samples that do not
    fill a global batch are left out in that epoch. Number n stands for sample n % length: with `repeats`, or where
    the data set is smaller than the global batch, a sample comes several times an epoch, each time with its own
    augmentation.
    """

    def __init__(self, length: int, batch_size: int, seed: int = 42, repeats: int = 1, start: Union[int, Position] = 0):
        if length < 1:
            raise InputError("data set: no sample (got 0, expected at least 1). Check the list file or the folder.")
        for name, value in (("batch_size", batch_size), ("repeats", repeats)):
            if value < 1:
                raise InputError(f"{name}: too small (got {value}, expected at least 1). Set {name} to 1 or more.")
        self.length = length
        self.batch_size = batch_size
        self.seed = seed
        self.count = length * repeats
        world = dist.world_size()
        self.global_batch = batch_size * world
        if self.count < self.global_batch:
            each = f" ({batch_size} on each of {world} processes)" if world > 1 else ""
            warn_once(
                f"batch_size: a batch of {self.global_batch}{each} is larger than the data set of {self.count} samples:"
                f" samples are repeated within a batch. Set --batch_size to at most {max(1, self.count // world)} to "
                "avoid that."
            )
        self.batches_per_epoch = max(1, self.count // self.global_batch)
        start = divmod(start, self.batches_per_epoch) if isinstance(start, int) else (int(start[0]), int(start[1]))
        self.start = start if start[1] < self.batches_per_epoch else (start[0] + 1, 0)

    def order(self, epoch: int) -> np.ndarray:
        """The numbers of all samples in that epoch's order, enough for at least one global batch."""
        generator = np.random.default_rng([self.seed, epoch, _ORDER_STREAM])
        order = generator.permutation(self.count)
        if self.count < self.global_batch:
            rounds = -(-self.global_batch // self.count)
            order = np.concatenate([order + i * self.count for i in range(rounds)])
        return order

    def following(self, position: Position) -> Position:
        """The position after `position`."""
        epoch, batch = position
        return (epoch, batch + 1) if batch + 1 < self.batches_per_epoch else (epoch + 1, 0)

    def __iter__(self) -> Iterator[List[Position]]:
        epoch, batch = self.start
        while True:
            order = self.order(epoch)
            for number in range(batch, self.batches_per_epoch):
                first = number * self.global_batch + dist.rank() * self.batch_size
                yield [(epoch, int(n)) for n in order[first : first + self.batch_size]]
            epoch, batch = epoch + 1, 0

    def __len__(self) -> int:
        """Batches of an epoch (Paddle's DataLoader asks; the iteration itself does not end)."""
        return self.batches_per_epoch
