"""vitc-run --self-test, and what the runner reads of the machine's state."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from vitc.compiler.self_test import EXPECTED, SELF_TEST, TAPS, settle_self_test
from vitc.devices.conditions import conditions
from vitc.errors import VitcError
from vitc.runtime import Artefact


def run(artefact, *arguments):
    return subprocess.run(
        [artefact.runner, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )


def test_an_artefact_passes_its_own_test(original):
    done = run(original, "--self-test", "--threads", 2)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["self_test"] == "passed"
    assert report["taps"] == len(original.manifest.steps)
    assert 0 <= report["max_logit_difference"] <= 1e-4


def test_it_passes_from_another_folder(original, tmp_path):
    done = subprocess.run(
        [original.runner, "--self-test"],
        cwd=tmp_path,
        capture_output=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0
    assert list(tmp_path.iterdir()) == []


def test_the_vector_is_sealed_by_the_manifest(artefact):
    assert {SELF_TEST, EXPECTED, TAPS} <= artefact.manifest.digests.keys()
    expected = np.load(artefact.path / EXPECTED)
    np.save(artefact.path / EXPECTED, expected + np.float32(1e-3))
    with pytest.raises(VitcError, match=EXPECTED):
        Artefact.open(artefact.path)


def edit(path: Path, change) -> None:
    path.write_text(change(path.read_text()))


def test_a_changed_byte_anywhere_in_the_library_is_refused_before_it_runs(artefact):
    data = artefact.library.read_bytes()
    random = np.random.default_rng(5)
    places = [0, 18, 70, len(data) - 1, *random.integers(0, len(data), 30).tolist()]
    for place in places:
        changed = bytearray(data)
        changed[place] ^= 1 << int(random.integers(8))
        artefact.library.write_bytes(changed)
        done = run(artefact, "--self-test")
        assert done.returncode == 1, place
        assert "SHA-256 is not that of manifest.json" in done.stderr
        assert done.stderr.count("\n") == 1
    artefact.library.write_bytes(data)
    assert run(artefact, "--self-test").returncode == 0


def test_a_layer_that_differs_is_named_though_the_logits_agree(artefact):
    tap = artefact.manifest.steps[4].tap

    def other_digest(text: str) -> str:
        lines = text.splitlines(keepends=True)
        lines[4] = lines[3][:64] + lines[4][64:]
        return "".join(lines)

    edit(artefact.path / TAPS, other_digest)
    done = run(artefact, "--self-test")
    assert done.returncode == 1
    assert f"the self-test failed: {tap} (kernel 4) is not what it was" in done.stderr


def test_a_library_of_other_weights_with_a_mended_hash_fails(artefact, another):
    shutil.copy(another.library, artefact.library)
    digest = artefact.manifest.digests["libvitc_model.so"]
    mended = another.manifest.digests["libvitc_model.so"]
    edit(artefact.path / "manifest.json", lambda text: text.replace(digest, mended))
    done = run(artefact, "--self-test")
    assert done.returncode == 1
    assert "the self-test failed: " in done.stderr


def test_a_label_that_looks_like_a_hash_is_not_taken_for_one(artefact):
    fake = '"libvitc_model.so": "' + "0" * 64 + '"'
    manifest = json.loads((artefact.path / "manifest.json").read_text())
    manifest = {"labels": [fake, "libvitc_model.so"], **manifest, "last": fake}
    (artefact.path / "manifest.json").write_text(json.dumps(manifest))
    assert run(artefact, "--self-test").returncode == 0


@pytest.mark.parametrize("threads", [1, 2, 7])
def test_every_buffer_of_a_first_run_is_the_same_whatever_the_threads(original, tmp_path, threads):
    options = ("--threads", threads, "--oversubscribe", "--digests", tmp_path / "digests")
    assert run(original, original.path / SELF_TEST, tmp_path / "y.npy", *options).returncode == 0
    assert (tmp_path / "digests").read_text() == (original.path / TAPS).read_text()


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
        (lambda folder: np.save(folder / EXPECTED, np.zeros((1, 6), np.float32)), "another size"),
        (lambda folder: np.save(folder / EXPECTED, np.zeros(5, np.float32)), "two dimensions"),
        (lambda folder: np.save(folder / SELF_TEST, np.zeros((1, 3, 8, 8), np.float32)), "wants"),
        (lambda folder: (folder / TAPS).unlink(), "No such file"),
        (lambda folder: edit(folder / TAPS, lambda text: text[:-1]), "belong"),
        (lambda folder: edit(folder / TAPS, lambda text: text[: text.index("\n") + 1]), "belong"),
        (lambda folder: edit(folder / TAPS, lambda text: text + text), "belong"),
        (lambda folder: edit(folder / TAPS, lambda text: text.replace("embed", "other")), "belong"),
        (lambda folder: (folder / "manifest.json").unlink(), "No such file"),
        (
            lambda folder: edit(folder / "manifest.json", lambda text: text.replace(".so", ".os")),
            "no SHA-256 of",
        ),
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

    entry = artefact.manifest.entries[0]

    def moved(inputs):
        # As if a bit of the first image lay within rounding of its threshold.
        return {"logits": artefact(inputs) + np.float32(np.array_equal(inputs["input"], first))}

    def wrong(inputs):
        return {"logits": artefact(inputs) + np.float32(1)}

    settled = settle_self_test(artefact.path, entry, moved)
    assert np.array_equal(settled["input"], np.load(artefact.path / SELF_TEST))
    assert not np.array_equal(np.load(artefact.path / SELF_TEST), first)

    assert settle_self_test(artefact.path, entry, wrong) is None
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
    found = conditions(json.loads(done.stdout))["conditions"]
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
    assert json.loads(done.stdout)["system_files"] == {"before": {}, "after": {}}
