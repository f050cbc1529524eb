"""Networks of vitc.nn that nobody here wrote: exported and run, or refused with a reason."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from torch import Tensor

from tests.randomised import randomised
from vitc import nn
from vitc.errors import VitcError
from vitc.exporter import export
from vitc.models import freeze, observe


class Crossed(torch.nn.Module):
    """Queries of one input, keys of another; two outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.AxisNorm(5)
        self.other_norm = nn.AxisNorm(7)
        self.attend = nn.BinaryAttention(12, 3, 5, keys=7)
        self.norm2 = nn.AxisNorm(5)
        self.mlp = nn.BinaryMLP(12, 18, 5)
        self.mix = nn.SpatialInteraction(12, 5)

    def forward(self, stream: Tensor, memory: Tensor) -> dict[str, Tensor]:
        x = nn.tap("attended", stream + self.attend(self.norm(stream), self.other_norm(memory)))
        y = nn.tap("mixed", x + self.mlp(self.norm2(x)) + self.mix(x))
        return {"features": y * 2.0, "summary": x.mean(1)}


def taken(seed: int, batch: int = 3) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        "stream": torch.randn(batch, 5, 12, generator=generator),
        "memory": torch.randn(batch, 7, 12, generator=generator),
    }


@pytest.fixture(scope="module")
def crossed(tmp_path_factory: pytest.TempPathFactory) -> tuple[torch.nn.Module, Path]:
    model = randomised(Crossed(), 1)
    out = tmp_path_factory.mktemp("crossed") / "crossed.onnx"
    export(model, out, example=taken(2, batch=2))
    return model, out


def test_inputs_and_outputs_have_the_names_that_the_network_gives_them(
    crossed: tuple[torch.nn.Module, Path],
) -> None:
    session = onnxruntime.InferenceSession(crossed[1])
    assert [entry.name for entry in session.get_inputs()] == ["stream", "memory"]
    assert [entry.name for entry in session.get_outputs()] == ["features", "summary"]


@pytest.mark.parametrize("seed", [3, 4])
def test_onnx_runtime_computes_what_the_network_computes(
    crossed: tuple[torch.nn.Module, Path], seed: int
) -> None:
    model, path = crossed
    given = taken(seed)
    session = onnxruntime.InferenceSession(path)
    found = session.run(None, {name: value.numpy() for name, value in given.items()})
    with torch.no_grad():
        wanted: Mapping[str, Tensor] = model.double()(**{n: v.double() for n, v in given.items()})
    for value, expected in zip(found, wanted.values(), strict=True):
        np.testing.assert_allclose(value, expected.numpy(), rtol=0, atol=1e-5)
    model.float()


def test_layers_without_a_name_have_that_of_their_module(
    crossed: tuple[torch.nn.Module, Path],
) -> None:
    names: list[str] = []
    with observe(lambda event: names.append(event.name)), torch.no_grad():
        freeze(crossed[0])(**taken(5))
    assert "attend.keys" in names
    assert "mlp.hidden" in names
    assert "mix.mlp.input" in names
    assert len(set(names)) == len(names)


def test_an_example_with_other_names_is_refused(tmp_path: Path) -> None:
    given = taken(6)
    given["memories"] = given.pop("memory")
    with pytest.raises(VitcError, match=r"has memories and lacks memory.*stream, memory"):
        export(Crossed().eval(), tmp_path / "m.onnx", example=given)


class Twice(torch.nn.Module):
    """Two binarized linears, named as the test says."""

    def __init__(self, first: str, second: str) -> None:
        super().__init__()
        self.a = nn.Binarize(name=first)
        self.b = nn.Binarize(name=second)
        self.one = nn.BinaryLinear(8, 8)
        self.two = nn.BinaryLinear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        return self.two(self.b(self.one(self.a(x))))


def test_two_layers_of_one_name_are_refused(tmp_path: Path) -> None:
    with pytest.raises(VitcError, match="Two layers are named same: a and b"):
        export(Twice("same", "same").eval(), tmp_path / "m.onnx", example=torch.zeros(2, 8))


def test_a_name_that_is_another_layers_module_is_refused(tmp_path: Path) -> None:
    with pytest.raises(VitcError, match="Two layers are named b: a and b"):
        export(Twice("b", "").eval(), tmp_path / "m.onnx", example=torch.zeros(2, 8))


def test_a_layer_that_is_called_twice_taps_one_name_twice(tmp_path: Path) -> None:
    class Shared(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.sign = nn.Binarize()
            self.one = nn.BinaryLinear(8, 8)

        def forward(self, x: Tensor) -> Tensor:
            return self.one(self.sign(x)) + self.one(self.sign(x + 1))

    with pytest.raises(VitcError, match="Two values are tapped as sign"):
        export(Shared().eval(), tmp_path / "m.onnx", example=torch.zeros(2, 8))


class Windows(torch.nn.Module):
    """Attention in windows that are images of their own, or groups."""

    def __init__(self, joined: bool) -> None:
        super().__init__()
        self.joined = joined
        self.attend = nn.BinaryAttention(8, 2, 4)

    def forward(self, x: Tensor) -> Tensor:
        batch = x.shape[0]
        windows = x.reshape(batch * 3, 4, 8) if self.joined else x.reshape(batch, 3, 4, 8)
        return self.attend(windows).reshape(batch, 12, 8)


def test_windows_on_the_axis_of_images_are_refused(tmp_path: Path) -> None:
    example = torch.zeros(2, 12, 8)
    with pytest.raises(VitcError, match=r"has shape \[3 \* B, 4, 8\] for B images"):
        export(Windows(joined=True).eval(), tmp_path / "m.onnx", example=example)


def test_windows_on_an_axis_of_their_own_are_exported(tmp_path: Path) -> None:
    model = randomised(Windows(joined=False), 7)
    x = torch.randn(3, 12, 8, generator=torch.Generator().manual_seed(8))
    export(model, tmp_path / "m.onnx", example=x)
    (found,) = onnxruntime.InferenceSession(tmp_path / "m.onnx").run(None, {"input": x.numpy()})
    with torch.no_grad():
        np.testing.assert_allclose(found, model(x).numpy(), rtol=0, atol=1e-5)


class Named(torch.nn.Module):
    """A tapped value that is two outputs, and a sum of both inputs."""

    def __init__(self, tapped: str) -> None:
        super().__init__()
        self.tapped = tapped

    def forward(self, stream: Tensor, memory: Tensor) -> dict[str, Tensor]:
        x = nn.tap(self.tapped, stream * 2.0)
        return {"rows": x, "again": x, "both": x + memory}


def test_an_output_that_is_tapped_under_another_name_keeps_its_own(tmp_path: Path) -> None:
    given = {name: torch.randn(3, 5, 4) for name in ("stream", "memory")}
    export(Named("doubled").eval(), tmp_path / "m.onnx", example=given)
    session = onnxruntime.InferenceSession(tmp_path / "m.onnx")
    assert [output.name for output in session.get_outputs()] == ["rows", "again", "both"]
    found = session.run(None, {name: value.numpy() for name, value in given.items()})
    for value, wanted in zip(found, Named("doubled")(**given).values(), strict=True):
        np.testing.assert_array_equal(value, wanted.numpy())


@pytest.mark.parametrize("name", ["both", "memory"])
def test_a_tap_that_has_the_name_of_another_port_is_refused(tmp_path: Path, name: str) -> None:
    given = {each: torch.zeros(2, 5, 4) for each in ("stream", "memory")}
    with pytest.raises(VitcError, match=f"{name} is tapped, and is the name of another value"):
        export(Named(name).eval(), tmp_path / "m.onnx", example=given)


class Rolled(torch.nn.Module):
    """Tokens that move on by one, the last to the front."""

    def forward(self, x: Tensor) -> Tensor:
        return nn.tap("logits", x.roll(1, 1) * 2.0)


def test_a_slice_without_steps_is_exported(tmp_path: Path) -> None:
    export(Rolled(), tmp_path / "m.onnx", example=torch.zeros(2, 5, 3))
    session = onnxruntime.InferenceSession(tmp_path / "m.onnx")
    x = torch.randn(4, 5, 3, generator=torch.Generator().manual_seed(1))
    (given,) = session.get_inputs()
    (found,) = session.run(None, {given.name: x.numpy()})
    np.testing.assert_array_equal(found, (x.roll(1, 1) * 2.0).numpy())


def test_the_layers_are_imported_when_they_are_used() -> None:
    code = "import sys, vitc.nn; assert 'torch' not in sys.modules; vitc.nn.BinaryLinear(2, 2)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=600)


def test_an_export_with_its_check_imports_no_compiler(tmp_path: Path) -> None:
    code = """
import sys
from vitc import api
api.export(api.new("micro", depth=1), sys.argv[1])
assert not {"tvm", "torch._dynamo"} & set(sys.modules)
"""
    command = [sys.executable, "-c", code, str(tmp_path / "m.onnx")]
    subprocess.run(command, check=True, timeout=600)


def test_every_public_layer_says_which_shapes_it_takes() -> None:
    for name in set(nn.__all__) - {"tap"}:
        layer = getattr(nn, name)
        text = f"{layer.__doc__} {layer.forward.__doc__}"
        assert "[" in text, name
