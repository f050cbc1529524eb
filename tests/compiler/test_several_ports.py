"""A network of two inputs and two outputs, from PyTorch to the library and its runner."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.randomised import randomised
from vitc import api, nn
from vitc.cli.run import run
from vitc.devices import LocalDevice, RunRequest
from vitc.errors import VitcError
from vitc.exporter import export
from vitc.onnx_files import run_with_taps
from vitc.runtime import Artefact


class Crossed(torch.nn.Module):
    """Queries of one input, keys of another; two outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.AxisNorm(5)
        self.other_norm = nn.AxisNorm(7)
        self.attend = nn.BinaryAttention(40, 2, 5, keys=7)
        self.norm2 = nn.AxisNorm(5)
        self.mlp = nn.BinaryMLP(40, 18, 5)

    def forward(self, stream: Tensor, memory: Tensor) -> dict[str, Tensor]:
        x = stream + self.attend(self.norm(stream), self.other_norm(memory))
        return {"attended": x, "features": x + self.mlp(self.norm2(x))}


def given(seed: int, images: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {
        "stream": rng.standard_normal((images, 5, 40), np.float32),
        "memory": rng.standard_normal((images, 7, 40), np.float32),
    }


@pytest.fixture(scope="module")
def crossed(tmp_path_factory) -> tuple[Path, Artefact]:
    folder = tmp_path_factory.mktemp("crossed")
    torch.manual_seed(3)
    model = randomised(Crossed(), 3)
    example = {name: torch.from_numpy(array) for name, array in given(1, 2).items()}
    export(model, folder / "m.onnx", example=example)
    return folder / "m.onnx", api.compile(
        folder / "m.onnx", folder / "out", api.CompileOptions(batch=2)
    )


def need_close(found: dict[str, np.ndarray], wanted: dict[str, np.ndarray]) -> None:
    assert list(found) == ["attended", "features"]
    for name, value in found.items():
        # Sums of 40 products in another order; a wrong bit moves a value by a unit.
        np.testing.assert_allclose(value, wanted[name], rtol=0, atol=1e-4, err_msg=name)


@pytest.mark.parametrize("images", [1, 2, 5])
def test_every_output_is_what_onnx_runtime_makes(crossed, images):
    path, artefact = crossed
    arrays = given(7, images)
    wanted = run_with_taps(path, arrays, ["attended", "features"])
    need_close(artefact.load(2).run(arrays), wanted)
    done = LocalDevice().run(artefact, arrays, RunRequest(threads=2, trace=True))
    need_close(dict(done.outputs), wanted)
    assert np.array_equal(done.logits, done.outputs["attended"])


def test_the_check_of_the_compiler_looked_at_every_layer_and_the_runner_tests_itself(crossed):
    artefact = crossed[1]
    assert artefact.manifest.check["equal"]
    done = subprocess.run(
        [artefact.runner, "--self-test"], capture_output=True, text=True, check=False, timeout=600
    )
    assert done.returncode == 0, done.stderr
    assert f'"taps": {len(artefact.manifest.steps)}' in done.stdout


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda a: a.pop("memory"), "Missing inputs: memory"),
        (lambda a: a.update(more=a["stream"]), "Unknown inputs: more"),
        (lambda a: a.update(memory=a["memory"][:2]), "differ in images: stream 3, memory 2"),
        (lambda a: a.update(memory=a["memory"][:, :6]), r"memory has shape \[3, 6, 40\]"),
        (lambda a: a.update(memory=a["memory"] / 0), "memory holds"),
        (lambda a: a.update(memory=a["memory"].astype(np.int32)), "memory holds int32"),
    ],
)
@pytest.mark.filterwarnings("ignore:divide by zero")
def test_inputs_that_do_not_fit_are_named(crossed, change, says):
    arrays = given(8, 3)
    change(arrays)
    with pytest.raises(VitcError, match=says):
        crossed[1].load().run(arrays)


def test_a_network_of_several_ports_is_no_function_of_one_image(crossed):
    with pytest.raises(VitcError, match="several outputs: attended, features"):
        crossed[1](given(1, 1)["stream"])
    with pytest.raises(VitcError, match="no classifier of one image"):
        _ = crossed[1].image_shape


def test_the_runner_names_what_is_missing(crossed, tmp_path):
    np.save(tmp_path / "a.npy", given(1, 1)["stream"])
    runner = crossed[1].runner

    def said(*arguments: object) -> str:
        command = [runner, *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)
        assert done.returncode == 1
        assert done.stderr.count("\n") == 1
        return done.stderr

    a = tmp_path / "a.npy"
    assert "2 inputs and 2 outputs" in said(a, tmp_path / "b.npy")
    assert "no array for the input memory" in said("--input", f"stream={a}")
    assert "no input strea" in said("--input", f"strea={a}")
    assert "stream is named twice" in said("--input", f"stream={a}", "--input", f"stream={a}")
    assert "memory wants 7 x 40" in said("--input", f"stream={a}", "--input", f"memory={a}")
    assert "no entry walk" in said("--entry", "walk", "--input", f"stream={a}")
    assert "wants NAME=FILE" in said("--output", "attended")


@pytest.mark.parametrize(
    ("option", "says"),
    [
        ({"topk": 3}, "--topk is for a network that takes pictures"),
        ({"background": "white"}, "--background is for a network that takes pictures"),
        ({"allow_external_data": True}, "is no ONNX file"),
    ],
)
def test_an_option_that_would_do_nothing_is_refused(crossed, option, says):
    with pytest.raises(VitcError, match=says):
        run(crossed[1].path, [Path("stream=x.npy")], **option)


def test_threads_are_bound_where_that_is_asked_for(crossed, tmp_path, monkeypatch):
    asked = []
    honest = LocalDevice.run

    def seen(self, artefact, inputs, request):
        asked.append(request.pin)
        return honest(self, artefact, inputs, request)

    monkeypatch.setattr(LocalDevice, "run", seen)
    named = []
    for name, array in given(9, 1).items():
        np.save(tmp_path / f"{name}.npy", array)
        named.append(Path(f"{name}={tmp_path}/{name}.npy"))
    for pin in (True, False):
        run(crossed[1].path, named, pin=pin)
    assert asked == [True, False]


def test_the_command_takes_each_input_by_its_name(crossed, tmp_path):
    path, artefact = crossed
    arrays = given(9, 3)
    for name, array in arrays.items():
        np.save(tmp_path / f"{name}.npy", array)

    def vitc(*inputs: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "vitc", "run", str(artefact.path), *inputs]
        out = ["--out", str(tmp_path / "out.npz"), "--force"]
        return subprocess.run([*command, *out], capture_output=True, text=True, check=False)

    named = [f"{name}={tmp_path}/{name}.npy" for name in arrays]
    done = vitc(*named)
    assert done.returncode == 0, done.stderr
    assert "features" in done.stdout
    with np.load(tmp_path / "out.npz") as found:
        need_close(dict(found), run_with_taps(path, arrays, ["attended", "features"]))
    for wrong, said in ((named[:1], "memory"), ([*named, named[0]], "twice"), (["x.npy"], "which")):
        done = vitc(*wrong)
        assert done.returncode == 1
        assert said in done.stderr
