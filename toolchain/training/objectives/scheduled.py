"""Objectives with one optimizer and one course of its rate: AdamW, warm-up, half a cosine."""

from __future__ import annotations

import math
from typing import Any, ClassVar

from torch import nn
from torch.optim import AdamW

from vitc.errors import VitcError
from vitc.training.objectives.objective import Objective, Result

__all__ = ["Scheduled"]


class Scheduled(Objective[Result]):
    """What is learnt by AdamW, whose rate rises and then falls to 0 by half a cosine.

    Attributes:
        options: Of the run, with `learning_rate`, `warmup_epochs` and `weight_decay`.
    """

    options: Any
    betas: ClassVar[tuple[float, float]] = (0.9, 0.999)
    decayed: ClassVar[tuple[int, ...]] = (2,)
    """Axes of the parameters that decay; all others do not."""

    def optimizer(self) -> AdamW:
        """AdamW; matrices decay."""
        groups: dict[tuple[bool, float], list[nn.Parameter]] = {}
        for name, parameter in self.model.named_parameters():
            if parameter.requires_grad:
                key = (parameter.ndim in self.decayed, self.rate_share(name))
                groups.setdefault(key, []).append(parameter)
        return AdamW(
            [
                {
                    "params": groups[decays, share],
                    "weight_decay": self.options.weight_decay if decays else 0.0,
                    "lr": share * self.options.learning_rate,
                }
                for decays, share in sorted(groups, reverse=True)
            ],
            betas=self.betas,
        )

    def rate_share(self, name: str) -> float:  # noqa: ARG002
        """Which share of the learning rate a parameter has."""
        return 1.0

    def warmup(self, steps: int, total: int) -> float:  # noqa: ARG002
        """Steps of the rise in a stage of `total`, `steps` an epoch: its share of the run's."""
        return float(self.options.warmup_epochs * total / self.options.epochs)

    def rate(self, step: int, steps: int, total: int) -> float:
        """Warm-up, and half a cosine to 0."""
        warmup = self.warmup(steps, total)
        rise = min(1.0, (step + 1) / warmup) if warmup else 1.0
        return rise * 0.5 * (1 + math.cos(math.pi * min(1.0, step / total)))

    def diverged(self, epoch: int) -> VitcError:
        """Say which learning rate is to be lowered."""
        return VitcError(
            f"The loss stopped being finite in epoch {epoch}.",
            f"Lower the learning rate, which is {self.options.learning_rate}.",
        )
