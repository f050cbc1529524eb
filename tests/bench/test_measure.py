from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.manifests import classifier_manifest
from vitc.bench import measure
from vitc.bench.baselines import BASELINES
from vitc.bench.measure import BenchOptions, Latency, bench
from vitc.devices import DeviceRun, RunRequest
from vitc.devices.machine import usable_cores
from vitc.errors import VitcError
from vitc.models import PRESETS
from vitc.runtime.artefact import Artefact

CONFIG = PRESETS["micro"].config.to_dict()
ARTEFACT = Artefact(
    Path("somewhere"), classifier_manifest((3, 32, 32), 10, target="arm", batch=2, config=CONFIG)
)


@dataclass
class FakeDevice:
    emulated: bool
    seen: list[Any]
    name: str = "fake"
    remote: bool = False

    def supports(self, artefact: Artefact) -> None:
        pass

    def run(self, artefact: Artefact, inputs: Any, request: RunRequest) -> DeviceRun:
        assert artefact is ARTEFACT
        (image,) = inputs.values()
        self.seen.append(("artefact", request.repeat, image.shape, len(os.sched_getaffinity(0))))
        times = tuple(2_000_000 for _ in range(request.repeat))
        facts = {"emulator": "e"} if self.emulated else {}
        return DeviceRun({"logits": np.zeros((2, 10), np.float32)}, times, 5_000_000, facts=facts)


class FakeSession:
    def __init__(self, seen: list[Any]) -> None:
        self.seen = seen

    def times(self, runs: int) -> list[int]:
        self.seen.append(("baseline", runs))
        return [6_000_000] * runs


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    events: list[Any] = []
    monkeypatch.setattr(measure, "parse_device", lambda text: FakeDevice(text == "qemu", events))
    monkeypatch.setattr(type(BASELINES["onnxruntime"]), "open", lambda *_: FakeSession(events))
    monkeypatch.setattr(measure, "count_instructions", lambda _: 1_000, raising=False)
    return events


def test_both_sides_take_turns_and_the_ratio_is_that_of_the_medians(seen: list[Any]) -> None:
    report = bench(ARTEFACT, BenchOptions(runs=60))

    sides = [event[0] for event in seen if event[1] > 3]
    assert sides == ["artefact", "baseline"] * 6
    assert report.runs == 60
    assert report.latency.median == 2
    assert report.ratio == 3
    assert report.load_ms == 5


def test_the_artefact_is_given_its_own_batch_on_as_many_cores_as_threads(seen: list[Any]) -> None:
    before = os.sched_getaffinity(0)

    bench(ARTEFACT, BenchOptions(threads=1))

    assert {event[2:] for event in seen if event[0] == "artefact"} == {((2, 3, 32, 32), 1)}
    assert os.sched_getaffinity(0) == before


def test_runs_that_do_not_divide_by_the_rounds_are_all_made(seen: list[Any]) -> None:
    assert bench(ARTEFACT, BenchOptions(runs=32)).runs == 32


def test_emulated_time_has_no_baseline_and_no_ratio(seen: list[Any]) -> None:
    report = bench(ARTEFACT, BenchOptions(device="qemu"))

    assert report.emulated
    assert report.ratio is None
    assert report.to_dict()["baseline"] is None
    assert any("emulated" in warning for warning in report.warnings)
    assert report.machine["emulator"] == "e"
    assert [event[0] for event in seen] == ["artefact"]


def test_more_threads_than_cores_is_a_warning(seen: list[Any]) -> None:
    report = bench(ARTEFACT, BenchOptions(threads=999))

    cores = len(usable_cores())
    assert report.threads == cores
    assert any(f"999 threads were asked for and {cores} used" in w for w in report.warnings)


def test_a_wide_spread_is_a_warning() -> None:
    device: Any = FakeDevice(False, [])
    times = [1_000_000] * 20 + [2_000_000] * 20

    assert any("spread" in w for w in measure._warnings(BenchOptions(), 1, device, [{}], times, []))


def test_percentiles_are_those_of_the_times() -> None:
    latency = Latency.of([n * 1_000_000 for n in range(1, 102)])

    assert (latency.min, latency.p10, latency.median, latency.p90) == (1, 11, 51, 91)


@pytest.mark.parametrize("wrong", [{"runs": 29}, {"threads": 0}, {"warmup": -1}])
def test_options_out_of_range_are_errors(wrong: dict[str, int]) -> None:
    with pytest.raises(VitcError):
        BenchOptions(**wrong)
