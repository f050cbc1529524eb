"""A modelled time for processors that are not here: llvm-mca on the hot loops.

For every kernel, llvm-mca says how many cycles an iteration of its hottest loop takes on a
processor. A step runs that loop as often as its MACs need. The model leaves out all memory: every
load hits the first-level cache, no store waits, no branch is mispredicted; so a real core at the
named clock takes longer.

ARM: what lies outside hot loops (epilogues, binarization, padding) is counted by executed over
hot-loop instructions and taken to run at the same pace. LLVM schedules both Cortex-A72 and
Cortex-A76 as a Cortex-A57; Neoverse N1, the server core next to the Cortex-A76, has a model of its
own.

x86: no emulator here counts instructions of AVX-512. But hot loops hold their epilogues there, the
expansion of signs and binarization are modelled as loops of their own, and the work of a kernel
includes its padding. What is left out are the starts and ends of loops, and barriers. llvm-mca does
not know that the tile unit starts a product every 16 cycles (Intel 64 and IA-32 Architectures
Optimization Reference Manual, AMX), so a loop takes at least that.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, get_args

from vitc import names
from vitc.bench.macs import StepMacs, step_macs
from vitc.compiler.assembly import TILE_PRODUCTS, HotLoop, Unit, hot_loops
from vitc.errors import VitcError
from vitc.extras import need

if TYPE_CHECKING:
    from vitc.runtime.artefact import Artefact
    from vitc.targets import Target
    from vitc.targets.kernels.emitter import Kernel

__all__ = [
    "PROCESSORS",
    "Estimate",
    "KernelEstimate",
    "Processor",
    "estimate",
    "find_llvm_mca",
    "only_modelled",
    "supports_estimate",
]

_ITERATIONS: Final = 100
_TIMEOUT_S: Final = 120
_NEWEST: Final = 25
_OLDEST: Final = 14
_ATTENTION: Final = "vitc_attention"
_CYCLES_OF_TILE_PRODUCT: Final = 16
_BINARY: Final = frozenset({"popcount", "int8", "slices"})


@dataclass(frozen=True)
class Processor:
    """A processor that llvm-mca models.

    Attributes:
        name: On the command line.
        gigahertz: Clock that the modelled time is for.
        board: Where that clock is usual.
        triples: Starts of the triples of targets that it runs.
    """

    name: str
    gigahertz: float
    board: str
    triples: tuple[str, ...] = ("aarch64", "arm")

    @property
    def counted(self) -> bool:
        """Whether its model needs the number of executed instructions."""
        return "aarch64" in self.triples

    @property
    def llvm_name(self) -> str:
        """Name for LLVM."""
        return self.name if self.counted else self.name.replace("-", "")


PROCESSORS: Final[Mapping[str, Processor]] = MappingProxyType(
    {
        entry.name: entry
        for entry in (
            Processor("cortex-a72", 1.5, "Raspberry Pi 4"),
            Processor("cortex-a76", 2.4, "Raspberry Pi 5"),
            Processor("neoverse-n1", 2.5, "a server"),
            Processor("sapphire-rapids", 3.0, "a server with all cores busy", ("x86_64",)),
        )
    }
)


@dataclass(frozen=True)
class KernelEstimate:
    """The model of one kind of hot loop of a kernel.

    Attributes:
        kernel: Symbol.
        unit: What the loop works at (`vitc.compiler.assembly`).
        cycles: Of one iteration of the loop.
        instructions: Of one iteration.
        macs: Work of one iteration; MACs that come of it, for bit slices.
        steps: Steps that call it.
        iterations: Of the loop for one image.
    """

    kernel: str
    unit: Unit
    cycles: float
    instructions: float
    macs: float
    steps: int
    iterations: float

    @property
    def macs_per_cycle(self) -> float:
        """MACs a cycle in the hot loop."""
        return self.macs / self.cycles


@dataclass(frozen=True)
class Estimate:
    """A modelled time; see the module for what it leaves out.

    Attributes:
        processor: What is modelled.
        tool: The llvm-mca that was used.
        kernels: Kernels with MACs.
        executed: Instructions for one image, counted; None where the hot loops are all.
    """

    processor: Processor
    tool: str
    kernels: tuple[KernelEstimate, ...]
    executed: int | None

    @property
    def hot_instructions(self) -> float:
        """Instructions in hot loops for one image."""
        return sum(k.instructions * k.iterations for k in self.kernels)

    @property
    def hot_cycles(self) -> float:
        """Cycles in hot loops for one image."""
        return sum(k.cycles * k.iterations for k in self.kernels)

    @property
    def cycles(self) -> float:
        """Cycles for one image."""
        if self.executed is None:
            return self.hot_cycles
        return self.hot_cycles * self.executed / self.hot_instructions

    @property
    def milliseconds(self) -> float:
        """Modelled time for one image."""
        return self.cycles / self.processor.gigahertz / 1e6

    @property
    def binary_macs_per_cycle(self) -> float:
        """Binary MACs a cycle over all hot loops of binary kernels."""
        binary = [k for k in self.kernels if k.unit in _BINARY]
        cycles = sum(k.cycles * k.iterations for k in binary)
        return sum(k.macs * k.iterations for k in binary) / cycles

    @property
    def slowest_product(self) -> float:
        """Binary MACs a cycle in the hot loop of the slowest binary product, attention aside."""
        return min(
            k.macs_per_cycle
            for k in self.kernels
            if k.unit in _BINARY and not k.kernel.startswith(_ATTENTION)
        )

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        return {
            "modelled": True,
            "processor": self.processor.name,
            "gigahertz": self.processor.gigahertz,
            "tool": self.tool,
            "modelled_ms": self.milliseconds,
            "modelled_cycles": self.cycles,
            "hot_loop_share_of_instructions": None
            if self.executed is None
            else self.hot_instructions / self.executed,
            "binary_macs_per_cycle": self.binary_macs_per_cycle,
            "slowest_product_macs_per_cycle": self.slowest_product,
            "kernels": [asdict(k) | {"macs_per_cycle": k.macs_per_cycle} for k in self.kernels],
        }


def find_processor(name: str) -> Processor:
    """Look up a processor.

    Raises:
        VitcError: If there is none of that name; the nearest is named and the known are listed.
    """
    return PROCESSORS[names.PROCESSORS.check(name)]


def find_llvm_mca() -> str:
    """Path of the newest llvm-mca.

    Raises:
        VitcError: If there is none.
    """
    names = [f"llvm-mca-{version}" for version in range(_NEWEST, _OLDEST - 1, -1)]
    for name in (*names, "llvm-mca"):
        path = shutil.which(name)
        if path is not None:
            return path
    raise VitcError(
        "llvm-mca is not installed.",
        "Install it, on Debian or Ubuntu with `sudo apt-get install llvm-19`.",
    )


def estimate(artefact: Artefact, processor: str, executed: int | None = None) -> Estimate:
    """Model the time of one image.

    Args:
        artefact: An artefact for the processor; its kernels are generated again from its ONNX file.
        processor: A key of `PROCESSORS`.
        executed: Instructions for one image (`vitc.devices.instructions`), for ARM.

    Raises:
        VitcError: If the artefact is for another architecture, there is no such processor, or
            llvm-mca is missing or fails.
    """
    chosen, tool, target = find_processor(processor), find_llvm_mca(), artefact.target
    supports_estimate(target, processor)
    need("A modelled time", "compile")
    from vitc.compiler.codegen import emit_assembly

    kernels = _kernels(artefact)
    assembly = emit_assembly(list(kernels.values()), target)
    steps = artefact.entry.steps
    macs = step_macs(steps)
    loops: dict[Unit, dict[str, list[HotLoop]]] = {}
    found = []
    for symbol, kernel in kernels.items():
        mine = [m for step, m in zip(steps, macs, strict=True) if step.kernel == symbol]
        counted = chosen.counted and "slices" not in kernel.work
        work = _work(mine) if counted else _padded_work(kernel, mine)
        for unit, amount in work.items():
            if unit not in loops:
                loops[unit] = hot_loops(assembly, unit)
            if symbol not in loops[unit]:
                raise VitcError(f"No hot loop was found in {symbol}.", "Report this as a defect.")
            one = _kernel(loops[unit][symbol], unit, amount, len(mine), tool, chosen, target)
            if unit == "slices":
                macs_of = sum(m.binary for m in mine) - work.get("popcount", 0)
                one = replace(one, macs=macs_of / one.iterations)
            found.append(one)
    return Estimate(chosen, tool, tuple(found), executed)


def only_modelled(artefact: Artefact, processor: str) -> bool:
    """Whether neither this machine nor an emulator runs what is modelled."""
    return not find_processor(processor).counted and bool(artefact.missing_features())


def supports_estimate(target: Target, processor: str) -> None:
    """Raise unless a target's kernels run on a processor that is modelled."""
    chosen = find_processor(processor)
    if not target.triple.startswith(chosen.triples):
        raise VitcError(
            f"The artefact is for {target.name}, whose kernels do not run on {chosen.name}.",
            "Model another processor, or measure it on this machine: `vitc bench DIR`.",
        )


def _kernels(artefact: Artefact) -> dict[str, Kernel]:
    from vitc.compiler.compile import make_program

    plan = make_program(artefact.source, artefact.target, artefact.tiles)[artefact.entry.name]
    return {kernel.symbol: kernel for kernel in plan.kernels}


def _work(macs: Sequence[StepMacs]) -> dict[Unit, int]:
    """MACs of the steps of a kernel."""
    unit: Unit = "popcount" if any(m.binary for m in macs) else "fma"
    total = sum(m.binary + m.fp for m in macs)
    return {unit: total} if total else {}


def _padded_work(kernel: Kernel, macs: Sequence[StepMacs]) -> dict[Unit, int]:
    """All work of the steps of a kernel, by its own account where it has one."""
    if not kernel.work:
        return _work(macs)
    return {unit: kernel.work[unit] * len(macs) for unit in get_args(Unit) if unit in kernel.work}


def _kernel(
    loops: list[HotLoop],
    unit: Unit,
    work: int,
    steps: int,
    tool: str,
    processor: Processor,
    target: Target,
) -> KernelEstimate:
    """Model one kernel; where its loop is cut into runs, they take turns."""
    count = len(loops)
    cycles = sum(loop_cycles(loop, tool, processor, target) for loop in loops) / count
    each = sum(loop.work(unit) for loop in loops) / count
    instructions = sum(len(loop.instructions) for loop in loops) / count
    return KernelEstimate(
        loops[0].symbol, unit, cycles, instructions, each, steps, iterations=work / each
    )


def loop_cycles(loop: HotLoop, tool: str, processor: Processor, target: Target) -> float:
    """Cycles of one iteration of a loop, by llvm-mca; no less than its tile products take.

    Raises:
        VitcError: If llvm-mca fails.
    """
    command = [tool, f"-mtriple={target.triple}", f"-mcpu={processor.llvm_name}", "-json"]
    attributes = ",".join(target.attributes)
    done = subprocess.run(
        [*command, f"-mattr={attributes}", f"-iterations={_ITERATIONS}", "-"],
        input=loop.text,
        capture_output=True,
        text=True,
        timeout=_TIMEOUT_S,
        check=False,
    )
    try:
        summary = json.loads(done.stdout)["CodeRegions"][0]["SummaryView"]
        cycles = float(summary["TotalCycles"]) / float(summary["Iterations"])
        products = sum(map(loop.count, TILE_PRODUCTS))
        return max(cycles, products * _CYCLES_OF_TILE_PRODUCT)
    except (ValueError, KeyError, IndexError) as error:
        said = [line for line in done.stderr.splitlines() if "error" in line] or ["no result"]
        raise VitcError(
            f"{tool} cannot model {loop.symbol}: {said[0].rstrip('.')}.",
            "32-bit ARM is modelled for cortex-a72 only. Else install a newer one, on Debian or "
            "Ubuntu with `sudo apt-get install llvm-19`.",
        ) from error
