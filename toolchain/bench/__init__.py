"""Clocks and costs: latency beside a baseline, and bits, bytes and MACs by layer.

The package can be called: ``vitc.bench(...)`` is `vitc.bench.bench`, whichever of the two names was
imported first.
"""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from vitc.bench.inspection import Inspection, inspect
    from vitc.bench.measure import BenchOptions, BenchReport, bench, bench_farm
    from vitc.models.account import Account

__all__ = [
    "Account",
    "BenchOptions",
    "BenchReport",
    "Inspection",
    "bench",
    "bench_farm",
    "inspect",
]

_HOMES: Final = {
    "Account": "account",
    "BenchOptions": "measure",
    "BenchReport": "measure",
    "Inspection": "inspection",
    "bench": "measure",
    "bench_farm": "measure",
    "inspect": "inspection",
}


class _CallablePackage(ModuleType):
    def __getattr__(self, name: str) -> Any:
        if name not in _HOMES:
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        return getattr(import_module(f"{self.__name__}.{_HOMES[name]}"), name)

    def __call__(self, *args: Any, **options: Any) -> Any:
        return self.bench(*args, **options)


sys.modules[__name__].__class__ = _CallablePackage
