"""The table of schemes; a new scheme is one file and one entry here."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from vitc import names
from vitc.errors import VitcError
from vitc.models.schemes.bibert import BIBERT
from vitc.models.schemes.bit import BIT, BIT_ELASTIC
from vitc.models.schemes.recu import RECU
from vitc.models.schemes.scheme import Scheme

__all__ = ["SCHEMES", "find_scheme", "scheme"]

SCHEMES: Final[Mapping[str, Scheme]] = MappingProxyType(
    {entry.name: entry for entry in (BIBERT, RECU, BIT)}
)
_ELASTIC: Final[Mapping[str, Scheme]] = MappingProxyType({BIT_ELASTIC.name: BIT_ELASTIC})


def scheme(name: str, *, elastic: bool = False) -> Scheme:
    """Look up a binarization scheme.

    Args:
        name: Of the scheme.
        elastic: Whether to take it with masks of its own.

    Raises:
        VitcError: If there is none of that name, and the known ones are listed; or if it has no
            masks of its own.
    """
    if elastic:
        if names.SCHEMES.check(name) not in _ELASTIC:
            raise VitcError(
                f"The scheme {name} has no elastic mask.", f"Only {', '.join(_ELASTIC)} has one."
            )
        return _ELASTIC[name]
    return SCHEMES[names.SCHEMES.check(name)]


def find_scheme(given: Scheme | str) -> Scheme:
    """A scheme, given itself or by its name.

    Raises:
        VitcError: As `scheme`.
    """
    return scheme(given) if isinstance(given, str) else given
