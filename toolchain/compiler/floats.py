"""Float operators become kernels, through one Relax function.

Steps of vitc stand in the function as opaque calls, all other float operators as Relax operators
(`relax_ops`); TVM legalizes and fuses what is between. One rule (`loops`) makes kernels of the TIR
functions that come out. A float that a tap names is an output of the function, so it is not fused
away.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tvm
from tvm import relax

from vitc.compiler.codegen import Dump
from vitc.compiler.graph import Op, Value, refused
from vitc.compiler.loops import (
    FloatKernel,
    Stage,
    UnknownFunctionError,
    as_order,
    float_kernels,
    macs,
    read_through,
    stages_of,
)
from vitc.compiler.plan import Buffer, Constant, Cost, Operand, Port, Step
from vitc.compiler.relax_ops import RELAX_OPS, RelaxCall
from vitc.dialect.metadata import layer_of_tap
from vitc.errors import VitcError
from vitc.targets.isa import Isa
from vitc.targets.layouts import Floats, Layout, Plain
from vitc.targets.packing import WORD, round_up

__all__ = ["FloatOp", "Item", "Lowering"]

_LONGEST = 40
"""Letters of a symbol's stem."""

PASSES = (
    relax.transform.LegalizeOps(),
    relax.transform.AnnotateTIROpPattern(),
    relax.transform.FoldConstant(),
    relax.transform.FuseOps(),
    relax.transform.FuseTIR(),
)


@dataclass(frozen=True, eq=False)
class FloatOp:
    """A float operator that TVM computes.

    Attributes:
        op: The operator.
        output: What holds its value, if anything does.
    """

    op: Op
    output: Buffer


Item = Step | FloatOp
"""What a plan is made of before float operators are steps."""


class Lowering:
    """Lowers the float operators of an entry.

    Args:
        isa: Instruction set.
        ports: Inputs of the graph.
        held: Value of floats in each buffer of them, by the buffer's name.
        constant: Makes read-only data of an array, shared among equal ones.
    """

    def __init__(
        self,
        isa: Isa,
        ports: Mapping[Value, Port],
        held: Mapping[str, Value],
        constant: Callable[[Any], Constant],
    ) -> None:
        self._isa, self._ports, self._held, self._constant = isa, ports, held, constant
        self._kernels: dict[object, tuple[list[Any], list[FloatKernel]]] = {}
        self._symbols: dict[str, int] = {}

    def steps(
        self, items: Sequence[Item], kept: Sequence[Buffer], dump: Dump | None = None
    ) -> list[Step]:
        """The steps of an entry, in order.

        Args:
            items: Steps and float operators, in order.
            kept: Buffers of float operators that are read by a trace, or given out.
            dump: Called with the name and the text of the fused functions, for `--dump-ir`.

        Raises:
            VitcError: If an operator cannot be computed; it is named with its layer.
        """
        module = self.function(items, kept)
        for transform in PASSES:
            module = transform(module)
        if dump is not None:
            dump("float-functions", module.script())
        return self._lowered(items, module, kept)

    def function(self, items: Sequence[Item], kept: Sequence[Buffer]) -> Any:
        """The Relax function of the items; it returns `kept`, as a tuple, and what nobody reads."""
        builder = relax.BlockBuilder()
        inputs = {
            value: relax.Var(f"input_{i}", relax.TensorType(value.shape, port.dtype))
            for i, (value, port) in enumerate(self._ports.items())
        }
        values: dict[Value, Any] = dict(inputs)
        opaque: dict[str, Any] = {}
        ends: list[Any] = []
        with builder.function("run", list(inputs.values())):
            with builder.dataflow():
                for i, item in enumerate(items):
                    if isinstance(item, FloatOp):
                        values[item.op.output] = self._emitted(builder, item.op, values)
                        continue
                    read = self._read(item, inputs, values, opaque)
                    kind, value = self._kind(item)
                    call = builder.emit(relax.call_dps_packed(f"step_{i}", read, kind))
                    if value is None:
                        opaque.update((buffer.name, call) for buffer in item.buffers)
                    else:
                        values[value] = call
                    ends.append(call)
                results = [values[self._held[buffer.name]] for buffer in kept]
                given = [builder.emit_output(end) for end in (*results, *ends)]
            builder.emit_func_output(relax.Tuple(given))
        return builder.get()

    def _kind(self, step: Step) -> tuple[Any, Value | None]:
        """Type of what a step writes, and the value if it is one of floats.

        What holds no floats is looked into by nobody here: one array of bytes, also of a step that
        writes several.
        """
        value = self._held.get(step.buffers[0].name)
        if value is None:
            size = sum(buffer.size for buffer in step.buffers)
            return relax.TensorType((size,), "uint8"), None
        return relax.TensorType(value.shape, "float32"), value

    def _emitted(self, builder: relax.BlockBuilder, op: Op, values: Mapping[Value, Any]) -> Any:
        try:
            result = builder.emit(RELAX_OPS[op.kind](RelaxCall(builder, op, values)))
        except (tvm.error.InternalError, ValueError, TypeError) as error:
            first = str(error).strip().partition("\n")[0]
            raise refused(op, f"TVM does not compute it ({first})") from error
        shape = tuple(int(size) for size in result.ty.shape)
        if shape != op.output.shape:
            result = builder.emit(relax.op.reshape(result, op.output.shape))
        return result

    def _read(
        self,
        step: Step,
        inputs: Mapping[Value, Any],
        values: Mapping[Value, Any],
        opaque: Mapping[str, Any],
    ) -> list[Any]:
        """What a step reads; where it reads constants only, any input, for a call wants one."""
        by_port = {port: inputs[value] for value, port in self._ports.items()}
        found = []
        for operand in step.operands:
            if isinstance(operand, Port):
                found.append(by_port[operand])
            elif isinstance(operand, Buffer):
                value = self._held.get(operand.name)
                found.append(opaque[operand.name] if value is None else values[value])
        return found or [next(iter(by_port.values()))]

    def _lowered(self, items: Sequence[Item], module: Any, kept: Sequence[Buffer]) -> list[Step]:
        function = module["run"]
        bindings = [b for block in function.body.blocks for b in block.bindings]
        ops = {item.output.name: item.op for item in items if isinstance(item, FloatOp)}
        held: dict[Any, Operand] = dict(zip(function.params, self._ports.values(), strict=True))
        held |= dict(zip(_fields(function.body.body, bindings), kept, strict=False))
        for call in (b.value for b in bindings if _is_call(b.value, "relax.call_dps_packed")):
            step = _step(items, call)
            buffers = [o for o in step.operands if isinstance(o, Buffer | Port)]
            held |= dict(zip(call.args[1], buffers, strict=False))
        orders = self._orders(module, bindings, held)
        steps: list[Step] = []
        for binding in bindings:
            call = binding.value
            if binding.var in orders:
                continue
            if _is_call(call, "relax.call_dps_packed"):
                step = _step(items, call)
                steps.append(step)
                held[binding.var] = step.buffers[0]
            elif _is_call(call, "relax.call_tir"):
                steps += self._computed(module, binding.var, call, held, orders, ops)
            elif call in held:
                held[binding.var] = held[call]
        return steps

    def _orders(
        self, module: Any, bindings: Sequence[Any], held: Mapping[Any, Operand]
    ) -> dict[Any, tuple[Stage, Any, Any]]:
        """Calls that only move rows, which others read through: stage, function and call."""
        found: dict[Any, tuple[Stage, Any, Any]] = {}
        for binding in bindings:
            call = binding.value
            if not _is_call(call, "relax.call_tir") or binding.var in held:
                continue
            function = module[call.args[0]]
            stage = as_order(function)
            if stage is not None:
                found[binding.var] = (stage, function, call)
        return found

    def _sources(
        self,
        parameters: Sequence[Any],
        call: Any,
        held: Mapping[Any, Operand],
        orders: Mapping[Any, tuple[Stage, Any, Any]],
    ) -> tuple[list[Stage], dict[Any, Operand]]:
        """What a call reads: stages of the orders that it reads through, and operands by array."""
        stages: list[Stage] = []
        arrays: dict[Any, Operand] = {}
        for parameter, argument in zip(parameters, call.args[1], strict=True):
            if argument in held:
                arrays[parameter] = held[argument]
            elif argument in orders:
                stage, function, inner = orders[argument]
                own = {var: tvm.ir.Var(var.name, var.ty) for var in function.params[:-1]}
                before, read = self._sources(list(own.values()), inner, held, orders)
                stages += [*before, read_through(stage, parameter, own)]
                arrays |= read
            else:
                arrays[parameter] = self._constant(_array(argument))
        return stages, arrays

    def _computed(
        self,
        module: Any,
        var: Any,
        call: Any,
        held: dict[Any, Operand],
        orders: Mapping[Any, tuple[Stage, Any, Any]],
        ops: Mapping[str, Op],
    ) -> list[Step]:
        """Steps of one TIR function."""
        name = str(call.args[0].name_hint)
        stem = _stem(name)
        function = module[call.args[0]]
        before, arrays = self._sources(list(function.params)[:-1], call, held, orders)
        output = held.get(var)
        if output is None:
            # Between TIR functions only.
            shape = tuple(int(size) for size in var.ty.shape)
            output = Buffer(f"{len(held)}:{stem}", _floats(shape))
            held[var] = output
        assert isinstance(output, Buffer)  # noqa: S101 - nothing computes a port
        op = ops.get(output.name)
        tap = output.tap
        layer = op.layer if op is not None else layer_of_tap(tap)
        arrays[function.params[-1]] = output
        steps: list[Step] = []
        try:
            made = self._made(stem, name, function, before, arrays)
        except UnknownFunctionError as error:
            found = f"{op.kind} of {op.layer}" if op is not None else stem
            raise VitcError(
                f"{tap} ({found}) is not compiled: no kernel computes {error}.",
                "Leave the operator out of the model, or run it with ONNX Runtime.",
            ) from error
        fp = macs(stages_of(function))
        for i, kernel in enumerate(made):
            *read, written = kernel.arrays
            if written not in arrays:
                shape = tuple(int(size) for size in written.shape)
                arrays[written] = Buffer(f"{output.name}.{i}", _floats(shape))
            result = arrays[written]
            assert isinstance(result, Buffer)  # noqa: S101 - as above
            cost = Cost(fp=fp) if i == len(made) - 1 else Cost()
            reads = tuple(arrays[array] for array in read)
            steps.append(Step(kernel.kernel, reads, (result,), layer, tap, cost))
        return steps

    def _made(
        self,
        stem: str,
        name: str,
        function: Any,
        before: list[Stage],
        arrays: dict[Any, Operand],
    ) -> list[FloatKernel]:
        """The kernels of a function, built once for arrays that lie alike."""
        lie = tuple(tuple(_strides(a, _sizes(var))) for var, a in arrays.items())
        key = (name, lie, tuple(str(stage.value) for stage in before))
        known = self._kernels.get(key)
        if known is None:
            number = self._symbols.get(stem, 0)
            self._symbols[stem] = number + 1

            def strides(var: Any) -> Sequence[int]:
                return _strides(arrays.get(var), _sizes(var))

            stages = [*before, *stages_of(function)]
            made = float_kernels(
                f"vitc_{stem}_{number}", stages, function.params[-1], self._isa, strides
            )
            known = self._kernels[key] = (list(arrays), made)
        variables, made = known
        # Of another call, whose arrays have other variables.
        own = dict(zip(variables, arrays, strict=True))
        return [
            FloatKernel(k.kernel, tuple(own.get(array, array) for array in k.arrays)) for k in made
        ]


def _stem(name: str) -> str:
    """Start of a kernel's symbol, of the name that TVM gives a function."""
    words = [word.rstrip("0123456789") for word in name.split("_")]
    return "_".join(word for word in words if word and word != "fused")[:_LONGEST].strip("_")


def _is_call(value: Any, name: str) -> bool:
    return getattr(getattr(value, "op", None), "name", "") == name


def _step(items: Sequence[Item], call: Any) -> Step:
    """The step that a call stands for."""
    step = items[int(str(call.args[0].global_symbol).rpartition("_")[2])]
    assert isinstance(step, Step)  # noqa: S101 - only steps are such calls
    return step


def _fields(body: Any, bindings: Sequence[Any]) -> list[Any]:
    """What a function returns, as variables."""
    by_var = {binding.var: binding.value for binding in bindings}
    body = by_var.get(body, body)
    return list(body.fields)


def _array(constant: Any) -> Any:
    array = constant.value.numpy()
    return array.astype(np.int32) if array.dtype.kind == "i" else array


def _sizes(var: Any) -> tuple[int, ...]:
    return tuple(int(size) for size in var.shape)


def _floats(shape: tuple[int, ...]) -> Layout:
    """How an array between kernels is held."""
    if not shape:
        return Plain(1, 1)
    return Floats(int(np.prod(shape[:-1])), shape[-1], round_up(shape[-1], WORD))


def _strides(operand: Operand | None, shape: tuple[int, ...]) -> list[int]:
    """Elements from one entry to the next, of each axis."""
    layout = operand.layout if isinstance(operand, Buffer) else None
    if operand is None:
        layout = _floats(shape)
    row = layout.stride if isinstance(layout, Floats) else (shape[-1] if shape else 1)
    strides: list[int] = []
    for axis in range(len(shape)):
        last = axis == len(shape) - 1
        strides.append(1 if last else row * int(np.prod(shape[axis + 1 : -1])))
    return strides
