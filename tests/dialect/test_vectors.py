from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest

from vitc.dialect import OPS, evaluate
from vitc.dialect.bodies import function_protos
from vitc.dialect.vectors import TestVector, make_vectors, write_vectors
from vitc.errors import VitcError


def _run(model: onnx.ModelProto, feeds: dict[str, np.ndarray]) -> np.ndarray:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return session.run(None, feeds)[0]


VECTORS = make_vectors()


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector.name)
def test_body_in_onnx_runtime_equals_the_popcount_reference(vector: TestVector) -> None:
    output = _run(
        vector.model(), dict(zip(OPS[vector.operator].inputs, vector.inputs, strict=True))
    )
    assert output.dtype == vector.output.dtype
    # One rounding per operation on both sides: floats are equal, not close.
    np.testing.assert_array_equal(output, vector.output)


def test_every_operator_has_vectors_and_both_bits_occur() -> None:
    assert {vector.operator for vector in VECTORS} == set(OPS)
    for vector in VECTORS:
        if OPS[vector.operator].output in ("bits", "mask") and vector.output.size > 40:
            assert set(np.unique(vector.output)) == {0, 1}, vector.name


@pytest.mark.parametrize("name", sorted(OPS))
def test_bodies_have_the_signature_of_the_table(name: str) -> None:
    vector = next(v for v in VECTORS if v.operator == name)
    proto = next(f for f in vector.model().functions if f.name == name)
    assert tuple(proto.input) == OPS[name].inputs
    assert tuple(proto.output) == (OPS[name].output,)
    assert tuple(proto.attribute) == tuple(attribute for attribute, _ in OPS[name].attributes)
    onnx.checker.check_model(vector.model(), full_check=True)


@pytest.mark.parametrize("vector", VECTORS[::3], ids=lambda vector: vector.name)
def test_bodies_inlined_by_another_tool_compute_the_same(vector: TestVector) -> None:
    model = ir.from_proto(vector.model())
    ir.passes.common.InlinePass()(model)
    assert not any(node.domain for node in model.graph)
    feeds = dict(zip(OPS[vector.operator].inputs, vector.inputs, strict=True))
    np.testing.assert_array_equal(_run(ir.to_proto(model), feeds), vector.output)


def test_bodies_claim_no_shapes() -> None:
    # A claim that a value is a scalar survives inlining and misleads shape inference.
    assert not any(proto.value_info for proto in function_protos().values())


def test_unknown_operators_are_refused() -> None:
    with pytest.raises(VitcError, match="Unknown operator"):
        evaluate("Relu", [], {})


def test_written_vectors_read_back_in_backend_test_form(tmp_path) -> None:
    folders = write_vectors(tmp_path)
    assert len(folders) == len({f.name for f in folders}) == len(VECTORS)
    for folder, vector in list(zip(folders, VECTORS, strict=True))[::7]:
        model = onnx.load(folder / "model.onnx")
        feeds = {}
        for index, name in enumerate(OPS[vector.operator].inputs):
            data = (folder / "test_data_set_0" / f"input_{index}.pb").read_bytes()
            feeds[name] = onnx.numpy_helper.to_array(onnx.TensorProto.FromString(data))
        data = (folder / "test_data_set_0" / "output_0.pb").read_bytes()
        expected = onnx.numpy_helper.to_array(onnx.TensorProto.FromString(data))
        np.testing.assert_array_equal(_run(model, feeds), expected)
