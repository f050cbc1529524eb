"""The layers that vitc compiles, for networks of your own.

    import torch
    from vitc import nn

    class Mixer(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.patches = nn.PatchEmbed(4, 32)                 # [B, 3, 32, 32] -> [B, 64, 32]
            self.tokens = nn.SpatialInteraction(32, 64)         # mixes the 64 tokens
            self.norm = nn.AxisNorm(64)
            self.channels = nn.BinaryMLP(32, 64, rows=64)       # mixes the 32 channels
            self.head = torch.nn.Linear(32, 10)

        def forward(self, image):
            x = nn.tap("embedding", self.patches(image))
            x = nn.tap("tokens", x + self.tokens(x))
            x = nn.tap("channels", x + self.channels(self.norm(x)))
            return self.head(x.mean(1))

Any torch.nn.Module of these layers and of plain float operators is exported, compiled and checked.
Beside its layers a network has to say:

- **Names.** What later stages must reproduce is tapped, and a tap has one name. Layers tap what
  they binarize under the name of their module, or their `name`; `tap` names any other value. Two
  of one name are refused.
- **The image first.** The first axis of every tensor is the image; groups (windows) are the second.
- **Ports.** A single input is called ``input``, and several what `forward` calls them; a single
  output is called ``logits``, and several are returned as a mapping from name to tensor. Each
  output is held to its own rounding bound, tapped or not.

Shapes: B images, N tokens, C channels, h heads, K contracted length, O outputs. Signs are bits
(uint8, 1 for +1) in eval mode and floats {-1, +1} with straight-through gradients in training; all
else is fp32. Sources are named in each layer.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from vitc.models.binary_linear import BinaryLinear as BinaryLinear
    from vitc.models.layers.attention import BinaryAttention as BinaryAttention
    from vitc.models.layers.binarize import Binarize as Binarize
    from vitc.models.layers.mlp import BinaryMLP as BinaryMLP
    from vitc.models.layers.norm import AxisNorm as AxisNorm
    from vitc.models.layers.patch_embed import PatchEmbed as PatchEmbed
    from vitc.models.layers.shift import Shift as Shift
    from vitc.models.layers.spatial import SpatialInteraction as SpatialInteraction
    from vitc.models.taps import tap as tap

_HOMES: Final = {
    "AxisNorm": "vitc.models.layers.norm",
    "BinaryAttention": "vitc.models.layers.attention",
    "BinaryLinear": "vitc.models.binary_linear",
    "BinaryMLP": "vitc.models.layers.mlp",
    "Binarize": "vitc.models.layers.binarize",
    "PatchEmbed": "vitc.models.layers.patch_embed",
    "Shift": "vitc.models.layers.shift",
    "SpatialInteraction": "vitc.models.layers.spatial",
    "tap": "vitc.models.taps",
}

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'vitc.nn' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return [*globals(), *_HOMES]
