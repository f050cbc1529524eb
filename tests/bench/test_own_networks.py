"""A network of one's own, of any ports: what is in it, and how long it takes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.manifests import classifier_manifest
from tests.processors import NATIVE
from tests.randomised import randomised
from vitc import api, nn
from vitc.bench import BenchOptions, bench, inspect
from vitc.devices.instructions import count_instructions
from vitc.errors import VitcError
from vitc.runtime import Artefact
from vitc.runtime.arrays import PROBE_EXTENT, probe_inputs
from vitc.runtime.port import Port

EXAMPLE = {"stream": torch.zeros(2, 5, 40), "other": torch.zeros(2, 5, 40)}


class Pair(torch.nn.Module):
    """Two inputs, two outputs; binary products of 5 x 40 x 18 and 5 x 18 x 40."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.AxisNorm(5)
        self.mlp = nn.BinaryMLP(40, 18, 5)
        self.head = torch.nn.Linear(40, 3)

    def forward(self, stream: Tensor, other: Tensor) -> dict[str, Tensor]:
        x = nn.tap("joined", stream + other)
        x = nn.tap("mixed", x + self.mlp(self.norm(x)))
        return {"rows": x, "scores": nn.tap("scores", self.head(x.mean(1)))}


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Artefact:
    folder = tmp_path_factory.mktemp("pair")
    api.export(randomised(Pair(), 1), folder / "m.onnx", example=EXAMPLE)
    options = api.CompileOptions(batch=2, target=NATIVE)
    return api.compile(folder / "m.onnx", folder / "out", options)


def test_file_and_artefact_are_accounted_for_alike(pair: Artefact) -> None:
    folder, file = inspect(pair.path), inspect(pair.onnx)
    assert folder.account == file.account
    assert folder.config is None
    assert folder.inputs == file.inputs == pair.manifest.entries[0].inputs
    assert folder.outputs == file.outputs == pair.manifest.entries[0].outputs
    json.dumps(folder.to_dict())


def test_what_it_costs_is_what_its_layers_are(pair: Artefact) -> None:
    found = inspect(pair.path)
    layers = {layer.name: layer for layer in found.account.layers}
    assert found.account.binary_weights == 2 * 40 * 18
    assert found.account.binary_macs == 2 * 5 * 40 * 18
    assert layers["mlp"].binary_macs == layers["mixed"].binary_macs == 5 * 40 * 18
    assert (layers["scores"].kind, layers["scores"].fp_macs) == ("float", 40 * 3)
    assert layers["scores"].why
    assert layers["scores"].parameters >= 40 * 3 + 3
    # 18 rows of 40 bits are 5 bytes each; their thresholds lie beside them.
    assert layers["mlp"].folded_bytes > 18 * 5
    # Every kernel belongs to a layer, those between two taps to the one they work towards.
    calls = {kernel for row in found.kernels.values() for kernel in row.split(", ")}
    assert calls == {step.kernel for step in pair.manifest.steps}
    assert set(found.kernels) <= set(layers)


def test_a_file_of_another_format_says_what_to_inspect(tmp_path: Path) -> None:
    model = randomised(Pair(), 1)
    api.export(model, tmp_path / "m.onnx", api.ExportOptions(form="int8"), example=EXAMPLE)
    with pytest.raises(VitcError, match="has format int8"):
        inspect(tmp_path / "m.onnx")


def test_it_is_timed_beside_its_own_file(pair: Artefact) -> None:
    report = bench(pair, BenchOptions(runs=30, pin=False, profile=True))
    assert report.baseline is not None
    assert report.baseline[0] == "packed"
    assert report.batch == 2
    assert report.ratio
    assert report.profile is not None
    assert report.profile.binary().macs.binary == 2 * 5 * 40 * 18


@pytest.mark.parametrize("name", ["onnxruntime", "onnxruntime-int8", "int8"])
def test_a_baseline_that_needs_a_configuration_says_which_do_not(pair: Artefact, name: str) -> None:
    with pytest.raises(VitcError, match="without a configuration") as caught:
        bench(pair, BenchOptions(runs=30, baseline=name))
    assert "--baseline packed" in (caught.value.hint or "")


def test_its_instructions_are_counted(pair: Artefact, need_emulator) -> None:
    need_emulator("aarch64")
    arm = api.compile(pair.onnx, pair.path.parent / "arm", api.CompileOptions(target="arm"))
    assert count_instructions(arm) > 1000


def test_the_commands_take_it(pair: Artefact, tmp_path: Path) -> None:
    def vitc(*arguments: object) -> str:
        command = [sys.executable, "-m", "vitc", *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)
        assert done.returncode == 0, done.stderr
        return done.stdout

    said = vitc("inspect", pair.path)
    for part in ("stream float32 [N, 5, 40]", "scores float32 [N, 3]", "without a configuration"):
        assert part in said
    json_to = tmp_path / "bench.json"
    vitc("bench", pair.path, "--runs", 30, "--no-pin", "--json", json_to)
    assert json.loads(json_to.read_text())["baseline"]["name"] == "packed"


def test_random_inputs_respect_the_limit_of_an_index() -> None:
    ports = (
        Port("words", "int32", (50,), limit=7),
        Port("bits", "uint8", (50,)),
        Port("x", "float32", (2,), per_image=False),
    )
    made = probe_inputs(ports, 4, 0)
    assert [made[port.name].shape for port in ports] == [(4, 50), (4, 50), (2,)]
    assert set(np.unique(made["words"])) == set(range(7))
    assert set(np.unique(made["bits"])) == {0, 1}


def test_random_rows_of_packed_bits_have_no_spare_bits_and_the_extent_is_that_of_all() -> None:
    ports = (
        Port("query", "uint8", (2, 3), per_image=False),
        Port("documents", "uint8", (None, 2, 3), per_image=False),
        Port("codes", "float32", (None, 3)),
    )
    made = probe_inputs(ports, 4, 0, n=50, widths={"query": 21, "documents": 21})
    assert [made[port.name].shape for port in ports] == [(2, 3), (50, 2, 3), (4, 50, 3)]
    assert made["documents"][..., 2].max() == 31
    assert made["documents"][..., :2].max() > 250
    assert probe_inputs(ports, 1, 0)["codes"].shape == (1, PROBE_EXTENT, 3)


def test_a_classifier_with_a_configuration_keeps_its_twin() -> None:
    from vitc.bench.baselines import usual_baseline

    known = classifier_manifest((3, 32, 32), 10, config=api.new("micro").config.to_dict())
    assert usual_baseline(Artefact(Path("somewhere"), known)).name == "onnxruntime"
    own = classifier_manifest((3, 32, 32), 10)
    assert usual_baseline(Artefact(Path("somewhere"), own)).name == "packed"
