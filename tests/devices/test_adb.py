"""The argument protocol of adb, against a program that does on this machine what adb does there.

No Android device takes part: what this shows is which commands are given and what is made of their
answers.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.devices.fake_adb import NAMES
from tests.devices.sshd import wait_for
from vitc.devices import RunRequest, parse_device
from vitc.errors import VitcError
from vitc.runtime import Artefact


def cleaned(folder: Path) -> Callable[[], bool]:
    return lambda: not list(folder.iterdir())


@pytest.mark.parametrize("name", NAMES)
def test_a_run_pushes_runs_pulls_and_cleans_up(
    adb_data: Path, compiled: Artefact, images: NDArray[np.float32], name: str
) -> None:
    device = parse_device(f"adb://{name}")
    assert device.name == f"adb://{name}"
    device.supports(compiled)
    done = device.run(compiled, images, RunRequest(repeat=3, trace=True))

    np.testing.assert_array_equal(done.logits, compiled(images))
    assert len(done.latencies_ns) == 2 * 3
    assert done.trace is not None
    assert done.facts["architecture"]
    log = (adb_data.parent / "log").read_text()
    asked = [line.partition(f"-s {name} ")[2] for line in log.splitlines()]
    order = [line.split()[0] for line in asked if line]
    assert order == ["shell", "shell", "push", "push", "push", "shell", "pull", "pull"]
    assert cleaned(adb_data)()


def test_an_unknown_serial_is_an_error_with_the_next_step(
    adb_data: Path, compiled: Artefact
) -> None:
    with pytest.raises(VitcError, match=r"device 'SERIAL-2' not found.*adb devices"):
        parse_device("adb://SERIAL-2").supports(compiled)


def test_a_run_that_takes_too_long_is_stopped_there(
    adb_data: Path, compiled: Artefact, images: NDArray[np.float32]
) -> None:
    with pytest.raises(VitcError, match="took longer than 1 s"):
        parse_device("adb://SERIAL-1").run(
            compiled, images, RunRequest(repeat=1_000_000, timeout_s=1)
        )
    assert wait_for(cleaned(adb_data))


def test_a_failing_runner_gives_its_message(
    adb_data: Path, failing: Artefact, images: NDArray[np.float32]
) -> None:
    with pytest.raises(VitcError, match="The runner failed: no more paper"):
        parse_device("adb://SERIAL-1").run(failing, images, RunRequest())
    assert cleaned(adb_data)()


@pytest.mark.parametrize(
    "text", ["adb://", "adb://-s", "adb:// a", "adb://a ", "adb://a\nb", "adb://a/b"]
)
def test_no_serials(text: str) -> None:
    with pytest.raises(VitcError, match="no adb device"):
        parse_device(text)
