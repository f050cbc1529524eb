"""LARS: a step in proportion to each matrix's own size (You et al., arXiv 1708.03888)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

__all__ = ["LARS"]


class LARS(Optimizer):
    """Momentum whose steps on matrices are scaled by ``trust * |weight| / |gradient|``.

    Vectors (biases, norms) take plain steps without decay, as in the linear probes of MoCo and MAE.

    Args:
        params: To be learnt.
        lr: Learning rate.
        weight_decay: Of matrices.
        momentum: Share of the last step that is kept.
        trust: Length of a step by the length of the weight.
    """

    def __init__(
        self,
        params: Iterable[nn.Parameter],
        lr: float,
        *,
        weight_decay: float = 0.0,
        momentum: float = 0.9,
        trust: float = 0.001,
    ) -> None:
        stated = {"lr": lr, "weight_decay": weight_decay, "momentum": momentum, "trust": trust}
        super().__init__(params, stated)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """One step; see `torch.optim.Optimizer.step`."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._move(parameter, group)
        return loss

    def _move(self, parameter: nn.Parameter, group: dict[str, Any]) -> None:
        step = parameter.grad
        assert step is not None  # noqa: S101 - it was looked at
        if parameter.ndim > 1:
            step = step + group["weight_decay"] * parameter
            size, length = parameter.norm(), step.norm()
            if size > 0 and length > 0:
                step = step * (group["trust"] * size / length)
        state = self.state[parameter]
        if "momentum" not in state:
            state["momentum"] = torch.zeros_like(parameter)
        state["momentum"].mul_(group["momentum"]).add_(step)
        parameter.sub_(group["lr"] * state["momentum"])
