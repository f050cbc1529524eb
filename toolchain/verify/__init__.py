"""Proof that the numbers did not change: every tap and every parameter against the reference.

`check` brings torch and the exporter, so it is imported when it is first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from vitc.verify.report import CheckFailedError, CheckReport

if TYPE_CHECKING:
    from vitc.verify.checking import CheckOptions, check, check_farm, check_fresh_export

__all__ = [
    "CheckFailedError",
    "CheckOptions",
    "CheckReport",
    "check",
    "check_farm",
    "check_fresh_export",
]

_HEAVY: Final = frozenset({"CheckOptions", "check", "check_farm", "check_fresh_export"})


def __getattr__(name: str) -> Any:
    if name in _HEAVY:
        from vitc.verify import checking

        return getattr(checking, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
