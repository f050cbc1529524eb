from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from tests.processors import HOST, NO_AVX512
from vitc.bench import profile as module
from vitc.bench.peaks import PeakLoops, Peaks, permit_tiles
from vitc.bench.profile import profile
from vitc.devices import Device, DeviceRun, LocalDevice, QemuDevice, RunRequest
from vitc.errors import VitcError
from vitc.runtime.artefact import Artefact
from vitc.targets import TARGETS, find
from vitc.targets.table import host_features


class FakePeaks:
    """First slower, then faster: 200 G binary MAC/s and 10 G fp32 MAC/s count."""

    def __init__(self, _: object) -> None:
        self.measured = 0

    def measure(self) -> Peaks:
        self.measured += 1
        return Peaks("fake", 200.0 if self.measured == 3 else 90.0, 10.0)


@dataclass
class FakeDevice:
    """Every step takes a millisecond a run, but in one round only half of it."""

    steps: int
    rounds: int = 0
    name: str = "local"
    emulated: bool = False
    remote: bool = False

    def supports(self, artefact: Artefact) -> None:
        pass

    def run(self, artefact: Artefact, inputs: Any, request: RunRequest) -> DeviceRun:
        assert request.profile
        (images,) = inputs.values()
        assert artefact.batch == len(images)
        self.rounds += 1
        each = 500_000 if self.rounds == 2 else 1_000_000
        step_ns = (each * request.repeat * len(images),) * self.steps
        return DeviceRun({"logits": np.zeros((1, 5), np.float32)}, (1,), 1, step_ns=step_ns)


@pytest.fixture
def fake_peaks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PeakLoops", FakePeaks)


def test_a_step_counts_with_its_fastest_round_and_the_highest_peak(
    compiled: Callable[[str], Artefact], fake_peaks: None
) -> None:
    artefact = compiled("arm")
    device: Device = FakeDevice(len(artefact.manifest.steps))

    found = profile(artefact, device, threads=2)

    assert {step.milliseconds for step in found.steps} == {0.5}
    steps = {step.name: step for step in found.steps}
    key = steps["blocks.1.attn.key"]
    assert (key.macs.binary, key.unit) == (10 * 128 * 128, "popcount")
    assert key.peak == pytest.approx(10 * 128 * 128 / 0.5e-3 / 200e9 / 2)
    assert steps["embedding"].unit == "fma"
    assert steps["embedding"].peak == pytest.approx(9 * 128 * 48 / 0.5e-3 / 10e9 / 2)
    assert steps["blocks.0.mlp.input"].peak is None


def test_layers_put_the_blocks_together_and_shares_add_up(
    compiled: Callable[[str], Artefact], fake_peaks: None
) -> None:
    artefact = compiled("arm")

    found = profile(artefact, FakeDevice(len(artefact.manifest.steps)), threads=1)
    document = found.to_dict()

    layers = {layer.name: layer for layer in found.layers()}
    assert layers["blocks.*.si.output"].steps == 2
    assert layers["blocks.*.si.output"].milliseconds == 1.0
    assert sum(row["share"] for row in document["layers"]) == pytest.approx(1)
    assert sum(row["share"] for row in document["steps"]) == pytest.approx(1)
    assert sum(row["binary_macs"] for row in document["layers"]) == found.binary().macs.binary


def test_a_runner_that_times_other_steps_is_refused(
    compiled: Callable[[str], Artefact], fake_peaks: None
) -> None:
    with pytest.raises(VitcError, match="timed 3 steps"):
        profile(compiled("arm"), FakeDevice(3), threads=1)


def test_emulated_times_are_refused(compiled: Callable[[str], Artefact]) -> None:
    with pytest.raises(VitcError, match="emulated"):
        profile(compiled("arm"), QemuDevice(), threads=1)


def test_steps_on_another_machine_have_times_and_no_peaks(
    compiled: Callable[[str], Artefact], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(module, "PeakLoops")
    artefact = compiled("arm")
    device = FakeDevice(len(artefact.manifest.steps), name="ssh://board", remote=True)

    found = profile(artefact, device, threads=1)

    assert device.rounds == 2
    assert found.peaks is None
    assert {step.milliseconds for step in found.steps} == {0.5}
    assert {layer.peak for layer in found.layers()} == {None}


def test_an_artefact_of_this_machine_is_profiled_beside_measured_peaks(
    compiled: Callable[[str], Artefact],
) -> None:
    artefact = compiled("native")

    found = profile(artefact, LocalDevice(), threads=1)

    assert [s.name for s in found.steps] == [s.tap for s in artefact.manifest.steps]
    assert all(step.milliseconds > 0 for step in found.steps)
    assert found.peaks.isa == artefact.target.isa
    assert found.peaks.popcount_gmacs > found.peaks.fma_gmacs > 0


def test_the_better_of_two_measurements_is_taken_unit_by_unit() -> None:
    one, other = Peaks("x", 3.0, 1.0, 5.0), Peaks("x", 2.0, 4.0, 6.0)
    assert one.faster(other) == Peaks("x", 3.0, 4.0, 6.0)


def test_peaks_are_measured_again_on_the_same_loops() -> None:
    loops = PeakLoops(find("native"))

    assert loops.measure().isa == loops.measure().isa == find("native").isa


def test_tiles_have_a_peak_of_their_own(
    compiled: Callable[[str], Artefact], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Peak(FakePeaks):
        def measure(self) -> Peaks:
            return Peaks("fake", 200.0, 10.0, 1000.0)

    monkeypatch.setattr(module, "PeakLoops", Peak)
    artefact = compiled("x86-amx")

    found = profile(artefact, FakeDevice(len(artefact.manifest.steps)), threads=1)

    steps = {step.name: step for step in found.steps}
    key, context = steps["blocks.1.attn.key"], steps["blocks.1.attn.context"]
    assert (key.unit, context.unit, found.binary().unit) == ("int8", "popcount", "int8+popcount")
    assert key.peak == pytest.approx(10 * 128 * 128 / 0.5e-3 / 1000e9)
    assert context.peak == pytest.approx(context.macs.binary / 0.5e-3 / 200e9)
    assert steps["blocks.0.attn.input.signs"].unit is None


def test_the_peak_of_tiles_is_measured(amx: object, monkeypatch: pytest.MonkeyPatch) -> None:
    if "x86-amx" not in HOST:
        pytest.skip(NO_AVX512)
    if amx is not None:
        monkeypatch.setattr("vitc.bench.peaks.permit_tiles", lambda: None)
        monkeypatch.setattr("vitc.bench.peaks._FASTEST_OF", 1)

    assert PeakLoops(TARGETS["x86-amx"]).measure().int8_gmacs > 0


def test_a_linux_that_withholds_tiles_is_named() -> None:
    if "amx_tile" in host_features():
        pytest.skip("this processor has AMX")
    with pytest.raises(VitcError, match="does not permit"):
        permit_tiles()
