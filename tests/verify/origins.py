"""What the bits of a network are the signs of."""

from __future__ import annotations

import torch
from torch import nn

from vitc.models import TapEvent, observe
from vitc.models.binary_linear import freeze
from vitc.verify.bounds import Origin, RoundingErrors


def origins(model: nn.Module, images: torch.Tensor) -> dict[str, Origin]:
    """Run a network in float64; give the origin of each tap that holds signs of floats."""
    errors, found, double = RoundingErrors(), {}, freeze(model).double()

    def observer(event: TapEvent) -> None:
        origin = errors.origin(event.value)
        if origin is not None:
            found[event.name] = origin

    with torch.no_grad(), errors, observe(observer):
        double(images.double())
    return found
