"""A network of several inputs and outputs against its module: each output by its own bound."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor

from tests.randomised import randomised
from vitc import api, nn
from vitc.devices import DeviceRun, LocalDevice, RunRequest
from vitc.errors import VitcError
from vitc.models import TapEvent, freeze, observe
from vitc.onnx_files import load_onnx
from vitc.onnx_files.ports import input_ports
from vitc.runtime import Artefact
from vitc.runtime.port import Port
from vitc.verify import CheckFailedError, CheckOptions, check
from vitc.verify.comparison import Given, Images, compare
from vitc.verify.forcing import Reference
from vitc.verify.inputs import probe_ports

STREAM, MEMORY = Port("stream", "float32", (5, 40)), Port("memory", "float32", (7, 40))


class Crossed(torch.nn.Module):
    """Queries of one input, keys of another; outputs of three kinds, one of them no tap."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.AxisNorm(5)
        self.other_norm = nn.AxisNorm(7)
        self.attend = nn.BinaryAttention(40, 2, 5, keys=7)
        self.norm2 = nn.AxisNorm(5)
        self.mlp = nn.BinaryMLP(40, 18, 5)

    def forward(self, stream: Tensor, memory: Tensor) -> dict[str, Tensor]:
        x = stream + self.attend(self.norm(stream), self.other_norm(memory))
        x = nn.tap("attended", x)
        y = nn.tap("mixed", x + self.mlp(self.norm2(x)))
        return {"small": y.mean(2) / 1000, "attended": x}


@pytest.fixture(scope="module")
def model() -> torch.nn.Module:
    return randomised(Crossed(), 3)


@pytest.fixture(scope="module")
def exported(model: torch.nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("crossed") / "m.onnx"
    example = {"stream": torch.zeros(2, 5, 40), "memory": torch.zeros(2, 7, 40)}
    api.export(model, out, example=example)
    return out


@pytest.fixture(scope="module")
def artefact(exported: Path) -> Artefact:
    return api.compile(exported, exported.parent / "out", api.CompileOptions(batch=2))


class InFp32:
    """The network in fp32, with a change of one output."""

    path, device = Path("fp32"), "nowhere"
    machine: Mapping[str, Any] = {}

    def __init__(self, model: torch.nn.Module, output: str = "", change: float = 0.0) -> None:
        self.model, self.output, self.change = freeze(model), output, change

    def trace(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        seen: dict[str, np.ndarray] = {}

        def note(event: TapEvent) -> None:
            seen[event.name] = event.value.numpy().copy()

        with torch.no_grad(), observe(note):
            made = self.model(**{n: torch.from_numpy(value) for n, value in inputs.items()})
        outputs = {name: value.numpy().copy() for name, value in made.items()}
        if self.output:
            outputs[self.output].reshape(len(outputs[self.output]), -1)[1, 2] += self.change
        return {**seen, **outputs}

    def outputs(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        return {name: self.trace(inputs)[name] for name in ("small", "attended")}


def images(count: int = 3) -> Images:
    return Images(Given(probe_ports([STREAM, MEMORY], count, seed=5)), count)


def test_fp32_is_within_the_bound_of_each_output_and_there_are_no_classes(model) -> None:
    report = compare(InFp32(model), Reference(model), images())
    assert report.equal
    bounds = {each.name: each.tolerance for each in report.outputs}
    assert list(bounds) == ["small", "attended"]
    # The mean of 40 values over 1,000: one bound for all outputs would let it be nothing.
    assert 0 < bounds["small"] < bounds["attended"] / 200
    assert all(each.max_difference <= each.tolerance for each in report.outputs)
    assert report.top1_agreement is None
    assert "small" in {layer.name for layer in report.layers}


@pytest.mark.parametrize("output", ["small", "attended"])
def test_an_output_is_held_to_its_own_bound(model, output: str) -> None:
    honest = compare(InFp32(model), Reference(model), images())
    bounds = {each.name: each.tolerance for each in honest.outputs}
    wrong = 4 * bounds[output]
    assert output == "attended" or wrong < bounds["attended"]
    report = compare(InFp32(model, output, wrong), Reference(model), images())
    assert report.first_difference == output
    assert [(each.index, each.output) for each in report.differing_images] == [(1, output)]
    assert report.to_dict()["differing_images"][0]["reference"] is None
    assert output in report.verdict


def test_an_output_that_is_no_number_is_a_difference(model) -> None:
    report = compare(InFp32(model, "small", float("nan")), Reference(model), images())
    assert report.first_difference == "small"


def test_other_outputs_than_the_reference_has_are_an_error(model) -> None:
    class Lacking(InFp32):
        def outputs(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
            return {"attended": self.trace(inputs)["attended"]}

    with pytest.raises(VitcError, match="gives attended, the reference small, attended"):
        compare(Lacking(model), Reference(model), images())


def test_bits_and_integers_are_outputs_like_any_others() -> None:
    class Signs(torch.nn.Module):
        def forward(self, a: Tensor, b: Tensor) -> dict[str, Tensor]:
            bits = nn.tap("bits", torch.ops.vitc.binarize(a + b), "bits")
            return {"taken": bits, "count": bits.sum(1, dtype=torch.int32)}

    class Faulty(InFp32):
        def outputs(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
            return {name: self.trace(inputs)[name] for name in ("taken", "count")}

        def trace(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
            made = super().trace(inputs)
            return {**made, "count": made["count"] + np.int32(self.change)}

    ports = [Port("a", "float32", (6,)), Port("b", "float32", (6,))]
    given = Images(Given(probe_ports(ports, 5, seed=1)), 5)
    signs = Signs().eval()
    assert compare(Faulty(signs), Reference(signs), given).equal
    report = compare(Faulty(signs, change=1), Reference(signs), given)
    assert report.first_difference == "count"
    counted = next(layer for layer in report.layers if layer.name == "count")
    assert (counted.kind, counted.mismatches) == ("int", 5)


def test_file_and_library_equal_the_module(model, exported: Path, artefact: Artefact) -> None:
    for candidate in (exported, artefact.path):
        report = check(candidate, model, CheckOptions(images=5, threads=2))
        assert report.equal, report.verdict
        assert [each.name for each in report.outputs] == ["small", "attended"]
        assert {"attend.context", "mlp.hidden", "small"} <= {each.name for each in report.layers}


def test_a_wrong_output_of_the_library_is_named(
    model, artefact: Artefact, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = LocalDevice.run

    def wrong(self: LocalDevice, artefact: Artefact, inputs: Any, request: RunRequest) -> DeviceRun:
        done = honest(self, artefact, inputs, request)
        done.outputs["small"][2, 3] += np.float32(1e-4)
        return done

    monkeypatch.setattr(LocalDevice, "run", wrong)
    report = check(artefact.path, model, CheckOptions(rebuild=False))
    assert report.first_difference == "small"


def test_another_module_of_the_same_ports_is_told_by_its_parameters(exported: Path) -> None:
    report = check(exported, randomised(Crossed(), 4))
    assert not report.equal
    assert report.parameters


def test_a_module_of_other_inputs_is_refused_with_their_names(exported: Path) -> None:
    class Other(Crossed):
        def forward(self, stream: Tensor, context: Tensor) -> dict[str, Tensor]:
            return super().forward(stream, context)

    with pytest.raises(VitcError, match="has memory and lacks context"):
        check(exported, randomised(Other(), 3))


def test_an_export_that_loses_an_output_on_its_way_leaves_no_file(
    model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from vitc.exporter import onnx_export

    honest = onnx_export._serialized

    def halved(onnx_model: Any) -> bytes:
        proto = onnx.ModelProto.FromString(honest(onnx_model))
        (node,) = (n for n in proto.graph.node if n.output[0] == "small")
        (held,) = (t for t in proto.graph.initializer if t.name in node.input)
        held.CopyFrom(onnx.numpy_helper.from_array(np.float32(1001), held.name))
        return proto.SerializeToString()

    monkeypatch.setattr(onnx_export, "_serialized", halved)
    example = {"stream": torch.zeros(2, 5, 40), "memory": torch.zeros(2, 7, 40)}
    with pytest.raises(CheckFailedError, match="first difference is at small"):
        api.export(model, tmp_path / "m.onnx", example=example)
    assert list(tmp_path.iterdir()) == []


def test_ports_of_a_file_are_those_of_its_library(exported: Path, artefact: Artefact) -> None:
    ports = input_ports(load_onnx(exported)[0])
    assert ports == artefact.manifest.entries[0].inputs == (STREAM, MEMORY)


def test_an_index_has_as_its_limit_the_rows_that_there_are_to_pick_from(tmp_path: Path) -> None:
    class Words(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rows = torch.nn.Embedding(11, 8)

        def forward(self, words: Tensor, other: Tensor) -> Tensor:
            return nn.tap("logits", (self.rows(words) + other).mean(1))

    words = Words().eval()
    example = {"words": torch.zeros(2, 3, dtype=torch.int64), "other": torch.zeros(2, 3, 8)}
    api.export(words, tmp_path / "m.onnx", example=example)
    ports = input_ports(load_onnx(tmp_path / "m.onnx")[0])
    assert ports[0] == Port("words", "int32", (3,), limit=11)
    probes = probe_ports(ports, 200)["words"]
    assert (probes.min(), probes.max()) == (0, 10)
    assert check(tmp_path / "m.onnx", words).equal
