"""AMX kernels: signs of packed rows, products of every depth and number of rows, generated code."""

from __future__ import annotations

import ctypes
from dataclasses import replace

import numpy as np
import pytest

from tests.processors import HOST, NO_AVX512
from vitc.compiler.assembly import hot_loops
from vitc.compiler.codegen import emit_assembly
from vitc.targets.isa import ISAS
from vitc.targets.kernels.binary_linear import LinearShape, residual_kernel, threshold_kernel
from vitc.targets.kernels.byte_linear import ByteLinearShape, byte_linear_kernel
from vitc.targets.kernels.byte_tiles import uses_byte_tiles
from vitc.targets.kernels.signs import signs_kernel
from vitc.targets.layouts import Signs
from vitc.targets.packing import Axis, round_up, to_lanes, to_rows
from vitc.targets.table import TARGETS

# DeiT-S: tokens, channels; heads.
N, C = 197, 384
HEADS = Axis(64, 6)


@pytest.fixture
def target(amx):
    if "x86-amx" not in HOST:
        pytest.skip(NO_AVX512)
    return TARGETS["x86-amx"]


def as_tiles(values: np.ndarray) -> np.ndarray:
    """Rows of bytes in tiles of 16 rows x 64 bytes."""
    rows, columns = (
        round_up(size, tile) for size, tile in zip(values.shape, (16, 64), strict=True)
    )
    full = np.zeros((rows, columns), np.int8)
    full[: values.shape[0], : values.shape[1]] = values
    return full.reshape(rows // 16, 16, columns // 64, 64).transpose(0, 2, 1, 3)


@pytest.mark.parametrize(
    "axis", [Axis(384), Axis(64), Axis(197), Axis(17), Axis(20, 3), Axis(48, 2)]
)
@pytest.mark.parametrize("rows", [1, 16, 35])
def test_signs_are_plus_and_minus_one_and_zero_in_padding(call, axis, rows):
    bits = np.random.default_rng(3).integers(0, 2, (rows, axis.length), dtype=np.uint8)
    size = Signs(rows, axis).size
    out = call(signs_kernel("k", rows, axis), [to_rows(bits, axis)], size)
    wanted = as_tiles(axis.pad(np.where(bits, 1, -1).astype(np.int8), 1))
    found = out.view(np.int8).reshape(wanted.shape)
    # Row r of the matrix is row r % 16 of tile r // 16, whatever the depth.
    number = np.arange(len(found))[:, None, None] * 16 + np.arange(16)
    used = np.broadcast_to(number < rows, found.shape[:3])
    assert np.array_equal(found[used], wanted[used])
    assert (found[~used].view(np.uint8) == 0xA5).all(), "rows behind the last one were written"


@pytest.mark.parametrize(
    ("rows", "k"),
    [
        *((rows, 65) for rows in (1, 15, 16, 17, 32, 33, 48, 64, 65, 96)),
        *((17, k) for k in (1, 64, 96, 128, 320)),
        *((65, k) for k in (768, 1536)),
    ],
)
def test_products_of_every_number_of_rows_and_depth(call, amx, rows, k):
    isa, axis, outputs = ISAS["avx512-amx"], Axis(k), 64
    rng = np.random.default_rng(k + rows)
    x, w = (rng.integers(0, 2, (n, k), dtype=np.uint8) for n in (rows, outputs))
    residual = rng.integers(-99, 99, (rows, outputs)).astype(np.float32)
    shape = LinearShape(rows, outputs, k, axis.padded // 32)
    kernel = residual_kernel("k", isa, shape, transposed=False, gain=False, stride=outputs)
    signs = as_tiles(axis.pad(np.where(x, 1, -1).astype(np.int8), 1))
    ones, zeros = np.ones(outputs, np.float32), np.zeros(outputs, np.float32)
    before = amx and ctypes.c_ulong.in_dll(amx, "amx_products").value
    out = call(kernel, [signs, to_lanes(w, axis, 16, 32), ones, zeros, residual], residual.nbytes)
    wanted = residual + k - 2 * (x[:, None, :] != w[None]).sum(-1)
    assert np.array_equal(out.view(np.float32).reshape(rows, outputs), wanted)
    if amx:
        done = ctypes.c_ulong.in_dll(amx, "amx_products").value - before
        assert done == kernel.work["int8"] / (16 * 16 * 64)


def products():
    """The products of DeiT-S, and the tiles of their depth."""
    isa = ISAS["avx512-amx"]

    def shape(rows: int, lanes: int, k: int) -> LinearShape:
        return LinearShape(rows, lanes, k, Axis(k).padded // 32)

    def threshold(symbol, product, output, **options):
        return threshold_kernel(symbol, isa, product, output=output, **options)

    def residual(symbol, product, *, transposed=False):
        return residual_kernel(
            symbol, isa, product, transposed=transposed, gain=transposed, stride=C
        )

    square, spatial = shape(N, C, C), shape(N, C, N)
    return [
        (threshold("query", square, "rows", group=HEADS), 6),
        (threshold("key", square, "keys", group=HEADS, head=HEADS), 6),
        (threshold("value", square, "columns", group=HEADS), 6),
        (residual("proj", square), 6),
        (threshold("mlp_fc1", shape(N, 2 * C, C), "rows", two_sided=True), 6),
        (residual("mlp_fc2", shape(N, C, 2 * C)), 12),
        (residual("mlp_fc2_ratio_4", shape(N, C, 4 * C)), 24),
        (threshold("si_fc1", spatial, "columns", transposed=True, two_sided=True), 4),
        (residual("si_fc2", spatial, transposed=True), 4),
    ]


def test_hot_loops_keep_their_form():
    kernels = products()
    found = hot_loops(emit_assembly([k for k, _ in kernels], TARGETS["x86-amx"]), "int8")
    for kernel, depth in kernels:
        (loop,) = found[kernel.symbol]
        where = f"{kernel.symbol}:\n{loop.text}"
        # Four products for four loads, one sum stored and cleared for each tile of a block.
        assert loop.count("tdpbssd") == loop.count("tileloadd") == 4 * depth, where
        assert loop.count("tilestored") == loop.count("tilezero") == 4, where
        assert not any(i.calls for i in loop.instructions), where
        spilled = [i for i in loop.instructions if i.on_stack and "zmm" in i.operands]
        assert not spilled, where
        # Three instructions of epilogue for each cycle of the tile unit would take longer than it.
        assert len(loop.instructions) < 3 * 16 * 4 * depth, where


@pytest.mark.parametrize("digits", [1, 2])
def test_products_of_bytes_load_a_tile_for_each_product(digits):
    isa, shapes = ISAS["avx512-amx"], {}
    for number, (rows, runs, length) in enumerate([(N - 1, 16, 48), (49, 1, 1536), (16, 3, 64)]):
        shape = ByteLinearShape(rows, C, runs, length, digits, C, shifted=True)
        shapes[f"k{number}"] = shape
    kernels = [byte_linear_kernel(name, isa, shape) for name, shape in shapes.items()]
    found = hot_loops(emit_assembly(kernels, TARGETS["x86-amx"]), "int8")
    for name, shape in shapes.items():
        (loop,) = found[name]
        row_tiles = 2 if shape.rows >= 32 else 1
        # LLVM may unroll the steps.
        steps = loop.count("tdpbusd") // (2 * row_tiles)
        assert steps > 0, loop.text
        assert loop.count("tdpbusd") == steps * 2 * row_tiles, loop.text
        assert loop.count("tileloadd") == steps * (2 + row_tiles), loop.text
        assert not any(i.on_stack and "zmm" in i.operands for i in loop.instructions), loop.text


def test_products_of_bytes_take_tiles_where_a_row_is_more_than_a_step():
    isa = ISAS["avx512-amx"]
    long, short = (ByteLinearShape(N, C, 1, length, 1, C) for length in (65, 64))
    assert uses_byte_tiles(isa, long)
    assert not uses_byte_tiles(isa, short)
    assert not uses_byte_tiles(isa, replace(long, rows=15))
    assert not uses_byte_tiles(ISAS["avx512-vpopcntdq"], long)


def test_a_panel_is_expanded_by_one_permutation_for_each_row_of_a_tile():
    kernels = [kernel for kernel, depth in products() if depth > 4]
    found = hot_loops(emit_assembly(kernels, TARGETS["x86-amx"]), "signs")
    for kernel in kernels:
        (loop,) = found[kernel.symbol]
        assert loop.count("vpermd") == 8
        assert sum(i.stores for i in loop.instructions) == 8
        assert len(loop.instructions) <= 28, loop.text
