"""Finds the hot loops in the assembly of kernels, and how much work an iteration does.

Work is MACs where a loop keeps an arithmetic unit busy: popcounts, fp32 multiply-adds, AMX products
of int8. Else it is full adders of bit slices (on AArch64 their XORs, two of each), bytes of signs
that are made for AMX, or values of 32 bits that are compared.

Reads what LLVM prints for x86 (AT&T syntax), AArch64 and ARM; nothing else.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final, Literal

__all__ = ["TILE_MACS", "TILE_PRODUCTS", "HotLoop", "Instruction", "Unit", "hot_loops"]

Unit = Literal["popcount", "fma", "int8", "slices", "signs", "compare"]

_FUNCTION: Final = re.compile(r"^([A-Za-z_]\w*):")
_END: Final = re.compile(r"^\.Lfunc_end")
_LABEL: Final = re.compile(r"^(\.L\w+):")
_COMMENT: Final = re.compile(r"\s+(//|@|#\s).*$|\s#$")
_TARGET: Final = re.compile(r"(\.LBB\w+)$")
_STACK: Final = re.compile(r"\[sp\b|%[re]?sp\b")
_X86_STORE: Final = re.compile(r",\s*[-\w.]*\([^)]*\)$")
_ARM_STORE: Final = re.compile(r"^(st[rpu1-4]|vst|vstm|push|stm)")

TILE_MACS: Final = 16 * 16 * 64
TILE_PRODUCTS: Final = ("tdpbssd", "tdpbusd")
"""MACs of an AMX product of int8."""

_WIDTHS: Final = {"x": 128, "y": 256, "z": 512}


@dataclass(frozen=True)
class Instruction:
    """One instruction.

    Attributes:
        text: As the assembler takes it.
        mnemonic: Its first word.
        operands: The rest.
    """

    text: str
    mnemonic: str
    operands: str

    @property
    def stores(self) -> bool:
        """Whether it writes memory."""
        if "%" not in self.operands:
            return bool(_ARM_STORE.match(self.mnemonic))
        reads = self.mnemonic.startswith(("cmp", "test", "prefetch", "j"))
        return not reads and bool(_X86_STORE.search(self.operands))

    @property
    def on_stack(self) -> bool:
        """Whether it reads or writes the stack."""
        return bool(_STACK.search(self.operands))

    @property
    def calls(self) -> bool:
        """Whether it calls a function."""
        return self.mnemonic.startswith("call") or self.mnemonic in {"bl", "blx", "blr"}

    def work(self, unit: Unit) -> int:
        """Work that it does."""
        return _WORK[unit](self)


@dataclass(frozen=True)
class HotLoop:
    """An innermost loop.

    Attributes:
        symbol: Kernel it is part of.
        label: Where it starts.
        instructions: All of it, with the branch back.
    """

    symbol: str
    label: str
    instructions: tuple[Instruction, ...]

    def work(self, unit: Unit) -> int:
        """Work of one iteration."""
        return sum(instruction.work(unit) for instruction in self.instructions)

    def count(self, *mnemonics: str) -> int:
        """Vector or scalar instructions whose mnemonic is one of these."""
        found = Counter(instruction.mnemonic for instruction in self.instructions)
        return sum(found[name] for name in mnemonics)

    @property
    def text(self) -> str:
        """As an assembler takes it."""
        return "\n".join(["\t.text", f"{self.label}:", *(i.text for i in self.instructions), ""])


def hot_loops(assembly: str, unit: Unit) -> dict[str, list[HotLoop]]:
    """Find, for every kernel, the innermost loops that do the most work an iteration.

    Args:
        assembly: What LLVM prints.
        unit: What counts as work.

    Returns:
        Symbol to its loops in order, for kernels that have any. A kernel has several where its loop
        is cut into runs.
    """
    found: dict[str, list[HotLoop]] = {}
    for symbol, lines in _functions(assembly):
        every = list(_loops(symbol, lines))
        # Adders of 64 bits are straight code, behind which a loop may be that makes use of them.
        straight = unit == "slices"
        loops = [loop for loop, inner in every if (inner or straight) and loop.work(unit)]
        # A loop of a few turns is straight code by now, in the loop around it.
        loops = loops or [loop for loop, _ in every]
        most = max((loop.work(unit) for loop in loops), default=0)
        if most:
            # Runs of one loop differ by at most what the compiler hoists; remainders make far less.
            found[symbol] = [loop for loop in loops if 2 * loop.work(unit) > most]
    return found


def _functions(assembly: str) -> Iterator[tuple[str, list[str]]]:
    symbol, body = "", list[str]()
    for raw in assembly.splitlines():
        line = _COMMENT.sub("", raw).rstrip()
        begins = _FUNCTION.match(line)
        if begins:
            symbol, body = begins.group(1), []
        elif _END.match(line):
            yield symbol, body
        elif symbol and line and not line.lstrip().startswith(("#", "//", "@")):
            body.append(line)


def _loops(symbol: str, lines: list[str]) -> Iterator[tuple[HotLoop, bool]]:
    """Loops without the loops in them, and whether there were none."""
    places: dict[str, int] = {}
    code: list[Instruction] = []
    backward: list[tuple[int, int, str]] = []
    for line in lines:
        label = _LABEL.match(line)
        if label:
            places[label.group(1)] = len(code)
            continue
        mnemonic, _, operands = line.strip().partition("\t")
        if mnemonic.startswith("."):
            continue
        target = _TARGET.search(operands)
        if target and target.group(1) in places:
            backward.append((places[target.group(1)], len(code), target.group(1)))
        code.append(Instruction(line, mnemonic, operands))
    spans = {(start, end) for start, end, _ in backward}
    for start, end, name in backward:
        inside = [(a, b) for a, b in spans if (a, b) != (start, end) and start <= a and b <= end]
        own = [i for i in range(start, end + 1) if not any(a <= i <= b for a, b in inside)]
        yield HotLoop(symbol, name, tuple(code[i] for i in own)), not inside


def _popcount_bits(instruction: Instruction) -> int:
    mnemonic, operands = instruction.mnemonic, instruction.operands
    if mnemonic == "cnt":
        return 128 if ".16b" in operands else 64
    if mnemonic == "vcnt.8":
        return 128 if operands.startswith("q") else 64
    if mnemonic in {"vpopcntd", "vpopcntq"}:
        return _x86_width(operands)
    # Without a popcount of vectors, x86 looks it up, four bits of each byte at a time.
    if mnemonic in {"vpshufb", "pshufb"}:
        return _x86_width(operands) // 2
    return 0


def _fma_lanes(instruction: Instruction) -> int:
    mnemonic, operands = instruction.mnemonic, instruction.operands
    if mnemonic == "fmla" and ".4s" in operands:
        return 4
    if mnemonic in {"vfma.f32", "vmla.f32"} and operands.startswith(("q", "d")):
        return 4 if operands.startswith("q") else 2
    if re.fullmatch(r"vfmadd\d+ps|mulps", mnemonic):
        return _x86_width(operands) // 32
    return 0


def _x86_width(operands: str) -> int:
    return max((_WIDTHS[letter] for letter in re.findall(r"%([xyz])mm\d", operands)), default=0)


def _products(instruction: Instruction) -> int:
    return TILE_MACS if instruction.mnemonic in TILE_PRODUCTS else 0


def _adders(instruction: Instruction) -> int:
    if instruction.mnemonic == "eor":
        return int(".16b" in instruction.operands)
    # The carry of a full adder, by its truth table.
    carries = instruction.mnemonic == "vpternlogq" and instruction.operands.startswith("$212,")
    return int(carries)


def _sign_bytes(instruction: Instruction) -> int:
    expands = instruction.mnemonic in {"vpermd", "vpblendmb"}
    return _x86_width(instruction.operands) // 8 if expands else 0


def _compared(instruction: Instruction) -> int:
    compares = re.fullmatch(r"vcmp\w*ps|vpcmp\w*ud", instruction.mnemonic)
    return _x86_width(instruction.operands) // 32 if compares else 0


_WORK: Final[Mapping[Unit, Callable[[Instruction], int]]] = {
    "popcount": _popcount_bits,
    "fma": _fma_lanes,
    "int8": _products,
    "slices": _adders,
    "signs": _sign_bytes,
    "compare": _compared,
}
