"""Test vectors of every operator, in the form of the ONNX backend tests.

A case is a folder with `model.onnx` and `test_data_set_0/{input_i,output_0}.pb`. Inputs hold what
breaks implementations: odd lengths and tails, several leading dimensions, zero and negative scales,
exact ties, infinite thresholds.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from vitc.dialect.bodies import function_protos
from vitc.dialect.ops import DOMAIN, IR_VERSION, OPS, OPSET, VERSION
from vitc.dialect.packing import pack_bits
from vitc.dialect.reference import evaluate

__all__ = ["TestVector", "make_vectors", "write_vectors"]

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class TestVector:
    """One operator on one set of inputs.

    Attributes:
        name: Folder name, `<operator>_<case>`.
        operator: Operator, a key of `vitc.dialect.OPS`.
        inputs: Arrays in the operator's order.
        attributes: Attribute values by name.
        output: What `vitc.dialect.reference` computes.
    """

    __test__ = False

    name: str
    operator: str
    inputs: tuple[Array, ...]
    attributes: dict[str, int | float]
    output: Array = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "output", evaluate(self.operator, self.inputs, self.attributes))

    def model(self) -> onnx.ModelProto:
        """Return a model of this one node, every dimension symbolic."""
        spec = OPS[self.operator]
        helper = onnx.helper
        values = [
            helper.make_tensor_value_info(
                name,
                helper.np_dtype_to_tensor_dtype(array.dtype),
                [f"{name}_{axis}" for axis in range(array.ndim)],
            )
            for name, array in zip(
                (*spec.inputs, spec.output), (*self.inputs, self.output), strict=True
            )
        ]
        node = helper.make_node(self.operator, spec.inputs, [spec.output], domain=DOMAIN)
        node.attribute.extend(helper.make_attribute(*item) for item in self.attributes.items())
        graph = helper.make_graph([node], self.name, values[:-1], values[-1:])
        return helper.make_model(
            graph,
            functions=list(function_protos().values()),
            opset_imports=[helper.make_opsetid("", OPSET), helper.make_opsetid(DOMAIN, VERSION)],
            ir_version=IR_VERSION,
            producer_name="vitc",
        )


def _bits(rng: np.random.Generator, *shape: int) -> Array:
    return rng.integers(0, 2, shape, dtype=np.uint8)


def _floats(rng: np.random.Generator, *shape: int) -> Array:
    return rng.standard_normal(shape).astype(np.float32)


def _threshold_rows(rng: np.random.Generator, n: int, groups: int, sign: float) -> Array:
    rows = _floats(rng, n, groups) + np.float32(2 * sign)
    rows.flat[:: max(2, rows.size // 5)] = np.float32(sign * np.inf)
    return rows


def _scales(rng: np.random.Generator, rows: int) -> Array:
    scale = _floats(rng, rows)
    scale[::3] = np.abs(scale[::3])
    scale[1] = 0
    return scale


def _tied_thresholds(rng: np.random.Generator) -> tuple[Array, ...]:
    n, o, k = 17, 12, 17
    x, weight = pack_bits(_bits(rng, 2, n, k)), pack_bits(_bits(rng, o, k))
    scale = np.full(o, 0.25, dtype=np.float32)
    offset = (rng.integers(-4, 5, o) * 0.25).astype(np.float32)
    upper = (rng.integers(-8, 9, (n, 3)) * 0.25).astype(np.float32)
    lower = upper - np.float32(1.5)
    return x, weight, scale, offset, upper, lower


def _cases(
    rng: np.random.Generator,
) -> Iterator[tuple[str, str, tuple[Array, ...], dict[str, Any]]]:
    for shape in ((3, 8), (2, 5, 17), (197,), (2, 3, 5, 197)):
        k, case = shape[-1], "x".join(map(str, shape))
        yield "PackBits", case, (_bits(rng, *shape),), {"k": k}
        yield "UnpackBits", case, (pack_bits(_bits(rng, *shape)),), {"k": k}

    x = _floats(rng, 2, 5, 7)
    yield (
        "Binarize",
        "scalar_zero",
        (np.where(x > 1, 0, x), np.zeros(1, np.float32), np.zeros(1, bool)),
        {},
    )
    for case, shape in (("per_token", (5, 1)), ("per_channel", (7,)), ("full", (2, 5, 7))):
        threshold = _floats(rng, *shape)
        threshold.flat[0], threshold.flat[-1] = -np.inf, np.inf
        ties = np.where(rng.random(x.shape) < 0.3, threshold, x).astype(np.float32)
        yield "Binarize", case, (ties, threshold, _bits(rng, *shape).astype(bool)), {}

    for lead, n, k, o in (((), 4, 17, 5), ((2,), 5, 197, 9), ((2, 2), 3, 64, 8), ((1,), 1, 7, 2)):
        linear = (pack_bits(_bits(rng, *lead, n, k)), pack_bits(_bits(rng, o, k)))
        case = "x".join(map(str, (*lead, n, k, o)))
        yield "BinaryLinear", case, linear, {"k": k}
        product = (*lead, n, o)
        swapped = (*lead, o, n)
        for transposed, shape in ((0, product), (1, swapped)):
            floats = (_scales(rng, o), _floats(rng, o), _floats(rng, n, 1), _floats(rng, *shape))
            attributes = {"k": k, "transposed": transposed}
            name = f"{case}_transposed" if transposed else case
            yield "BinaryLinearResidual", name, (*linear, *floats), attributes
    yield from _byte_cases(rng)
    ones = np.ones((1, 1), np.float32)
    floats = (_scales(rng, 5), _floats(rng, 5), ones, _floats(rng, 2, 4, 5))
    linear = (pack_bits(_bits(rng, 2, 4, 17)), pack_bits(_bits(rng, 5, 17)))
    yield "BinaryLinearResidual", "no_gain", (*linear, *floats), {"k": 17, "transposed": 0}

    for lead, n, k, o, groups in (((), 4, 17, 6, 1), ((2,), 17, 197, 12, 3), ((1, 2), 5, 64, 8, 8)):
        linear = (pack_bits(_bits(rng, *lead, n, k)), pack_bits(_bits(rng, o, k)))
        case = "x".join(map(str, (*lead, n, k, o, groups)))
        for rows in (n, 1):
            upper, lower = (_threshold_rows(rng, rows, groups, s) for s in (1.0, -1.0))
            constants = (_scales(rng, o), _floats(rng, o), upper, lower)
            name = f"{case}_two_sided" + ("" if rows == n else "_every_row")
            yield "BinaryLinearThreshold", name, (*linear, *constants), {"k": k}
        never = np.full((1, 1), -np.inf, dtype=np.float32)
        constants = (_scales(rng, o), _floats(rng, o), _floats(rng, n, groups), never)
        yield "BinaryLinearThreshold", f"{case}_one_sided", (*linear, *constants), {"k": k}
    yield "BinaryLinearThreshold", "ties", _tied_thresholds(rng), {"k": 17}

    for lead, n, m, k in (((), 3, 5, 17), ((2, 3), 17, 17, 32), ((1,), 4, 4, 80)):
        case = "x".join(map(str, (*lead, n, m, k)))
        query, key = pack_bits(_bits(rng, *lead, n, k)), pack_bits(_bits(rng, *lead, m, k))
        yield "BinaryScores", case, (query, key), {"k": k}
    yield from _max_sim_cases(rng)
    for lead, n, k, d in (((), 3, 17, 5), ((2, 3), 17, 17, 32), ((1,), 4, 197, 8)):
        case = "x".join(map(str, (*lead, n, k, d)))
        mask, value = pack_bits(_bits(rng, *lead, n, k)), pack_bits(_bits(rng, *lead, d, k))
        yield "MaskSignMatMul", case, (mask, value), {"k": k}

    p = rng.dirichlet(np.full(17, 0.3), (2, 3)).astype(np.float32)
    p[..., 0, 3] = np.float32(0.25) * p[..., 0, :].max(axis=-1)
    yield "SoftmaxMask", "quarter", (p,), {"ratio": 0.25}
    scores = (2 * rng.integers(-16, 17, (2, 3, 17, 17)) + 1).astype(np.int32)
    for slack in (0, 3, 12):
        yield "RowBestMask", f"slack_{slack}", (scores,), {"slack": slack}
    yield from _biased_cases(rng)
    yield from _elastic_cases(rng)
    integers = rng.integers(-9, 10, (2, 17, 8)).astype(np.int32)
    limits = rng.integers(-9, 10, (17, 1)).astype(np.int32)
    limits[0], limits[1] = np.iinfo(np.int32).min, np.iinfo(np.int32).max
    yield "IntegerThreshold", "per_token", (integers, limits), {}
    yield "IntegerThreshold", "scalar", (integers, np.zeros((), np.int32)), {}
    # Sums that are whole, a little more or less, and what an addition in fp32 rounds away.
    per_row = np.array([0, 1 + 2**-23, -0.1, 2**-40, -np.inf, 3e38, *[2.5] * 11], np.float32)
    per_column = np.array([0, -(2**-23), 0.1, 5, -1, 1e-45, -3e38, 0.5], np.float32)
    yield "SumThreshold", "row_and_column", (integers, per_row[:, None], per_column), {}
    yield (
        "SumThreshold",
        "scalars",
        (integers, per_row[1:2].reshape(()), per_column[1:2].reshape(())),
        {},
    )


def _max_sim_cases(
    rng: np.random.Generator,
) -> Iterator[tuple[str, str, tuple[Array, ...], dict[str, Any]]]:
    """No, one and several documents; one text and several; equal vectors; tails of bits."""
    for lead, a, n, b, k in (
        ((), 1, 7, 1, 64), ((), 3, 5, 4, 17), ((), 2, 1, 3, 197), ((), 2, 0, 3, 40),
        ((3,), 1, 6, 1, 7), ((2,), 5, 4, 3, 80), ((1,), 2, 0, 1, 8),
    ):  # fmt: skip
        documents = _bits(rng, n, b, k)
        query = _bits(rng, *lead, a, k)
        documents[:1, 0] = query.reshape(-1, k)[0]
        documents[-1:, -1] = 1 - query.reshape(-1, k)[-1]
        case = "x".join(map(str, (*lead, a, n, b, k)))
        yield "MaxSimHamming", case, (pack_bits(query), pack_bits(documents)), {"k": k}


def _biased_cases(
    rng: np.random.Generator,
) -> Iterator[tuple[str, str, tuple[Array, ...], dict[str, Any]]]:
    """Scores with a bias: ties at the cut, infinities, biases that swallow scores, windows."""
    cases = (((), 1, 2, 17, 17), ((2,), 3, 2, 5, 9), ((1,), 4, 1, 4, 49))
    for lead, windows, heads, n, m in cases:
        scores = (2 * rng.integers(-16, 17, (*lead, windows, heads, n, m))).astype(np.int32)
        bias = (rng.integers(-40, 41, (heads, n, m)) * 0.25).astype(np.float32)
        bias[rng.random(bias.shape) < 0.2] = np.float32(-np.inf)
        bias[..., rng.integers(m)] = np.float32(1 << 20)
        bias[:, 1:, 0] = np.float32(0.1)
        excluded = rng.random((windows, 1, n, m)) < 0.3
        excluded[:, :, 1] = True
        excluded[..., rng.integers(m)] = False
        case = "x".join(map(str, (*lead, windows, heads, n, m)))
        yield "BiasedBestMask", f"{case}_excluded", (scores, bias, excluded), {"cut": 8.0}
        small = (np.clip(bias, -8, 8), np.zeros((1, 1, 1, 1), bool))
        yield "BiasedBestMask", case, (scores, *small), {"cut": 15.75}


def _byte_cases(
    rng: np.random.Generator,
) -> Iterator[tuple[str, str, tuple[Array, ...], dict[str, Any]]]:
    """Random ones, and those whose pairs of products are beyond 16 bits."""
    for digits, lead, n, k, o in ((1, (), 4, 17, 5), (2, (2,), 5, 48, 9), (2, (2, 2), 3, 147, 8)):
        x = rng.integers(0, 256, (*lead, n, k)).astype(np.uint8)
        weight = rng.integers(-128, 128, (digits, o, k)).astype(np.int8)
        yield "ByteLinear", "x".join(map(str, (digits, *lead, n, k, o))), (x, weight), {}
        extreme = np.where(rng.random(weight.shape) < 0.5, -128, 127).astype(np.int8)
        largest = (np.full_like(x, 255), extreme)
        yield "ByteLinear", f"{digits}x{k}x{o}_largest", largest, {}


def _elastic_cases(
    rng: np.random.Generator,
) -> Iterator[tuple[str, str, tuple[Array, ...], dict[str, Any]]]:
    """Rows with equal scores, rows that attend to nothing, sums of more than 32 bits."""
    for name, width, temperature, alpha in (
        ("sharp", 16, 0.7, 0.9),
        ("wide", 16, 0.02, 2 / 17),
        ("few", 7, 0.9, 0.7),
        ("least_scale", 16, 1.5, 1e-5),
    ):
        scores = width - 2 * rng.integers(0, width + 1, (2, 3, 9, 17))
        scores[..., 0, :] = scores[..., 0, :1]
        weights = 2.0**44 * np.exp(-2 * temperature * np.arange(width + 1))
        least = np.minimum(np.ceil(weights * 2 / alpha), 2.0**62)
        tables = (np.rint(weights).astype(np.int64), least.astype(np.int64))
        yield "ElasticMask", name, (scores.astype(np.int32), *tables), {}


def make_vectors(seed: int = 0) -> list[TestVector]:
    """Return the cases of every operator; the same seed gives the same arrays.

    Args:
        seed: Seed of the random bits and floats.

    Returns:
        Test vectors with the reference's outputs.
    """
    rng = np.random.default_rng(seed)
    return [
        TestVector(f"{operator.lower()}_{case}", operator, inputs, attributes)
        for operator, case, inputs, attributes in _cases(rng)
    ]


def write_vectors(folder: Path, seed: int = 0) -> list[Path]:
    """Write every case in ONNX backend-test form.

    Args:
        folder: Where the case folders are made.
        seed: As in `make_vectors`.

    Returns:
        The case folders, in order.
    """
    cases = []
    for vector in make_vectors(seed):
        case = folder / vector.name
        data = case / "test_data_set_0"
        data.mkdir(parents=True, exist_ok=True)
        onnx.save(vector.model(), case / "model.onnx")
        spec = OPS[vector.operator]
        for index, (name, array) in enumerate(zip(spec.inputs, vector.inputs, strict=True)):
            tensor = onnx.numpy_helper.from_array(array, name)
            (data / f"input_{index}.pb").write_bytes(tensor.SerializeToString())
        tensor = onnx.numpy_helper.from_array(vector.output, spec.output)
        (data / "output_0.pb").write_bytes(tensor.SerializeToString())
        cases.append(case)
    return cases
