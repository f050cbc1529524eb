"""Architectures: everything that the rest of vitc has to know of one, as an entry of a table."""

from __future__ import annotations

from vitc.models.architectures.entry import Architecture
from vitc.models.architectures.table import (
    ARCHITECTURES,
    PAIRS,
    PRESETS,
    TASKS,
    TWINS,
    account,
    anchors,
    architecture,
    config_from_dict,
    config_from_shapes,
    named_after,
    preset,
    summary,
    twin_preset,
)

__all__ = [
    "ARCHITECTURES",
    "PAIRS",
    "PRESETS",
    "TASKS",
    "TWINS",
    "Architecture",
    "account",
    "anchors",
    "architecture",
    "config_from_dict",
    "config_from_shapes",
    "named_after",
    "preset",
    "summary",
    "twin_preset",
]
