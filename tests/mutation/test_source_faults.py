"""Faults put into the sources of kernels, compiler, passes and exporter: check catches each.

A kernel of a sound ONNX file is judged on its values alone. A fault of a pass or of the exporter is
in the reference export too, so that no comparison of parameters can see it; the values must.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
import torch

from tests.processors import HOST, NO_AVX512
from vitc.compiler import compile_model
from vitc.dialect.proto import to_proto
from vitc.errors import VitcError
from vitc.exporter import build, capture, trace
from vitc.models import ModelConfig
from vitc.models.initialise import random_model
from vitc.targets.isa import ISAS
from vitc.verify import CheckOptions, check

KERNELS = "vitc.targets.kernels"
VALUES = CheckOptions(rebuild=False)
CONFIG = ModelConfig(image_size=12, patch_size=4, width=42, depth=1, heads=2, hidden=37, classes=5)


@dataclass(frozen=True)
class Fault:
    """One changed line.

    Attributes:
        name: What is wrong.
        module: Where.
        old: What stands there once.
        new: What stands there instead.
        place: End of the name of the layer that check gives as the first difference.
    """

    name: str
    module: str
    old: str
    new: str
    place: str


RULES = "vitc.compiler.rules"

LOWERING = [
    Fault("polarity", f"{KERNELS}.epilogue",
          "product = value * scale\n", "product = value * (-scale)\n", "blocks.0.attn.query"),
    Fault("polarity of the residual", f"{KERNELS}.epilogue",
          "added = value * scale +", "added = value * (-scale) +",
          "blocks.0.attn.output"),
    Fault("K one too large", f"{RULES}.linear",
          "self.outputs.padded, axis.length, elements, depth)",
          "self.outputs.padded, axis.length + 1, elements, depth)",
          "blocks.0.attn.query"),
    Fault("last element of a row left out", f"{KERNELS}.popcount_tile",
          "[(0, self.elements)]", "[(0, self.elements - 3)]", "blocks.0.attn.query"),
    Fault("weights packed from the highest bit", "vitc.targets.packing",
          'return np.packbits(padded, axis=1, bitorder="little")',
          'return np.packbits(padded, axis=1, bitorder="big")', "blocks.0.attn.query"),
    Fault("lower threshold dropped", f"{RULES}.linear_threshold",
          "bool(np.any(self.op.constant(5) > -np.inf))", "False", "blocks.0.si.hidden"),
    Fault("lower threshold compared the wrong way", f"{KERNELS}.epilogue",
          "product <= offset +", "product >= offset +", "blocks.0.si.hidden"),
    Fault("offset subtracted", f"{KERNELS}.epilogue",
          "above = product >= offset + upper", "above = product >= upper - offset",
          "blocks.0.attn.query"),
    Fault("thresholds of the first head for all", f"{RULES}.linear_threshold",
          "group = outputs if threshold.groups > 1 else None", "group = None",
          "blocks.0.attn.query"),
    Fault("padding outputs take part", f"{RULES}.linear_threshold",
          "product.constants(emission, fill=np.nan)", "product.constants(emission, fill=0.0)",
          "blocks.0.attn.context"),
    Fault("slack one too large", f"{RULES}.attention",
          "AttentionShape(size.queries, keys, head, slack)",
          "AttentionShape(size.queries, keys, head, slack + 1)",
          "blocks.0.attn.context"),
    Fault("slack one too small", f"{RULES}.attention",
          "AttentionShape(size.queries, keys, head, slack)",
          "AttentionShape(size.queries, keys, head, slack - 1)",
          "blocks.0.attn.context"),
    Fault("> instead of >= in the mask", f"{KERNELS}.attention",
          "else distances <= most, count", "else distances < most, count",
          "blocks.0.attn.context"),
    Fault("> instead of >= in the context", f"{KERNELS}.attention",
          "mask_bits(signed >= limit)", "mask_bits(signed > limit)", "blocks.0.attn.context"),
    Fault("padding keys are nearest", f"{KERNELS}.attention",
          "T.Select(inside, value, e.constant(isa.element, most, lanes))",
          "T.Select(inside, value, e.constant(isa.element, 0, lanes))",
          "blocks.0.attn.context"),
    Fault("values of the first head counted for all", f"{KERNELS}.attention",
          "first = e.let(matrix * (self.value_blocks * self.elements * lanes))",
          "first = e.let(matrix * 0)", "blocks.0.attn.context"),
    Fault("flip dropped", f"{KERNELS}.binarize",
          "value = T.bitwise_xor(bits, invert)", "value = bits", "blocks.0.mlp.input"),
    Fault("flip dropped along columns", f"{KERNELS}.binarize",
          "T.bitwise_xor(e.load(word, 0, HALF), e.load(flip, lane, HALF))",
          "e.load(word, 0, HALF)", "blocks.0.si.input"),
    Fault("pad mask dropped", f"{KERNELS}.binarize",
          "value = T.bitwise_and(value, e.constant(\"uint16\", (1 << valid) - 1))",
          "value = T.bitwise_or(value, e.constant(\"uint16\", 0))", "blocks.0.attn.query"),
    Fault("gain dropped", f"{RULES}.linear_residual",
          "has_gain = not bool(np.all(gains == 1))", "has_gain = False", "blocks.0.si.output"),
    Fault("bias of an fp32 product dropped", f"{RULES}.float_linear",
          "added[..., :outputs] = bias", "added[..., :outputs] = 0", "embedding"),
    Fault("last norm not folded", "vitc.compiler.fuse",
          "weights * factor, added", "weights, added", "logits"),
    Fault("positions dropped", "vitc.compiler.fuse",
          "start.reshape(use.shape) + np.broadcast_to(other, (1, *shape))[0]",
          "start.reshape(use.shape) + 0 * np.broadcast_to(other, (1, *shape))[0]", "embedding"),
    Fault("heads turned in the tap", "vitc.compiler.form",
          "(0, 3, 1, 2) if along_rows", "(0, 3, 2, 1) if along_rows", "blocks.0.attn.value"),
    Fault("buffers overlap", "vitc.compiler.plan",
          "storages[binding.var] = end\n", "storages[binding.var] = end // 2 // 64 * 64\n",
          "blocks.0.attn.input"),
    Fault("one task left out", "vitc.compiler.tables",
          "else step.kernel.tasks", "else step.kernel.tasks - 1", "embedding"),
]  # fmt: skip

EXPORT = [
    Fault("negative gain not flipped", "vitc.passes.batch_norm_threshold",
          "np.where(gain == 0, shift < 0, gain < 0)", "np.zeros(gain.shape, bool)",
          "blocks.0.mlp.input"),
    Fault("shift in front of a sign dropped", "vitc.passes.batch_norm_threshold",
          "np.sqrt(variance + eps), bias + shift)", "np.sqrt(variance + eps), bias)",
          "blocks.0.mlp.input"),
    Fault("variance for deviation", "vitc.passes.batch_norm_threshold",
          "mean, np.sqrt(variance + eps), bias", "mean, variance + eps, bias",
          "blocks.0.attn.input"),
    Fault("negative slope is one-sided", "vitc.passes.prelu_threshold",
          "lower = np.where((c < 0) & (a < 0), crossing, -np.inf)",
          "lower = np.full(c.shape, -np.inf)", "blocks.0.si.hidden"),
    Fault("shift not divided by the slope", "vitc.passes.prelu_threshold",
          "crossing = -c / a", "crossing = -c", "blocks.0.mlp.hidden"),
    Fault("integer threshold rounded down", "vitc.passes.integer_threshold",
          "np.ceil(limit)", "np.floor(limit)", "blocks.0.attn.context"),
    Fault("dropped shift of heads", "vitc.passes.linear_threshold",
          "row_part(bound, grouped) - chain.rows for", "row_part(bound, grouped) for",
          "blocks.0.attn.query"),
    Fault("bias with the wrong sign", "vitc.passes.linear_threshold",
          "chain.scale, -chain.columns, upper", "chain.scale, chain.columns, upper",
          "blocks.0.attn.query"),
    Fault("second shift forgotten", "vitc.passes.merge_shifts",
          "total = a + b", "total = a + 0 * b", "blocks.0.mlp.hidden"),
    Fault("bits packed from the highest", "vitc.dialect.packing",
          "axis=-1, bitorder=\"little\")", "axis=-1, bitorder=\"big\")", "blocks.0.attn.query"),
    Fault("transpose of the product forgotten", "vitc.passes.residual",
          "int(branch.transposed)", "0", "blocks.0.si.output"),
    Fault("gain forgotten", "vitc.passes.residual",
          "add_constant(graph, collapsed(branch.gain), \"gain\")",
          "add_constant(graph, np.ones((1, 1), np.float32), \"gain\")", "blocks.0.si.output"),
]  # fmt: skip


@pytest.mark.usefixtures("export_once")
@pytest.mark.parametrize("fault", LOWERING, ids=lambda fault: fault.name)
def test_a_fault_in_kernels_or_lowering_is_named(world, inject, tmp_path, fault):
    world.judge(world.file)
    inject(fault.module, fault.old, fault.new)
    compile_model(world.file, "x86-64-v2", tmp_path / "out")
    report = world.judge(tmp_path / "out")
    assert not report.equal
    assert str(report.first_difference).endswith(fault.place), report.first_difference
    assert report.onnx is not None
    assert report.onnx.equal


AMX = [
    Fault("signs of the wrong polarity", f"{KERNELS}.signs",
          "for sign in (1, -1)", "for sign in (-1, 1)", "blocks.0.attn.query"),
    Fault("padding has a sign", f"{KERNELS}.signs",
          "used != (1 << TILE_DEPTH) - 1", "False", "blocks.0.attn.query"),
    Fault("first word of a row twice", f"{KERNELS}.signs",
          "packed[row * words + 2 * tile + 1]", "packed[row * words + 2 * tile]",
          "blocks.0.attn.query"),
    Fault("a nibble expanded from the highest bit", f"{KERNELS}.amx_tile",
          "0xFE << 8 * bit", "0xFE << 8 * (3 - bit)", "blocks.0.attn.query"),
    Fault("no gap behind an odd number of words", f"{KERNELS}.amx_tile",
          "T.Select(word >= self.words, gap, 0)", "0", "blocks.0.si.hidden"),
    Fault("first tile of a panel twice", f"{KERNELS}.amx_tile",
          "index = (tile * depth + k) * TILE_BYTES", "index = k * TILE_BYTES",
          "blocks.0.attn.query"),
    Fault("sums of the tile beside", f"{KERNELS}.amx_tile",
          "number = row // TILE_ROWS * BLOCK + tile", "number = row // TILE_ROWS * BLOCK",
          "blocks.0.attn.query"),
    Fault("sums are not cleared", f"{KERNELS}.amx_tile",
          'e.perform("llvm.x86.tilezero", T.uint8(register))', "pass", "blocks.0.attn.query"),
]  # fmt: skip


@pytest.mark.usefixtures("export_once")
@pytest.mark.parametrize("fault", [None, *AMX], ids=lambda f: f.name if f else "sound")
def test_a_fault_in_amx_kernels_is_named(world, inject, amx_artefacts, tmp_path, fault):
    if "x86-amx" not in HOST:
        pytest.skip(NO_AVX512)
    if fault:
        inject(fault.module, fault.old, fault.new)
    compile_model(world.file, "x86-amx", tmp_path / "out")
    report = world.judge(tmp_path / "out")
    assert report.equal == (fault is None)
    if fault:
        assert str(report.first_difference).endswith(fault.place), report.first_difference


ACROSS = f"{KERNELS}.slices_across"
SLICES = [
    Fault("a carry of the other bit", ACROSS,
          "carry = e.select(both, old, x[v])", "carry = e.select(both, x[v], old)",
          "blocks.0.attn.query"),
    Fault("a turned bit that is forgotten", ACROSS,
          "differ = {0: None, 7: both,", "differ = {0: None, 7: ax,", "blocks.0.attn.query"),
    Fault("counted from zero", ACROSS,
          "0xFF if -self.centre >> level & 1 else 0", "0", "blocks.0.attn.query"),
    Fault("the parity of a row that is forgotten", ACROSS,
          "turned = self._as(\"uint8\", e.splat(odd, 2))",
          "turned = self._as(\"uint8\", e.splat(0 * odd, 2))", "blocks.0.attn.query"),
    Fault("planes in the wrong order", "vitc.targets.packing",
          "return 8 * (number * (vector // 8) + byte) + plane",
          "return 8 * (number * (vector // 8) + byte) + 7 - plane", "blocks.0.attn.query"),
]  # fmt: skip


@pytest.mark.usefixtures("export_once")
@pytest.mark.parametrize("fault", [None, *SLICES], ids=lambda f: f.name if f else "sound")
def test_a_fault_in_slices_side_by_side_is_named(world, inject, monkeypatch, tmp_path, fault):
    # Short vectors, as NEON has them, of any processor, for however few rows and outputs.
    plain = ISAS["ssse3-pshufb"]
    short = replace(plain, slice_bytes=16, slice_vectors=3, slice_fill=1)
    monkeypatch.setitem(ISAS, plain.name, short)
    monkeypatch.setattr("vitc.targets.kernels.slices.LEAST_ROWS", 1)
    if fault:
        inject(fault.module, fault.old, fault.new)
    artefact = compile_model(world.file, "x86-64-v2", tmp_path / "out")
    assert any("slices" in step.kernel for step in artefact.manifest.steps)
    report = world.judge(tmp_path / "out")
    assert report.equal == (fault is None)
    if fault:
        assert str(report.first_difference).endswith(fault.place), report.first_difference


@pytest.mark.parametrize("fault", EXPORT, ids=lambda fault: fault.name)
def test_a_fault_in_passes_or_exporter_is_named(world, inject, tmp_path, fault):
    inject(fault.module, fault.old, fault.new)
    path = tmp_path / "m.onnx"
    path.write_bytes(to_proto(build(world.source)[0]).SerializeToString())
    report, refused = world.verdict(path)
    if report is None:
        # Shapes that no longer fit are told when the file is loaded.
        assert fault.place in refused
        return
    assert not report.equal
    assert not report.parameters, "the fault is in the reference export too"
    assert str(report.first_difference) == fault.place


def test_a_wrong_axis_in_the_exporter_is_named(world, inject, tmp_path, monkeypatch):
    # Values must be packed along the tokens that the mask selects.
    changed = inject(
        "vitc.exporter.translation",
        "perm=[*range(rank - 2), rank - 1, rank - 2]",
        "perm=[*range(rank - 2), rank - 2, rank - 1]",
    )
    monkeypatch.setattr(capture, "ROWS", changed.ROWS)
    path = tmp_path / "m.onnx"
    path.write_bytes(to_proto(build(world.model)[0]).SerializeToString())
    with pytest.raises(VitcError, match=r"of the layer blocks\.0\.attn"):
        world.judge(path)


def test_a_wrong_slack_in_the_exporter_is_named(world, inject, tmp_path, monkeypatch):
    changed = inject("vitc.exporter.translation", "slack=slack)", "slack=slack + 1)")
    monkeypatch.setattr(capture, "ROWS", changed.ROWS)
    path = tmp_path / "m.onnx"
    path.write_bytes(to_proto(build(world.model)[0]).SerializeToString())
    assert world.judge(path).first_difference == "blocks.0.attn.mask"


@pytest.mark.usefixtures("export_once")
@pytest.mark.parametrize("fault", [None, "product > offset + upper"], ids=["sound", "> for >="])
def test_a_tie_that_is_decided_the_other_way_is_named(inject, tmp_path, fault):
    # Queries of 0.5 I + m with I even and m whole are exactly zero again and again; float64 calls
    # that a tie, so only the artefact's own ONNX file can tell which way it has to go.
    model = random_model(CONFIG, 1)
    with torch.no_grad():
        attention = model.blocks[0].attn
        # As many halves as minus halves a row, so that the mean is 0 and the scale 0.5.
        order = torch.rand(attention.qkv.weight.shape, generator=torch.Generator()).argsort(dim=1)
        attention.qkv.weight.copy_((order % 2) - 0.5)
        attention.qkv.bias.zero_()
        attention.moveq.bias.round_()
    source = trace(model)
    path = tmp_path / "m.onnx"
    path.write_bytes(to_proto(build(source)[0]).SerializeToString())
    if fault:
        inject(f"{KERNELS}.epilogue", "product >= offset + upper", fault)
    report = check(compile_model(path, "x86-64-v2", tmp_path / "out").path, source, VALUES)
    assert report.equal == (fault is None)
    assert report.first_difference == (None if fault is None else "blocks.0.attn.query")
    zeros = next(layer.zeros for layer in report.layers if layer.name == "blocks.0.attn.query")
    assert zeros > 0
