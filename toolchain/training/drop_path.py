"""Stochastic depth: branches of a residual network that are left out at random while it learns.

Huang et al., Deep Networks with Stochastic Depth, ECCV 2016; as in DeiT the rate rises from 0 in
the first block to its largest in the last, and what stays is scaled by 1 / (1 - rate).
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from vitc.models.twins.block import Block
from vitc.training.epoch_order import Share

__all__ = ["DropPath"]


class DropPath:
    """Leaves out attentions and MLPs of a full-precision network, for each image on its own.

    Args:
        network: In training mode, and only then, its branches are left out.
        rate: In the last block, in [0, 1).

    Attributes:
        draws: Where chance comes from; nothing is left out without.
        share: Which part of its step's batch the network is given.
    """

    def __init__(self, network: nn.Module, rate: float) -> None:
        self.draws: torch.Generator | None = None
        self.share = Share.whole(0)
        blocks = [module for module in network.modules() if isinstance(module, Block)]
        for index, block in enumerate(blocks):
            own = rate * index / max(len(blocks) - 1, 1)
            for branch in (block.attn, block.mlp):
                branch.register_forward_hook(partial(self._drop, own))

    def _drop(self, rate: float, branch: nn.Module, _: Any, out: Tensor) -> Tensor:
        if self.draws is None or not rate or not branch.training:
            return out
        stays = torch.rand(self.share.total, generator=self.draws)[self.share.rows] >= rate
        factor = (stays / (1 - rate)).to(out)
        return out * factor.reshape(-1, *(1,) * (out.ndim - 1))
