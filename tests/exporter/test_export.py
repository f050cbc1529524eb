from __future__ import annotations

import json
import logging
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from tests.exporter.exports import CONFIG
from vitc.errors import VitcError
from vitc.exporter import build, export, onnx_export, trace
from vitc.models import ops
from vitc.models.binary_linear import BinaryLinear
from vitc.models.initialise import random_model
from vitc.models.schemes import BIBERT
from vitc.models.taps import binarize, tap
from vitc.onnx_files import load_onnx, session
from vitc.passes import PHASES
from vitc.passes.residual import Residual
from vitc.verify import CheckOptions, check


class TwoLinears(nn.Module):
    """A network of vitc's layers that is no transformer."""

    def __init__(self, skip: bool = False, tie: bool = False) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.skip, self.tie = skip, tie
        self.first = BinaryLinear(19, 6, BIBERT)
        self.second = BinaryLinear(6, 19, BIBERT)
        nn.init.normal_(self.first.weight)
        nn.init.normal_(self.first.bias)
        nn.init.normal_(self.second.weight)
        self.norm = nn.BatchNorm1d(4)
        self.norm.running_mean.normal_()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        bits = binarize(self.norm(x), "net.input")
        if self.skip:
            return tap("net.output", bits.to(x.dtype))
        hidden = binarize(self.first.sections(bits)[0].value(), "net.hidden")
        out = x + self.second.sections(hidden)[0].value()
        if self.tie:
            out = out + ops.binary_linear(bits, (out[0, :1] > 0).to(torch.uint8)).to(x.dtype)
        return tap("net.output", out)


def test_any_network_of_these_layers_exports(tmp_path) -> None:
    net = TwoLinears().eval()
    x = torch.randn(5, 4, 19)
    result = export(net, tmp_path / "net.onnx", example=x[:2])
    assert result.operators == {
        "Binarize": 1,
        "BinaryLinearResidual": 1,
        "BinaryLinearThreshold": 1,
        "Identity": 1,  # the output is called logits, and its value net.output
        "PackBits": 2,
    }
    own = session(result.path).run(None, {"input": x.numpy()})[0]
    np.testing.assert_allclose(own, net(x).detach().numpy(), rtol=0, atol=1e-6)


def test_a_binary_layer_that_is_not_exported_is_named(tmp_path) -> None:
    with pytest.raises(VitcError, match=r"The binary layer (first|second) became 0 binary op"):
        export(TwoLinears(skip=True).eval(), tmp_path / "net.onnx", example=torch.zeros(2, 4, 19))
    assert not list(tmp_path.iterdir())


def test_a_binary_operator_without_a_layer_is_an_error() -> None:
    with pytest.raises(VitcError, match="belongs to no binary layer"):
        build(TwoLinears(tie=True).eval(), example=torch.zeros(2, 4, 19))


def test_a_pass_that_drops_a_layer_is_caught(source, monkeypatch) -> None:
    class Lossy(Residual):
        def rewrite(self, node, graph) -> None:
            name = node.outputs[0].name
            super().rewrite(node, graph)
            for other in graph:
                if other.outputs[0].name == name:
                    other.metadata_props.pop("vitc.module")

    phases = tuple(type(p)(p.number, p.name, Lossy) if p.name == "residual" else p for p in PHASES)
    monkeypatch.setattr(onnx_export, "PHASES", phases)
    with pytest.raises(VitcError, match=r"blocks\.0\.attn\.proj became 0 .* instead of 1"):
        build(source)


def test_results_count_bytes_modules_and_operators(exported, model) -> None:
    packed = exported["packed"]
    assert packed.binary_modules == 2 * 6
    assert packed.binary_operators == 2 * 8
    assert packed.file_bytes == packed.path.stat().st_size
    c, m, n = 24, 40, 5
    rows = 4 * c * 3 + m * 3 + c * 5 + 2 * n * 1
    assert packed.weight_bytes == 2 * rows
    assert exported["int8"].weight_bytes == 2 * (4 * c * c + 2 * c * m + 2 * n * n)
    assert exported["float"].weight_bytes == 4 * exported["int8"].weight_bytes
    assert [report.name for report in packed.passes] == [phase.name for phase in PHASES]
    assert exported["int8"].passes[-1].name == "lower_to_int8"


def test_metadata_says_what_the_file_is(exported, model) -> None:
    _, facts = load_onnx(exported["packed"].path)
    assert (facts.dialect, facts.form) == (1, "packed")
    assert facts.config == model.config.to_dict()
    assert facts.preprocessing == model.preprocessing.to_dict()
    assert facts.labels == tuple(f"class {index}" for index in range(7))
    assert facts.source_sha256 is None
    assert facts.passes == tuple(phase.name for phase in PHASES)
    _, facts = load_onnx(exported["float"].path)
    assert facts.passes[-1] == "lower_to_float"


def test_the_file_names_no_source_folder_and_no_stack(exported) -> None:
    for result in exported.values():
        data = result.path.read_bytes()
        for origin in (b"stack_trace", b"pkg.torch", b"site-packages", b".py", b"pkg.onnxscript"):
            assert origin not in data


def test_initializers_are_named_by_layer(exported) -> None:
    for result in exported.values():
        names = [tensor.name for tensor in onnx.load(result.path).graph.initializer]
        parameters = ("cls_token", "pos_embed", "patch_embed.", "norm.", "head.")
        assert len(names) == len(set(names))
        for name in names:
            assert name.startswith(("blocks.", "embedding.", "logits.", *parameters)), name
        assert "blocks.0.attn.query.weight" in names


def test_exporting_prints_nothing(tmp_path, capfd, caplog) -> None:
    with caplog.at_level(logging.WARNING):
        export(TwoLinears().eval(), tmp_path / "net.onnx", example=torch.zeros(2, 4, 19))
    assert capfd.readouterr() == ("", "")
    assert not caplog.records


def test_every_phase_is_dumped_and_computes_the_same(model, source, images, tmp_path) -> None:
    build(source, form="int8", dump=tmp_path)
    expected = model(images).detach().numpy()
    dumps = sorted(tmp_path.iterdir())
    numbers = range(len(PHASES) + 2)
    assert [path.name[:2] for path in dumps] == [f"{number:02d}" for number in numbers]
    for path in dumps:
        logits = session(path).run(["logits"], {"input": images.numpy()})[0]
        np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-5, err_msg=path.name)


def test_a_failed_check_leaves_the_old_file_and_nothing_else(source, tmp_path) -> None:
    out = tmp_path / "model.onnx"
    out.write_text("old")

    def refuse(path) -> None:
        assert onnx.load(path).graph.node
        raise VitcError("not good enough")

    with pytest.raises(VitcError, match="not good enough"):
        export(source, out, check=refuse, force=True)
    assert out.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]


def test_a_folder_that_does_not_exist_is_explained(source, tmp_path) -> None:
    with pytest.raises(VitcError, match="cannot be written"):
        export(source, tmp_path / "nowhere" / "model.onnx")


def test_a_file_beyond_the_limit_is_refused(source, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(onnx_export, "LARGEST_FILE", 10_000)
    with pytest.raises(VitcError, match="ONNX files end at 2 GB"):
        export(source, tmp_path / "model.onnx")
    assert not list(tmp_path.iterdir())


def test_an_unknown_scheme_lists_the_known(model, tmp_path) -> None:
    with pytest.raises(VitcError, match="packed, int8, float"):
        export(model, tmp_path / "model.onnx", form="int4")


def test_a_model_that_does_not_say_its_input_needs_an_example(tmp_path) -> None:
    with pytest.raises(VitcError, match="example"):
        export(TwoLinears().eval(), tmp_path / "net.onnx")


def test_a_model_with_latent_weights_of_32_bits_is_refused(model, tmp_path) -> None:
    wide = random_model(model.config.replace(weight_bits=32))
    with pytest.raises(VitcError, match="32-bit weights"):
        export(wide, tmp_path / "model.onnx")


def test_an_operator_that_cannot_be_exported_is_one_sentence(tmp_path) -> None:
    class Odd(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.linalg.eigvals(x).real

    with pytest.raises(VitcError, match="could not be traced") as caught:
        export(Odd(), tmp_path / "odd.onnx", example=torch.zeros(2, 3, 3))
    assert "\n" not in str(caught.value)


def test_config_is_json_that_models_can_read(exported, model) -> None:
    proto = onnx.load(exported["packed"].path)
    config = json.loads(next(p.value for p in proto.metadata_props if p.key == "vitc.config"))
    assert type(model.config).from_dict(config) == model.config


def test_layer_norms_and_rectangles_of_deit_are_exported(tmp_path: Path) -> None:
    config = CONFIG.replace(norm="layer", image_size=(16, 24))
    source = trace(random_model(config, seed=6))
    written = export(source, tmp_path / "m.onnx")
    report = check(written.path, source, CheckOptions(images=2))
    assert report.equal, (report.first_difference, report.faults)
    assert written.operators["LayerNormalization"] == 2 * config.depth + 1
    assert "Add" not in written.operators or written.operators["Add"] == 1  # positions
