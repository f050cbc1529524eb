"""A thin layer over TVM's TIR builder: plain C functions on pointers, with explicit vectors.

A kernel is a function of read-only pointers, one output pointer and a range of tasks `[begin,
end)`, which the driver splits among its threads. Python loops unroll; `loop` makes a loop in the
generated code.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import tvm
from tvm.script.ir_builder import IRBuilder
from tvm.script.ir_builder import tirx as T

__all__ = ["CACHE_LINE", "HALF", "Emitter", "Kernel", "mask_bits"]

HALF = 16
"""Lanes that an epilogue turns into one 16-bit mask."""

CACHE_LINE = 64

_SELECT = "vitc_select"
"""Symbol of what is one instruction where it is called."""


@dataclass(frozen=True)
class Kernel:
    """A finished kernel.

    Attributes:
        symbol: Name of the C function.
        function: TIR prim_func.
        tasks: Number of tasks; the driver may split `[0, tasks)` anywhere.
        work: What all tasks do, padding included, by unit of `vitc.compiler.assembly`; for what the
            MACs of a layer do not tell.
    """

    symbol: str
    function: Any
    tasks: int
    work: Mapping[str, int] = field(default_factory=dict)


@dataclass
class Emitter:
    """Builds one kernel; use as `with Emitter(name).open() as e`, then `e.kernel(tasks)`."""

    symbol: str
    _function: Any = None
    _state: dict[str, Any] = field(default_factory=dict)

    @contextmanager
    def open(self) -> Iterator[Emitter]:
        """Open the function; everything emitted inside belongs to it."""
        with IRBuilder() as builder:
            with T.prim_func():
                T.func_name(self.symbol)
                yield self
            self._function = builder.get()

    def kernel(self, tasks: int, **work: int) -> Kernel:
        """Return the finished kernel."""
        return Kernel(self.symbol, self._function, tasks, work)

    def pointers(self, **dtypes: str) -> list[Any]:
        """Declare one pointer parameter a keyword; returns their buffers."""
        handles = {name: T.arg(name, T.handle(dtype, "global")) for name, dtype in dtypes.items()}
        self._state["begin"] = T.arg("begin", T.int32())
        self._state["end"] = T.arg("end", T.int32())
        # The length is not used by flat, unchecked accesses; TVM wants one.
        return [
            T.decl_buffer((1 << 28,), dtypes[name], data=handle) for name, handle in handles.items()
        ]

    @property
    def begin(self) -> Any:
        """First task of this call."""
        return self._state["begin"]

    @property
    def end(self) -> Any:
        """One past the last task of this call."""
        return self._state["end"]

    def loop(self, start: Any, stop: Any) -> Any:
        """A loop in the generated code."""
        return T.serial(start, stop)

    def local(self, dtype: str, count: int) -> Any:
        """A buffer that lives in registers where all its indices are constants."""
        return T.alloc_buffer((count,), dtype, scope="local")

    def scratch(self, dtype: str, count: int) -> Any:
        """A buffer on the stack that begins a cache line.

        The code generator aligns what is on the stack to 16 bytes only.
        """
        size = tvm.DataType(dtype).bits // 8
        memory = T.alloc_buffer((count + CACHE_LINE // size,), dtype, scope="local")
        behind = T.address_of(memory[CACHE_LINE // size - 1])
        kind = T.handle(dtype, "local").ty
        start = T.call_llvm_pure_intrin(kind, "llvm.ptrmask.p0.i64", behind, T.int64(-CACHE_LINE))
        return T.decl_buffer((count,), dtype, data=T.bind(start), scope="local")

    @contextmanager
    def selecting(self, instruction: str) -> Iterator[None]:
        """Let `select` be an instruction of the machine: `Isa.select`, or empty for a formula."""
        if not instruction:
            yield
            return
        kind = "<16 x i8>"
        operands = f"({kind} %no, {kind} %yes, {kind} %mask)"
        text = f"""define weak_odr hidden {kind} @{_SELECT}{operands} alwaysinline #0 {{
  %found = call {kind} asm "{instruction}", "=w,0,w,w"{operands} #0
  ret {kind} %found
}}
attributes #0 = {{ nounwind memory(none) }}
"""
        with T.attr(T.int32(0), "pragma_import_llvm", text):
            self._state[_SELECT] = True
            yield

    def select(self, mask: Any, yes: Any, no: Any) -> Any:
        """Bits of one vector of 16 bytes where a mask has them, else of another."""
        if _SELECT in self._state:
            # What TVM binds it puts in wherever it is used.
            held = self.local("uint8", 16)
            self.store(held, 0, T.call_pure_extern("uint8x16", _SELECT, no, yes, mask), 16)
            return self.load(held, 0, 16)
        return T.bitwise_xor(no, T.bitwise_and(mask, T.bitwise_xor(yes, no)))

    def perform(self, intrinsic: str, *arguments: Any) -> None:
        """Call an LLVM intrinsic that returns nothing."""
        T.evaluate(T.call_llvm_intrin("void", intrinsic, *arguments))

    def fetch(self, buffer: Any, index: Any) -> None:
        """Ask for the cache line of an element, in the first-level cache; any index may be."""
        self._fetch(buffer, index, 3)

    def fetch_far(self, buffer: Any, index: Any) -> None:
        """The same, in the second-level cache."""
        self._fetch(buffer, index, 2)

    def _fetch(self, buffer: Any, index: Any, locality: int) -> None:
        read, data = T.int32(0), T.int32(1)
        place = T.address_of(buffer[index])
        self.perform("llvm.prefetch.p0", place, read, T.int32(locality), data)

    def distance(self, start: Any, end: Any) -> Any:
        """How far one buffer of fp32 lies from another, counted in floats, in 64 bits."""
        near, far = (
            T.call_intrin("int64", "tirx.reinterpret", T.address_of(buffer[0]))
            for buffer in (start, end)
        )
        return self.let(T.truncdiv(far - near, T.int64(4)))

    def let(self, value: Any) -> Any:
        """Name a value, so that it is computed once."""
        return T.bind(value)

    def split(self, value: Any, by: int) -> tuple[Any, Any]:
        """Quotient and remainder of an int32 that is not negative.

        TVM is not told that they are: its products of quotients overflow where they are simplified.
        """
        parts = self.local("int32", 2)
        self.store(parts, 0, T.truncdiv(value, T.int32(by)))
        self.store(parts, 1, T.truncmod(value, T.int32(by)))
        return self.let(parts[0]), self.let(parts[1])

    def load(self, buffer: Any, index: Any, lanes: int) -> Any:
        """Load one element or `lanes` consecutive ones."""
        return buffer[index if lanes == 1 else T.ramp(index, 1, lanes)]

    def store(self, buffer: Any, index: Any, value: Any, lanes: int = 1) -> None:
        """Store one element or `lanes` consecutive ones."""
        T.buffer_store(buffer, value, [index if lanes == 1 else T.ramp(index, 1, lanes)])

    def splat(self, value: Any, lanes: int) -> Any:
        """Broadcast a scalar."""
        return T.broadcast(value, lanes)

    def constant(self, dtype: str, value: float, lanes: int = 1) -> Any:
        """A constant, or a vector of it."""
        scalar = getattr(T, dtype)(value)
        return scalar if lanes == 1 else T.broadcast(scalar, lanes)

    def cast(self, dtype: str, value: Any, lanes: int = 1) -> Any:
        """Convert a scalar or vector."""
        return T.Cast(dtype if lanes == 1 else f"{dtype}x{lanes}", value)


def mask_bits(condition: Any, lanes: int = HALF) -> Any:
    """Turn a vector of `lanes` booleans into an unsigned integer of as many bits, LSB first."""
    return T.call_intrin(f"uint{lanes}", "tirx.reinterpret", condition)
