from __future__ import annotations

import platform
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.manifests import classifier_manifest
from vitc.devices import DEVICES, RunRequest, parse_device
from vitc.devices.machine import machine
from vitc.devices.qemu import find_emulator
from vitc.errors import VitcError
from vitc.runtime.manifest import EntryFacts, Manifest
from vitc.targets import Target, find

IMAGES = np.arange(2 * 3 * 2 * 2, dtype=np.float32).reshape(2, 3, 2, 2)

PROGRAM = """
import argparse, json, sys, time
import numpy as np
p = argparse.ArgumentParser()
p.add_argument("input"); p.add_argument("output")
p.add_argument("--threads", type=int); p.add_argument("--repeat", type=int)
p.add_argument("--warmup", type=int); p.add_argument("--trace")
a = p.parse_args()
x = np.load(a.input)
{body}
np.save(a.output, x.sum(axis=(2, 3)))
if a.trace:
    open(a.trace, "wb").write(x.tobytes())
print(json.dumps({{"threads": a.threads, "images": len(x), "repeat": a.repeat, "load_ns": 7,
                   "latency_ns": [1000 + i for i in range(a.repeat)]}}))
"""


@dataclass
class FakeArtefact:
    path: Path
    runner: Path
    target: Target
    manifest: Manifest

    @property
    def entry(self) -> EntryFacts:
        return self.manifest.entries[0]

    def missing_features(self) -> list[str]:
        return [] if platform.machine() in self.target.machine else ["a processor"]

    def decode_trace(self, raw: bytes, images: int, _: int) -> dict[str, Any]:
        return {"input": np.frombuffer(raw, np.float32).reshape(images, 3, 2, 2)}


def artefact(folder: Path, body: str = "", target: str = "native") -> Any:
    program, runner = folder / "runner.py", folder / "vitc-run"
    program.write_text(PROGRAM.format(body=body))
    # A line that names the interpreter cannot hold a path with a space.
    runner.write_text(f'#!/bin/sh\nexec {shlex.join([sys.executable, str(program)])} "$@"\n')
    runner.chmod(0o755)
    manifest = classifier_manifest((3, 2, 2), 3, target=target)
    return FakeArtefact(folder, runner, find(target), manifest)


def test_local_gives_back_the_logits_and_one_latency_per_repeat(tmp_path: Path) -> None:
    done = parse_device("local").run(artefact(tmp_path), IMAGES, RunRequest(repeat=3))

    np.testing.assert_array_equal(done.logits, IMAGES.sum(axis=(2, 3)))
    assert done.latencies_ns == (1000, 1001, 1002)
    assert done.load_ns == 7
    assert done.trace is None
    assert done.facts["architecture"] == platform.machine()


def test_local_hands_the_trace_to_the_artefact_to_decode(tmp_path: Path) -> None:
    done = parse_device("local").run(artefact(tmp_path), IMAGES, RunRequest(trace=True))

    assert done.trace is not None
    np.testing.assert_array_equal(done.trace["input"], IMAGES)


def test_a_failing_runner_gives_its_last_message(tmp_path: Path) -> None:
    broken = artefact(tmp_path, body="sys.exit('the CPU lacks avx512_vpopcntdq')")

    with pytest.raises(VitcError, match="lacks avx512_vpopcntdq"):
        parse_device("local").run(broken, IMAGES, RunRequest())


def test_a_crashing_runner_names_the_signal(tmp_path: Path) -> None:
    broken = artefact(tmp_path, body="import os; os.kill(os.getpid(), 4)")

    with pytest.raises(VitcError, match="SIGILL"):
        parse_device("local").run(broken, IMAGES, RunRequest())


ON_NOEXEC = """
import shutil, sys
from vitc.devices.runner import _output
from vitc.errors import VitcError
try:
    _output([shutil.copy("/bin/true", sys.argv[1])], 60)
except VitcError as error:
    print(error.message, error.hint)
"""


def test_a_runner_on_a_disk_that_starts_no_program_says_so(tmp_path: Path) -> None:
    mounted = 'mount -t tmpfs -o noexec tmpfs "$1" && exec "$2" -c "$3" "$1"'
    # A mount table of its own, which an ordinary user may have too.
    command = ["unshare", "--map-root-user", "--mount", "sh", "-c", mounted, "sh"]
    done = subprocess.run(
        [*command, tmp_path, sys.executable, ON_NOEXEC], capture_output=True, text=True, check=False
    )
    if done.returncode and "Operation not permitted" in done.stderr:
        pytest.skip("this system gives an ordinary user no mount table of its own")
    assert "Permission denied" in done.stdout, done.stderr
    assert f"{tmp_path} is mounted noexec: copy the artefact" in done.stdout


def test_a_runner_that_hangs_is_stopped(tmp_path: Path) -> None:
    broken = artefact(tmp_path, body="time.sleep(3600)")

    with pytest.raises(VitcError, match="longer than 1 s"):
        parse_device("local").run(broken, IMAGES, RunRequest(timeout_s=1))


def test_a_runner_without_timings_is_an_error(tmp_path: Path) -> None:
    broken = artefact(tmp_path, body="np.save(a.output, x); sys.exit(0)")

    with pytest.raises(VitcError, match="printed no timings"):
        parse_device("local").run(broken, IMAGES, RunRequest())


def test_local_refuses_another_architecture_and_points_to_qemu(tmp_path: Path) -> None:
    foreign = "armv7" if platform.machine() != "armv7l" else "x86"

    with pytest.raises(VitcError, match="--device qemu"):
        parse_device("local").run(artefact(tmp_path, target=foreign), IMAGES, RunRequest())


def test_qemu_without_an_emulator_says_how_to_install_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sys, "prefix", str(tmp_path))

    with pytest.raises(VitcError, match=r"qemu-aarch64 is not installed.*apt-get"):
        parse_device("qemu").supports(artefact(tmp_path, target="arm"))


def test_qemu_takes_the_statically_linked_emulator_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    emulator = tmp_path / "qemu-arm-static"
    # Stands in for the emulator: drops "-cpu max" and runs the runner.
    emulator.write_text('#!/bin/sh\nshift 2\nexec "$@"\n')
    emulator.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/local/sbin:/nowhere")
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    fake = artefact(tmp_path, target="armv7")

    done = parse_device("qemu").run(fake, IMAGES, RunRequest())

    assert done.facts["emulator"] == str(emulator)
    assert parse_device("qemu").emulated


def test_the_emulator_of_the_python_environment_is_found_without_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unpacked = tmp_path / "venv" / "qemu" / "usr" / "bin" / "qemu-arm"
    unpacked.parent.mkdir(parents=True)
    for path in (unpacked, tmp_path / "qemu-arm-static", tmp_path / "path" / "qemu-arm"):
        path.parent.mkdir(exist_ok=True)
        path.write_text("#!/bin/sh\nexit 1\n")
        path.chmod(0o755)
    monkeypatch.setattr(sys, "prefix", str(tmp_path / "venv"))

    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_emulator("qemu-arm") == str(unpacked)
    monkeypatch.setenv("PATH", str(tmp_path / "path"))
    assert find_emulator("qemu-arm") == str(tmp_path / "path" / "qemu-arm")


def test_qemu_refuses_instructions_that_it_does_not_emulate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    emulator = tmp_path / "qemu-x86_64"
    emulator.write_text("#!/bin/sh\nexit 1\n")
    emulator.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))

    with pytest.raises(VitcError, match="does not emulate avx512f"):
        parse_device("qemu").supports(artefact(tmp_path, target="x86-avx512"))


def test_an_unknown_device_lists_the_known() -> None:
    with pytest.raises(VitcError) as caught:
        parse_device("toaster://kitchen")

    for kind in DEVICES:
        assert kind.scheme in caught.value.hint


def test_machine_facts_are_json_values() -> None:
    facts = machine().to_dict()

    assert facts["cores"] >= 1
    assert facts["cpu"]
    assert facts["features"] == sorted(facts["features"])
