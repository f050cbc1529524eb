"""`vitc compile`: an ONNX file becomes an artefact folder."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import onnx_ir as ir

from vitc.compiler.codegen import emit_object, lower
from vitc.compiler.denormals import refuse_denormal_thresholds
from vitc.compiler.fingerprint import compiler_fingerprint
from vitc.compiler.link import LIBRARY, RUNNER, link_library, linking_runner
from vitc.compiler.pipeline import Dump, make_plan
from vitc.compiler.plan import Plan, plan_workspace
from vitc.compiler.self_test import write_self_test
from vitc.compiler.tables import Weights, collect_weights, write_tables
from vitc.dialect import DOMAIN
from vitc.dialect.proto import to_proto
from vitc.errors import VitcError
from vitc.onnx_files import is_inlined, load_onnx, tap_names
from vitc.outputs import FolderOutput, claim_folder, prepare_folder, write_file
from vitc.runtime.artefact import FORMAT, MANIFEST, Artefact, file_sha256
from vitc.targets import Target, find
from vitc.targets.tiles import Tile

__all__ = ["MAX_BATCH", "compile_model", "kernel_identities"]

MAX_BATCH = 64
HEADER = "vitc_model.h"
ONNX = "model.onnx"
ENTRY = "run"
"""Name of the entry of a model that has one."""

Progress = Callable[[str], None]
Check = Callable[[Artefact], dict[str, Any] | str]
"""Judges a finished artefact before it gets its name; the manifest keeps what it returns."""


class _Dump:
    """Writes each phase's text into a folder, numbered in order; does nothing without a folder."""

    def __init__(self, folder: Path | None, force: bool) -> None:
        self._folder = folder
        self._force = force
        self._count = 0
        if folder is not None:
            prepare_folder(folder, force=force)

    def __call__(self, phase: str, text: str) -> None:
        if self._folder is None:
            return
        suffix = {"assembly": "s", "tables": "c"}.get(phase, "txt")
        file = self._folder / f"{self._count:02d}-{phase}.{suffix}"
        write_file(file, text, force=self._force)
        self._count += 1


def compile_model(
    onnx: str | Path,
    target: str | Target,
    out: str | Path,
    *,
    batch: int = 1,
    dump_ir: str | Path | None = None,
    force: bool = False,
    allow_external_data: bool = False,
    check: Check | None = None,
    tiles: Mapping[str, Tile] | None = None,
    progress: Progress = lambda _: None,
) -> Artefact:
    """Compile an ONNX file for a target.

    The artefact is made in a folder beside `out` and renamed when it is whole, so a failure leaves
    nothing behind.

    Args:
        onnx: File that `vitc export` wrote, format packed.
        target: Name of a target, or a target.
        out: Folder to write.
        batch: Images of one run, 1 to 64.
        dump_ir: Folder for the text of each phase.
        force: Replace an existing artefact.
        allow_external_data: Whether the file keeps data in other files of its folder; the
            artefact's copy of it holds everything.
        check: Called with the finished artefact before it gets its name; raises to refuse it.
            Without one the manifest says that the check was skipped.
        tiles: Register tiles for some kernels (`vitc.compiler.plan.Plan.identities`), in place of
            the target's.
        progress: Called with a phase's name as it begins.

    Returns:
        The artefact.

    Raises:
        VitcError: If the file is no packed vitc model, the target is unknown, the folder exists, or
            some layer has no kernel.
    """
    machine = find(target) if isinstance(target, str) else target
    source = Path(onnx)
    if not 1 <= batch <= MAX_BATCH:
        raise VitcError(f"The batch size is {batch}, wanted 1 to {MAX_BATCH}.")
    with claim_folder(out, marker=MANIFEST, force=force) as output:
        dump = _Dump(None if dump_ir is None else Path(dump_ir), force)
        _compile(source, machine, output, batch, dump, allow_external_data, check, tiles, progress)
    return Artefact.open(Path(out).absolute())


def _compile(
    source: Path,
    machine: Target,
    output: FolderOutput,
    batch: int,
    dump: _Dump,
    allow_external_data: bool,
    check: Check | None,
    tiles: Mapping[str, Tile] | None,
    progress: Progress,
) -> None:
    progress("reading the graph")
    model, facts = load_onnx(source, allow_external_data=allow_external_data)
    if facts.form != "packed":
        raise VitcError(
            f"{source} was exported with format {facts.form}; only packed files are compiled.",
            "Export it with `vitc export --format packed`.",
        )
    if facts.float_layers:
        layer, why = next(iter(facts.float_layers.items()))
        raise VitcError(
            f"{source} has {len(facts.float_layers)} layers in float, which no kernel computes, "
            f"such as {layer}: {why}.",
            "Run it with ONNX Runtime (`vitc run M.onnx`), or export it without --allow-float.",
        )
    if is_inlined(model, facts.form):
        raise VitcError(
            f"{source} was exported with --inline; kernels are chosen by operators of {DOMAIN}, "
            "which it has no more.",
            "Export the checkpoint again without it, and compile that: "
            "`vitc export CKPT --out M.onnx`.",
        )
    with output.scratch() as scratch:
        built, work = scratch / "artefact", scratch / "work"
        built.mkdir()
        work.mkdir()
        # Not the file again, which may be another one by now.
        (built / ONNX).write_bytes(to_proto(model).SerializeToString(deterministic=True))
        # The first runner of a target takes long: zig builds a C library for it.
        with linking_runner(work / "runner", built / RUNNER, machine) as wait_for_runner:
            progress("choosing kernels")
            plan = _plan(source, model, machine, tiles or {}, dump)
            progress("planning memory")
            planned = plan_workspace(plan)
            dump("relax-planned", planned.script())
            progress("generating code")
            lowered = lower(plan.kernels, machine, dump)
            emit_object(lowered, machine, work / "kernels.o", dump)
            progress("linking")
            program = {ENTRY: plan}
            weights = collect_weights(program)
            shape = model.graph.inputs[0].shape
            assert shape is not None  # noqa: S101 - the first phase has checked it
            channels, height, width = (int(d) for d in list(shape)[1:])  # type: ignore[arg-type]
            classes = plan.outputs[0].port.values
            tables = write_tables(program, weights, batch, machine)
            dump("tables", tables)
            link_library(work, built / LIBRARY, work / "kernels.o", tables, weights.data, machine)
            header = Path(__file__).parents[1] / "runtime" / HEADER
            shutil.copyfile(header, built / HEADER)
            progress("choosing the self-test")
            write_self_test(built, model)
            wait_for_runner()
        manifest = {
            "format": FORMAT,
            "vitc": version("vitc"),
            "tvm": version("apache-tvm"),
            "compiler": compiler_fingerprint(),
            "dialect": facts.dialect,
            "source_sha256": facts.source_sha256,
            "config": facts.config,
            "preprocessing": facts.preprocessing,
            "labels": facts.labels,
            "passes": [*facts.passes, f"choose_kernels({machine.isa})"],
            "target": {
                "name": machine.name,
                "triple": machine.triple,
                "cpu": machine.cpu,
                "features": list(machine.features),
                "isa": machine.isa,
            },
            "batch": batch,
            "image": [channels, height, width],
            "classes": classes,
            "workspace_bytes": plan.workspace,
            "sizes": _sizes(built, weights),
            "tiles": {
                identity: tiles[identity].to_dict()
                for identity in plan.identities.values()
                if tiles and identity in tiles
            },
            "steps": [_step_facts(step) for step in plan.steps],
            "check": "skipped",
        }
        _seal(built, manifest)
        if check is not None:
            manifest["check"] = check(Artefact.open(built))
            _seal(built, manifest)
        output.publish(built)


def kernel_identities(onnx: str | Path, target: Target) -> dict[str, str]:
    """What each kernel with register tiles does that `compile_model` would make, by its symbol.

    Raises:
        VitcError: As `compile_model`.
    """
    model, _ = load_onnx(Path(onnx))
    return _plan(Path(onnx), model, target, {}).identities


def _plan(
    source: Path,
    model: ir.Model,
    machine: Target,
    tiles: Mapping[str, Tile],
    dump: Dump | None = None,
) -> Plan:
    try:
        plan = make_plan(model, machine, tap_names(model), tiles, dump)
        if machine.flushes_denormals:
            refuse_denormal_thresholds(model, machine)
        return plan
    except VitcError:
        raise
    except Exception as error:  # whatever shapes that contradict each other come to
        first = str(error).strip().partition("\n")[0]
        raise VitcError(
            f"{source} is no graph that vitc compiles ({type(error).__name__}: {first}).",
            "Export it again with `vitc export --format packed`.",
        ) from error


def _sizes(built: Path, weights: Weights) -> dict[str, int]:
    return {
        "library": (built / LIBRARY).stat().st_size,
        "weights": len(weights.data),
        "runner": (built / RUNNER).stat().st_size,
        "onnx": (built / ONNX).stat().st_size,
    }


def _step_facts(step: Any) -> dict[str, Any]:
    return {
        "tap": step.tap,
        "layer": step.layer,
        "kernel": step.kernel.symbol,
        "tasks": step.kernel.tasks,
        "bytes": step.output.size,
        "macs": {"binary": step.cost.binary, "fp": step.cost.fp},
        "unit": step.cost.unit,
        "layout": step.output.layout.to_dict(),
        "taps": [{"name": name, "views": views} for name, views in step.output.taps],
    }


def _seal(built: Path, manifest: dict[str, Any]) -> None:
    """Write the manifest with the digest of every other file."""
    manifest["files"] = {
        p.name: file_sha256(p) for p in sorted(built.iterdir()) if p.name != MANIFEST
    }
    (built / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")
