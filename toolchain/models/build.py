"""From a configuration to the network that computes it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final

from vitc.models.architectures import architecture
from vitc.models.backbones.nest import Nest
from vitc.models.backbones.pvt import Pvt
from vitc.models.backbones.swin import Swin
from vitc.models.config import NetworkConfig
from vitc.models.network import Network
from vitc.models.preprocessing import Preprocessing
from vitc.models.retrieval.network import Retrieval
from vitc.models.sibivit import SIBiViT
from vitc.models.twins.deit import DeiTTwin
from vitc.models.twins.nest import NesTTwin
from vitc.models.twins.pvt import PVTTwin
from vitc.models.twins.swin import SwinTwin

__all__ = ["NETWORKS", "build_network"]

NETWORKS: Final[Mapping[str, type[Any]]] = MappingProxyType(
    {
        "sibivit": SIBiViT,
        "swin": Swin,
        "pvt": Pvt,
        "nest": Nest,
        "float-deit": DeiTTwin,
        "float-swin": SwinTwin,
        "float-pvt": PVTTwin,
        "float-nest": NesTTwin,
        "retrieval": Retrieval,
    }
)
"""The module of each architecture and of each full-precision twin, by its name in their tables."""


def build_network(
    config: NetworkConfig,
    preprocessing: Preprocessing | None = None,
    labels: Sequence[str] | None = None,
) -> Network:
    """The network of a configuration.

    Raises:
        VitcError: As `Network`, or if the architecture or the scheme is unknown.
    """
    network: Network = NETWORKS[architecture(config.arch).name](config, preprocessing, labels)
    return network
