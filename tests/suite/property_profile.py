"""How all tests that try many inputs are run, whatever other tests have been read before them.

By default the same inputs in each run. `VITC_PROPERTY_EXAMPLES=1000` tries that many, new ones each
time, and prints what reproduces a failure. No input has a time limit: a machine may be loaded.
"""

from __future__ import annotations

import os
from typing import Final

from hypothesis import HealthCheck, settings

__all__ = ["MORE_EXAMPLES"]

MORE_EXAMPLES: Final = int(os.environ.get("VITC_PROPERTY_EXAMPLES") or 0)

_CHECKS: Final = [
    HealthCheck.too_slow,
    HealthCheck.function_scoped_fixture,
    HealthCheck.data_too_large,
]
settings.register_profile(
    "short", derandomize=True, deadline=None, database=None, suppress_health_check=_CHECKS
)
settings.register_profile("long", deadline=None, print_blob=True, suppress_health_check=_CHECKS)
settings.load_profile("long" if MORE_EXAMPLES else "short")
