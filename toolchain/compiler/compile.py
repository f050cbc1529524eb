"""`vitc compile`: an ONNX file becomes an artefact folder."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, TypeAlias

import onnx_ir as ir

from vitc.compiler.codegen import Dump, emit_object, lower
from vitc.compiler.denormals import refuse_denormal_thresholds
from vitc.compiler.described import write_description
from vitc.compiler.extras import extras_of
from vitc.compiler.fingerprint import compiler_fingerprint
from vitc.compiler.integration import static_name, write_integration
from vitc.compiler.link import (
    LIBRARY,
    RUNNER,
    archive,
    link_library,
    linking_runner,
    runtime_sources,
)
from vitc.compiler.pipeline import make_plan
from vitc.compiler.plan import ALIGNMENT, Buffer, Plan, Port, Step, plan_workspace
from vitc.compiler.self_test import prefix_of, write_self_test
from vitc.compiler.symbol_prefix import check_prefix, prefix_symbols
from vitc.compiler.tables import Weights, collect_weights, write_tables
from vitc.dialect import DOMAIN
from vitc.dialect.proto import to_proto
from vitc.errors import VitcError
from vitc.onnx_files import ModelFacts, is_inlined, load_onnx, tap_names
from vitc.onnx_files.entries import check_entry_name, entry_models, scan_of
from vitc.outputs import FolderOutput, claim_folder, prepare_folder, write_file
from vitc.runtime.artefact import MANIFEST, Artefact, file_sha256, own_files
from vitc.runtime.manifest import EntryFacts, Manifest, StepFacts, TargetFacts, Written
from vitc.targets import Target, find
from vitc.targets.tiles import Tile

__all__ = ["MAX_BATCH", "Source", "compile_model", "kernel_identities", "make_program"]

MAX_BATCH = 64
ONNX = "model.onnx"

Source: TypeAlias = str | Path | Mapping[str, str | Path | None]
"""A file, or a file for each entry; None for the scan of the entries `text` and `image`."""
_QUERY, _DOCUMENTS = "text", "image"

Progress = Callable[[str], None]
Check = Callable[[Artefact], dict[str, Any] | str]
"""Judges a finished artefact before it gets its name; the manifest keeps what it returns."""


class _Dump:
    """Writes each phase's text into a folder, numbered in order."""

    def __init__(self, folder: Path, force: bool) -> None:
        self._folder = folder
        self._force = force
        self._count = 0
        prepare_folder(folder, force=force)

    def __call__(self, phase: str, text: str) -> None:
        suffix = {"assembly": "s", "tables": "c"}.get(phase, "txt")
        file = self._folder / f"{self._count:02d}-{phase}.{suffix}"
        write_file(file, text, force=self._force)
        self._count += 1


def compile_model(
    onnx: Source,
    target: str | Target,
    out: str | Path,
    *,
    batch: int = 1,
    dump_ir: str | Path | None = None,
    force: bool = False,
    allow_external_data: bool = False,
    check: Check | None = None,
    tiles: Mapping[str, Tile] | None = None,
    symbol_prefix: str = "",
    self_test: bool = True,
    progress: Progress = lambda _: None,
) -> Artefact:
    """Compile an ONNX file for a target.

    The artefact is made in a folder beside `out` and renamed when it is whole, so a failure leaves
    nothing behind.

    Args:
        onnx: File that `vitc export` wrote, format packed; its entries are those of the artefact.
            Or several such files, each the entry that it is named by; None stands for the scan of
            what the entries `image` and `text` give.
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
        symbol_prefix: What symbols of the static library begin with in place of ``vitc``.
        self_test: Whether it gets inputs and outputs that a device can verify the library with,
            which are found by running the file; what is compiled to be looked at needs none.
        progress: Called with a phase's name as it begins.

    Returns:
        The artefact.

    Raises:
        VitcError: If the file is no packed vitc model, the target is unknown, the folder exists, or
            some layer has no kernel.
    """
    machine = find(target) if isinstance(target, str) else target
    if not 1 <= batch <= MAX_BATCH:
        raise VitcError(f"The batch size is {batch}, wanted 1 to {MAX_BATCH}.")
    if symbol_prefix:
        check_prefix(symbol_prefix)
    with claim_folder(out, marker=MANIFEST, force=force, parts=own_files) as output:
        dump = None if dump_ir is None else _Dump(Path(dump_ir), force)
        request = _Request(
            onnx,
            machine,
            batch,
            allow_external_data,
            check,
            tiles or {},
            symbol_prefix,
            self_test,
            progress,
            dump,
        )
        _compile(request, output)
    return Artefact.open(Path(out).absolute())


@dataclass(frozen=True)
class _Request:
    """What `compile_model` was asked for."""

    source: Source
    machine: Target
    batch: int
    allow_external_data: bool
    check: Check | None
    tiles: Mapping[str, Tile]
    symbol_prefix: str
    self_test: bool
    progress: Progress
    dump: Dump | None


def _compile(request: _Request, output: FolderOutput) -> None:
    request.progress("reading the graph")
    read = _read(request.source, allow_external_data=request.allow_external_data)
    with output.scratch() as scratch:
        making = _Making(request, read, scratch)
        # The first runner of a target takes long: zig builds a C library for it.
        runner = linking_runner(making.work / "runner", making.built / RUNNER, request.machine)
        with runner as wait_for_runner:
            for said, phase in _PHASES:
                request.progress(said)
                phase(making)
            if request.self_test:
                request.progress("choosing the self-test")
                making.choose_self_test()
            wait_for_runner()
        making.seal(making.manifest())
        if request.check is not None:
            artefact = Artefact.open(making.built)
            making.seal(artefact.manifest.with_check(request.check(artefact)))
        output.publish(making.built)


@dataclass(frozen=True)
class _Read:
    """What is compiled.

    Attributes:
        files: What the artefact keeps of it: graphs by the names of files.
        entries: The graph of each entry.
        facts: What the file of the first entry says about itself.
        named: What errors call the file of each entry.
    """

    files: Mapping[str, ir.Model]
    entries: Mapping[str, ir.Model]
    facts: ModelFacts
    named: Mapping[str, Path]


def _read(source: Source, *, allow_external_data: bool = False) -> _Read:
    if not isinstance(source, Mapping):
        path = Path(source)
        model, facts = _read_file(path, allow_external_data=allow_external_data)
        entries = entry_models(model, facts.entries)
        return _Read({ONNX: model}, entries, facts, dict.fromkeys(entries, path))
    if not source:
        raise VitcError("There is no file to compile.", "Name one for each entry: NAME=M.onnx.")
    read = {
        check_entry_name(name): _read_file(Path(file), allow_external_data=allow_external_data)
        for name, file in source.items()
        if file is not None
    }
    for name, (_, facts) in read.items():
        if facts.entries:
            raise VitcError(
                f"{source[name]} has entries of its own: {', '.join(facts.entries)}.",
                "Compile it alone.",
            )
    entries = {}
    for name, file in source.items():
        if file is not None:
            entries[name] = read[name][0]
            continue
        if not {_QUERY, _DOCUMENTS} <= read.keys():
            raise VitcError(
                f"The entry {name} has no file, so it scores what the entries {_DOCUMENTS} and "
                f"{_QUERY} give, and there are {', '.join(read) or 'none'}.",
                f"Name their files, as in {_DOCUMENTS}=A.onnx {_QUERY}=B.onnx {name}.",
            )
        entries[check_entry_name(name)] = scan_of(read[_QUERY][0], read[_DOCUMENTS][0])
    facts = next(iter(read.values()))[1]
    named = {name: Path(file or name) for name, file in source.items()}
    return _Read({f"{name}.onnx": model for name, model in entries.items()}, entries, facts, named)


def _read_file(source: Path, *, allow_external_data: bool) -> tuple[ir.Model, ModelFacts]:
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
    return model, facts


class _Making:
    """An artefact in the making: what each phase needs of those before it.

    Attributes:
        built: The folder that becomes the artefact.
        work: A folder for what does not stay.
        program: Plans of the entries, after the first phase.
    """

    def __init__(self, request: _Request, read: _Read, scratch: Path) -> None:
        self.built, self.work = scratch / "artefact", scratch / "work"
        self.program: dict[str, Plan] = {}
        self._request, self._read = request, read
        self._weights = Weights(b"", {})
        for folder in (self.built, self.work):
            folder.mkdir()
        # Not the files again, which may be others by now.
        for name, model in read.files.items():
            (self.built / name).write_bytes(to_proto(model).SerializeToString(deterministic=True))

    def plan(self) -> None:
        """Choose kernels."""
        asked = self._request
        self.program = _program(self._read, asked.machine, asked.tiles, asked.dump)

    def place(self) -> None:
        """Give buffers their places in the workspace."""
        dump = self._request.dump
        for plan in self.program.values():
            planned = plan_workspace(plan)
            if dump is not None:
                dump("relax-planned", planned.script())

    def generate(self) -> None:
        """Make objects of the kernels."""
        machine, dump = self._request.machine, self._request.dump
        kernels = [kernel for plan in self.program.values() for kernel in plan.kernels]
        emit_object(lower(kernels, machine, dump), machine, self.work / "kernels.o", dump)

    def link(self) -> None:
        """Write tables and link the library."""
        asked = self._request
        self._weights = collect_weights(self.program)
        tables = write_tables(self.program, self._weights, asked.batch, asked.machine)
        if asked.dump is not None:
            asked.dump("tables", tables)
        extras = extras_of(self.program)
        objects = link_library(
            self.work,
            self.built / LIBRARY,
            self.work / "kernels.o",
            tables,
            self._weights.data,
            asked.machine,
            write_description(self._read.facts.preprocessing, self._read.facts.labels),
            more=[each.source for each in extras],
        )
        prefix = asked.symbol_prefix
        if prefix:
            prefix_symbols(objects, prefix)
        archive(self.work, objects, self.built / static_name(prefix))
        headers = [each.header for each in extras]
        write_integration(
            self.built, runtime_sources(), asked.machine, prefix, LIBRARY, more=headers
        )

    def choose_self_test(self) -> None:
        """Write inputs and outputs that a device can verify the library with."""
        entries = self._entries()
        for entry in entries:
            model = self._read.entries[entry.name]
            write_self_test(self.built, model, entry, prefix_of(entry, entries))

    def manifest(self) -> Manifest:
        """What was made, without the check."""
        asked, facts = self._request, self._read.facts
        identities = [name for plan in self.program.values() for name in plan.identities.values()]
        return Manifest(
            vitc=version("vitc"),
            tvm=version("apache-tvm"),
            compiler=compiler_fingerprint(),
            dialect=facts.dialect,
            source_sha256=facts.source_sha256,
            config=facts.config,
            preprocessing=facts.preprocessing,
            labels=facts.labels,
            passes=(*facts.passes, f"choose_kernels({asked.machine.isa})"),
            target=TargetFacts.of(asked.machine),
            batch=asked.batch,
            workspace_bytes=max(ALIGNMENT, *(plan.workspace for plan in self.program.values())),
            sizes={
                "library": (self.built / LIBRARY).stat().st_size,
                "weights": len(self._weights.data),
                "runner": (self.built / RUNNER).stat().st_size,
                "onnx": sum((self.built / name).stat().st_size for name in self._read.files),
            },
            tiles={name: asked.tiles[name] for name in identities if name in asked.tiles},
            entries=self._entries(),
            symbol_prefix=asked.symbol_prefix,
        )

    def _entries(self) -> tuple[EntryFacts, ...]:
        return tuple(
            EntryFacts(name, plan.inputs, plan.written, tuple(map(_step_facts, plan.steps)))
            for name, plan in self.program.items()
        )

    def seal(self, manifest: Manifest) -> None:
        """Write the manifest with the digest of every other file."""
        files = [path for path in sorted(self.built.iterdir()) if path.name != MANIFEST]
        sealed = manifest.with_files({path.name: file_sha256(path) for path in files})
        text = json.dumps(sealed.to_dict(), indent=1)
        (self.built / MANIFEST).write_text(text + "\n", encoding="utf-8")


_PHASES: Final[tuple[tuple[str, Callable[[_Making], None]], ...]] = (
    ("choosing kernels", _Making.plan),
    ("planning memory", _Making.place),
    ("generating code", _Making.generate),
    ("linking", _Making.link),
)


def kernel_identities(onnx: Source, target: Target) -> dict[str, str]:
    """What each kernel with register tiles does that `compile_model` would make, by its symbol.

    Raises:
        VitcError: As `compile_model`.
    """
    program = make_program(onnx, target)
    return {symbol: what for plan in program.values() for symbol, what in plan.identities.items()}


def make_program(
    onnx: Source, target: Target, tiles: Mapping[str, Tile] = MappingProxyType({})
) -> dict[str, Plan]:
    """The plan of each entry that `compile_model` would make.

    Raises:
        VitcError: As `compile_model`.
    """
    return _program(_read(onnx), target, tiles)


def _program(
    read: _Read, machine: Target, tiles: Mapping[str, Tile], dump: Dump | None = None
) -> dict[str, Plan]:
    """A plan of each entry; kernels of the first have the names that they have alone."""
    program: dict[str, Plan] = {}
    for name, model in read.entries.items():
        told = dump
        if dump is not None and len(read.entries) > 1:
            told = functools.partial(_told, dump, name)
        plan = _plan(read.named[name], model, machine, tiles, told)
        program[name] = _renamed(plan, name) if program else plan
    return program


def _told(dump: Dump, entry: str, phase: str, text: str) -> None:
    dump(f"{entry}-{phase}", text)


def _renamed(plan: Plan, entry: str) -> Plan:
    """A plan whose kernels have symbols that no other entry's have."""

    def own(symbol: str) -> str:
        return f"vitc_{entry}__{symbol.removeprefix('vitc_')}"

    steps = [
        replace(step, kernel=replace(step.kernel, symbol=own(step.kernel.symbol)))
        for step in plan.steps
    ]
    identities = {own(symbol): what for symbol, what in plan.identities.items()}
    return replace(plan, steps=steps, identities=identities)


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


def _step_facts(step: Step) -> StepFacts:
    return StepFacts(
        tap=step.tap,
        layer=step.layer,
        kernel=step.kernel.symbol,
        tasks=step.kernel.tasks if step.over is None else None,
        binary=step.cost.binary,
        fp=step.cost.fp,
        unit=step.cost.unit,
        writes=tuple(map(_written, step.outputs)),
    )


def _written(output: Buffer | Port) -> Written:
    if isinstance(output, Port):
        return Written(output.name, 0, None, (), output.name)
    taps = tuple({"name": name, "views": [list(v) for v in views]} for name, views in output.taps)
    return Written(output.tap, output.size, output.layout.to_dict(), taps)
