"""What is random in an epoch: the order of its images, and a generator for the rest.

Both follow from the seed and the epoch's number alone, so a resumed run needs no generator's state
and repeats an uninterrupted one bit for bit.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch.utils.data import Sampler

__all__ = ["EpochBatches", "generator"]


class EpochBatches(Sampler[list[int]]):
    """Batches of indices, every index once, in an order that depends on seed and epoch only.

    Args:
        count: Of images.
        batch_size: Of a step.
        seed: Of the run.

    Attributes:
        epoch: Which epoch's batches an iteration gives, counted from 0.
    """

    def __init__(self, count: int, batch_size: int, seed: int) -> None:
        self.count = count
        self.batch_size = batch_size
        self.drop_last = False
        self.seed = seed
        self.epoch = 0

    def __len__(self) -> int:
        return math.ceil(self.count / self.batch_size)

    def __iter__(self) -> Iterator[list[int]]:
        order = torch.randperm(self.count, generator=generator(self.seed, self.epoch, 0))
        for start in range(0, self.count, self.batch_size):
            yield order[start : start + self.batch_size].tolist()


def generator(seed: int, epoch: int, stream: int) -> torch.Generator:
    """A source of random numbers of an epoch; streams (below 64) are independent."""
    return torch.Generator().manual_seed(((seed * 100_003 + epoch) * 64 + stream) % (1 << 63))
