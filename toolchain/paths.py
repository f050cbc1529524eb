"""Paths in options: strings or `Path`s, as everywhere."""

from __future__ import annotations

import os
from dataclasses import fields
from pathlib import Path
from typing import Any

__all__ = ["settle_paths"]


def settle_paths(options: Any) -> None:
    """Make a path of each text, and a text of each path, whose field of frozen options is one."""
    for each in fields(options):
        value = getattr(options, each.name)
        kind = str(each.type).partition(" |")[0]
        if kind == "Path" and isinstance(value, str):
            object.__setattr__(options, each.name, Path(value))
        elif kind == "str" and isinstance(value, os.PathLike):
            object.__setattr__(options, each.name, os.fspath(value))
