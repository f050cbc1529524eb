"""What is random in an epoch: the order of its images, and a generator for the rest.

Both follow from the seed and the epoch's number alone, so a resumed run needs no generator's state
and repeats an uninterrupted one bit for bit.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch.utils.data import Sampler

__all__ = ["EpochBatches", "Share", "generator"]


@dataclass(frozen=True)
class Share:
    """Which examples of a step's batch a process has; one process has all.

    What is random of each example is drawn for `total` of them, of which `rows` are taken: so it is
    the same however many processes there are.

    Attributes:
        begin: Place of its first in the batch.
        end: Place behind its last.
        total: Of the batch.
    """

    begin: int
    end: int
    total: int

    @classmethod
    def whole(cls, total: int) -> Share:
        """All of a batch."""
        return cls(0, total, total)

    @property
    def rows(self) -> slice:
        """Its places in the batch."""
        return slice(self.begin, self.end)


class EpochBatches(Sampler[list[int]]):
    """Batches of indices, every index once, in an order that depends on seed and epoch only.

    Args:
        count: Of images.
        batch_size: Of a step.
        seed: Of the run.
        process: Which process this is; it is given its share of each batch.
        processes: Of how many.

    Attributes:
        epoch: Which epoch's batches an iteration gives, counted from 0.
    """

    def __init__(
        self, count: int, batch_size: int, seed: int, process: int = 0, processes: int = 1
    ) -> None:
        self.count = count
        self.batch_size = batch_size
        self.drop_last = False
        self.seed = seed
        self.process = process
        self.processes = processes
        self.epoch = 0

    def __len__(self) -> int:
        return math.ceil(self.count / self.batch_size)

    def __iter__(self) -> Iterator[list[int]]:
        order = torch.randperm(self.count, generator=generator(self.seed, self.epoch, 0))
        for step, batch in enumerate(torch.split(order, self.batch_size)):
            yield batch[self.share(step).rows].tolist()

    def share(self, step: int) -> Share:
        """What this process has of a step's batch: a run of it that begins at an even place."""
        total = min(self.batch_size, self.count - step * self.batch_size)
        most = 2 * math.ceil(math.ceil(total / 2) / self.processes)
        begin, end = (min(most * process, total) for process in (self.process, self.process + 1))
        return Share(begin, end, total)


def generator(seed: int, epoch: int, stream: int) -> torch.Generator:
    """A source of random numbers of an epoch; streams (below 64) are independent."""
    return torch.Generator().manual_seed(((seed * 100_003 + epoch) * 64 + stream) % (1 << 63))
