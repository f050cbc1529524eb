"""A linear classifier on frozen features.

The features' mean and spread over channels are taken out, then those of each channel over a batch
(batch norm without affine), as in the linear probes of MAE and DMJD. LARS, which they use with
thousands of images a step, moves weights by a thousandth of their length at most; with the few
steps of small data that does not arrive, so steps are those of SGD with momentum.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vitc.errors import VitcError
from vitc.training.dmjd.schedule import warm_cosine

__all__ = ["LinearHead", "Schedule", "fit", "normalised"]

_EPS: Final = 1e-6
_STD: Final = 0.01
_MOMENTUM: Final = 0.9
_UNIT: Final = 256
_WARMUP: Final = 1 / 9
"""Of the epochs: 10 of 90."""


def normalised(features: Tensor) -> Tensor:
    """A layer norm over channels without gain and shift; features are [.., C]."""
    return F.layer_norm(features, features.shape[-1:], eps=_EPS)


class LinearHead(nn.Module):
    """Batch norm without affine, then a linear; it learns alone.

    Args:
        width: C, channels of the features.
        classes: Number of classes.
        generator: Source of its first weights.
    """

    def __init__(self, width: int, classes: int, generator: torch.Generator) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(width, eps=_EPS, affine=False)
        self.linear = nn.Linear(width, classes)
        nn.init.normal_(self.linear.weight, std=_STD, generator=generator)
        nn.init.zeros_(self.linear.bias)

    def forward(self, features: Tensor) -> Tensor:
        """Normalised features [.., C] to logits [.., classes]."""
        flat = self.norm(features.reshape(-1, features.shape[-1]))
        logits: Tensor = self.linear(flat)
        return torch.unflatten(logits, 0, features.shape[:-1])


class Schedule:
    """Passes over examples in orders of their own, with a rise and a half cosine of the rate.

    Args:
        epochs: Passes.
        batch_size: Examples a step; a last step of fewer is left out.
        learning_rate: Largest, for 256 examples a step.
    """

    def __init__(self, epochs: int, batch_size: int, learning_rate: float) -> None:
        self.epochs = epochs
        self.batch_size = batch_size
        self.learning_rate = learning_rate

    def run(
        self,
        head: LinearHead,
        count: int,
        loss: Callable[[Tensor], Tensor],
        generator: torch.Generator,
        done: Callable[[int, float], None],
    ) -> None:
        """Train a head.

        Args:
            head: What learns.
            count: Of the examples.
            loss: Of the examples of these indices.
            generator: Source of the orders.
            done: Told after each epoch its number and mean loss.

        Raises:
            VitcError: If the loss stops being finite.
        """
        batch = min(self.batch_size, count)
        steps = count // batch
        rate = self.learning_rate * batch / _UNIT
        optimizer = torch.optim.SGD(head.parameters(), lr=rate, momentum=_MOMENTUM)
        head.train()
        for epoch in range(self.epochs):
            order = torch.randperm(count, generator=generator)
            total = 0.0
            for step in range(steps):
                optimizer.param_groups[0]["lr"] = warm_cosine(
                    rate,
                    epoch + (step + 1) / steps,
                    epochs=self.epochs,
                    warmup=_WARMUP * self.epochs,
                )
                current = loss(order[step * batch : (step + 1) * batch])
                optimizer.zero_grad()
                current.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
                total += float(current.detach())
            if not total < float("inf"):
                raise VitcError(
                    f"The loss of the probe stopped being finite in epoch {epoch + 1}.",
                    f"Lower the learning rate, which is {self.learning_rate}.",
                )
            done(epoch + 1, total / steps)
        head.eval()


def fit(
    features: Tensor,
    targets: Tensor,
    classes: int,
    schedule: Schedule,
    *,
    seed: int,
    done: Callable[[int, float], None] = lambda *_: None,
) -> LinearHead:
    """Train a linear classifier.

    Args:
        features: `normalised`, [images, C].
        targets: int64 [images].
        classes: Number of classes.
        schedule: How.
        seed: Of weights and orders.
        done: Told after each epoch its number and mean loss.

    Returns:
        The classifier in eval mode.
    """
    generator = torch.Generator().manual_seed(seed)
    head = LinearHead(features.shape[-1], classes, generator)

    def loss(chosen: Tensor) -> Tensor:
        return F.cross_entropy(head(features[chosen]), targets[chosen])

    schedule.run(head, len(features), loss, generator, done)
    return head
