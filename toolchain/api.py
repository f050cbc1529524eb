"""What the commands do, as functions: the stages put together, each result checked.

A function imports the stages it needs when it is called: each brings a framework that takes a
second to load, and no command needs all of them.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from vitc.errors import VitcError
from vitc.extras import need
from vitc.names import ENDS
from vitc.paths import settle_paths

if TYPE_CHECKING:
    from torch import nn

    from vitc.devices import Device
    from vitc.exporter import ExportResult, Traced
    from vitc.exporter.example import Example
    from vitc.models.described import Sides
    from vitc.models.network import Network
    from vitc.runtime.artefact import Artefact
    from vitc.targets.tiles import Tile

__all__ = ["CompileOptions", "ExportOptions", "compile", "export", "new", "open"]

_SHORT_CHECK_IMAGES: Final = 2


@dataclass(frozen=True)
class ExportOptions:
    """How to export.

    Attributes:
        form: ``packed`` (which is what `compile` reads), ``int8`` or ``float``.
        check: Whether to compare the file with the model before it gets its name.
        dump: Folder for the graph after each pass; None for none.
        allow_float: Binary layers that may be in float, or modules that hold some. `compile` has no
            kernels for a file with such layers; ONNX Runtime runs it.
        force: Replace an existing file.
        inline: Whether operators of `dev.vitc` are written out in standard ones, for readers that
            know no functions; only in format packed. `compile` wants a file that is not inlined.
        embedding: ``fp32``; or ``int15`` or ``int8``: the patch embedding of a classifier takes
            bytes, and its weights are integers of 15 or 8 bits (docs/embedding.md).
        ends: ``fp32``, or ``int8``: other products of floats, of codes and weights of 8 bits
            (docs/ends.md).
        calibrate: Pictures whose values say how floats become codes, as ``vitc check --data``
            names them; None for random ones, which are good for timing only.
        calibration_images: How many of them.
    """

    form: str = "packed"
    check: bool = True
    dump: Path | None = None
    allow_float: tuple[str, ...] = ()
    force: bool = False
    inline: bool = False
    embedding: str = "fp32"
    ends: str = "fp32"
    calibrate: str | None = None
    calibration_images: int = 64

    def __post_init__(self) -> None:
        settle_paths(self)


@dataclass(frozen=True)
class CompileOptions:
    """How to compile.

    Attributes:
        target: A key of `vitc.targets.TARGETS`, or ``native``.
        batch: Images the library takes at once, 1 to 64.
        dump_ir: Folder for the program after each phase; None for none.
        force: Replace an existing artefact.
        allow_external_data: Whether the ONNX file keeps data in other files, which are then read
            from its own folder only.
        check: Whether to compare the library with the ONNX file. Where this machine can neither
            run nor emulate the target, the manifest says that it was skipped.
        tiles: Register tiles for some kernels, as `vitc tune` finds them.
        symbol_prefix: What symbols of the static library begin with, so that several models fit
            into one program: ``cats_run`` in place of ``vitc_run``; empty for the usual ones.
    """

    target: str = "native"
    batch: int = 1
    dump_ir: Path | None = None
    force: bool = False
    allow_external_data: bool = False
    check: bool = True
    tiles: Mapping[str, Tile] = field(default_factory=dict)
    symbol_prefix: str = ""

    def __post_init__(self) -> None:
        settle_paths(self)


def new(
    preset: str,
    *,
    si: bool | None = None,
    mlp_ratio: int | None = None,
    image_size: Sides | None = None,
    classes: int | None = None,
    depth: int | None = None,
    scheme: str = "bibert",
    elastic: bool = False,
    norm: str | None = None,
    merge: str | None = None,
    seed: int = 0,
) -> Network:
    """Make a network with random weights that behave like trained ones.

    Args:
        preset: A key of `vitc.models.PRESETS`.
        si: Whether to have the spatial interaction branch; what is None is as in the preset.
        mlp_ratio: Hidden over input width of the MLP.
        image_size: Side in pixels, or height and width; sets the number of tokens.
        classes: Logits.
        depth: Blocks, of each stage.
        scheme: Binarization scheme, a key of `vitc.models.schemes.SCHEMES`.
        elastic: Whether attention masks are the scheme's own (BiT's).
        norm: ``batch`` or ``layer``: the norms of the residual stream.
        merge: ``float`` or ``binary``: what is computed between stages.
        seed: The same seed gives the same weights.

    Raises:
        VitcError: If there is no such preset, or the sizes contradict each other.
    """
    need("A network", "train")
    from vitc.models.architectures import preset as find_preset
    from vitc.models.initialise import random_model

    chosen = find_preset(preset)
    config = chosen.config.replace(
        image_size=image_size,
        classes=classes,
        depth=depth,
        mlp_ratio=mlp_ratio,
        si=si,
        norm=norm,
        merge=merge,
    )
    config = replace(config, scheme=scheme, elastic=elastic)
    return random_model(config, seed, chosen.preprocessing.scaled_to(config.image_size))


def export(
    model: nn.Module | Traced | str | os.PathLike[str],
    out: str | os.PathLike[str],
    options: ExportOptions | None = None,
    *,
    example: Example | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> ExportResult:
    """Export a model to an ONNX file that any ONNX Runtime runs.

    Args:
        model: A checkpoint, or a model: a `Network`, or any module built of `vitc.nn`; or what
            `vitc.exporter.trace` made of one, for several formats.
        out: The file to write; it gets its name only when it is whole and passes its check.
        options: Format and check.
        example: What a model takes that is no `Network`: a tensor [B, ..], or several by the names
            of its forward method; types and sizes count.
        say: Told what is being done.

    Raises:
        VitcError: If the model cannot be exported, or `out` exists.
        CheckFailedError: If the file does not compute what the model computes.
    """
    need("An export", "train")
    from vitc.exporter import Traced
    from vitc.exporter import export as write_onnx
    from vitc.models.checkpoint import load
    from vitc.verify import CheckFailedError, check_fresh_export

    chosen = options or ExportOptions()
    source = load(model) if isinstance(model, str | os.PathLike) else model
    if chosen.embedding != "fp32":
        from vitc.models.embedding import with_embedding

        if isinstance(source, Traced):
            raise VitcError(
                "The model is traced already, so its embedding stays as it is.",
                "Trace `vitc.with_embedding(model, ..)`.",
            )
        source = with_embedding(source, chosen.embedding)
    if ENDS.check(chosen.ends) != "fp32":
        if isinstance(source, Traced):
            raise VitcError(
                "The model is traced already, so its ends stay as they are.",
                "Trace `vitc.models.ends.with_ends(model, ..)`.",
            )
        from vitc.models.ends import calibrated, with_ends
        from vitc.verify.calibration import calibration

        say("calibrating")
        batches = calibration(source, chosen.calibrate, chosen.calibration_images)
        source = with_ends(source, calibrated(source, batches))
    module = source.model if isinstance(source, Traced) else source

    def check(file: Path) -> None:
        say("comparing the file with the model")
        report = check_fresh_export(file, module, images=_SHORT_CHECK_IMAGES)
        if not report.equal:
            raise CheckFailedError(report, f"The export to {out}")

    say(f"exporting, format {chosen.form}")
    return write_onnx(
        source,
        out,
        form=chosen.form,
        example=example,
        dump=chosen.dump,
        allow_float=chosen.allow_float,
        inline=chosen.inline,
        check=check if chosen.check else None,
        force=chosen.force,
    )


def compile(  # noqa: A001 - named like the command
    onnx_file: str | os.PathLike[str] | Mapping[str, str | Path | None],
    out: str | os.PathLike[str],
    options: CompileOptions | None = None,
    *,
    target: str | None = None,
    batch: int | None = None,
    force: bool | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> Artefact:
    """Compile a packed ONNX file to an artefact folder.

    Args:
        onnx_file: What `export` wrote; or several such files, each by the name of the entry that
            it becomes, None for the scan of what the entries `image` and `text` give.
        out: The folder to make; an existing artefact is kept unless `force`.
        options: Everything about it; the next three go before it.
        target: A key of `vitc.targets.TARGETS`, or ``native``, which is the default.
        batch: Images the library takes at once.
        force: Whether an existing artefact is replaced.
        say: Told what is being done.

    Returns:
        The artefact, whose manifest says what the check found.

    Raises:
        VitcError: If the file is no packed vitc model, the target is unknown, or `out` exists.
        CheckFailedError: If the library does not compute what the file computes; nothing stays.
    """
    need("Compiling", "compile")
    from vitc.compiler import compile_model
    from vitc.compiler.self_test import TAPS, prefix_of, self_test_file, settle_self_test
    from vitc.devices import LocalDevice, QemuDevice, RunRequest
    from vitc.verify.portable import check_against_onnx
    from vitc.verify.report import CheckFailedError

    named = {"target": target, "batch": batch, "force": force}
    given: dict[str, Any] = {name: value for name, value in named.items() if value is not None}
    chosen = replace(options or CompileOptions(), **given)

    def check(artefact: Artefact) -> dict[str, Any] | str:
        device: Device = LocalDevice() if not artefact.missing_features() else QemuDevice()
        try:
            device.supports(artefact)
        except VitcError as error:
            return f"skipped: {error.message}"
        say(f"comparing the library with the ONNX file on {device.name}")
        images, apart, entries = 0, 0.0, artefact.manifest.entries
        for entry in entries:
            part = artefact.at(entry.name)
            prefix = prefix_of(entry, entries)

            def outputs(inputs: Mapping[str, Any], part: Artefact = part) -> Mapping[str, Any]:
                return device.run(part, inputs, RunRequest()).outputs

            inputs = settle_self_test(artefact.path, entry, outputs, prefix)
            report = check_against_onnx(part, device, images=_SHORT_CHECK_IMAGES, also=inputs)
            if not report.equal:
                raise CheckFailedError(report, _failed(artefact, entry.name, out))
            images, apart = max(images, report.images), max(apart, report.max_logit_difference)
            if inputs is None:
                whose = "the artefact" if prefix is None else f"the entry {prefix}"
                say(f"no image is far enough from every threshold: {whose} has no self-test")
            else:
                digests = device.run(part, inputs, RunRequest(digests=True)).digests
                taps = artefact.path / self_test_file(TAPS, prefix)
                taps.write_text(digests or "", encoding="utf-8")
        return {
            "against": "model.onnx",
            "device": device.name,
            "images": images,
            "equal": True,
            "max_logit_difference": apart,
        }

    return compile_model(
        onnx_file if isinstance(onnx_file, Mapping) else Path(onnx_file),
        chosen.target,
        Path(out),
        batch=chosen.batch,
        dump_ir=chosen.dump_ir,
        force=chosen.force,
        allow_external_data=chosen.allow_external_data,
        check=check if chosen.check else None,
        tiles=chosen.tiles,
        symbol_prefix=chosen.symbol_prefix,
        progress=say,
    )


def _failed(artefact: Artefact, entry: str, out: object) -> str:
    single = len(artefact.manifest.entries) == 1
    return f"The artefact {out}" if single else f"The entry {entry} of the artefact {out}"


def open(path: str | os.PathLike[str]) -> Artefact:  # noqa: A001 - the public name
    """Open an artefact folder; the result can be called on arrays, tensors and lists.

    What was opened is what runs, whatever becomes of the folder: the library is copied now.

    Args:
        path: What `compile` made.

    Raises:
        VitcError: If it is no artefact, is damaged, or was written by a newer vitc.
    """
    from vitc.runtime.artefact import Artefact

    artefact = Artefact.open(Path(path))
    _ = artefact.sealed
    return artefact
