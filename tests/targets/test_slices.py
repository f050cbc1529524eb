"""Products by bit slices: the same bits and floats as by popcounts, on every instruction set.

Every target runs them here, also those whose own products are popcounts: with plain logic, in
vectors of 32 bytes; and in short vectors side by side, as NEON has them.
"""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest

from tests.targets.test_binary_linear import Problem
from vitc.compiler.assembly import hot_loops
from vitc.compiler.codegen import emit_assembly
from vitc.targets.isa import ISAS
from vitc.targets.kernels.binary_linear import (
    LinearShape,
    float_kernel,
    residual_kernel,
    threshold_kernel,
)
from vitc.targets.kernels.slices import slice_blocks, slice_vector, uses_slices
from vitc.targets.layouts import Across
from vitc.targets.packing import (
    ROW_PADDING,
    Axis,
    from_lanes,
    from_rows,
    round_up,
    slice_places,
    to_rows,
    to_slices,
)
from vitc.targets.table import TARGETS

# Rows, outputs, contracted length: one part and several, tails of 1 to 63 bits, lengths beyond 8
# and 9 bits of a sum, blocks that are full, narrow and several, more rows than a span.
CASES = [(5, 16, 1), (9, 96, 40), (130, 48, 65), (33, 608, 197), (97, 272, 300), (8, 32, 2049)]
# Of short vectors: parts of one word and of several, the last full or not, numbers of a byte and
# of two, two vectors and three, of which the last is not full; a lower half that is rounded.
CASES += [(3, 256, 127), (107, 384, 384), (5, 128, 385), (201, 720, 255), (2, 176, 511)]


@pytest.fixture(params=["whole", "side by side"])
def isa(request, target):
    found = replace(ISAS[target.isa], amx=False)
    if request.param == "side by side":
        return replace(found, slice_bytes=16, slice_vectors=3)
    return found if found.slice_bytes else replace(found, slice_bytes=32)


def shape_of(isa, rows, outputs, axis, depth=0):
    return LinearShape(
        rows, outputs, axis.length, axis.padded // isa.element_bits, depth or axis.length
    )


def lanes_of(isa, weights):
    packed = to_slices(weights, *slice_blocks(isa, len(weights)), slice_vector(isa))
    return np.pad(packed, (0, isa.slice_bytes))


def rows_of(bits, axis):
    packed = to_rows(bits, axis)
    full = np.full((round_up(len(bits), ROW_PADDING), packed.shape[1]), 0x5A, np.uint8)
    full[: len(bits)] = packed
    return full


def sums(call, isa, x, w, axis=None, depth=0):
    """Popcounts of x XOR w: as floats of which nothing is rounded."""
    axis = axis or Axis(x.shape[1])
    kernel = float_kernel("k", isa, shape_of(isa, len(x), len(w), axis, depth), stride=len(w))
    full = axis.pad(w, 1)[:, : depth or axis.length].astype(np.uint8)
    one, half = np.ones(len(w), np.float32), np.full(len(w), axis.length / 2, np.float32)
    out = call(kernel, [rows_of(x, axis), lanes_of(isa, full), one, half], 4 * len(x) * len(w))
    return out.view(np.float32).reshape(len(x), len(w))


@pytest.mark.parametrize("case", CASES)
def test_sums_are_popcounts(call, isa, case):
    rows, outputs, k = case
    rng = np.random.default_rng(k)
    x = (rng.random((rows, k)) < rng.random((rows, 1))).astype(np.uint8)
    w = (rng.random((outputs, k)) < rng.random((outputs, 1))).astype(np.uint8)
    # The least and the largest sum.
    x[0], w[0], w[1] = 1, 0, 1
    wanted = (x[:, None] != w[None]).sum(-1)
    assert wanted[0, 0] == k
    assert wanted[0, 1] == 0
    assert np.array_equal(sums(call, isa, x, w), wanted)


def test_padding_between_groups_is_no_part_of_a_sum(call, isa):
    axis = Axis(20, 5)
    rng = np.random.default_rng(0)
    x, w = (rng.integers(0, 2, (n, axis.length), dtype=np.uint8) for n in (11, 64))
    wanted = (x[:, None] != w[None]).sum(-1)
    assert np.array_equal(sums(call, isa, x, w, axis, axis.padded), wanted)


@pytest.mark.parametrize("two_sided", [False, True])
@pytest.mark.parametrize("output", ["rows", "keys"])
@pytest.mark.parametrize("case", [(100, 80, 70, 2), (17, 40, 200, 1)])
def test_threshold_bits_are_exact(call, isa, case, output, two_sided):
    problem = Problem(isa, *case)
    group, positions = problem.group, problem.positions
    shape = shape_of(isa, positions, group.padded, problem.axis)
    kernel = threshold_kernel(
        "k", isa, shape, output=output, two_sided=two_sided, group=group, head=group
    )
    operands = [
        rows_of(problem.x, problem.axis),
        lanes_of(isa, group.pad(problem.w, 0).astype(np.uint8)),
        group.pad(-2 * problem.scale, 0, np.nan),
        group.pad(problem.offset, 0, 0),
        problem.positions_constant(problem.upper),
        *([problem.positions_constant(problem.lower)] if two_sided else []),
    ]
    rows, lanes = round_up(positions, ROW_PADDING), round_up(positions, isa.lanes)
    if output == "rows":
        out = call(kernel, operands, rows * group.padded // 8)
        found = from_rows(out, positions, group)
    else:
        out = call(kernel, operands, group.groups * lanes * group.padded_group // 8)
        axis, heads = Axis(group.padded_group), out.reshape(group.groups, -1)
        keys = [from_lanes(h, positions, axis, isa.lanes, isa.element_bits) for h in heads]
        found = np.concatenate([head[:, : group.size] for head in keys], axis=1)
    assert np.array_equal(found, problem.expected(two_sided))


@pytest.mark.parametrize("ordered", [False, True])
def test_residual_is_added_to_the_row_that_is_named(call, isa, ordered):
    positions, outputs, k = 104, 64, 130
    problem = Problem(isa, positions, outputs, k, 1)
    rng = np.random.default_rng(4)
    residual = rng.integers(-9, 10, (positions, outputs)).astype(np.float32)
    order = rng.permutation(positions).astype(np.int32)
    kernel = residual_kernel(
        "k",
        isa,
        shape_of(isa, positions, outputs, problem.axis),
        transposed=False,
        gain=False,
        stride=outputs,
        ordered=ordered,
    )
    operands = [
        rows_of(problem.x, problem.axis),
        lanes_of(isa, problem.w),
        -2 * problem.scale,
        problem.offset,
        *([order] if ordered else []),
        residual,
    ]
    out = call(kernel, operands, residual.nbytes).view(np.float32).reshape(residual.shape)
    # Quarters of small integers are added without rounding.
    wanted, added = residual.copy(), problem.scale * problem.integers + problem.offset
    wanted[order if ordered else slice(None)] += added
    assert np.array_equal(out, wanted.astype(np.float32))


@pytest.mark.parametrize("case", [(128, 40, 70), (384, 33, 300), (512, 17, 64)])
def test_lanes_that_lie_across_are_numbered_as_they_lie(call, isa, case):
    positions, outputs, k = case
    if isa.slice_vectors == 1:
        return
    problem = Problem(isa, positions, outputs, k, 1)
    shape = shape_of(isa, outputs, positions, problem.axis)
    kernel = threshold_kernel("k", isa, shape, output="rows", transposed=True, two_sided=True)
    across = Across(positions, k)
    padded = np.zeros(round_up(outputs, ROW_PADDING), np.float32)
    scale, offset = padded.copy(), padded.copy()
    scale[:outputs], offset[:outputs] = -2 * problem.scale, problem.offset
    operands = [
        rows_of(problem.w, problem.axis),
        across.encode(problem.x[None]),
        scale,
        offset,
        problem.upper[0],
        problem.lower[0],
    ]
    written = Across(positions, outputs)
    out = call(kernel, operands, written.size)
    assert np.array_equal(written.decode(out)[0], problem.expected(two_sided=True))


@pytest.mark.parametrize("vector", [0, 128])
@pytest.mark.parametrize("lanes", [16, 48, 192, 384])
def test_every_lane_of_a_block_has_a_bit_of_its_own(lanes, vector):
    assert sorted(slice_places(lanes, vector)) == list(range(lanes))


def test_slices_are_for_many_rows_of_blocks_that_are_full():
    isa = ISAS["avx512-pshufb"]
    assert slice_blocks(isa, 1152) == (3, 384)
    assert slice_blocks(isa, 100) == (1, 112)
    assert uses_slices(isa, 197, 384, 384)
    assert not uses_slices(isa, 1, 384, 384)
    assert not uses_slices(isa, 197, 384, 4096)
    assert not uses_slices(isa, 3136, 96, 96)
    assert not uses_slices(ISAS["ssse3-pshufb"], 197, 384, 384)
    short = ISAS["neon-cnt"]
    assert slice_blocks(short, 1152) == (3, 384)
    assert uses_slices(short, 197, 384, 64)
    assert uses_slices(short, 197, 128, 384)
    assert not uses_slices(short, 197, 192, 192)
    assert not uses_slices(ISAS["neon32-vcnt"], 197, 384, 384)


@pytest.mark.parametrize("target", ["arm", "rpi4", "rpi5"])
def test_adders_of_three_vectors_are_three_instructions_each(target):
    """Of 128 bits: 63 full adders and two half ones for each vector, and what finds entries."""
    machine = TARGETS[target]
    isa, axis = ISAS[machine.isa], Axis(128)
    lanes = 8 * isa.slice_bytes * isa.slice_vectors
    kernel = threshold_kernel("k", isa, shape_of(isa, 197, lanes, axis), output="rows")
    text = emit_assembly([kernel], machine)
    assert kernel.work == {"slices": 197 * 3 * 2 * 62}
    (loop,) = hot_loops(text, "slices")["k"]
    where = loop.text
    vectors = [i for i in loop.instructions if ".16b" in i.operands or i.operands.startswith("q")]
    # Carries; in each transposition, two for each of 12 pairs of planes.
    assert loop.count("bit") == 3 * (63 + 24), where
    assert loop.count("bsl", "bif") == 0, where
    # An offset of two steps is one AND, and two additions to where the table lies.
    shifted = [i for i in loop.instructions if re.match(r"and\tx\d+, .*, ls[lr] #", i.text.strip())]
    assert len(shifted) >= 2 * 15, where
    copies = sum(i.mnemonic == "mov" for i in vectors)
    spilled = sum(i.on_stack and i.mnemonic in {"ldr", "ldp", "str", "stp"} for i in vectors)
    assert copies + spilled <= 64, where
    assert len(loop.instructions) <= 1060, where
    assert not any(i.calls for i in loop.instructions), where
    assert "cnt" not in where


@pytest.mark.parametrize("target", ["x86", "x86-avx512bw", "x86-avx512"])
def test_adders_stay_in_registers(target):
    """Of 64 bits: 31 full adders, of which nothing is stored but the numbers at the end."""
    machine = TARGETS[target]
    isa, axis = ISAS[machine.isa], Axis(64)
    lanes = 8 * isa.slice_bytes
    kernel = float_kernel("k", isa, shape_of(isa, 197, lanes, axis), stride=lanes)
    text = emit_assembly([kernel], machine)
    body = max(text.split("LBB"), key=lambda block: block.count("(,%r") + block.count("vp"))
    register = "%zmm" if isa.slice_bytes == 64 else "%ymm"
    stores = [
        line
        for line in body.splitlines()
        if line.strip().startswith("vmovdq")
        and line.split("#")[0].rstrip().endswith(")")
        and line.split()[1].startswith(register)
    ]
    if isa.ternary:
        assert kernel.work == {"slices": 197 * 31}
        assert {loop.work("slices") for loop in hot_loops(text, "slices")["k"]} == {31}
        assert body.count("vpternlogq") >= 62
        assert len(stores) <= 16, body
    else:
        assert body.count("vpand") >= 2 * 31
        # Sixteen registers hold six slices and what is added.
        assert len(stores) <= 16 + 6, body
    assert "popcnt" not in body
