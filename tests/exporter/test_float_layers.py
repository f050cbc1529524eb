"""A binary layer that falls back to float is an error, or named, listed and exact."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
from torch import nn

import vitc
from tests.exporter.exports import CONFIG, traced
from vitc.bench import inspect
from vitc.compiler import compile_model
from vitc.errors import VitcError
from vitc.exporter import Traced, build, export, trace
from vitc.models import ops, random_model, save
from vitc.models.architectures import account
from vitc.models.binary_linear import BinaryLinear
from vitc.models.schemes import BIBERT
from vitc.models.taps import binarize, tap
from vitc.onnx_files import load_onnx, session
from vitc.verify import check


@pytest.fixture(scope="module")
def wide() -> Traced:
    """A model of the first training step: binary activations, 32-bit weights."""
    return traced(weight_bits=32)


@pytest.fixture(scope="module", params=["packed", "int8"])
def file(request, wide, tmp_path_factory):
    out = tmp_path_factory.mktemp("wide") / "m.onnx"
    return export(wide, out, form=request.param, allow_float=["blocks"]).path


class Sine(nn.Module):
    """What follows the first layer's integers is no threshold."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(2)
        self.first, self.second = BinaryLinear(19, 6, BIBERT), BinaryLinear(6, 19, BIBERT)
        self.norm = nn.BatchNorm1d(4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        bits = binarize(self.norm(x), "net.input")
        hidden = binarize(torch.sin(self.first.sections(bits)[0].value()), "net.hidden")
        return tap("net.output", x + self.second.sections(hidden)[0].value())


@pytest.fixture(scope="module")
def sine() -> Traced:
    return trace(Sine().eval(), torch.zeros(2, 4, 19))


def test_a_layer_with_32_bit_weights_is_named(wide):
    with pytest.raises(
        VitcError, match=r"blocks\.0\.attn\.qkv would fall back .* 32-bit"
    ) as caught:
        build(wide)
    assert "--allow-float blocks.0.attn.qkv" in caught.value.hint
    with pytest.raises(VitcError, match=r"blocks\.1\.attn\.qkv would fall back"):
        build(wide, allow_float=["blocks.0"])


def test_an_allowed_file_computes_what_the_model_computes_and_says_what_is_float(wide, file):
    _, facts = load_onnx(file)
    assert len(facts.float_layers) == 12
    assert facts.float_layers["blocks.1.mlp.fc2"] == "it has 32-bit weights"
    assert inspect(file).float_layers == facts.float_layers
    report = check(file, wide)
    assert report.equal
    assert sum(layer.values for layer in report.layers if layer.kind == "bits") > 1000


def test_a_fault_in_a_float_layer_is_named(wide, file, tmp_path):
    # Bounds that grew with the layer's sums would be no use if they let everything pass.
    proto = onnx.load(file)
    shape = (wide.model.config.width, wide.model.config.hidden)
    weight = next(
        t for t in proto.graph.initializer
        if tuple(t.dims) in (shape, shape[::-1]) and t.data_type == onnx.TensorProto.FLOAT
    )  # fmt: skip
    values = onnx.numpy_helper.to_array(weight).copy()
    values[0, 0] += np.float32(0.05)
    weight.raw_data = values.tobytes()
    damaged = tmp_path / "m.onnx"
    damaged.write_bytes(proto.SerializeToString())
    report = check(damaged, wide)
    assert not report.equal
    assert any(not layer.equal for layer in report.layers)
    assert weight.name.startswith(str(report.first_difference))


def test_the_compiler_says_that_it_has_no_kernel(file, tmp_path):
    words = "12 layers in float, which no kernel computes"
    if load_onnx(file)[1].form != "packed":
        words = "only packed files are compiled"
    with pytest.raises(VitcError, match=words):
        compile_model(file, "x86-64-v2", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_file_that_hides_its_float_layers_is_not_compiled_and_not_equal(wide, file, tmp_path):
    proto = onnx.load(file)
    kept = [entry for entry in proto.metadata_props if entry.key != "vitc.float_layers"]
    del proto.metadata_props[:]
    proto.metadata_props.extend(kept)
    hidden = tmp_path / "m.onnx"
    hidden.write_bytes(proto.SerializeToString())
    with pytest.raises(VitcError):
        compile_model(hidden, "x86-64-v2", tmp_path / "out")
    with pytest.raises(VitcError, match="would fall back to float"):
        check(hidden, wide)


@pytest.mark.parametrize("form", ["packed", "int8", "float"])
def test_integers_that_meet_a_float_operator_are_still_a_binary_product(sine, tmp_path, form):
    x = torch.randn(5, 4, 19)
    result = export(sine, tmp_path / "net.onnx", form=form)
    assert (result.float_layers, result.binary_operators) == ({}, 2)
    if form == "packed":
        operators = result.operators
        assert (operators["BinaryLinear"], operators["BinaryLinearResidual"]) == (1, 1)
    own = session(result.path).run(None, {"input": x.numpy()})[0]
    np.testing.assert_allclose(own, sine.model(x).detach().numpy(), rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("allowed", "says"),
    [
        ("second", "second is binary in the file"),
        ("norm", "no binary layer 'norm'.*there are first, second"),
        ("fir", "no binary layer 'fir'"),
    ],
)
def test_a_name_that_allows_nothing_is_an_error(sine, allowed, says):
    with pytest.raises(VitcError, match=says):
        build(sine, allow_float=[allowed])


class Softmax(nn.Module):
    """A mask as the release of SI-BiViT writes it."""

    def forward(self, scores: torch.Tensor) -> torch.Tensor:
        return ops.softmax_mask((scores.float() * 8**-0.5).softmax(dim=-1), 0.25)


def test_a_mask_of_a_softmax_is_binary_if_a_rewrite_makes_it_so(monkeypatch):
    from vitc.exporter import onnx_export
    from vitc.passes import PHASES

    monkeypatch.setattr(type(BIBERT), "mask", lambda *_: Softmax())
    source = trace(random_model(CONFIG, seed=3))
    assert "RowBestMask" in {node.op_type for node in build(source)[0].graph}
    left = tuple(phase for phase in PHASES if phase.name != "softmax_to_row_best")
    monkeypatch.setattr(onnx_export, "PHASES", left)
    with pytest.raises(VitcError, match=r"The layer blocks\.0\.attn\.scores would fall back"):
        build(source)


def test_scheme_float_has_no_layers_to_allow(wide):
    with pytest.raises(VitcError, match="stores bits as signs"):
        build(wide, form="float", allow_float=["blocks"])


def test_the_api_exports_a_checkpoint_with_float_layers(wide, tmp_path):
    save(wide.model, tmp_path / "m.safetensors")
    options = vitc.ExportOptions(allow_float=("blocks",))
    done = vitc.export(tmp_path / "m.safetensors", tmp_path / "m.onnx", options)
    assert len(done.float_layers) == 12


def test_inspect_allow_float_and_errors_call_a_layer_the_same(model, wide, file):
    binary = {layer.name for layer in account(model.config).layers if layer.kind == "binary"}
    names = [*load_onnx(file)[1].float_layers]
    assert any(name.endswith(".si.fc1") for name in names)
    assert [name for name in names if name not in binary] == []
    with pytest.raises(VitcError, match=r"blocks\.0\.si\.fc1 would fall back to float"):
        build(wide, allow_float=["blocks.1", "blocks.0.attn", "blocks.0.mlp", "blocks.0.si.fc2"])


def test_a_layer_may_be_named_by_its_module_too(wide, file):
    names = [name.replace(".si.", ".mlp2.") for name in load_onnx(file)[1].float_layers]
    assert build(wide, allow_float=names)[1]


def test_an_unknown_layer_is_answered_with_the_nearest(wide):
    with pytest.raises(VitcError, match=r"did you mean blocks\.0\.attn\.qkv\?"):
        build(wide, allow_float=["blocks.0.attn.qvk"])


def test_products_of_activations_are_known_by_the_names_of_inspect(source):
    with pytest.raises(VitcError, match=r"blocks\.0\.attn\.scores is binary in the file"):
        build(source, allow_float=["blocks.0.attn.scores"])
