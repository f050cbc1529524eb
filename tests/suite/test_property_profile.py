from __future__ import annotations

from hypothesis import settings

from tests.suite.property_profile import MORE_EXAMPLES


def test_no_input_has_a_time_limit_and_each_run_has_the_same() -> None:
    found = settings()

    assert found.deadline is None
    assert found.derandomize == (not MORE_EXAMPLES)
