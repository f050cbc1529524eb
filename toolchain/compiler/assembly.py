"""Finds the hot loops in the assembly of kernels, and how many MACs an iteration makes.

Reads what LLVM prints for x86 (AT&T syntax), AArch64 and ARM; nothing else.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Literal

__all__ = ["TILE_MACS", "HotLoop", "Instruction", "Unit", "hot_loops"]

Unit = Literal["popcount", "fma", "int8"]

_FUNCTION: Final = re.compile(r"^([A-Za-z_]\w*):")
_END: Final = re.compile(r"^\.Lfunc_end")
_LABEL: Final = re.compile(r"^(\.L\w+):")
_COMMENT: Final = re.compile(r"\s+(//|@|#\s).*$|\s#$")
_TARGET: Final = re.compile(r"(\.LBB\w+)$")
_STACK: Final = re.compile(r"\[sp\b|%[re]?sp\b")
_X86_STORE: Final = re.compile(r",\s*[-\w.]*\([^)]*\)$")
_ARM_STORE: Final = re.compile(r"^(st[rpu1-4]|vst|vstm|push|stm)")

TILE_MACS: Final = 16 * 16 * 64
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

    def macs(self, unit: Unit) -> int:
        """MACs that it stands for: bits counted, lanes multiplied, or signs of an AMX product."""
        if unit == "int8":
            return TILE_MACS if self.mnemonic == "tdpbssd" else 0
        return _popcount_bits(self) if unit == "popcount" else _fma_lanes(self)


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

    def macs(self, unit: Unit) -> int:
        """MACs of one iteration."""
        return sum(instruction.macs(unit) for instruction in self.instructions)

    def count(self, *mnemonics: str) -> int:
        """Vector or scalar instructions whose mnemonic is one of these."""
        found = Counter(instruction.mnemonic for instruction in self.instructions)
        return sum(found[name] for name in mnemonics)

    @property
    def text(self) -> str:
        """As an assembler takes it."""
        return "\n".join(["\t.text", f"{self.label}:", *(i.text for i in self.instructions), ""])


def hot_loops(assembly: str, unit: Unit) -> dict[str, list[HotLoop]]:
    """Find, for every kernel, the innermost loops that make the most MACs an iteration.

    Args:
        assembly: What LLVM prints.
        unit: What counts as MACs: popcounts, fp32 multiply-adds, or AMX products.

    Returns:
        Symbol to its loops in order, for kernels that have any. A kernel has several where its loop
        is cut into runs.
    """
    found: dict[str, list[HotLoop]] = {}
    for symbol, lines in _functions(assembly):
        loops = list(_innermost(symbol, lines))
        most = max((loop.macs(unit) for loop in loops), default=0)
        if most:
            # Runs of one loop differ by at most what the compiler hoists; remainders make far less.
            found[symbol] = [loop for loop in loops if 2 * loop.macs(unit) > most]
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


def _innermost(symbol: str, lines: list[str]) -> Iterator[HotLoop]:
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
        inside = any((a, b) != (start, end) and start <= a and b <= end for a, b in spans)
        if not inside:
            yield HotLoop(symbol, name, tuple(code[start : end + 1]))


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
