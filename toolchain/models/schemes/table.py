"""The table of schemes; a new scheme is one file and one entry here."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from vitc import names
from vitc.models.schemes.bibert import BIBERT
from vitc.models.schemes.recu import RECU
from vitc.models.schemes.scheme import Scheme

__all__ = ["SCHEMES", "find_scheme", "scheme"]

SCHEMES: Final[Mapping[str, Scheme]] = MappingProxyType(
    {entry.name: entry for entry in (BIBERT, RECU)}
)


def scheme(name: str) -> Scheme:
    """Look up a binarization scheme.

    Raises:
        VitcError: If there is none of that name; the known ones are listed.
    """
    return SCHEMES[names.SCHEMES.check(name)]


def find_scheme(given: Scheme | str) -> Scheme:
    """A scheme, given itself or by its name.

    Raises:
        VitcError: As `scheme`.
    """
    return scheme(given) if isinstance(given, str) else given
