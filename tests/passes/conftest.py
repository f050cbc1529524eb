from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import numpy as np
import onnx_ir as ir
import pytest

from vitc.dialect import DOMAIN, IR_VERSION, OPS, OPSET, VERSION
from vitc.dialect.bodies import functions
from vitc.dialect.metadata import TAP_KEY
from vitc.onnx_files import session


class SmallGraph:
    """Builds a graph of a few nodes; shapes and types of values are given, as torch gives them."""

    def __init__(self) -> None:
        self.graph = ir.Graph([], [], nodes=[], opset_imports={"": OPSET, DOMAIN: VERSION})

    def input(self, name: str, shape: tuple, dtype: ir.DataType = ir.DataType.FLOAT) -> ir.Value:
        value = ir.val(name, dtype=dtype, shape=shape)
        self.graph.inputs.append(value)
        return value

    def const(self, array: np.ndarray) -> ir.Value:
        name = f"c{len(self.graph.initializers)}"
        value = ir.val(name, const_value=ir.tensor(np.asarray(array), name=name))
        self.graph.register_initializer(value)
        return value

    def op(self, kind: str, inputs: list, shape: tuple, dtype: str = "FLOAT", **attributes):
        domain = DOMAIN if kind in OPS else ""
        node = ir.node(kind, inputs, attributes, domain=domain)
        self.graph.append(node)
        node.outputs[0].shape = ir.Shape(shape)
        node.outputs[0].dtype = ir.DataType[dtype]
        return node.outputs[0]

    def sign(self, x: ir.Value) -> ir.Value:
        zero, no = self.const(np.float32(0)), self.const(np.bool_(False))
        return self.op("Binarize", [x, zero, no], x.shape, "UINT8")

    def tap(self, value: ir.Value, name: str) -> ir.Value:
        value.name = name
        value.metadata_props[TAP_KEY] = name
        return value

    def model(self, *outputs: ir.Value) -> ir.Model:
        self.graph.outputs.extend(outputs)
        bodies = functions().values()
        return ir.Model(self.graph, ir_version=IR_VERSION, functions=list(bodies))


@pytest.fixture
def graph() -> SmallGraph:
    return SmallGraph()


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(7)


@pytest.fixture
def run() -> Callable[..., list[np.ndarray]]:
    def execute(model: ir.Model, **feeds: np.ndarray) -> list[np.ndarray]:
        return session(model).run(None, feeds)

    return execute


@pytest.fixture
def counts() -> Callable[[ir.Model], Counter]:
    def count(model: ir.Model) -> Counter:
        return Counter(node.op_type for node in model.graph)

    return count
