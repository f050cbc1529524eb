"""How a kernel is shaped for an instruction set: lane element, lanes and register tiles.

Everything that a kernel's speed depends on is in this table, so that a faster choice is one edit
here. The numbers of accumulators fit the register file: 32 vector registers for AVX-512 and
AArch64, 16 for AVX2 and ARMv7.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

__all__ = ["ISAS", "Isa"]

_TERNARY = "llvm.x86.avx512.pternlog.q.512"
_IFMA = "llvm.x86.avx512.vpmadd52l.uq.512"
_VNNI = "llvm.x86.avx512.vpdpbusd.512"


@dataclass(frozen=True)
class Isa:
    """Shape of the microkernels of one instruction set.

    Attributes:
        name: Name of the microkernel family, as it stands in a manifest.
        element_bits: Width of the unsigned integers that the popcount works on: 32 where the
            machine counts bits per 32-bit lane (VPOPCNTDQ), 8 where it counts per byte (NEON `cnt`,
            the `pshufb` table).
        lanes: Elements side by side in one block of the lane-interleaved layout; a multiple of 16.
        row_tile: Rows of the broadcast operand held in registers by the binary matrix product.
        lane_tile: Most lane blocks held in registers by the binary matrix product.
        float_lanes: fp32 values in one vector register.
        float_rows: Rows of the fp32 tile.
        float_tile: Vectors side by side in the fp32 tile.
        float_load: fp32 values of a row that the fp32 tile loads at once: as many as there are
            lanes to multiply by where the machine multiplies by a lane, else one to broadcast.
        float_part: Floats of a row that are multiplied before the next tile of rows is: with them,
            the weights of a block of outputs stay in the first-level cache. 0 for whole rows, where
            one loop more leaves LLVM too few registers for the sums.
        float_ahead: Whether weights are fetched with each step of a product, into the second-level
            cache, where those of a block do not fit the first anyway; else at the start of a tile.
        shuffle: LLVM intrinsic of a byte shuffle within 16 bytes, where looking popcounts up in
            registers is the fastest; empty where the machine counts the bits of a vector.
        amx: Whether there are AMX tiles, on which binary linear layers run as int8 products.
        narrow: Instruction set with half the lanes, for heads that do not fill a block; empty where
            every head does, as heads are padded to 32 bits.
        piece_bytes: Bytes of two vectors that are compared at once where they are no lanes; 8 where
            general registers count faster than vectors.
        sums_words: Whether bits of such a piece are counted in words of 64 bits: the machine does
            so, or sums bytes in one step.
        slice_bytes: Bytes of a vector of lanes of one bit, on which products of many outputs run by
            bit slices; 0 where popcounts are faster.
        slice_vectors: Such vectors side by side, for which one index into the table serves.
        select: Instruction that puts bits of a second vector where a mask has them into the first,
            as LLVM writes it in place; empty where LLVM finds as good a one for a formula.
        slice_fill: Lanes of such a vector above which it pays, of products of any length.
        slice_cost: Lanes beyond those, times the contracted length, for making numbers of slices.
        dot_bytes: LLVM intrinsic that adds four products of uint8 and int8 to each of `float_lanes`
            lanes, exactly; empty where there is none.
        dot_less: What bytes are less than they are, to be the other operand of `dot_bytes`: 128
            where it multiplies int8 by int8.
        dot_words: LLVM intrinsic that adds two products of int16 in each of them; empty where
            vectors are multiplied by a lane.
        adds_words: LLVM intrinsic that adds products to words of 64 bits in one step, on machines
            that count the bits of such words.
        sums_pairs: LLVM intrinsic that adds neighbours to numbers of twice the width, without its
            types; empty where bytes are summed up in words.
        ternary: LLVM intrinsic of any function of three bits, on vectors of such bytes; empty where
            there are AND and XOR.
    """

    name: str
    element_bits: int
    lanes: int
    row_tile: int
    lane_tile: int
    float_lanes: int
    float_rows: int
    float_tile: int
    shuffle: str = ""
    float_load: int = 1
    float_part: int = 256
    float_ahead: bool = False
    amx: bool = False
    narrow: str = ""
    piece_bytes: int = 32
    sums_words: bool = True
    slice_bytes: int = 0
    slice_vectors: int = 1
    select: str = ""
    slice_fill: int = 0
    slice_cost: int = 0
    ternary: str = ""
    dot_bytes: str = ""
    dot_less: int = 0
    dot_words: str = ""
    adds_words: str = ""
    sums_pairs: str = ""

    def with_lanes(self, lanes: int) -> Isa:
        """The instruction set whose blocks have so many lanes: this one, or the narrow one."""
        return self if self.lanes == lanes or not self.narrow else ISAS[self.narrow]

    def filled_by(self, vectors: int) -> Isa:
        """The instruction set whose blocks so many vectors fill, a multiple of 32."""
        return self if not vectors % self.lanes or not self.narrow else ISAS[self.narrow]

    @property
    def element(self) -> str:
        """Data type of a lane element."""
        return f"uint{self.element_bits}"


_NEON = Isa(
    "neon-cnt", 8, 32, 2, 3, 4, 8, 2, float_load=4, piece_bytes=16, sums_words=False,
    slice_bytes=16, slice_vectors=3, select="bit $0.16b, $2.16b, $3.16b",
    slice_fill=98, slice_cost=1_000,
    sums_pairs="llvm.aarch64.neon.uaddlp",
)  # fmt: skip

ISAS: dict[str, Isa] = {
    isa.name: isa
    for isa in (
        Isa(
            "avx512-vpopcntdq", 32, 16, 4, 4, 16, 6, 4, float_ahead=True,
            slice_bytes=64, slice_fill=320, slice_cost=30_000, ternary=_TERNARY, dot_bytes=_VNNI,
            adds_words=_IFMA,
        ),
        Isa(
            "avx512-amx", 32, 16, 4, 4, 16, 6, 4, float_ahead=True, amx=True,
            slice_bytes=64, slice_fill=320, slice_cost=30_000, ternary=_TERNARY, dot_bytes=_VNNI,
            adds_words=_IFMA,
        ),
        Isa(
            "avx512-pshufb", 8, 64, 8, 3, 16, 6, 4, "llvm.x86.avx512.pshuf.b.512",
            float_ahead=True, narrow="avx2-pshufb",
            slice_bytes=64, slice_fill=192, slice_cost=12_000, ternary=_TERNARY,
            dot_words="llvm.x86.avx512.pmaddw.d.512",
        ),
        Isa(
            "avx2-pshufb", 8, 32, 4, 3, 8, 6, 2, "llvm.x86.avx2.pshuf.b",
            slice_bytes=32, slice_fill=144, slice_cost=13_000,
            dot_words="llvm.x86.avx2.pmadd.wd",
        ),
        Isa(
            "ssse3-pshufb", 8, 16, 4, 2, 4, 4, 2, "llvm.x86.ssse3.pshuf.b.128",
            piece_bytes=8, sums_words=False, dot_words="llvm.x86.sse2.pmadd.wd",
        ),
        _NEON,
        replace(
            _NEON, name="neon-dot",
            dot_bytes="llvm.aarch64.neon.sdot.v4i32.v16i8", dot_less=128,
        ),
        Isa(
            "neon32-vcnt", 8, 16, 2, 3, 4, 6, 2, float_part=0, piece_bytes=16, sums_words=False,
            sums_pairs="llvm.arm.neon.vpaddlu",
        ),
    )
}
