"""Products of one input as one product: the bits of each are those that it has alone."""

from __future__ import annotations

import ctypes
import threading
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from tests.targets.conftest import GUARD, aligned
from tests.targets.test_binary_linear import Problem
from tests.targets.test_slices import lanes_of, rows_of, shape_of
from vitc.compiler.codegen import emit_assembly, emit_object, lower
from vitc.compiler.link import run_zig
from vitc.targets.isa import ISAS
from vitc.targets.kernels.joint_threshold import JointPart, joint_threshold_kernel
from vitc.targets.kernels.slices import joint_lanes
from vitc.targets.packing import (
    ROW_PADDING,
    Axis,
    from_lanes,
    from_rows,
    round_up,
    to_lanes,
)
from vitc.targets.table import TARGETS

# Rows of a window, windows, contracted length, outputs and heads of queries, keys and values, and
# the lanes that are counted: none, some of the last, and all of the last. Odd lengths, heads that
# are padded, rows that fill no tile, no element and more than one span; one and two thresholds.
CASES = [
    ((100, 1, 70, (64, 2), (64, 2), (96, 3), 64), False),
    ((33, 1, 197, (32, 1), (80, 4), (40, 2), 0), True),
    ((203, 1, 33, (32, 2), (32, 1), (64, 1), 64), False),
    ((9, 5, 130, (64, 2), (64, 2), (96, 3), 32), True),
    ((49, 3, 65, (96, 1), (32, 1), (160, 5), 128), False),
]
OUTPUTS = ("rows", "keys", "columns")


@pytest.fixture(params=["whole", "side by side"])
def isa(request, target):
    found = replace(ISAS[target.isa], amx=False)
    if request.param == "side by side":
        return replace(found, slice_bytes=16, slice_vectors=3)
    return found if found.slice_bytes else replace(found, slice_bytes=32)


@pytest.fixture
def function(target, tmp_path):
    def built(kernel):
        emit_object(lower([kernel], target), target, tmp_path / "k.o")
        run_zig(["-shared", "-o", "k.so", "k.o"], tmp_path)
        return getattr(ctypes.CDLL(str(tmp_path / "k.so")), kernel.symbol)

    return built


class Joint:
    """Products with ties, infinite thresholds, zero scales and both signs, and what they give."""

    def __init__(self, isa, case, two_sided):
        self.rows, self.windows, k, *sizes, self.counted = case
        self.two_sided = two_sided
        total = self.rows * self.windows
        rng = np.random.default_rng(k)
        self.axis, self.x = Axis(k), rng.integers(0, 2, (total, k), dtype=np.uint8)
        self.problems = []
        for seed, (outputs, groups) in enumerate(sizes):
            problem = Problem(isa, total, outputs, k, groups, seed=seed)
            problem.x = self.x
            problem.integers = k - 2 * (self.x[:, None] != problem.w[None]).sum(-1)
            for name in ("upper", "lower"):
                own = getattr(problem, name)[:, : self.rows]
                setattr(problem, name, np.tile(own, (1, self.windows)))
            self.problems.append(problem)
        self.parts = [
            JointPart(p.group, output, isa.filled_by(p.group.padded_group).lanes, two_sided, True)
            for p, output in zip(self.problems, OUTPUTS, strict=True)
        ]
        lanes = sum(p.group.padded for p in self.problems)
        self.shape = shape_of(isa, total, lanes, self.axis)
        self.sliced = lanes - self.counted
        self.isa = isa

    def kernel(self):
        return joint_threshold_kernel(
            "k",
            self.isa,
            self.shape,
            self.parts,
            self.sliced,
            windows=self.windows,
            period=self.rows if self.windows > 1 else 0,
        )

    def operands(self):
        packed = [p.group.pad(p.w, 0).astype(np.uint8) for p in self.problems]
        weights, rows = np.concatenate(packed), rows_of(self.x, self.axis)
        given = [rows, lanes_of(self.isa, weights[: self.sliced])]
        if self.counted:
            last = self.isa.with_lanes(self.parts[-1].lanes)
            lanes = to_lanes(weights[self.sliced :], self.axis, last.lanes, last.element_bits)
            given += [rows, lanes]
        for problem in self.problems:
            group = problem.group
            given += [group.pad(-2 * problem.scale, 0, np.nan), group.pad(problem.offset, 0, 0)]
            for side in (problem.upper, problem.lower)[: 1 + self.two_sided]:
                padded = np.zeros((len(side), round_up(self.rows, ROW_PADDING)), np.float32)
                padded[:, : self.rows] = side[:, : self.rows]
                given.append(padded)
        return given

    def sizes(self):
        total, made = self.rows * self.windows, []
        for problem, part in zip(self.problems, self.parts, strict=True):
            group, lanes = problem.group, part.lanes
            heads = self.windows * group.groups
            blocks = round_up(group.padded, lanes)
            made.append({
                "rows": round_up(total, ROW_PADDING) * group.padded // 8,
                "keys": heads * round_up(self.rows, lanes) * group.padded_group // 8,
                "columns": self.windows * blocks * Axis(self.rows).padded // 8,
            }[part.output])  # fmt: skip
        return made

    def decoded(self, problem, part, out):
        """Bits [positions, outputs], and those of padded outputs and rows that must be none."""
        group, total, bits = problem.group, self.rows * self.windows, self.isa.element_bits
        if part.output == "rows":
            return from_rows(out, total, group)
        if part.output == "keys":
            axis = Axis(group.padded_group)
            matrices = out.reshape(self.windows * group.groups, -1)
            keys = [from_lanes(each, self.rows, axis, part.lanes, bits) for each in matrices]
            keys = np.stack(keys).reshape(self.windows, group.groups, self.rows, -1)
            assert not keys[..., group.size :].any()
            return keys[..., : group.size].transpose(0, 2, 1, 3).reshape(total, -1)
        columns, axis = [], Axis(Axis(self.rows).padded)
        for window in out.reshape(self.windows, -1):
            blocks = round_up(group.padded, part.lanes)
            lanes = from_lanes(window, blocks, axis, part.lanes, bits)
            assert not lanes[:, self.rows :].any()
            assert not lanes[group.padded :].any()
            columns.append(group.unpad(lanes[: group.padded, : self.rows], 0).T)
        return np.concatenate(columns)


def run(function, joint, stops):
    """Call a kernel for the tasks between some, on threads of their own."""
    kept = []
    for operand in joint.operands():
        flat = np.ascontiguousarray(operand).reshape(-1).view(np.uint8)
        memory = aligned(-(-flat.size // 64) * 64 + 64)
        memory[: flat.size] = flat
        kept.append(memory)
    outs = [aligned(size + GUARD, fill=0xA5) for size in joint.sizes()]
    pointers = [ctypes.c_void_p(a.ctypes.data) for a in [*kept, *outs]]
    threads = [
        threading.Thread(target=function, args=(*pointers, begin, end))
        for begin, end in pairwise(stops)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for out, size in zip(outs, joint.sizes(), strict=True):
        assert (out[size:] == 0xA5).all(), "the kernel wrote behind an output"
    return [out[:size] for out, size in zip(outs, joint.sizes(), strict=True)]


@pytest.mark.parametrize(("case", "two_sided"), CASES)
def test_bits_of_each_product_are_exact(function, isa, case, two_sided):
    joint = Joint(isa, case, two_sided)
    kernel = joint.kernel()
    built = function(kernel)
    for pieces in (1, 3):
        outs = run(built, joint, [kernel.tasks * i // pieces for i in range(pieces + 1)])
        for problem, part, out in zip(joint.problems, joint.parts, outs, strict=True):
            found = joint.decoded(problem, part, out)
            assert np.array_equal(found, problem.expected(two_sided)), (part.output, pieces)


def test_a_window_is_written_by_its_own_task(function, isa):
    """No tile of popcounts that begins in it writes rows of the next, which another thread does."""
    joint = Joint(isa, *CASES[3])
    for part, out in zip(joint.parts, run(function(joint.kernel()), joint, [1, 2]), strict=True):
        size = len(out) // joint.windows
        if part.output == "rows":
            size = joint.rows * part.outputs.padded // 8
        others = np.delete(out, slice(size, 2 * size))
        assert (others == 0xA5).all(), part.output
        assert (out[size : 2 * size] != 0xA5).any()


def test_products_are_joined_where_their_outputs_fill_more_of_a_vector():
    wide, table = ISAS["avx512-vpopcntdq"], ISAS["avx2-pshufb"]
    attention = [(384, True), (384, True), (384, False)]
    assert joint_lanes(wide, 197, attention, 384) == 1024
    assert joint_lanes(table, 197, attention, 384) == 1024
    # What is left would be no part of the last product, and then goes by slices too.
    assert joint_lanes(wide, 197, [(768, True), (576, True), (64, True)], 384) == 1408
    # They fill vectors already; too few rows; too few outputs; alone.
    assert not joint_lanes(wide, 197, [(512, True), (512, True)], 384)
    assert not joint_lanes(wide, 1, attention, 384)
    assert not joint_lanes(wide, 197, [(96, True), (96, True), (96, False)], 96)
    assert not joint_lanes(wide, 197, attention[:1], 384)
    assert not joint_lanes(ISAS["neon32-vcnt"], 197, attention, 384)
    # Nine short vectors, and values that alone are counted; four and a half.
    short = ISAS["neon-cnt"]
    assert joint_lanes(short, 197, attention, 384) == 1152
    assert joint_lanes(short, 197, [(192, True), (192, True), (192, False)], 192) == 512
    assert not joint_lanes(short, 197, [(384, True), (384, True), (384, True)], 384)


@pytest.mark.parametrize("target", ["x86", "x86-avx512bw", "x86-avx512"])
def test_vectors_are_as_wide_as_the_target_has_them(target):
    isa = ISAS[TARGETS[target].isa]
    joint = Joint(isa, *CASES[0])
    text = emit_assembly([joint.kernel()], TARGETS[target])
    register = "%zmm" if isa.slice_bytes == 64 else "%ymm"
    assert text.count(register) > 300
    assert ("vpternlog" in text) == bool(isa.ternary)
