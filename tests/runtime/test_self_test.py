"""vitc-run --self-test, and what the runner reads of the machine's state."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import numpy as np
import pytest

from vitc.compiler.self_test import EXPECTED, SELF_TEST, settle_self_test
from vitc.errors import VitcError
from vitc.runtime import Artefact


def run(artefact, *arguments):
    return subprocess.run(
        [artefact.runner, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_an_artefact_passes_its_own_test(original):
    done = run(original, "--self-test", "--threads", 2)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["self_test"] == "passed"
    assert 0 <= report["max_logit_difference"] <= 1e-4


def test_it_passes_from_another_folder(original, tmp_path):
    done = subprocess.run(
        [original.runner, "--self-test"], cwd=tmp_path, capture_output=True, timeout=60, check=False
    )
    assert done.returncode == 0
    assert list(tmp_path.iterdir()) == []


def test_the_vector_is_sealed_by_the_manifest(artefact):
    assert {SELF_TEST, EXPECTED} <= artefact.manifest["files"].keys()
    expected = np.load(artefact.path / EXPECTED)
    np.save(artefact.path / EXPECTED, expected + np.float32(1e-3))
    with pytest.raises(VitcError, match=EXPECTED):
        Artefact.open(artefact.path)


@pytest.mark.parametrize(
    "change",
    [
        lambda logits: logits + np.float32(2e-4),
        lambda logits: logits * np.float32(np.nan),
        lambda logits: -logits,
        lambda logits: logits[:, ::-1].copy(),
    ],
)
def test_other_logits_are_a_sentence_and_exit_code_1(artefact, change):
    expected = np.load(artefact.path / EXPECTED)
    np.save(artefact.path / EXPECTED, change(expected))
    done = run(artefact, "--self-test")
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.startswith("vitc-run: the self-test failed: logits differ by ")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda folder: (folder / SELF_TEST).unlink(), "No such file"),
        (lambda folder: (folder / EXPECTED).unlink(), "No such file"),
        (lambda folder: np.save(folder / EXPECTED, np.zeros((1, 6), np.float32)), "belong"),
        (lambda folder: np.save(folder / EXPECTED, np.zeros(5, np.float32)), "two dimensions"),
        (lambda folder: np.save(folder / SELF_TEST, np.zeros((1, 3, 8, 8), np.float32)), "wants"),
    ],
)
def test_a_damaged_vector_is_a_sentence(artefact, make, message):
    make(artefact.path)
    done = run(artefact, "--self-test")
    assert done.returncode == 1
    assert message in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_vector_on_which_the_device_disagrees_is_replaced_and_dropped_if_none_will_do(artefact):
    first = np.load(artefact.path / SELF_TEST)

    def moved(images):
        # As if a bit of the first image lay within rounding of its threshold.
        return artefact(images) + np.float32(np.array_equal(images, first))

    assert settle_self_test(artefact.path, moved)
    assert not np.array_equal(np.load(artefact.path / SELF_TEST), first)
    assert run(artefact, "--self-test").returncode == 0

    assert not settle_self_test(artefact.path, lambda images: artefact(images) + np.float32(1))
    assert not (artefact.path / SELF_TEST).exists()
    assert not (artefact.path / EXPECTED).exists()


def state(folder: Path, **files: str) -> None:
    for name, text in files.items():
        path = folder / name.replace("__", "/").replace("COLON", ":")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def test_the_report_has_the_state_of_the_machine(original, images, tmp_path):
    np.save(tmp_path / "x.npy", images)
    system = tmp_path / "sys"
    cpu = "devices__system__cpu__"
    state(
        system,
        class__thermal__thermal_zone0__temp="41200\n",
        class__thermal__thermal_zone1__temp="63750\n",
        class__thermal__cooling_device0__type="Fan\n",
        class__thermal__cooling_device0__cur_state="3\n",
        class__thermal__cooling_device1__type="cpufreq-cpu0\n",
        class__thermal__cooling_device1__cur_state="2\n",
        devices__platform__soc__socCOLONfirmware__get_throttled="50005\n",
        **{
            f"{cpu}cpu0__thermal_throttle__core_throttle_count": "4\n",
            f"{cpu}cpu1__thermal_throttle__core_throttle_count": "5\n",
            f"{cpu}cpu0__cpufreq__scaling_cur_freq": "1800000\n",
            f"{cpu}cpu0__cpufreq__scaling_governor": 'on"demand\n',
        },
    )
    done = run(original, tmp_path / "x.npy", tmp_path / "y.npy", "--sys", system)
    found = json.loads(done.stdout)["conditions"]
    assert found["before"] == found["after"]
    assert found["after"] == {
        "temperature_c": 63.7,
        "frequency_khz": 1800000,
        "cooling": 2,
        "throttle_events": 9,
        "firmware_throttled": 0x50005,
        "governor": "on?demand",
    }


def test_a_system_that_says_nothing_leaves_it_empty(original, images, tmp_path):
    np.save(tmp_path / "x.npy", images)
    done = run(original, tmp_path / "x.npy", tmp_path / "y.npy", "--sys", tmp_path)
    assert json.loads(done.stdout)["conditions"] == {"before": {}, "after": {}}
