"""What the twins have in common: a head, and parameters to begin from."""

from __future__ import annotations

from abc import abstractmethod

from torch import Tensor, nn

from vitc.models.architectures.twin import TwinConfig
from vitc.models.network import Network

__all__ = ["Twin"]

_STD = 0.02
_ADDED = ("cls_token", "dist_token", "pos_embed", "relative_position_bias_table")


class Twin(Network):
    """A full-precision classification network; arguments are those of `Network`."""

    config: TwinConfig
    norm: nn.LayerNorm

    @abstractmethod
    def trunk(self, image: Tensor) -> Tensor:
        """Normalised images [B, 3, H, W] to tokens [B, N, C], before the last norm.

        Raises:
            VitcError: If the images are not of the network's size.
        """

    @abstractmethod
    def on_map(self, tokens: Tensor) -> Tensor:
        """Tokens [B, N, C] of the trunk to a map of the image [B, rows, columns, C].

        Class tokens are left out.
        """

    def stream(self, image: Tensor) -> Tensor:
        """Images [B, 3, H, W] to what the last norm gives for every token, [B, N, C]."""
        rows: Tensor = self.norm(self.trunk(image))
        return rows

    def _begin(self) -> None:
        """Weights of linears by Glorot and Bengio (2010), as in ViT; positions and tokens std 0.02.

        The usual std of 0.02 for weights too is for wide networks: with it `micro` is at 44 % of
        the digits after eight epochs, so at 83 %.
        """
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        for name, parameter in self.named_parameters():
            if name.rpartition(".")[2] in _ADDED:
                nn.init.trunc_normal_(parameter, std=_STD)
