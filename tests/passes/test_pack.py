from __future__ import annotations

import numpy as np
import onnx_ir as ir

from vitc.dialect import pack_bits
from vitc.passes.constants import constant
from vitc.passes.pack import Pack

N, ROWS, K = 4, 6, 17


def _packed(graph, value, k=K):
    shape = (*value.shape[:-1], -(-k // 8))
    return graph.op("PackBits", [value], shape, "UINT8", k=k)


def _linear(graph, x, weight):
    packed = [_packed(graph, x), _packed(graph, graph.const(weight))]
    return graph.op("BinaryLinear", packed, ("batch", N, ROWS), "INT32", k=K)


def test_weights_become_packed_constants_and_activations_are_packed_once(
    graph, rng, run, counts
) -> None:
    x = graph.input("x", ("batch", N, K), dtype=ir.DataType.UINT8)
    weights = [rng.integers(0, 2, (ROWS, K), dtype=np.uint8) for _ in range(3)]
    model = graph.model(*(_linear(graph, x, weight) for weight in weights))
    bits = rng.integers(0, 2, (3, N, K), dtype=np.uint8)
    before = run(model, x=bits)
    assert counts(model) == {"PackBits": 6, "BinaryLinear": 3}
    assert Pack()(model).modified
    assert counts(model) == {"PackBits": 1, "BinaryLinear": 3}
    for own, other in zip(run(model, x=bits), before, strict=True):
        np.testing.assert_array_equal(own, other)
    linears = [node for node in model.graph if node.op_type == "BinaryLinear"]
    for node, weight in zip(linears, weights, strict=True):
        np.testing.assert_array_equal(constant(node.inputs[1]), pack_bits(weight))


def test_packing_what_was_unpacked_costs_nothing(graph, rng, run, counts) -> None:
    packed = graph.input("x", ("batch", N, 3), dtype=ir.DataType.UINT8)
    bits = graph.op("UnpackBits", [packed], ("batch", N, K), "UINT8", k=K)
    again = graph.op("UnpackBits", [_packed(graph, bits)], ("batch", N, K), "UINT8", k=K)
    out = graph.op("Identity", [again], ("batch", N, K), "UINT8")
    model = graph.model(out)
    x = pack_bits(rng.integers(0, 2, (2, N, K)))
    before = run(model, x=x)[0]
    assert Pack()(model).modified
    assert counts(model) == {"UnpackBits": 1, "Identity": 1}
    np.testing.assert_array_equal(run(model, x=x)[0], before)


def test_packings_of_different_lengths_are_not_shared(graph, counts) -> None:
    x = graph.input("x", ("batch", N, 3), dtype=ir.DataType.UINT8)
    model = graph.model(
        *(
            graph.op(
                "Identity",
                [graph.op("UnpackBits", [x], ("batch", N, k), "UINT8", k=k)],
                ("batch", N, k),
                "UINT8",
            )
            for k in (17, 18)
        )
    )
    assert not Pack()(model).modified
    assert counts(model)["UnpackBits"] == 2


def test_packed_values_that_leave_the_graph_stay(graph, counts) -> None:
    x = graph.input("x", ("batch", N, K), dtype=ir.DataType.UINT8)
    model = graph.model(_packed(graph, x), _packed(graph, x))
    assert not Pack()(model).modified
    assert counts(model) == {"PackBits": 2}
