"""What configurations have in common that come out of files: every value is held against limits."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

from vitc.errors import VitcError

__all__ = [
    "LARGEST",
    "MOST_BLOCKS",
    "Sides",
    "block_sizes",
    "both",
    "check_multiple",
    "checked_sides",
    "counted",
    "known_fields",
    "number",
    "numbered",
    "shown",
    "sides_text",
]

LARGEST: Final = 1 << 20
"""Of any size. A file may state what it likes, and memory is made by what it states."""


MOST_BLOCKS: Final = 256


def numbered(names: Iterable[str], prefix: str) -> int:
    """How many parts ``prefix.0``, ``prefix.1``, .. the names of a state dict speak of.

    Raises:
        VitcError: If there are more than `MOST_BLOCKS`.
    """
    found = (re.match(rf"{re.escape(prefix)}\.(\d{{1,9}})\.", name) for name in names)
    last = max((int(match[1]) for match in found if match), default=-1)
    if last >= MOST_BLOCKS:
        raise VitcError(
            f"The state dict names block {last}; vitc reads up to {MOST_BLOCKS} blocks."
        )
    return last + 1


def check_multiple(sides: tuple[int, int], of: int, what: str) -> None:
    """Hold height and width of an image against what both must be multiples of.

    Args:
        sides: Pixels.
        of: What each side must be a multiple of.
        what: That number as the sentence calls it.

    Raises:
        VitcError: If one is not.
    """
    height, width = sides
    if height % of or width % of:
        found = sides_text(height if height == width else sides)
        raise VitcError(
            f"The image size {found} is not a multiple of {what}.",
            f"Choose a multiple of {of}.",
        )


Sides = int | tuple[int, int]
"""One side of a square, or height and width."""


def both(size: Sides) -> tuple[int, int]:
    """Height and width."""
    return size if isinstance(size, tuple) else (size, size)


def sides_text(size: Sides) -> str:
    """``224``, or ``192 x 256``."""
    return " x ".join(map(str, size)) if isinstance(size, tuple) else str(size)


def checked_sides(name: str, size: Any) -> Sides:
    """A size that a file states: one number where both sides are equal.

    Raises:
        VitcError: If it is neither an integer from 1 to `LARGEST` nor two of them.
    """
    sides = size if isinstance(size, tuple) else (size, size)
    if len(sides) != 2 or not all(type(s) is int and 1 <= s <= LARGEST for s in sides):
        raise VitcError(
            f"{name} must be an integer from 1 to {LARGEST}, or height and width, found "
            f"{shown(size)}."
        )
    return sides if sides[0] != sides[1] else sides[0]


def shown(value: object) -> str:
    """A value as an error quotes it."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def counted(count: int, what: str) -> str:
    """How many there are of something: ``1 block``, ``2 blocks``."""
    return f"{count} {what}{'' if count == 1 else 's'}"


def block_sizes(depth: int, width: int, heads: int, hidden: int, tokens: int) -> str:
    """The sizes of a network whose blocks are all alike, in a few words."""
    return (
        f"{counted(depth, 'block')}, width {width}, {counted(heads, 'head')}, hidden {hidden}, "
        f"{counted(tokens, 'token')}"
    )


def number(value: object) -> bool:
    """Whether a value is a finite number, and no truth value."""
    return type(value) in (int, float) and abs(value) < math.inf  # type: ignore[arg-type]


def known_fields(cls: type, values: Mapping[str, Any], what: str) -> dict[str, Any]:
    """The values for a dataclass, lists as tuples.

    Raises:
        VitcError: If one is unknown, or one without a default is missing.
    """
    fields = {field.name: field for field in dataclasses.fields(cls)}
    unknown = sorted(set(values) - set(fields))
    missing = sorted(
        name
        for name, field in fields.items()
        if name not in values and field.default is dataclasses.MISSING
    )
    if unknown or missing:
        found = [f"unknown {name}" for name in unknown] + [f"missing {name}" for name in missing]
        raise VitcError(
            f"The {what} does not fit this version of vitc: {', '.join(found)}.",
            "Write the file again with this version.",
        )
    return {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
