"""How the tensors of one program are named in another: a table of stems with numbers in them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final

import torch
from torch import Tensor

__all__ = ["Rename", "Renamed", "rename"]

_FIELD: Final = re.compile(r"\{(\w)([+-]\d)?\}")
_LEAVES: Final = (".weight", ".bias", "")


@dataclass(frozen=True)
class Rename:
    """One stem, with ``{s}`` for a stage and ``{i}`` for a block; ``{s+1}`` is the one behind.

    Attributes:
        theirs: In the file, without ``.weight`` and ``.bias``.
        ours: In the twin.
        part: Which of the parts of our tensor it is, where theirs is cut in several.
        parts: How many those are.
    """

    theirs: str
    ours: str
    part: int = 0
    parts: int = 1

    def forward(self, name: str) -> str | None:
        """Their name as ours; None if it is not of this stem."""
        return _translated(name, self._their_pattern, self.ours)

    def backward(self, name: str) -> str | None:
        """Our name as theirs; None if it is not of this stem."""
        return _translated(name, self._our_pattern, self.theirs)

    @cached_property
    def _their_pattern(self) -> re.Pattern[str]:
        return _pattern(self.theirs)

    @cached_property
    def _our_pattern(self) -> re.Pattern[str]:
        return _pattern(self.ours)


def _pattern(stem: str) -> re.Pattern[str]:
    """Groups are named after a field and its distance, such as ``s_p1``."""
    written = ""
    end = 0
    for match in _FIELD.finditer(stem):
        distance = (match[2] or "+0").replace("+", "p").replace("-", "m")
        written += re.escape(stem[end : match.start()]) + rf"(?P<{match[1]}_{distance}>\d{{1,3}})"
        end = match.end()
    return re.compile(written + re.escape(stem[end:]))


def _translated(name: str, pattern: re.Pattern[str], stem: str) -> str | None:
    for leaf in _LEAVES:
        match = pattern.fullmatch(name.removesuffix(leaf)) if name.endswith(leaf) else None
        if match is not None:
            return _written(stem, match.groupdict(), leaf)
    return None


def _written(stem: str, found: Mapping[str, str], leaf: str) -> str | None:
    """A stem with its numbers, None if one would be below 0."""
    numbers = {}
    for group, value in found.items():
        name, distance = group.split("_")
        numbers[name] = int(value) - int(distance.replace("p", "+").replace("m", "-"))
    if min(numbers.values(), default=0) < 0:
        return None
    return _FIELD.sub(lambda at: str(numbers[at[1]] + int(at[2] or 0)), stem) + leaf


@dataclass(frozen=True)
class Renamed:
    """Tensors by the names of a twin.

    Attributes:
        tensors: Those that the table names, parts put together along their first axis.
        strange: Names in the file that the table does not have.
        incomplete: Our name of a tensor of which the file has some parts only, or of different
            shapes, to how the file would name what it lacks.
    """

    tensors: dict[str, Tensor]
    strange: tuple[str, ...]
    incomplete: dict[str, tuple[str, ...]]


def rename(tensors: dict[str, Tensor], table: Sequence[Rename]) -> Renamed:
    """Name tensors as a twin does."""
    whole: dict[str, Tensor] = {}
    cut: dict[str, dict[int, Tensor]] = {}
    strange = []
    for name, tensor in tensors.items():
        found = ((entry, entry.forward(name)) for entry in table)
        entry, ours = next(((e, o) for e, o in found if o is not None), (None, None))
        if entry is None or ours is None:
            strange.append(name)
        elif entry.parts == 1:
            whole[ours] = tensor
        else:
            cut.setdefault(ours, {})[entry.part] = tensor
    incomplete = {}
    for ours, parts in cut.items():
        entries = [entry for entry in table if entry.backward(ours) is not None]
        wanted = entries[0].parts
        if len(parts) == wanted and len({part.shape for part in parts.values()}) == 1:
            whole[ours] = torch.cat([parts[index] for index in range(wanted)])
        else:
            lost = [e.backward(ours) or ours for e in entries[:wanted] if e.part not in parts]
            incomplete[ours] = tuple(lost or [ours])
    return Renamed(whole, tuple(strange), incomplete)
