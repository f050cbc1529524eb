"""The module of each backbone and of each full-precision twin, by its name in their tables."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

from vitc.models.backbones.nest import Nest
from vitc.models.backbones.pvt import Pvt
from vitc.models.backbones.swin import Swin
from vitc.models.sibivit import SIBiViT
from vitc.models.twins.deit import DeiTTwin
from vitc.models.twins.nest import NesTTwin
from vitc.models.twins.pvt import PVTTwin
from vitc.models.twins.swin import SwinTwin

__all__ = ["TRUNK_NETWORKS"]

TRUNK_NETWORKS: Final[Mapping[str, type[Any]]] = MappingProxyType(
    {
        "sibivit": SIBiViT,
        "swin": Swin,
        "pvt": Pvt,
        "nest": Nest,
        "float-deit": DeiTTwin,
        "float-swin": SwinTwin,
        "float-pvt": PVTTwin,
        "float-nest": NesTTwin,
    }
)
