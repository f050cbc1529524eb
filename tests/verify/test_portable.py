from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vitc import api
from vitc.devices import DeviceRun, LocalDevice, RunRequest
from vitc.errors import ExitCode
from vitc.runtime.artefact import Artefact
from vitc.verify.portable import check_against_onnx
from vitc.verify.report import CheckFailedError


@pytest.fixture(scope="module")
def artefact(tmp_path_factory: pytest.TempPathFactory) -> Artefact:
    folder = tmp_path_factory.mktemp("portable")
    api.export(api.new("micro", depth=1, seed=4), folder / "m.onnx", api.ExportOptions(check=False))
    return api.compile(folder / "m.onnx", folder / "a", api.CompileOptions(check=False))


class Faulty:
    """This machine, with one value of one tap changed on its way out."""

    name = "faulty"
    emulated = False

    def __init__(self, tap: str, change: Any) -> None:
        self.tap = tap
        self.change = change

    def supports(self, artefact: Artefact) -> None:
        pass

    def run(self, artefact: Artefact, inputs: np.ndarray, request: RunRequest) -> DeviceRun:
        done = LocalDevice().run(artefact, inputs, request)
        assert done.trace is not None
        value = done.trace[self.tap].copy()
        self.change(value.reshape(-1))
        if self.tap == "logits":
            outputs, trace = {"logits": value}, {**done.trace, "logits": value}
            return replace(done, outputs=outputs, trace=trace)
        return replace(done, trace={**done.trace, self.tap: value})


def test_an_artefact_equals_its_own_onnx_file_with_every_bit(artefact: Artefact) -> None:
    report = check_against_onnx(artefact, LocalDevice())

    assert report.equal
    kinds = {layer.name: layer.kind for layer in report.layers}
    assert kinds["blocks.0.attn.context"] == "bits"
    assert kinds["blocks.0.si.output"] == "float"
    # Where the processor has AMX, signs for its tiles are made by steps of their own.
    made = [step.tap for step in artefact.manifest.steps if not step.tap.endswith(".signs")]
    # Layers come in the order of the file; signs of a stream are taken before it is added to.
    assert sorted(layer.name for layer in report.layers) == sorted(made)


@pytest.mark.parametrize("tap", ["blocks.0.attn.value", "blocks.0.mlp.hidden", "blocks.0.si.input"])
def test_one_wrong_bit_of_the_library_is_named(artefact: Artefact, tap: str) -> None:
    def flip(values: np.ndarray) -> None:
        values[77] ^= 1

    report = check_against_onnx(artefact, Faulty(tap, flip))

    assert report.first_difference == tap
    wrong = next(layer for layer in report.layers if layer.name == tap)
    assert wrong.mismatches == 1


@pytest.mark.parametrize("tap", ["embedding", "blocks.0.attn.output", "logits"])
@pytest.mark.parametrize("error", [1e-2, float("nan")])
def test_one_wrong_float_of_the_library_is_named(
    artefact: Artefact, tap: str, error: float
) -> None:
    def shift(values: np.ndarray) -> None:
        values[3] += error

    assert check_against_onnx(artefact, Faulty(tap, shift)).first_difference == tap


def test_a_compilation_that_fails_its_check_leaves_nothing_and_is_exit_code_3(
    artefact: Artefact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = LocalDevice.run

    def wrong(self: LocalDevice, *arguments: Any) -> DeviceRun:
        done = honest(self, *arguments)
        return replace(done, outputs={"logits": done.logits + np.float32(0.5)})

    monkeypatch.setattr(LocalDevice, "run", wrong)
    with pytest.raises(CheckFailedError, match="logits") as caught:
        api.compile(artefact.onnx, tmp_path / "out")

    assert caught.value.exit_code == ExitCode.NOT_EQUAL
    assert list(tmp_path.iterdir()) == []
