from __future__ import annotations

from typing import Any

import pytest

from vitc.devices.conditions import conditions, throttling

CPUFREQ = "/sys/devices/system/cpu/cpu0/cpufreq"


def around(before: dict[str, Any], after: dict[str, Any]) -> dict[str, Any]:
    return {"conditions": {"before": before, "after": after}}


def test_a_cool_machine_gives_no_warning() -> None:
    state = {"temperature_c": 41.5, "throttle_events": 7, "cooling": 0, "governor": "performance"}
    assert list(throttling(around(state, state))) == []
    assert list(throttling({})) == []


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ({"throttle_events": 7}, {"throttle_events": 8}, "throttled during"),
        ({}, {"cooling": 2}, "to cool it"),
        ({}, {"firmware_throttled": 0x50005}, "supply voltage"),
        ({}, {"firmware_throttled": 8}, "temperature limit"),
        ({}, {"governor": "powersave"}, "governor is powersave"),
    ],
)
def test_each_sign_of_throttling_is_a_sentence(
    before: dict[str, Any], after: dict[str, Any], message: str
) -> None:
    assert any(message in sentence for sentence in throttling(around(before, after)))


def test_what_was_before_the_run_is_no_sign() -> None:
    assert list(throttling(around({}, {"firmware_throttled": 0x50000}))) == []


@pytest.mark.parametrize(
    "given",
    [None, 3, [], {"before": 1}, {"after": {f"{CPUFREQ}/scaling_governor": 3}}, {"after": [1]}],
)
def test_a_report_of_another_shape_says_nothing(given: Any) -> None:
    assert list(throttling(conditions({"system_files": given}))) == []


def test_files_that_a_machine_hands_out_are_cut_and_read() -> None:
    files = {f"{CPUFREQ}/scaling_governor": "g" * 1000, f"{CPUFREQ}/scaling_cur_freq": "1800000"}
    found = conditions({"system_files": {"before": {}, "after": files}})["conditions"]
    assert found == {"before": {}, "after": {"governor": "g" * 64, "frequency_khz": 1800000}}
