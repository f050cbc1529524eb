"""Phase `fuse`: what one kernel computes is one operator, and what is only nearly so is not."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from vitc.compiler.fuse import fuse
from vitc.compiler.graph import Graph, Op
from vitc.compiler.orders import orders
from vitc.compiler.pipeline import make_plan
from vitc.compiler.read import read
from vitc.errors import VitcError
from vitc.onnx_files import load_onnx, run_with_taps, tap_names
from vitc.targets import find

_spec = importlib.util.spec_from_file_location("shared", Path(__file__).with_name("conftest.py"))
shared = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(shared)


@pytest.fixture
def model(build) -> ir.Model:
    return load_onnx(build(shared.config(depth=1))[1])[0]


def fused(model: ir.Model) -> Graph:
    return fuse(orders(read(model, tap_names(model))))


def products(graph: Graph) -> list[Op]:
    return [op for op in graph.ops if op.kind == "FloatLinear"]


def test_a_network_is_its_layers(model):
    kinds = [op.kind for op in fused(model).ops]
    threshold, residual = "BinaryLinearThreshold", "BinaryLinearResidual"
    branch = ["Binarize", threshold, residual]
    attention = ["Binarize", *[threshold] * 3, "Attention", residual]
    assert kinds == ["FloatLinear", *attention, *branch, *branch, "FloatLinear"]


def test_the_embedding_of_zeros_is_what_onnx_runtime_computes(model, build):
    op, _ = products(fused(model))
    images = np.zeros((1, 3, 12, 12), np.float32)
    path = build(shared.config(depth=1))[1]
    expected = run_with_taps(path, images, ["embedding"])["embedding"][0]
    assert np.array_equal(op.constant(2), expected)
    assert op.output.tap == "embedding"


def test_the_last_norm_folds_into_the_head_in_float64(model, build):
    _, op = products(fused(model))
    rng = np.random.default_rng(3)
    path = build(shared.config(depth=1))[1]
    images = rng.standard_normal((4, 3, 12, 12)).astype(np.float32)
    taps = run_with_taps(path, images, ["blocks.0.si.output", "logits"])
    assert op.use(0).order.rows.reshape(-1).tolist() == [0]
    token = taps["blocks.0.si.output"][:, 0].astype(np.float64)
    logits = token @ op.constant(1).T + op.constant(2)
    # 64 products in another order, of values of a few units.
    np.testing.assert_allclose(logits, taps["logits"], rtol=0, atol=1e-5)


def node(model: ir.Model, kind: str) -> ir.Node:
    return next(n for n in model.graph if n.op_type == kind)


def read_again(model: ir.Model, kind: str, output: int = 0) -> None:
    """Let the graph give what an operator writes, too."""
    model.graph.outputs.append(node(model, kind).outputs[output])


@pytest.mark.parametrize("kind", ["RowBestMask", "BinaryScores", "MaskSignMatMul"])
def test_attention_whose_inside_is_read_elsewhere_is_not_fused(model, kind):
    read_again(model, kind)
    assert not any(op.kind == "Attention" for op in fused(model).ops)
    with pytest.raises(VitcError, match="no kernel computes"):
        make_plan(model, find("x86"), tap_names(model))


def test_a_convolution_that_is_read_elsewhere_is_not_fused_with_what_follows(model):
    read_again(model, "Conv")
    op, _ = products(fused(model))
    assert op.output.name == f"{node(model, 'Conv').outputs[0].name}.rows"


@pytest.mark.parametrize(
    ("attribute", "value"), [("strides", (2, 2)), ("group", 3), ("dilations", (2, 2))]
)
def test_a_convolution_whose_sizes_contradict_what_follows_is_named(model, attribute, value):
    change(model, attribute, value)
    with pytest.raises(VitcError, match=r"Conv of embedding|joins the axis"):
        make_plan(model, find("x86"), tap_names(model))


def test_a_convolution_of_overlapping_patches_is_a_product_like_any_other(model):
    # As many patches as without padding.
    change(model, "pads", (1, 1, 1, 1))
    first, *_ = make_plan(model, find("x86"), []).steps
    assert first.kernel.symbol == "vitc_copy_lines_0"
    product, _ = products(fused(model))
    assert product.attributes["pads"] == (1, 1, 1, 1)


def test_a_norm_that_is_read_elsewhere_is_left_to_tvm(model):
    read_again(model, "BatchNormalization")
    assert "BatchNormalization" in [op.kind for op in fused(model).ops]
    _, op = products(fused(model))
    assert np.array_equal(op.constant(2), node(model, "Gemm").inputs[2].const_value.numpy())


def change(model: ir.Model, attribute: str, value: int | tuple[int, ...]) -> None:
    """Give the convolution another attribute."""
    kind = ir.AttributeType.INT if isinstance(value, int) else ir.AttributeType.INTS
    node(model, "Conv").attributes[attribute] = ir.Attr(attribute, kind, value)
