"""The schedule rule of float functions: a TIR function of Relax becomes kernels.

A function is a list of stages, each a loop nest that fills one array. There is one rule:

- A stage that only moves or maps elements is computed where it is read, unless several stages
  read it and it is dear (exp, erf).
- Leading axes of the last stage are tasks. A stage that is read at the task's own place of these
  axes is computed within the task, into memory of its own of at most 16 KB; any other stage is a
  kernel of its own, before.
- Lanes run along the last axis of what is written, or along the last summed axis where that is how
  memory is read. Sums along lanes are one vector to the end. A length that no vector divides ends
  with a shorter vector: nothing is computed twice, nothing is read or written beyond.
- What does not depend on the lanes is computed before them, once.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import tvm
from tvm import sym, tirx
from tvm.script.ir_builder import tirx as T
from tvm_ffi import StructuralKey, structural_map, structural_walk

from vitc.targets.isa import Isa
from vitc.targets.kernels.emitter import HALF, Emitter, Kernel
from vitc.targets.kernels.pieces import folded, pieces
from vitc.targets.kernels.polynomials import POLYNOMIALS

__all__ = [
    "FloatKernel",
    "Stage",
    "UnknownFunctionError",
    "as_order",
    "float_kernels",
    "macs",
    "read_through",
    "stages_of",
]

LARGEST_LOCAL = 16 << 10
"""Bytes of an array within a task."""

_DEAR = frozenset(POLYNOMIALS)
_DATA, _REDUCED = 0, 2
"""Types of an axis in TIR: of the result, or summed over."""


class UnknownFunctionError(Exception):
    """A function of the C library that a kernel would need; its name is the argument."""


@dataclass(eq=False)
class Stage:
    """A loop nest that fills an array.

    Attributes:
        output: The array.
        axes: Variables of its axes, in order, and their extents.
        reduced: Variables that are combined over, and their extents.
        value: An element, or what is combined of it.
        combine: How elements are combined; None if they are not.
        start: What combining begins with.
    """

    output: Any
    axes: list[tuple[Any, int]]
    reduced: list[tuple[Any, int]]
    value: Any
    combine: Callable[[Any, Any], Any] | None = None
    start: Any = None

    @property
    def shape(self) -> tuple[int, ...]:
        """Extents of its axes."""
        return tuple(extent for _, extent in self.axes)

    @property
    def dear(self) -> bool:
        """Whether an element is not to be computed twice."""
        return self.combine is not None or any(_called(e) in _DEAR for e in _walk(self.value))

    def loads(self) -> list[Any]:
        """What it reads."""
        return [e for e in _walk(self.value) if _is_load(e)]


@dataclass(frozen=True)
class FloatKernel:
    """A kernel, and what its pointers are: arrays of the function, the one that it writes last."""

    kernel: Kernel
    arrays: tuple[Any, ...]


_COMBINED: Mapping[str, Callable[[Any, Any], Any]] = {
    "Add": lambda a, b: a + b,
    "Max": T.max,
    "Min": T.min,
}


# --- reading --------------------------------------------------------------------------------------


def stages_of(function: Any) -> list[Stage]:
    """The stages of a TIR function, in order.

    Raises:
        UnknownFunctionError: If a stage is none that the rule knows.
    """
    body = function.body.block.body
    nests = list(body) if isinstance(body, tirx.SeqStmt) else [body]
    return [_stage(nest) for nest in nests]


def _stage(nest: Any) -> Stage:
    while isinstance(nest, tirx.For):
        nest = nest.body
    block = nest.block
    store = block.body
    if not isinstance(store, tirx.BufferStore):
        raise UnknownFunctionError("a loop nest of several statements")
    kinds: dict[int, list[tuple[Any, int]]] = {_DATA: [], _REDUCED: []}
    renamed: dict[Any, Any] = {}
    for axis in block.iter_vars:
        extent = int(axis.dom.extent.value)
        if extent > 1:
            kinds[axis.iter_type].append((axis.var, extent))
        else:
            renamed[axis.var] = tirx.const(0, axis.var.ty.dtype)
    by_var = {var: (var, extent) for var, extent in kinds[_DATA]}
    axes = []
    for i, index in enumerate(store.indices):
        extent = int(store.buffer.shape[i].value)
        if index in by_var:
            axes.append(by_var[index])
        elif extent == 1:
            axes.append((tirx.Var(f"one{i}", "int64"), 1))
        else:
            raise UnknownFunctionError("a loop nest that fills an array in an order of its own")
    if block.init is None:
        return Stage(store.buffer, axes, [], _substituted(store.value, renamed))
    kind = type(store.value).__name__
    own: Any = getattr(store.value, "a", None)
    if kind not in _COMBINED or not _is_load(own) or not own.source.same_as(store.buffer):
        raise UnknownFunctionError(f"a reduction by {kind}")
    value = _substituted(store.value.b, renamed)
    return Stage(store.buffer, axes, kinds[_REDUCED], value, _COMBINED[kind], block.init.value)


def _walk(expr: Any) -> Iterator[Any]:
    """An expression and all that it is made of."""
    found: list[Any] = []
    structural_walk(expr, lambda node: found.append(node))
    return iter(found)


def _is_load(expr: Any) -> bool:
    return type(expr).__name__ in ("TensorLoad", "BufferLoad")


def _called(expr: Any) -> str:
    """Name of the operator that is called; empty for anything else."""
    name = getattr(getattr(expr, "op", None), "name", "")
    return str(name).partition(".")[2]


def _substituted(expr: Any, values: Mapping[Any, Any]) -> Any:
    if not values:
        return expr
    return structural_map(expr, (tvm.ir.Var, lambda var: values.get(var, var)))


def as_order(function: Any) -> Stage | None:
    """The stage of a function that moves rows and leaves what lies along them where it is."""
    try:
        stages = stages_of(function)
    except UnknownFunctionError:
        return None
    if len(stages) != 1 or stages[0].combine is not None or not _is_load(stages[0].value):
        return None
    (stage,) = stages
    if not stage.axes or not len(stage.value.indices):
        return None
    analyzer = sym.Analyzer()
    for var, extent in stage.axes:
        zero, end = (tirx.const(size, var.ty.dtype) for size in (0, extent))
        analyzer.bind(var, tvm.ir.Range(zero, end))
    last = stage.axes[-1][0]
    *rows, channel = (analyzer.simplify(index) for index in stage.value.indices)
    linear = sym.detect_linear_equation(channel, [last])
    along = len(linear) == 2 and type(linear[0]).__name__ == "IntImm" and linear[0].value == 1
    return stage if along and not any(_uses(row, last) for row in rows) else None


def read_through(stage: Stage, result: Any, arrays: Mapping[Any, Any]) -> Stage:
    """A stage that fills another array, and reads others.

    Args:
        stage: The stage.
        result: What it fills.
        arrays: What it reads, in place of what it read.
    """
    new = [(tirx.Var(var.name, var.ty.dtype), extent) for var, extent in stage.axes]
    axes = {old: var for (old, _), (var, _) in zip(stage.axes, new, strict=True)}
    return Stage(result, new, [], _substituted(stage.value, {**axes, **arrays}))


def macs(stages: Sequence[Stage]) -> int:
    """Multiplications of two arrays that are summed, such as a convolution's."""
    total = 0
    for stage in stages:
        if stage.combine is None or len(stage.loads()) < 2:
            continue
        if any(type(e).__name__ == "Mul" for e in _walk(stage.value)):
            total += math.prod(stage.shape) * math.prod(n for _, n in stage.reduced)
    return total


# --- which stages are one kernel ------------------------------------------------------------------


def _inlined(stages: list[Stage], kept: set[Any]) -> list[Stage]:
    """Stages that only move or map elements, put where they are read."""
    readers: dict[Any, list[Stage]] = {}
    for stage in stages:
        for load in stage.loads():
            readers.setdefault(load.source, []).append(stage)
    inner: dict[Any, Stage] = {}
    result: list[Stage] = []
    for stage in stages:
        stage.value = _with_inner(stage.value, inner)
        found = readers.get(stage.output, [])
        once = len(found) == 1 and found[0].combine is None
        cheap = stage.combine is None and (once or not stage.dear)
        if cheap and stage.output not in kept:
            inner[stage.output] = stage
        else:
            result.append(stage)
    return result


def _with_inner(expr: Any, inner: Mapping[Any, Stage]) -> Any:
    """An expression in which loads of inner stages are what these compute."""
    if not inner:
        return expr

    def replaced(load: Any) -> Any:
        stage = inner.get(load.source)
        if stage is None:
            return load
        places = zip(stage.axes, load.indices, strict=True)
        return _substituted(stage.value, {var: index for (var, _), index in places})

    return structural_map(expr, (tvm.ir.TensorLoad, replaced))


def _reads_at(reader: Stage, stage: Stage, lead: int) -> bool:
    """Whether a stage reads another one at its own place of the leading axes."""
    own = [var for var, _ in reader.axes[:lead]]
    return all(
        all(
            index.same_as(var) or extent == 1
            for index, var, (_, extent) in zip(load.indices, own, reader.axes, strict=False)
        )
        for load in reader.loads()
        if load.source.same_as(stage.output)
    )


@dataclass
class _Group:
    """Stages of one kernel, the last of which writes its result."""

    stages: list[Stage]
    lead: int


def _grouped(stages: list[Stage]) -> list[_Group]:
    left = list(stages)
    groups: list[_Group] = []
    while left:
        last = left.pop()
        group = _Group([last], _leading(last))
        for stage in reversed(left[:]):
            readers = [other for other in stages if _reads(other, stage)]
            size = math.prod(stage.shape[group.lead :]) * 4
            private = all(any(other is own for own in group.stages) for other in readers)
            in_place = all(_reads_at(other, stage, group.lead) for other in readers)
            same = stage.shape[: group.lead] == last.shape[: group.lead]
            if readers and private and in_place and same and size <= LARGEST_LOCAL:
                group.stages.insert(0, stage)
                left.remove(stage)
        groups.insert(0, group)
    return groups


def _reads(reader: Stage, stage: Stage) -> bool:
    return any(load.source.same_as(stage.output) for load in reader.loads())


def _leading(stage: Stage) -> int:
    """Axes that are tasks: all but those that lanes run along."""
    if not stage.axes or _lane(stage) in [var for var, _ in stage.axes]:
        return max(len(stage.axes) - 1, 0)
    return len(stage.axes)


def _lane(stage: Stage) -> Any:
    """The variable that lanes run along: of the last axis, or of the last that is summed."""
    last = stage.axes[-1][0] if stage.axes else None
    if not stage.reduced:
        return last
    summed = stage.reduced[-1][0]
    combined = [var for var, _ in stage.reduced]
    ends = [
        load.indices[-1]
        for load in stage.loads()
        if any(_uses(index, var) for index in load.indices for var in combined)
    ]
    if any(last is not None and _uses(end, last) for end in ends):
        return last
    return summed if any(end.same_as(summed) for end in ends) else last


def _uses(expr: Any, var: Any) -> bool:
    return any(node.same_as(var) for node in _walk(expr))


# --- kernels --------------------------------------------------------------------------------------


def float_kernels(
    stem: str, stages: list[Stage], result: Any, isa: Isa, strides: Callable[[Any], Sequence[int]]
) -> list[FloatKernel]:
    """Build the kernels of a function.

    Args:
        stem: Start of their symbols.
        stages: Its stages, in order.
        result: The array that it writes.
        isa: Instruction set.
        strides: Elements from one entry to the next of each axis of an array outside the kernels.

    Returns:
        The kernels, in order. What one writes, and no argument of the function is, is an array
        between them.

    Raises:
        UnknownFunctionError: If one needs a function that has no polynomial.
    """
    groups = _grouped(_inlined(stages, {result}))
    return [
        _kernel(stem if i == len(groups) - 1 else f"{stem}_{i}", group, isa, strides)
        for i, group in enumerate(groups)
    ]


@dataclass
class _Memory:
    """An array as a kernel reaches it."""

    buffer: Any
    strides: Sequence[int]
    dropped: int = 0

    def place(self, indices: Sequence[Any]) -> Any:
        """Index of an element; the leading axes of what a task holds are its own."""
        total: Any = 0
        for index, stride in zip(indices[self.dropped :], self.strides, strict=True):
            total = total + index * stride
        return total


def _kernel(
    symbol: str, group: _Group, isa: Isa, strides: Callable[[Any], Sequence[int]]
) -> FloatKernel:
    emitter = Emitter(symbol)
    own = {stage.output for stage in group.stages}
    outside: list[Any] = []
    for stage in group.stages:
        for load in stage.loads():
            if load.source not in own and load.source not in outside:
                outside.append(load.source)
    last = group.stages[-1]
    arrays = [*outside, last.output]
    names = {f"a{i}": str(array.ty.dtype.dtype) for i, array in enumerate(arrays)}
    names = {name: "int32" if kind.startswith("int") else kind for name, kind in names.items()}
    with emitter.open() as e:
        pointers = e.pointers(**names)
        memory = {
            array: _Memory(pointer, strides(array))
            for array, pointer in zip(arrays, pointers, strict=True)
        }
        tasks = _Body(e, isa, group, memory).emit()
    return FloatKernel(emitter.kernel(tasks), tuple(arrays))


class _Body:
    """Emits the loops of a kernel."""

    def __init__(
        self, emitter: Emitter, isa: Isa, group: _Group, memory: dict[Any, _Memory]
    ) -> None:
        self.emitter, self.isa, self.group, self.memory = emitter, isa, group, memory

    def emit(self) -> int:
        """Emit the tasks; returns their number."""
        e, last, lead = self.emitter, self.group.stages[-1], self.group.lead
        extents = last.shape[:lead]
        count = math.prod(extents)
        for stage in self.group.stages[:-1]:
            rest = stage.shape[lead:]
            buffer = e.local("float32", math.prod(rest))
            self.memory[stage.output] = _Memory(buffer, _compact(rest), lead)
        alone = count == 1 and len(self.group.stages) == 1 and last.reduced
        if alone and _lane(last) is not None and last.axes and _lane(last) is last.axes[-1][0]:
            return self._by_lanes(last)
        with e.loop(e.begin, e.end) as task:
            places: list[Any] = []
            left: Any = task
            for axis, extent in reversed(list(enumerate(extents))):
                whole = math.prod(extents[:axis]) == 1
                places.insert(0, e.let(left if whole else T.floormod(left, extent)))
                left = T.int32(0) if whole else T.floordiv(left, extent)
            for stage in self.group.stages:
                self._stage(stage, places)
            self._clear_behind(last, places)
        return count

    def _by_lanes(self, stage: Stage) -> int:
        """Tasks along the lanes, where there is one row."""
        e, width = self.emitter, self.isa.float_lanes
        length = stage.axes[-1][1]
        whole = length // width
        fixed = [T.int32(0)] * (len(stage.axes) - 1)
        with e.loop(e.begin, e.end) as task:
            if whole:
                with T.If(task < whole), T.Then():
                    self._chunk(stage, fixed, task * width, width, {})
            if length % width:
                with T.If(T.EQ(task, whole)), T.Then():
                    for start, part in pieces(e, length % width, length % width):
                        with start as first:
                            self._chunk(stage, fixed, first + whole * width, part, {})
        return -(-length // width)

    def _clear_behind(self, stage: Stage, places: Sequence[Any]) -> None:
        """Zeros between the end of a row and the next row."""
        if len(stage.axes) < 2:
            return
        e, memory, length = self.emitter, self.memory[stage.output], stage.axes[-1][1]
        gap = memory.strides[-2] - length
        if gap <= 0 or self.group.lead < len(stage.axes) - 1:
            return
        at = memory.place([*places[: len(stage.axes) - 1], T.int32(length)])
        for start, width in pieces(e, gap, min(gap, HALF)):
            with start as first:
                e.store(memory.buffer, at + first, e.constant("float32", 0, width), width)

    def _stage(self, stage: Stage, places: Sequence[Any]) -> None:
        """Emit one stage of a task."""
        lane, lead = _lane(stage), self.group.lead
        e = self.emitter
        axes = stage.axes[lead:]
        with ExitStack() as stack:
            inner = list(places)
            lanes_last = bool(axes) and lane is axes[-1][0]
            for _, extent in axes[:-1] if lanes_last else axes:
                inner.append(stack.enter_context(e.loop(0, extent)) if extent > 1 else T.int32(0))
            if lanes_last:
                self._along_lanes(stage, inner)
            elif stage.combine is None:
                values = _Values(self, stage, inner, None, 1)
                e.store(*self._target(stage, inner), values.get(stage.value))
            else:
                self._along_sum(stage, inner)

    def _along_lanes(self, stage: Stage, places: Sequence[Any]) -> None:
        """Emit the elements along the last axis, part by part where it is put together of parts."""
        e, length = self.emitter, stage.axes[-1][1]
        before = self._before(stage, [*places, T.int32(0)])
        ends = _ends(stage, length)
        for start, end in zip([0, *ends], [*ends, length], strict=True):
            widest = 1 if _uneven(stage, (start, end)) else self._width(stage)
            for chunk, width in pieces(e, end - start, min(widest, end - start)):
                with chunk as first:
                    at = first + start if start else first
                    self._chunk(stage, places, at, width, before, (start, end))

    def _width(self, stage: Stage) -> int:
        """Lanes of a chunk: as many vectors as hide latency and stay in registers."""
        nested = any(_called(node) in _DEAR for node in _walk(stage.value))
        vectors = 2 if nested else 4
        return vectors * self.isa.float_lanes

    def _target(self, stage: Stage, places: Sequence[Any]) -> tuple[Any, Any]:
        memory = self.memory[stage.output]
        return memory.buffer, memory.place(places)

    def _before(self, stage: Stage, places: Sequence[Any]) -> _Known:
        """Emit the parts of a stage's value that are the same for all lanes and sums."""
        moving = [*(var for var, _ in stage.reduced), _lane(stage)]
        values = _Values(self, stage, places, None, 1)
        for part in _unmoved(stage.value, moving):
            values.get(part)
        return values.known

    def _chunk(
        self,
        stage: Stage,
        places: Sequence[Any],
        first: Any,
        width: int,
        known: _Known,
        part: tuple[int, int] | None = None,
    ) -> None:
        """Emit `width` elements along the last axis."""
        e = self.emitter
        buffer, at = self._target(stage, [*places, first])
        if stage.combine is None:
            values = _Values(self, stage, places, first, width, known=known, part=part)
            e.store(buffer, at, values.get(stage.value), width)
            return
        start = e.constant("float32", float(stage.start.value), width)
        sums = e.local("float32", width)
        e.store(sums, 0, start, width)
        with ExitStack() as stack:
            inner = [stack.enter_context(e.loop(0, extent)) for _, extent in stage.reduced]
            values = _Values(self, stage, places, first, width, inner, known=known, part=part)
            added = values.get(stage.value)
            e.store(sums, 0, stage.combine(e.load(sums, 0, width), added), width)
        e.store(buffer, at, e.load(sums, 0, width), width)

    def _along_sum(self, stage: Stage, places: Sequence[Any]) -> None:
        """Emit an element whose parts are combined along lanes."""
        e, combine = self.emitter, stage.combine
        assert combine is not None  # noqa: S101 - the caller has looked
        *outer, (_, length) = stage.reduced or [(None, 1)]
        lane = _lane(stage)
        vector = bool(stage.reduced) and lane is stage.reduced[-1][0]
        widest = min(self._width(stage), 1 << length.bit_length() - 1) if vector else 1
        known = self._before(stage, places)
        parts = list(pieces(e, length, widest))
        # One array a width: an array that is read in several ways does not become registers.
        sums = {width: e.local("float32", width) for _, width in parts}
        for width, array in sums.items():
            e.store(array, 0, e.constant("float32", float(stage.start.value), width), width)
        with ExitStack() as stack:
            around = [stack.enter_context(e.loop(0, extent)) for _, extent in outer]
            for start, width in parts:
                with start as first:
                    inner = [*around, first] if stage.reduced else []
                    values = _Values(
                        self,
                        stage,
                        places,
                        first if vector else None,
                        width,
                        inner,
                        along=True,
                        known=known,
                    )
                    added = values.get(stage.value)
                    total = combine(e.load(sums[width], 0, width), added)
                    e.store(sums[width], 0, total, width)
        buffer, at = self._target(stage, places)
        e.store(buffer, at, folded(e, sums, combine))


_Known = dict[Any, Any]
"""What is emitted already: whether a number or a vector, of what, and what TVM calls it."""


def _unmoved(expr: Any, moving: Sequence[Any]) -> Iterator[Any]:
    """The largest parts of an expression that depend on none of some variables."""
    kind = type(expr).__name__
    if kind in ("IntImm", "FloatImm", "Var"):
        return
    if not any(var is not None and _uses(expr, var) for var in moving):
        yield expr
    elif _called(expr) == "if_then_else":
        return
    else:
        for part in _parts(expr):
            yield from _unmoved(part, moving)


def _ends(stage: Stage, length: int) -> list[int]:
    """Where parts of the last axis end that are computed in different ways, as of a Concat."""
    var, ends = _lane(stage), set[int]()
    for node in _walk(stage.value):
        if type(node).__name__ not in ("LT", "LE", "GT", "GE"):
            continue
        for one, other in ((node.a, node.b), (node.b, node.a)):
            if one.same_as(var) and type(other).__name__ == "IntImm":
                strict = (type(node).__name__ in ("LT", "GE")) is (one is node.a)
                ends.add(int(other.value) + (0 if strict else 1))
    return sorted(end for end in ends if 0 < end < length)


def _uneven(stage: Stage, part: tuple[int, int]) -> bool:
    """Whether a condition still differs along the lanes of a part; it is computed one by one."""
    lane, analyzer = _lane(stage), sym.Analyzer()
    for var, extent in (*stage.axes, *stage.reduced):
        ends = part if var is lane else (0, extent)
        analyzer.bind(var, tvm.ir.Range(*(tirx.const(end, var.ty.dtype) for end in ends)))
    conditions = (node.args[0] for node in _walk(stage.value) if _called(node) == "if_then_else")
    return any(_uses(analyzer.simplify(condition), lane) for condition in conditions)


def _key(expr: Any) -> object:
    """What equal expressions have in common."""
    return StructuralKey(expr)  # type: ignore[call-arg]


def _parts(expr: Any) -> list[Any]:
    if _is_load(expr):
        return list(expr.indices)
    if type(expr).__name__ == "Call":
        return list(expr.args)
    names = ("a", "b", "value", "condition", "true_value", "false_value")
    return [getattr(expr, name) for name in names if hasattr(expr, name)]


class _Values:
    """Emits the value of a stage for some lanes; equal parts once.

    Args:
        body: Where it goes.
        stage: Whose value.
        places: Of its axes, without the last one if lanes run along it.
        first: Number of the first lane; None for one element.
        lanes: How many.
        summed: Of what it is combined over; the last is `first` where lanes run `along` it.
        along: Whether lanes run along what is combined.
        known: What was emitted before and holds here.
        part: Where the last axis is, if not everywhere.
    """

    def __init__(
        self,
        body: _Body,
        stage: Stage,
        places: Sequence[Any],
        first: Any,
        lanes: int,
        summed: Sequence[Any] = (),
        *,
        along: bool = False,
        known: Mapping[Any, Any] | None = None,
        part: tuple[int, int] | None = None,
    ) -> None:
        self.emitter, self.memory = body.emitter, body.memory
        self.lanes = lanes
        self.var = None if first is None else _lane(stage)
        axes = [var for var, _ in stage.axes]
        given = places if along or first is None else [*places, first]
        self.places = dict(zip(axes, given, strict=True))
        self.places |= dict(zip((var for var, _ in stage.reduced), summed, strict=False))
        self._analyzer = sym.Analyzer()
        for var, extent in (*stage.axes, *stage.reduced):
            ends = part if part is not None and var is self.var else (0, extent)
            low, high = (tirx.const(end, var.ty.dtype) for end in ends)
            self._analyzer.bind(var, tvm.ir.Range(low, high))
        self.known: _Known = dict(known or {})
        self._guarded = 0

    def get(self, expr: Any) -> Any:
        """A vector of the lanes, or a number where there is one."""
        return self._vector(expr) if self.lanes > 1 else self._scalar(expr)

    def _varies(self, expr: Any) -> bool:
        return self.var is not None and _uses(expr, self.var)

    def _vector(self, expr: Any) -> Any:
        if not self._varies(expr):
            return self.emitter.splat(self._scalar(expr), self.lanes)
        return self._once(expr, ("vector", _key(expr)), self._vector_of)

    def _scalar(self, expr: Any) -> Any:
        return self._once(expr, ("scalar", _key(expr)), self._scalar_of)

    def _once(self, expr: Any, key: Any, make: Callable[[Any], Any]) -> Any:
        if key in self.known:
            return self.known[key]
        value = make(expr)
        kind = type(expr).__name__
        if not self._guarded and kind not in _NOT_NAMED:
            value = self.known[key] = self.emitter.let(value)
        return value

    def _scalar_of(self, expr: Any) -> Any:
        kind = type(expr).__name__
        if kind == "Var":
            return self.places[expr]
        if kind == "IntImm":
            return (
                T.int32(int(expr.value))
                if str(expr.ty.dtype) != "bool"
                else T.bool(bool(expr.value))
            )
        if kind == "FloatImm":
            return T.float32(float(expr.value))
        if _is_load(expr):
            memory = self.memory[expr.source]
            return memory.buffer[self._place(memory, expr.indices)]
        return self._combined(expr, self._scalar, 1)

    def _vector_of(self, expr: Any) -> Any:
        lanes = self.lanes
        if type(expr).__name__ == "Var":
            first = self.places[expr]
            return T.Ramp(first, T.int32(1), lanes)
        if _is_load(expr):
            memory = self.memory[expr.source]
            indices = [self._analyzer.simplify(index) for index in expr.indices]
            place: Any = 0
            for index, stride in zip(indices[memory.dropped :], memory.strides, strict=True):
                place = place + index * tirx.const(stride, index.ty.dtype)
            linear = sym.detect_linear_equation(place, [self.var])
            var = self.var
            assert var is not None  # noqa: S101 - what is a vector varies with it
            if len(linear) == 2 and type(linear[0]).__name__ == "IntImm":
                step = int(linear[0].value)
                zero = _substituted(place, {var: tirx.const(0, var.ty.dtype)})
                base = self._scalar(self._analyzer.simplify(zero))
                start = base + self.places[self.var] * step
                return memory.buffer[T.Ramp(start, T.int32(step), lanes)]
            return memory.buffer[self._vector(place)]
        return self._combined(expr, self._vector, lanes)

    def _place(self, memory: _Memory, indices: Sequence[Any]) -> Any:
        simple = [self._analyzer.simplify(index) for index in indices]
        return memory.place([self._scalar(index) for index in simple])

    def _combined(self, expr: Any, part: Callable[[Any], Any], lanes: int) -> Any:
        kind, name = type(expr).__name__, _called(expr)
        if kind in _BINARY:
            return _BINARY[kind](part(expr.a), part(expr.b))
        if kind == "Select":
            condition = part(expr.condition)
            return T.Select(condition, part(expr.true_value), part(expr.false_value))
        if kind == "Cast":
            return self._cast(expr, part(expr.value), lanes)
        if kind == "Not":
            return T.Not(part(expr.a))
        if name == "if_then_else":
            simple = self._analyzer.simplify(expr.args[0])
            if type(simple).__name__ == "IntImm":
                return part(expr.args[1 if int(simple.value) else 2])
            if lanes > 1 and self._varies(simple):
                raise UnknownFunctionError("a condition that differs along the channels")
            condition = self._scalar(simple)
            self._guarded += 1
            values = [part(argument) for argument in expr.args[1:]]
            self._guarded -= 1
            return T.if_then_else(condition, *values)
        if name in POLYNOMIALS:
            return POLYNOMIALS[name](self.emitter, part(expr.args[0]), lanes)
        if name in _CALLS:
            return _CALLS[name](self.emitter, part(expr.args[0]), lanes)
        raise UnknownFunctionError(name or kind)

    def _cast(self, expr: Any, value: Any, lanes: int) -> Any:
        wanted = str(expr.ty.dtype)
        wanted = "int32" if wanted.startswith("int") else wanted
        return self.emitter.cast(wanted, value, lanes)


def _compact(shape: Sequence[int]) -> list[int]:
    return [math.prod(shape[i + 1 :]) for i in range(len(shape))]


_NOT_NAMED = frozenset(
    {"IntImm", "FloatImm", "Var", "LT", "LE", "GT", "GE", "EQ", "NE", "And", "Or", "Not"}
)
"""What is not computed once: numbers, and booleans, of which TVM has no vectors in memory."""

_BINARY: Mapping[str, Callable[[Any, Any], Any]] = {
    "Add": lambda a, b: a + b,
    "Sub": lambda a, b: a - b,
    "Mul": lambda a, b: a * b,
    "Div": lambda a, b: a / b,
    "FloorDiv": T.floordiv,
    "FloorMod": T.floormod,
    "Max": T.max,
    "Min": T.min,
    "LT": lambda a, b: a < b,
    "LE": lambda a, b: a <= b,
    "GT": lambda a, b: a > b,
    "GE": lambda a, b: a >= b,
    "EQ": T.EQ,
    "NE": T.NE,
    "And": T.And,
    "Or": T.Or,
}


def _root(e: Emitter, x: Any, lanes: int) -> Any:
    del e, lanes
    return T.sqrt(x)


_CALLS: Mapping[str, Callable[[Emitter, Any, int], Any]] = {
    "sqrt": _root,
    "rsqrt": lambda e, x, lanes: e.constant("float32", 1.0, lanes) / T.sqrt(x),
    "fabs": lambda e, x, lanes: T.max(x, e.constant("float32", 0.0, lanes) - x),
}
