"""Networks with int8 ends: the same codes on every target, no copies, and faults that are found."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

import vitc
from tests.processors import HOST
from vitc.compiler import compile_model
from vitc.errors import VitcError
from vitc.exporter import export
from vitc.models.ends import Codes, calibrated, with_ends
from vitc.onnx_files import run_with_taps
from vitc.verify import CheckOptions, check, check_fresh_export
from vitc.verify.inputs import probe_inputs

_spec = importlib.util.spec_from_file_location("shared", Path(__file__).with_name("conftest.py"))
shared = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(shared)

SMALL = {
    "micro": {},
    "micro-swin": {"norm": "layer", "image_size": (32, 64)},
    "micro-pvt": {"si": False},
    "micro-nest": {"norm": "layer"},
}


def rounded(model):
    images = probe_inputs(4, model.config.input_shape, seed=9)
    return with_ends(model, calibrated(model, [torch.from_numpy(images)]))


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A network, with its ends in int8, and its file; once a preset."""
    made = {}

    def make(preset: str):
        if preset not in made:
            model = vitc.new(preset, seed=8, **SMALL[preset])
            path = tmp_path_factory.mktemp("onnx") / "m.onnx"
            export(rounded(model), path)
            made[preset] = model, path
        return made[preset]

    return make


@pytest.mark.parametrize("preset", SMALL)
def test_every_backbone_is_compiled_and_checks(exported, tmp_path, preset):
    model, path = exported(preset)
    artefact = compile_model(path, "native", tmp_path / "a")
    report = check(artefact.path, model, CheckOptions(images=2, rebuild=False))
    assert report.equal, report.verdict
    assert report.rounded is not None
    assert report.rounded.what == "int8 ends"
    names = [name for name, _, _ in rounded(model).config.ends]
    layers = {layer.name: layer.kind for layer in report.layers}
    assert [name for name in names if layers.get(f"{name}.codes") == "codes"] == names
    kernels = [step.kernel.rpartition("_")[0] for step in artefact.entry.steps]
    assert kernels.count("vitc_quantize") == kernels.count("vitc_byte_linear") == len(names)
    # What is left of fp32: the embedding, which reads the images.
    assert kernels.count("vitc_float_linear") == 1


@pytest.mark.parametrize("target", [*HOST, *shared.EMULATED, "rpi5"])
def test_every_target_has_the_codes_of_onnx_runtime(exported, run, request, tmp_path, target):
    if target == "x86-amx":
        request.getfixturevalue("amx_artefacts")
    model, path = exported("micro-pvt")
    names = [f"{name}.codes" for name, _, _ in rounded(model).config.ends]
    images = probe_inputs(2, model.config.input_shape, seed=4)
    wanted = run_with_taps(path, images, names)
    artefact = compile_model(path, target, tmp_path / "a")
    _, found = run(artefact, images)
    for name in names:
        code, own = np.asarray(wanted[name]), found[name]
        assert code.dtype == own.dtype == np.uint8
        assert len(np.unique(code)) > 20
        # The floats before may differ in their last place, so a code at a tie may too.
        apart = np.abs(code.astype(int) - own.astype(int))
        assert apart.max() <= 1
        assert (apart > 0).mean() < 1e-3


def test_windows_of_codes_are_read_where_they_lie(exported, tmp_path):
    """No codes are copied, and floats only where a border is put around them."""
    for preset, copies in (("micro-swin", 0), ("micro-pvt", 0), ("micro-nest", 1)):
        artefact = compile_model(exported(preset)[1], "native", tmp_path / preset)
        taps = [step.tap for step in artefact.entry.steps]
        gathered = [tap for tap in taps if "gathered" in tap or tap.endswith("/Pad")]
        # The head's row of a class token or mean is one row.
        assert len([tap for tap in gathered if not tap.startswith(("head", "logits"))]) == copies


@pytest.mark.parametrize("fault", ["zero", "scale", "weight", "shift"])
def test_a_planted_fault_is_found(tmp_path, fault):
    model = vitc.new("micro-swin", seed=3)
    path = tmp_path / "m.onnx"
    export(rounded(model), path)
    proto = onnx.load(path)
    quantize = next(n for n in proto.graph.node if n.op_type == "QuantizeLinear")
    product = next(n for n in proto.graph.node if n.op_type == "ByteLinear")
    reads = {value: node for node in proto.graph.node for value in node.input}
    changed = {
        "zero": quantize.input[2],
        "scale": quantize.input[1],
        "weight": product.input[1],
        "shift": reads[product.output[0]].input[1],
    }[fault]
    for entry in proto.graph.initializer:
        if entry.name == changed:
            array = numpy_helper.to_array(entry).copy()
            if fault == "scale":
                array = (array * np.float32(1.0001)).astype(np.float32)
            else:
                array.flat[0] += 1
            entry.CopyFrom(numpy_helper.from_array(array, changed))
    onnx.save(proto, path)
    report = check(path, model, CheckOptions(images=2))
    assert not report.equal
    assert report.first_difference is not None
    assert report.first_difference.startswith("stages.1.merge")
    # The values alone show it as well.
    assert not check_fresh_export(path, rounded(model), images=2).equal


def test_a_network_of_ones_own_has_ends_too(tmp_path):
    torch.manual_seed(4)
    model = torch.nn.Sequential(
        torch.nn.LayerNorm(24),
        torch.nn.Linear(24, 40),
        torch.nn.GELU(),
        torch.nn.Linear(40, 8),
    )
    x = torch.randn(3, 5, 24)
    other = with_ends(model, calibrated(model, [x]))
    export(other, tmp_path / "m.onnx", example=x)
    artefact = compile_model(tmp_path / "m.onnx", "native", tmp_path / "a")
    assert check(artefact.path, other, CheckOptions(images=2, rebuild=False)).equal


def test_long_rows_are_refused_by_name(tmp_path):
    model = torch.nn.Sequential(torch.nn.LayerNorm(20_000), torch.nn.Linear(20_000, 2))
    other = with_ends(model, {"1": Codes(0.05, 120)})
    export(other, tmp_path / "m.onnx", example=torch.randn(1, 3, 20_000))
    with pytest.raises(VitcError, match="20000 bytes, wanted at most"):
        compile_model(tmp_path / "m.onnx", "native", tmp_path / "a")
