"""Register tiles that a kernel may have instead of those of its instruction set.

The table (vitc.targets.isa) holds one choice an instruction set. The others that fit the register
file are few enough to try them all: `vitc tune` does.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from itertools import zip_longest

from vitc.targets.isa import Isa
from vitc.targets.packing import ROW_PADDING

__all__ = ["Tile", "other_tiles"]

_LANE_TILES = (1, 2, 3, 4, 6, 8)
_FLOAT_ROWS = range(2, 15)
_FLOAT_TILES = (1, 2, 3, 4, 6)
_LEAST, _MOST = 0.5, 1.5
"""Sums of a tile, as multiples of the table's choice."""
_FLOAT_LEAST, _FLOAT_MOST = 0.8, 1.1


@dataclass(frozen=True)
class Tile:
    """Register tiles of a kernel; the fields are those of `Isa`."""

    row_tile: int
    lane_tile: int
    float_rows: int
    float_tile: int

    @classmethod
    def of(cls, isa: Isa) -> Tile:
        """The table's choice."""
        return cls(isa.row_tile, isa.lane_tile, isa.float_rows, isa.float_tile)

    @classmethod
    def from_dict(cls, values: Mapping[str, object]) -> Tile:
        """The inverse of `to_dict`.

        Raises:
            TypeError: If a field is missing, unknown or no number.
            ValueError: If a field is out of range, or the row tile does not divide the row padding.
        """
        tile = cls(**values)  # type: ignore[arg-type]
        fields = tuple(asdict(tile).values())
        if not all(type(value) is int for value in fields):
            raise TypeError(f"a tile of {fields}")
        if min(fields) < 1 or max(fields) > max(_FLOAT_ROWS) or ROW_PADDING % tile.row_tile:
            raise ValueError(f"a tile of {fields}")
        return tile

    def to_dict(self) -> dict[str, int]:
        """JSON values."""
        return asdict(self)

    def apply(self, isa: Isa) -> Isa:
        """The instruction set with these tiles."""
        return replace(
            isa,
            row_tile=self.row_tile,
            lane_tile=self.lane_tile,
            float_rows=self.float_rows,
            float_tile=self.float_tile,
        )

    def __str__(self) -> str:
        """Rows x lane blocks of the binary and of the fp32 tile."""
        return f"{self.row_tile}x{self.lane_tile} {self.float_rows}x{self.float_tile}"


def other_tiles(isa: Isa) -> list[Tile]:
    """The tiles to try beside the table's: binary and fp32 ones are varied together."""
    sums, float_sums = isa.row_tile * isa.lane_tile, isa.float_rows * isa.float_tile
    binary = [
        (rows, lanes)
        for rows in range(1, ROW_PADDING + 1)
        for lanes in _LANE_TILES
        if ROW_PADDING % rows == 0 and _LEAST * sums <= rows * lanes <= _MOST * sums
    ]
    floating = [
        (rows, vectors)
        for rows in _FLOAT_ROWS
        for vectors in _FLOAT_TILES
        if _FLOAT_LEAST * float_sums <= rows * vectors <= _FLOAT_MOST * float_sums
    ]
    usual = Tile.of(isa)
    pairs = zip_longest(binary, floating)
    tiles = [
        Tile(
            *(left or (usual.row_tile, usual.lane_tile)),
            *(right or (usual.float_rows, usual.float_tile)),
        )
        for left, right in pairs
    ]
    return [tile for tile in tiles if tile != usual]
