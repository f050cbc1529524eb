"""Runs plans of small graphs on this machine, step by step, and the same graphs in ONNX Runtime."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx_ir as ir
import onnxruntime

from vitc.compiler.codegen import emit_object, lower
from vitc.compiler.link import run_zig
from vitc.compiler.pipeline import make_plan
from vitc.compiler.plan import Buffer, Constant, Plan
from vitc.dialect.bodies import set_functions
from vitc.dialect.ops import IR_VERSION, OPSET
from vitc.dialect.proto import to_proto
from vitc.targets.kernels.emitter import Kernel
from vitc.targets.layouts.views import apply_views
from vitc.targets.table import Target

__all__ = ["check_program", "compare", "load_kernels", "reference", "run_plan", "with_symbols"]

Array = np.ndarray
STALE = 0xA5
"""What memory holds before a step writes it; as floats, numbers of no size."""


def reference(model: ir.Model, x: Array, names: Sequence[str]) -> dict[str, Array]:
    """What ONNX Runtime computes, without the axis of images."""
    model.ir_version = IR_VERSION
    model.opset_imports[""] = OPSET
    set_functions(model)
    proto = to_proto(model)
    del proto.graph.output[:]
    for name in names:
        proto.graph.output.add().name = name
    session = onnxruntime.InferenceSession(
        proto.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    return {n: v[0] for n, v in zip(names, session.run(names, {"x": x[None]}), strict=True)}


def _aligned(size: int) -> Array:
    memory = np.full(size + 128, STALE, np.uint8)
    start = -memory.ctypes.data % 64
    return memory[start : start + size]


def load_kernels(kernels: Sequence[Kernel], target: Target, folder: Path) -> ctypes.CDLL:
    """Kernels in a library of their own."""
    emit_object(lower(kernels, target), target, folder / "k.o")
    run_zig(["-shared", "-o", "k.so", "k.o"], folder)
    return ctypes.CDLL(str(folder / "k.so"))


def with_symbols(plan: Plan, prefix: str) -> Plan:
    """A plan whose kernels are called otherwise, to share a library with others."""
    steps = [
        replace(step, kernel=replace(step.kernel, symbol=f"{prefix}_{step.kernel.symbol}"))
        for step in plan.steps
    ]
    return replace(plan, steps=steps)


def run_plan(plan: Plan, x: Array, library: ctypes.CDLL) -> dict[str, Array]:
    """Every tap and output of a plan, each step computed in two uneven parts."""
    image = _aligned(x.nbytes + 64)
    image[: x.nbytes] = np.ascontiguousarray(x, np.float32).reshape(-1).view(np.uint8)
    held: dict[str, Array] = {}
    taps: dict[str, Array] = {}
    for step in plan.steps:
        pointers = []
        for operand in step.operands:
            if isinstance(operand, Buffer):
                memory = held[operand.name]
            elif isinstance(operand, Constant):
                flat = np.ascontiguousarray(operand.data).reshape(-1).view(np.uint8)
                memory = _aligned(-(-flat.size // 64) * 64)
                memory[: flat.size] = flat
            else:
                memory = image
            pointers.append(memory)
        for buffer in step.buffers:
            memory = held[buffer.name] = _aligned(-(-buffer.size // 64) * 64 + 64)
            pointers.append(memory)
        function = getattr(library, step.kernel.symbol)
        middle = step.kernel.tasks // 3
        for begin, end in ((middle, step.kernel.tasks), (0, middle)):
            function(*(ctypes.c_void_p(p.ctypes.data) for p in pointers), begin, end)
        for buffer in step.buffers:
            memory, size = held[buffer.name], buffer.size
            assert (memory[size:] == STALE).all(), f"{step.kernel.symbol} wrote behind its output"
            decoded = buffer.layout.decode(memory[:size].copy())
            for name, views in buffer.taps:
                taps[name] = apply_views(decoded, views)
    for given in plan.outputs:
        buffer = given.buffer
        decoded = buffer.layout.decode(held[buffer.name][: buffer.size].copy())
        taps[given.port.name] = apply_views(decoded, given.views)
    return taps


def check_program(
    model: ir.Model,
    x: Array,
    target: Target,
    folder: Path,
    *,
    taps: Sequence[str] = (),
    atol: float = 1e-5,
) -> Plan:
    """Compare every value that a plan shows with ONNX Runtime: bits exactly, floats to rounding."""
    plan = make_plan(model, target, taps)
    compare(model, plan, x, load_kernels(plan.kernels, target, folder), taps=taps, atol=atol)
    return plan


def compare(
    model: ir.Model,
    plan: Plan,
    x: Array,
    library: ctypes.CDLL,
    *,
    taps: Sequence[str] = (),
    atol: float = 1e-5,
) -> None:
    """Compare what a plan shows with ONNX Runtime."""
    output = str(model.graph.outputs[0].name)
    known = {str(v.name) for node in model.graph for v in node.outputs}
    found = run_plan(plan, x, library)
    names = [name for name in found if name in known]
    assert {output, *taps} <= set(names)
    for name, wanted in reference(model, x, names).items():
        assert found[name].shape == wanted.shape, name
        if wanted.dtype == np.float32:
            scale = max(1.0, float(np.abs(wanted).max()))
            np.testing.assert_allclose(found[name], wanted, rtol=0, atol=atol * scale, err_msg=name)
        else:
            assert np.array_equal(found[name], wanted), name
