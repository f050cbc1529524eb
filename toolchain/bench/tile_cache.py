"""The fastest register tiles that `vitc tune` has found, by processor."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vitc.outputs import replace_file
from vitc.places import find_cache
from vitc.targets.tiles import Tile

if TYPE_CHECKING:
    from vitc.targets import Target

__all__ = ["TileCache"]


@dataclass(frozen=True)
class TileCache:
    """A file below the user's cache folder; one for a processor, a target and a version of vitc.

    Attributes:
        file: Where it lies; it need not exist.
    """

    file: Path

    @classmethod
    def of(cls, facts: Mapping[str, Any], target: Target) -> TileCache:
        """The cache for a target on the processor that a device's facts describe."""
        key = json.dumps(
            [
                facts.get("architecture"),
                facts.get("cpu"),
                list(facts.get("features") or ()),
                target.name,
                version("vitc"),
                version("apache-tvm"),
            ]
        )
        name = hashlib.sha256(key.encode()).hexdigest()[:16]
        return cls(find_cache().folder / "tiles" / f"{target.name}-{name}.json")

    def read(self) -> dict[str, Tile]:
        """What is known, by what a kernel does; a file that is no such cache counts as empty."""
        try:
            kernels = json.loads(self.file.read_text(encoding="utf-8"))
            return {str(kernel): Tile.from_dict(tile) for kernel, tile in kernels.items()}
        except (OSError, ValueError, TypeError, AttributeError):
            return {}

    def write(self, tiles: Mapping[str, Tile]) -> None:
        """Keep what is known, in place of what was."""
        self.file.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps({kernel: tile.to_dict() for kernel, tile in tiles.items()}, indent=1)
        replace_file(self.file, text + "\n")
