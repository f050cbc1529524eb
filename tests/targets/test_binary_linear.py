from __future__ import annotations

import itertools

import numpy as np
import pytest

from vitc.targets.kernels.binary_linear import (
    LinearShape,
    residual_kernel,
    scale_factor,
    threshold_kernel,
    uses_tiles,
)
from vitc.targets.packing import (
    ROW_PADDING,
    Axis,
    from_lanes,
    from_rows,
    round_up,
    to_lanes,
    to_rows,
)

# positions, outputs, contracted length, heads: odd K, K over one 8-bit run, tails in every axis.
CASES = [(197, 384, 192, 6), (17, 64, 64, 2), (17, 40, 197, 1), (5, 96, 768, 2), (33, 40, 17, 2)]


def signs(bits, axis):
    """Signs of rows in tiles of 16 rows x 64 bytes, as AMX products read them."""
    values = np.where(bits, 1, -1).astype(np.int8)
    padded = axis.pad(values, 1)
    rows, columns = round_up(len(bits), 16), round_up(axis.padded, 64)
    full = np.zeros((rows, columns), np.int8)
    full[len(bits) :] = 77  # what lies in the rows behind the last one is nobody's business
    full[: len(bits), : axis.padded] = padded
    return full.reshape(rows // 16, 16, columns // 64, 64).transpose(0, 2, 1, 3)


class Problem:
    """A random product with ties, infinite thresholds, zero scales and both signs everywhere."""

    def __init__(self, isa, positions, outputs, k, groups, seed=1):
        rng = np.random.default_rng(seed)
        self.isa, self.positions, self.outputs, self.k = isa, positions, outputs, k
        self.axis = Axis(k)
        self.group = Axis(outputs // groups, groups)
        self.elements = self.axis.padded // isa.element_bits
        self.x = rng.integers(0, 2, (positions, k), dtype=np.uint8)
        self.w = rng.integers(0, 2, (outputs, k), dtype=np.uint8)
        self.integers = k - 2 * (self.x[:, None, :] != self.w[None]).sum(-1)
        # Small dyadic scales make exact ties frequent.
        self.scale = (rng.integers(0, 5, outputs) / 4).astype(np.float32)
        self.offset = (rng.integers(-9, 9, outputs) / 4).astype(np.float32)
        self.upper = (rng.integers(-40, 40, (groups, positions)) / 4).astype(np.float32)
        self.lower = self.upper - rng.integers(0, 9, (groups, positions)).astype(np.float32)
        self.upper[:, 0] = -np.inf
        self.upper[:, 1] = np.inf
        self.lower[:, ::3] = -np.inf

    def expected(self, two_sided):
        value = self.scale * self.integers.astype(np.float32)
        width = self.outputs // self.group.groups
        upper = np.repeat(self.upper.T, width, axis=1)
        lower = np.repeat(self.lower.T, width, axis=1)
        bits = value >= self.offset + upper
        assert (value == self.offset + upper).any(), "the case has no ties"
        return (bits | (value <= self.offset + lower) if two_sided else bits).astype(np.uint8)

    def rows(self, bits):
        packed = to_rows(bits, self.axis)
        full = np.zeros((round_up(len(bits), ROW_PADDING), packed.shape[1]), np.uint8)
        full[: len(bits)] = packed
        return signs(bits, self.axis) if uses_tiles(self.isa, self.elements) else full

    def factored(self):
        return scale_factor(self.isa, self.elements) * self.scale

    def lanes(self, bits):
        return to_lanes(bits, self.axis, self.isa.lanes, self.isa.element_bits)

    def positions_constant(self, values):
        padded = np.zeros((len(values), round_up(self.positions, ROW_PADDING)), np.float32)
        padded[:, : self.positions] = values
        return padded


@pytest.mark.parametrize(("case", "two_sided"), list(itertools.product(CASES, [False, True])))
@pytest.mark.parametrize("output", ["rows", "keys", "columns"])
def test_threshold_bits_are_exact_in_every_layout(call, isa, case, two_sided, output):
    problem = Problem(isa, *case)
    group = problem.group
    shape = LinearShape(problem.positions, group.padded, problem.k, problem.elements)
    kernel = threshold_kernel(
        "k", isa, shape, output=output, two_sided=two_sided, group=group, head=group
    )
    operands = [
        problem.rows(problem.x),
        problem.lanes(group.pad(problem.w, 0)),
        group.pad(problem.factored(), 0, np.nan),
        group.pad(problem.offset, 0, 0),
        problem.positions_constant(problem.upper),
    ]
    if two_sided:
        operands.append(problem.positions_constant(problem.lower))
    token_rows = round_up(problem.positions, ROW_PADDING)
    token_lanes = round_up(problem.positions, isa.lanes)
    size = {
        "rows": token_rows * group.padded // 8,
        "keys": group.groups * token_lanes * group.padded_group // 8,
        "columns": group.padded * Axis(problem.positions).padded // 8,
    }[output]
    out = call(kernel, operands, size)
    if output == "rows":
        plain = from_rows(out, problem.positions, group)
        raw = np.unpackbits(out.reshape(token_rows, -1), axis=1, bitorder="little")
        padding = np.delete(raw[: problem.positions], _used(group), axis=1)
    elif output == "columns":
        lanes = from_lanes(out, group.padded, Axis(problem.positions), isa.lanes, isa.element_bits)
        plain, padding = group.unpad(lanes, 0).T, np.delete(lanes, _used(group), axis=0)
    else:
        stride = size // group.groups
        heads = [
            from_lanes(
                out[g * stride :],
                problem.positions,
                Axis(group.padded_group),
                isa.lanes,
                isa.element_bits,
            )
            for g in range(group.groups)
        ]
        plain = np.concatenate([head[:, : group.size] for head in heads], axis=1)
        padding = np.concatenate([head[:, group.size :] for head in heads], axis=1)
    assert np.array_equal(plain, problem.expected(two_sided))
    assert not padding.any(), "padding outputs must be 0, whatever their threshold"


def _used(group):
    starts = np.arange(group.groups)[:, None] * group.padded_group
    return (starts + np.arange(group.size)).reshape(-1)


@pytest.mark.parametrize("two_sided", [False, True])
@pytest.mark.parametrize("case", [(64, 17, 17), (192, 197, 197), (40, 50, 33)])
def test_transposed_threshold_packs_along_outputs(call, isa, case, two_sided):
    positions, outputs, k = case
    problem = Problem(isa, positions, outputs, k, 1)
    lanes = round_up(positions, 32)
    shape = LinearShape(outputs, lanes, k, problem.elements)
    kernel = threshold_kernel(
        "k", isa, shape, output="columns", transposed=True, two_sided=two_sided
    )
    rows = round_up(outputs, ROW_PADDING)

    def on_rows(values):
        return np.concatenate([values, np.zeros(rows - outputs, np.float32)])

    def on_lanes(values):
        return np.concatenate([values[0], np.zeros(lanes - positions, np.float32)])

    operands = [
        problem.rows(problem.w),
        problem.lanes(problem.x),
        on_rows(problem.factored()),
        on_rows(problem.offset),
        on_lanes(problem.upper),
    ]
    if two_sided:
        operands.append(on_lanes(problem.lower))
    out = call(kernel, operands, lanes * Axis(outputs).padded // 8)
    padded = from_lanes(out, positions, Axis(Axis(outputs).padded), isa.lanes, isa.element_bits)
    assert np.array_equal(padded[:, :outputs], problem.expected(two_sided))
    assert not padded[:, outputs:].any(), "bits behind the last output must be 0"


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("gain", [False, True])
def test_residual_is_added_within_three_roundings(call, isa, transposed, gain):
    positions, outputs, k = (96, 17, 65) if transposed else (17, 96, 65)
    problem = Problem(isa, positions, outputs, k, 1)
    rng = np.random.default_rng(2)
    rows, columns = (outputs, positions) if transposed else (positions, outputs)
    stride, padded_rows = round_up(columns, 32), round_up(rows, ROW_PADDING)
    residual = np.zeros((padded_rows, stride), np.float32)
    residual[:rows, :columns] = rng.normal(size=(rows, columns))
    gains = rng.normal(size=positions).astype(np.float32)
    linear = problem.scale * problem.integers.astype(np.float64) + problem.offset
    if gain:
        linear = linear * gains[:, None]
    expected = residual[:rows, :columns] + (linear.T if transposed else linear)

    def padded(values, multiple):
        return np.concatenate([values, np.zeros(-len(values) % multiple, np.float32)])

    if transposed:
        pair = [problem.rows(problem.w), problem.lanes(problem.x)]
        shape = LinearShape(outputs, stride, k, problem.elements)
        constants = [padded(problem.factored(), ROW_PADDING), padded(problem.offset, ROW_PADDING)]
        gain_constant = padded(gains, 32)
    else:
        pair = [problem.rows(problem.x), problem.lanes(Axis(outputs).pad(problem.w, 0))]
        shape = LinearShape(positions, stride, k, problem.elements)
        constants = [padded(problem.factored(), 32), padded(problem.offset, 32)]
        gain_constant = padded(gains, ROW_PADDING)
    kernel = residual_kernel("k", isa, shape, transposed=transposed, gain=gain, stride=stride)
    operands = [*pair, *constants, *([gain_constant] if gain else []), residual]
    out = call(kernel, operands, padded_rows * stride * 4)
    result = out.view(np.float32).reshape(padded_rows, stride)[:rows, :columns]
    # Three roundings of values up to the sum of the terms.
    bound = (
        3
        * 2**-23
        * (
            np.abs(residual[:rows, :columns])
            + np.abs(expected)
            + np.abs(linear.T if transposed else linear)
        )
    )
    assert (np.abs(result - expected) <= bound).all()
