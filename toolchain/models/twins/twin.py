"""What the twins have in common: a head, and parameters to begin from."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from vitc.models.architectures.twin import TwinConfig
from vitc.models.network import Network
from vitc.models.preprocessing import Preprocessing

__all__ = ["Twin"]

_STD = 0.02
_ADDED = ("cls_token", "dist_token", "pos_embed", "relative_position_bias_table")


class Twin(Network):
    """A full-precision classification network; arguments are those of `Network`."""

    config: TwinConfig

    def __init__(
        self,
        config: TwinConfig,
        preprocessing: Preprocessing | None = None,
        labels: Sequence[str] | None = None,
    ) -> None:
        super().__init__(config, preprocessing, labels)

    def _begin(self) -> None:
        """Weights as in timm's and DeiT's training: normal, cut at two, std 0.02; biases 0."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=_STD)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        for name, parameter in self.named_parameters():
            if name.rpartition(".")[2] in _ADDED:
                nn.init.trunc_normal_(parameter, std=_STD)
