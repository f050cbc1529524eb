"""Shifts below 2^-126 on a processor that takes such numbers for zero."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch
from onnx import numpy_helper

from vitc.compiler import compile_model
from vitc.compiler.compile import kernel_identities
from vitc.devices import QemuDevice
from vitc.errors import VitcError
from vitc.exporter import build
from vitc.models import ModelConfig
from vitc.models.initialise import random_model
from vitc.targets.table import find
from vitc.verify.portable import check_against_onnx

# Even widths: sums of integers are zero again and again, and then a denormal decides.
CONFIG = ModelConfig(
    image_size=8, patch_size=4, width=12, depth=1, heads=2, hidden=10, classes=3, si=True,
    si_hidden=6,
)  # fmt: skip
SPECIAL = torch.tensor([0.0, -0.0, 1e-45, -1e-45, 1e-39, -1e-39, 1.0])


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A file of a network whose biases and shifts are mostly zero or denormal."""
    model = random_model(CONFIG, 3)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.startswith("blocks") and name.endswith("bias"):
                chosen = torch.rand(parameter.shape, generator=generator) < 0.7
                places = torch.randint(len(SPECIAL), parameter.shape, generator=generator)
                parameter.copy_(torch.where(chosen, SPECIAL[places], parameter))
    path = tmp_path_factory.mktemp("onnx") / "m.onnx"
    path.write_bytes(ir.to_proto(build(model)[0]).SerializeToString())
    return path


def test_bits_do_not_depend_on_denormals_that_the_processor_flushes(
    exported, need_emulator, tmp_path
):
    need_emulator("arm")
    artefact = compile_model(exported, "armv7", tmp_path / "out")
    report = check_against_onnx(artefact, QemuDevice(), images=4)
    assert report.equal, report.first_difference
    constants = [numpy_helper.to_array(t) for t in onnx.load(exported).graph.initializer]
    floats = np.concatenate([np.abs(a.ravel()) for a in constants if a.dtype == np.float32])
    assert (floats == np.float32(2.0**-125)).any(), "no shift was moved, so the test says nothing"


@pytest.mark.parametrize(
    ("operator", "place", "layer"),
    [("Binarize", 1, "blocks.0.attn.input"), ("BinaryLinearThreshold", 4, "blocks.0.attn.query")],
)
def test_a_threshold_that_flushing_would_change_is_refused_by_name(
    exported, tmp_path, operator, place, layer
):
    proto = onnx.load(exported)
    node = next(n for n in proto.graph.node if n.op_type == operator)
    threshold = next(t for t in proto.graph.initializer if t.name == node.input[place])
    tiny = np.full_like(numpy_helper.to_array(threshold), 1e-45)
    threshold.CopyFrom(numpy_helper.from_array(tiny, threshold.name))
    onnx.save(proto, tmp_path / "m.onnx")
    with pytest.raises(VitcError, match=f"{layer} decides by numbers below .* armv7"):
        compile_model(tmp_path / "m.onnx", "armv7", tmp_path / "out")
    assert kernel_identities(tmp_path / "m.onnx", find("arm"))
