from __future__ import annotations

import json
import subprocess
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from vitc.devices.conditions import conditions
from vitc.devices.kernel_files import Read, condition_files, describe_machine, read_condition
from vitc.devices.machine import machine
from vitc.runtime import Artefact

CPU = "devices/system/cpu"
STATE = {
    "class/thermal/thermal_zone0/temp": "41200\n",
    "class/thermal/thermal_zone1/temp": "63750\n",
    "class/thermal/cooling_device0/type": "Fan\n",
    "class/thermal/cooling_device0/cur_state": "3\n",
    "class/thermal/cooling_device1/type": "cpufreq-cpu0\n",
    "class/thermal/cooling_device1/cur_state": "2\n",
    "devices/platform/soc/soc:firmware/get_throttled": "50005\n",
    f"{CPU}/cpu0/thermal_throttle/core_throttle_count": "4\n",
    f"{CPU}/cpu1/thermal_throttle/core_throttle_count": "5\n",
    f"{CPU}/cpu0/cpufreq/scaling_cur_freq": "1800000\n",
    f"{CPU}/cpu0/cpufreq/scaling_governor": "ondemand\n",
}
PI = """processor\t: 0
Features\t: fp asimd evtstrm crc32 cpuid
CPU part\t: 0xd08

Model\t\t: Raspberry Pi 4 Model B Rev 1.4
"""


def reads(files: dict[str, str]) -> Read:
    return lambda path: files.get(path, "")


def here(path: str) -> str:
    try:
        return Path(path).read_text()
    except OSError:
        return ""


@pytest.mark.parametrize("left_out", ["", "thermal", "cpufreq", "throttle", "soc", "/"])
def test_conditions_are_those_that_the_runner_reads(
    compiled: Artefact, images: NDArray[np.float32], tmp_path: Path, left_out: str
) -> None:
    state = {name: text for name, text in STATE.items() if not left_out or left_out not in name}
    (tmp_path / "sys").mkdir()
    for name, text in state.items():
        path = tmp_path / "sys" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    np.save(tmp_path / "x.npy", images)
    command = [compiled.runner, tmp_path / "x.npy", tmp_path / "y.npy", "--sys", tmp_path / "sys"]
    done = subprocess.run([*map(str, command)], capture_output=True, check=True, timeout=600)

    found = read_condition(reads({f"/sys/{name}": text for name, text in state.items()}))

    assert found == conditions(json.loads(done.stdout))["conditions"]["after"]
    files = condition_files(reads({f"/sys/{name}": text for name, text in state.items()}))
    assert files.items() <= json.loads(done.stdout)["system_files"]["before"].items()
    assert bool(found) == bool(state)


def test_the_facts_of_this_machine_are_the_same_by_its_files() -> None:
    expected = machine().to_dict()

    found = describe_machine(here, expected["architecture"])

    assert found | {"load": None} == expected | {"load": None}


def test_an_arm_board_is_named_by_its_model() -> None:
    files = {"/proc/cpuinfo": PI, "/proc/self/status": "Name:\tx\nCpus_allowed_list:\t0,2-3,7\n"}

    found = describe_machine(reads(files), "aarch64")

    assert found["cpu"] == "Raspberry Pi 4 Model B Rev 1.4"
    assert found["features"] == ["asimd", "cpuid", "crc32", "evtstrm", "fp"]
    assert found["cores"] == 4
    assert "emulator" not in found


def test_an_emulator_is_named_and_lends_its_host_no_features() -> None:
    files = {
        "/proc/thread-self/cmdline": "/usr/bin/qemu-aarch64-static\0/usr/bin/python3\0-m\0",
        "/proc/cpuinfo": "model name\t: AMD EPYC\nflags\t\t: avx2\n",
    }

    found = describe_machine(reads(files), "aarch64")

    assert found["emulator"] == "qemu-aarch64-static"
    assert found["cpu"] == "qemu-aarch64-static on AMD EPYC"
    assert found["features"] == []


def test_a_machine_that_says_nothing_is_its_architecture() -> None:
    found = describe_machine(reads({}), "armv7l")

    assert found["cpu"] == "armv7l"
    assert found["governor"] is None
    assert found["load"] is None
    assert read_condition(reads({})) == {}
