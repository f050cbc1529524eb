"""From a configuration to the network that computes it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final

from vitc.errors import VitcError
from vitc.models.architectures import architecture
from vitc.models.backbones.table import TRUNK_NETWORKS
from vitc.models.config import NetworkConfig
from vitc.models.network import Network
from vitc.models.preprocessing import Preprocessing
from vitc.models.retrieval.network import Retrieval
from vitc.models.tasks.detector import Detector
from vitc.models.tasks.segmenter import Segmenter

__all__ = ["NETWORKS", "build_network"]

NETWORKS: Final[Mapping[str, type[Any]]] = MappingProxyType(
    {
        **TRUNK_NETWORKS,
        "retrieval": Retrieval,
        "detection": Detector,
        "segmentation": Segmenter,
    }
)
"""The module of each architecture, full-precision twin and task, by its name in their tables."""


def build_network(
    config: NetworkConfig,
    preprocessing: Preprocessing | None = None,
    labels: Sequence[str] | None = None,
) -> Network:
    """The network of a configuration.

    Raises:
        VitcError: As `Network`, or if the architecture or the scheme is unknown, or the embedding
            is of integers, which are made of a network that has weights.
    """
    if config.takes_bytes:
        raise VitcError(
            f"A network with the embedding {config.embedding} is made of one in fp32.",
            "Build that, and give it to `vitc.with_embedding`.",
        )
    network: Network = NETWORKS[architecture(config.arch).name](config, preprocessing, labels)
    return network
