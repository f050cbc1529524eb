"""Guards the generated form of the products, since clocks of shared machines cannot.

A slower kernel shows here first: a spilled sum is a store in the hot loop, a lost vector form or a
call is a missing or a foreign instruction.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import pytest

from tests.instructions import undeclared
from vitc.compiler.assembly import HotLoop, hot_loops
from vitc.compiler.codegen import emit_assembly
from vitc.targets.isa import ISAS, Isa
from vitc.targets.kernels.attention import AttentionShape, attention_kernel
from vitc.targets.kernels.binary_linear import LinearShape, residual_kernel, threshold_kernel
from vitc.targets.kernels.byte_linear import ByteLinearShape, byte_linear_kernel
from vitc.targets.kernels.emitter import Kernel
from vitc.targets.kernels.float_linear import FloatLinearShape, blocks_of, float_linear_kernel
from vitc.targets.kernels.max_sim import MaxSimShape
from vitc.targets.kernels.max_sim_single import single_kernel
from vitc.targets.kernels.winograd import WinogradShape, WinogradTiles, winograd_kernel
from vitc.targets.packing import Axis
from vitc.targets.table import TARGETS

# DeiT-S: tokens, channels; heads; hidden channels at MLP ratios of 2 and 4.
N, C = 197, 384
HEADS = Axis(64, 6)


@dataclass(frozen=True)
class Form:
    """What a hot loop is made of, where V counts vector registers of sums in a tile.

    Attributes:
        each: Mnemonics of which there are V times their number in an iteration.
        bits: Width of a vector register.
        stores: Most stores in an iteration: sums for which the register file has no room.
        instructions: Most instructions in an iteration.
    """

    each: dict[str, int]
    bits: int
    stores: int
    instructions: int


FORMS = {
    "avx512-vpopcntdq": Form({"vpxord": 1, "vpopcntd": 1, "vpaddd": 1}, 512, 0, 62),
    "avx512-pshufb": Form({"vpshufb": 2, "vpaddb": 2}, 512, 19, 186),
    "avx2-pshufb": Form({"vpshufb": 2, "vpaddb": 2}, 256, 10, 110),
    "ssse3-pshufb": Form({"pshufb": 2, "paddb": 2}, 128, 6, 104),
    "neon-cnt": Form({"eor": 1, "cnt": 1}, 128, 5, 59),
    "neon32-vcnt": Form({"veor": 1, "vcnt.8": 1, "vadd.i8": 1}, 128, 4, 54),
}
FORMS["neon-dot"] = FORMS["neon-cnt"]

COUNTS = ("vpopcntd", "vpshufb", "pshufb", "cnt", "vcnt.8")
"""What counts bits."""

# Most stores in a loop of the attention kernel (distances are among them), and instructions for
# each that counts.
ATTENTION = {
    "avx512-vpopcntdq": (17, 4.0),
    "avx512-pshufb": (14, 4.6),
    "avx2-pshufb": (7, 4.6),
    "ssse3-pshufb": (6, 5.2),
    "neon-cnt": (14, 3.8),
    "neon32-vcnt": (29, 7.1),
}
ATTENTION["neon-dot"] = ATTENTION["neon-cnt"]


def products(isa: Isa) -> list[Kernel]:
    """Every binary product of DeiT-S, its symbol the layer."""

    def shape(rows: int, lanes: int, k: int) -> LinearShape:
        return LinearShape(rows, lanes, k, Axis(k).padded // isa.element_bits)

    def threshold(symbol: str, product: LinearShape, output: str, **options: object) -> Kernel:
        return threshold_kernel(symbol, isa, product, output=output, **options)

    def residual(symbol: str, product: LinearShape, *, transposed: bool = False) -> Kernel:
        return residual_kernel(
            symbol, isa, product, transposed=transposed, gain=transposed, stride=C
        )

    square, wide, spatial = shape(N, C, C), shape(N, 2 * C, C), shape(N, C, N)
    return [
        threshold("query", square, "rows", group=HEADS),
        threshold("key", square, "keys", group=HEADS, head=HEADS),
        threshold("value", square, "columns", group=HEADS),
        residual("proj", square),
        threshold("mlp_fc1", wide, "rows", two_sided=True),
        threshold("mlp_fc1_ratio_4", shape(N, 4 * C, C), "rows", two_sided=True),
        residual("mlp_fc2", shape(N, C, 2 * C)),
        residual("mlp_fc2_ratio_4", shape(N, C, 4 * C)),
        threshold("si_fc1", spatial, "columns", transposed=True, two_sided=True),
        residual("si_fc2", spatial, transposed=True),
    ]


def loops_of(target: str) -> dict[str, list[HotLoop]]:
    machine = TARGETS[target]
    kernels = products(ISAS[machine.isa])
    found = hot_loops(emit_assembly(kernels, machine), "popcount")
    assert set(found) == {kernel.symbol for kernel in kernels}
    return found


def tile_bits(isa: Isa, lanes: int) -> int:
    """Bits of all sums of the tile that is chosen for so many outputs (or positions)."""
    tile = LinearShape(N, lanes, C, 1).lane_tile(isa)
    return isa.row_tile * tile * isa.lanes * isa.element_bits


# Products on AMX tiles have another form: test_amx.py.
COUNTING = [name for name in TARGETS if name not in {"android-arm64", "x86-amx"}]


@pytest.mark.parametrize("target", COUNTING)
def test_hot_loops_of_binary_products_keep_their_form(target):
    isa = ISAS[TARGETS[target].isa]
    form = FORMS[isa.name]
    for symbol, loops in loops_of(target).items():
        lanes = {"mlp_fc1": 2 * C, "mlp_fc1_ratio_4": 4 * C}.get(symbol, C)
        vectors = tile_bits(isa, lanes) // form.bits
        for loop in loops:
            where = f"{target} {symbol}:\n{loop.text}"
            found = {name: loop.count(name) for name in form.each}
            assert found == {name: vectors * each for name, each in form.each.items()}, where
            assert not any(i.calls for i in loop.instructions), where
            assert sum(i.stores for i in loop.instructions) <= form.stores, where
            assert len(loop.instructions) <= form.instructions, where


@pytest.mark.parametrize("target", COUNTING)
def test_hot_loops_of_attention_keep_their_form(target):
    machine = TARGETS[target]
    isa = ISAS[machine.isa]
    most_stores, instructions = ATTENTION[isa.name]
    kernel = attention_kernel("attention", isa, AttentionShape(N, N, HEADS, 5))
    for loop in hot_loops(emit_assembly([kernel], machine), "popcount")["attention"]:
        where = f"{target}:\n{loop.text}"
        assert not any(i.calls for i in loop.instructions), where
        assert sum(i.stores for i in loop.instructions) <= most_stores, where
        counting = sum(loop.count(name) for name in COUNTS)
        assert len(loop.instructions) <= instructions * counting, where


def test_neon_adds_bytes_once_a_vector_of_sums():
    isa = ISAS["neon-cnt"]
    for symbol, loops in loops_of("arm").items():
        for loop in loops:
            adds = [i for i in loop.instructions if i.mnemonic == "add" and ".16b" in i.operands]
            assert len(adds) == tile_bits(isa, C) // 128, symbol


MULTIPLIED = {
    "avx512-vpopcntdq": (16, 41, "vfmadd"),
    "avx512-pshufb": (16, 41, "vfmadd"),
    "avx2-pshufb": (8, 24, "vfmadd"),
    "ssse3-pshufb": (4, 40, "mulps"),
    "neon-cnt": (4, 90, "fmla"),
    "neon32-vcnt": (4, 40, "vfma"),
}
MULTIPLIED["neon-dot"] = MULTIPLIED["neon-cnt"]
"""fp32 products: floats of a register, most instructions in the hot loop, what multiplies."""


@pytest.mark.parametrize("target", COUNTING)
@pytest.mark.parametrize("reads", ["rows", "corners", "padded"])
def test_hot_loops_of_fp32_products_keep_their_form(target, reads):
    machine = TARGETS[target]
    isa = ISAS[machine.isa]
    lanes, most, name = MULTIPLIED[isa.name]
    shape = FloatLinearShape(N, C, 1 if reads == "rows" else 9, 64, reads, 64, C)
    loops = hot_loops(emit_assembly([float_linear_kernel("k", isa, shape)], machine), "fma")["k"]
    # One, or one for each part of a sum where LLVM unrolls the loop over them.
    assert loops
    for loop in loops:
        where = f"{target}:\n{loop.text}"
        height, widths = blocks_of(isa, N, C)
        sums = height * widths[0] // lanes
        multiplying = [i for i in loop.instructions if i.mnemonic.startswith(name)]
        assert len(multiplying) % sums == 0, where
        assert multiplying, where
        assert len(loop.instructions) <= most, where
        assert not any(i.calls or i.stores for i in loop.instructions), where


@pytest.mark.parametrize("target", COUNTING)
def test_the_hot_loop_of_a_filtered_convolution_is_that_of_an_fp32_product(target):
    machine = TARGETS[target]
    isa = ISAS[machine.isa]
    lanes, most, name = MULTIPLIED[isa.name]
    tiles = WinogradTiles(isa, WinogradShape(28, 28, 192, 384, 384))
    assembly = emit_assembly([winograd_kernel("k", tiles)], machine)
    assert undeclared(assembly, machine) == set()
    (loop,) = hot_loops(assembly, "fma")["k"]
    multiplying = [i for i in loop.instructions if i.mnemonic.startswith(name)]
    sums = tiles.height * tiles.width // lanes
    assert len(multiplying) % sums == 0, loop.text
    assert multiplying, loop.text
    assert len(loop.instructions) <= most, loop.text
    assert not any(i.calls or i.stores or i.on_stack for i in loop.instructions), loop.text


SCANNED = {
    "avx512-vpopcntdq": (
        4096, {"vpxorq": 8, "vpopcntq": 8, "vpmadd52luq": 4, "vpunpck": 4, "vpermt2d": 2}, 52
    ),
    "avx512-pshufb": (
        4096, {"vpxorq": 8, "vpshufb": 16, "vpsadbw": 8, "vpunpck": 4, "vpermt2d": 2}, 104
    ),
    "avx2-pshufb": (2048, {"vpxor": 8, "vpshufb": 16, "vpsadbw": 8, "vpunpck": 4}, 104),
    "neon-cnt": (1024, {"eor": 8, "cnt": 8, "addp": 3, "uaddlp": 2}, 44),
    "neon32-vcnt": (1024, {"veor": 8, "vcnt": 8, "vuzp": 3, "vpaddl": 2}, 54),
}  # fmt: skip
"""Scans of single vectors of 256 bits: bits an iteration, what begins so, most instructions."""
SCANNED["neon-dot"] = SCANNED["neon-cnt"]


@pytest.mark.parametrize("target", [t for t in COUNTING if t != "x86-64-v2"])
def test_the_hot_loop_of_a_scan_keeps_its_form(target):
    machine = TARGETS[target]
    isa = ISAS[machine.isa]
    bits, each, most = SCANNED[isa.name]
    kernel = single_kernel("scan", isa, MaxSimShape(1, 1, 1, 256))
    assembly = emit_assembly([kernel], machine)
    assert undeclared(assembly, machine) == set()
    (loop,) = hot_loops(assembly, "popcount")["scan"]
    assert loop.work("popcount") == bits
    found = {
        name: sum(i.mnemonic.startswith(name) for i in loop.instructions) for name in each
    }  # fmt: skip
    assert found == each, loop.text
    assert len(loop.instructions) <= most, loop.text
    assert sum(i.stores for i in loop.instructions) == 1, loop.text
    assert not any(i.on_stack or i.calls for i in loop.instructions), loop.text


MULTIPLIES_BYTES = {
    "avx512-vpopcntdq": "vpdpbusd",
    "avx512-pshufb": "vpmaddwd",
    "avx2-pshufb": "vpmaddwd",
    "ssse3-pshufb": "pmaddwd",
}


@pytest.mark.parametrize("target", [t for t in COUNTING if TARGETS[t].isa in MULTIPLIES_BYTES])
def test_products_of_bytes_take_the_instruction_that_adds_several(target):
    machine = TARGETS[target]
    isa = ISAS[machine.isa]
    shape = ByteLinearShape(N, C, 16, 48, 1, C, 0, False, False, True)
    assembly = emit_assembly([byte_linear_kernel("k", isa, shape)], machine)
    assert undeclared(assembly, machine) == set()
    assert re.search(rf"\s{MULTIPLIES_BYTES[isa.name]}\s", assembly)


@pytest.mark.parametrize("digits", [1, 2])
def test_dot_products_of_bytes_take_a_lane_each(digits):
    machine = TARGETS["rpi5"]
    isa = ISAS[machine.isa]
    shape = ByteLinearShape(N, C, 48, 16, digits, C, shifted=True)
    text = emit_assembly([byte_linear_kernel("k", isa, shape)], machine)
    blocks = [block for block in text.split("LBB") if "sdot" in block]
    height, widths = blocks_of(isa, N, C)
    # 16 bytes of each row meet the weights of 16 bytes of each output.
    dots = isa.float_load * height * widths[0] // isa.float_lanes
    assert [block.count("sdot") for block in blocks] == [dots] * digits
    for block in blocks:
        assert block.count(".4b[") == dots, "a byte is put into all lanes by an instruction more"
        assert block.count("\tldr\tq") + 2 * block.count("\tldp\tq") >= height + 8
        assert "\tdup\t" not in block
        assert "[sp" not in block, "a sum is spilled"
