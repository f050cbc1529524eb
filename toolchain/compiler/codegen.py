"""TIR kernels to one relocatable object of plain C functions, through TVM's LLVM back end."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import tvm

from vitc.errors import VitcError
from vitc.places import scratch_folder
from vitc.targets.kernels.emitter import Kernel
from vitc.targets.table import Target

__all__ = ["Dump", "emit_assembly", "emit_object", "lower"]

Dump = Callable[[str, str], None]
"""Called with the name of a phase and the text of what it makes, for `--dump-ir`."""


def _tvm_target(target: Target) -> tvm.target.Target:
    fields: dict[str, object] = {"kind": "llvm", "mtriple": target.triple, "mcpu": target.cpu}
    if target.attributes:
        fields["mattr"] = list(target.attributes)
    return tvm.target.Target(fields)


def lower(kernels: Sequence[Kernel], target: Target, dump: Dump | None = None) -> tvm.IRModule:
    """Lower TIR kernels to what the code generator reads.

    The packed calling convention (MakePackedAPI) is left out: a kernel stays a C function of
    pointers. Local buffers stay allocations on the stack, which LLVM promotes to registers.

    Args:
        kernels: Kernels with distinct symbols.
        target: Machine.
        dump: Called with a phase's name and its text, for `--dump-ir`; None to make no texts, which
            take as long as the object.

    Returns:
        The lowered module.
    """
    passes = tvm.tirx.transform
    machine = _tvm_target(target)
    functions = {k.symbol: k.function.with_attr("global_symbol", k.symbol) for k in kernels}
    module = tvm.IRModule(functions)
    if dump:
        dump("tir-kernels", module.script())
    for step in (
        passes.BindTarget(machine),
        passes.StmtSimplify(),
        passes.FlattenBuffer(),
        passes.NarrowDataType(32),
        passes.VectorizeLoop(True),
        passes.UnrollLoop(),
        passes.StmtSimplify(),
        passes.LowerIntrin(),
    ):
        module = step(module)
    named = {
        str(var.name_hint): function.with_attr("global_symbol", var.name_hint)
        for var, function in module.functions.items()
    }
    module = tvm.IRModule(named)
    if dump:
        dump("tir-lowered", module.script())
    return module


def _build(module: tvm.IRModule, target: Target) -> tvm.runtime.Module:
    build = tvm.get_global_func("target.build.llvm", allow_missing=True)
    if build is None:
        raise VitcError(
            "This TVM was built without LLVM.", "Install the `apache-tvm` package from PyPI."
        )
    return build(module, _tvm_target(target))


def emit_object(module: tvm.IRModule, target: Target, path: Path, dump: Dump | None = None) -> None:
    """Compile a lowered module into an object file at `path`."""
    built = _build(module, target)
    # TVM takes names in UTF-8 only, and a user's folder may have any.
    with scratch_folder("object") as scratch:
        built.write_to_file(str(scratch / "kernels.o"), "o")
        shutil.copyfile(scratch / "kernels.o", path)
    if dump:
        dump("assembly", built.inspect_source("asm"))


def emit_assembly(kernels: Sequence[Kernel], target: Target) -> str:
    """Return the assembly of kernels, for tests and estimates."""
    return str(_build(lower(kernels, target), target).inspect_source("asm"))
