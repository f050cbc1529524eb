"""Parameters that no initialisation gives."""

from __future__ import annotations

import torch

__all__ = ["randomised"]


@torch.no_grad()
def randomised(model: torch.nn.Module, seed: int) -> torch.nn.Module:
    """Every parameter and statistic non-trivial, some gains and slopes negative."""
    generator = torch.Generator().manual_seed(seed)
    for name, value in (*model.named_parameters(), *model.named_buffers()):
        if name.endswith("running_var"):
            value.copy_(0.5 + torch.rand(value.shape, generator=generator))
        elif value.is_floating_point():
            value.add_(0.3 * torch.randn(value.shape, generator=generator))
    return model.eval()
