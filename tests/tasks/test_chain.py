"""Networks of a task through the rest of the chain: check, bench, inspect, reports, ARM."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.tasks.networks import compiled, exported
from vitc import inspect
from vitc.bench.baselines import usual_baseline
from vitc.runtime import Artefact

OUTPUTS = {
    "detection": ["classes_8", "boxes_8", "centreness_8"],
    "segmentation": ["logits"],
}
EMULATORS = {"arm": "aarch64", "armv7": "arm"}


@pytest.fixture(scope="module", params=["detection", "segmentation"])
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Task, checkpoint, ONNX file and artefact, with a binary head."""
    folder = tmp_path_factory.mktemp(request.param)
    head = {"tower": "pointwise", "binary_head": True}
    paths = exported(folder, request.param, size=(32, 64), **head)
    return request.param, *paths, compiled(paths[1]).path


def test_bench_times_the_whole_network_beside_its_full_precision_twin(
    vitc: Any, made: Any, tmp_path: Path
) -> None:
    task, _, _, artefact = made
    opened = Artefact.open(artefact)
    assert usual_baseline(opened).name == "onnxruntime"
    page = tmp_path / "bench.html"
    done = vitc("bench", artefact, "--runs", 30, "--warmup", 1, "--json", "-", "--report", page)
    assert done.code == 0, done.err
    told = done.json
    assert told["baseline"]["name"] == "onnxruntime"
    assert told["ratio"] > 0
    import onnx

    twin = onnx.load_from_string(usual_baseline(opened).build(opened))
    assert [output.name for output in twin.graph.output] == OUTPUTS[task]
    assert "full-precision twin" in page.read_text(encoding="utf-8")


def test_inspect_tells_the_same_layers_of_checkpoint_file_and_artefact(
    vitc: Any, made: Any
) -> None:
    task, *places = made
    told = [vitc("inspect", place, "--json", "-").json for place in places]
    assert all(each["config"]["arch"] == task for each in told)
    layers = [[layer["name"] for layer in each["layers"]] for each in told]
    assert layers[0] == layers[1] == layers[2]
    assert any(name.startswith("head.") for name in layers[0])
    account = inspect(places[0]).account
    assert any(layer.binary_weights for layer in account.layers if layer.name.startswith("head."))
    assert [port["name"] for port in told[2]["outputs"]] == OUTPUTS[task]


@pytest.mark.parametrize("target", EMULATORS)
def test_every_map_of_an_arm_artefact_is_checked_under_qemu(
    vitc: Any, made: Any, need_emulator: Any, tmp_path: Path, target: str
) -> None:
    need_emulator(EMULATORS[target])
    task, checkpoint, onnx, _ = made
    artefact = compiled(onnx, target).path
    page = tmp_path / "check.html"
    done = vitc(
        "check", artefact, "--reference", checkpoint, "--device", "qemu", "--images", 2,
        "--no-rebuild", "--json", tmp_path / "c.json", "--report", page,
    )  # fmt: skip
    assert done.code == 0, done.err
    told = json.loads((tmp_path / "c.json").read_text())
    assert told["equal"]
    names = {layer["name"] for layer in told["layers"]}
    assert {f"{name}.raw" if task == "detection" else name for name in OUTPUTS[task]} & names
    assert OUTPUTS[task][0] in page.read_text(encoding="utf-8")
