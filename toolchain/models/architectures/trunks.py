"""Architectures that may be the trunk of a network of a task, binarized and full-precision."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

from vitc.models.architectures.deit import DEIT
from vitc.models.architectures.entry import Architecture
from vitc.models.architectures.float_deit import FLOAT_DEIT
from vitc.models.architectures.float_nest import FLOAT_NEST
from vitc.models.architectures.float_pvt import FLOAT_PVT
from vitc.models.architectures.float_swin import FLOAT_SWIN
from vitc.models.architectures.nest import NEST
from vitc.models.architectures.pvt import PVT
from vitc.models.architectures.swin import SWIN

__all__ = ["TRUNKS"]

TRUNKS: Final[Mapping[str, Architecture[Any]]] = MappingProxyType(
    {
        entry.name: entry
        for entry in (DEIT, SWIN, PVT, NEST, FLOAT_DEIT, FLOAT_SWIN, FLOAT_PVT, FLOAT_NEST)
    }
)
