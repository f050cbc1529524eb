"""`vitc check`: an ONNX file or an artefact against the checkpoint that it was made from."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from onnx_ir import tensor_adapters
from torch import nn

from vitc.devices import Device, parse_device
from vitc.devices.farm import Farm, Finding, on_every_board
from vitc.devices.source import Description, refuse_external_data
from vitc.errors import VitcError
from vitc.exporter import Traced, build
from vitc.exporter.example import Example
from vitc.extras import need
from vitc.models.architectures import TASKS
from vitc.models.checkpoint import load
from vitc.models.embedding import with_embedding
from vitc.models.ends import Codes, with_ends
from vitc.models.network import Network
from vitc.models.picture import Colour
from vitc.models.picture_files import counted
from vitc.models.preprocessing import colours_first
from vitc.models.stated import Stated
from vitc.onnx_files import compare_graphs, is_inlined, load_onnx
from vitc.onnx_files.ports import input_ports
from vitc.runtime.artefact import Artefact
from vitc.runtime.manifest import EntryFacts
from vitc.runtime.port import Port
from vitc.verify.beside import beside
from vitc.verify.candidate import ArtefactCandidate, OnnxCandidate
from vitc.verify.comparison import Given, Images, compare
from vitc.verify.forcing import Reference
from vitc.verify.inputs import probe_ports
from vitc.verify.portable import check_against_onnx
from vitc.verify.report import CheckReport, ConstantDifference, Rounded
from vitc.verify.rounding_distance import rounded_by
from vitc.verify.scans import is_scan, scan_faults

if TYPE_CHECKING:
    import onnx_ir as ir

    from vitc.onnx_files import ModelFacts
    from vitc.training.data import Dataset, Split

__all__ = ["CheckOptions", "check", "check_farm", "check_fresh_export"]

_DIGITS: Final = "digits"
_NOT_REBUILT: Final = "not compiled again, so judged by its values alone"
_NOTHING: Callable[[str], None] = lambda _: None  # noqa: E731


@dataclass(frozen=True)
class CheckOptions:
    """How to check.

    Attributes:
        data: Labelled images: ``digits``, or a folder of class folders; None for probe images. Of
            digits, and of a folder with a test part, only the test images are taken.
        background: Colour below their transparent pixels, if not what the network was trained with.
        device: Where an artefact runs, as behind ``--device``.
        images: How many images are compared layer by layer.
        seed: Of the probe images.
        threads: Threads of the artefact.
        allow_external_data: Whether an ONNX file keeps data in other files of its folder.
        rebuild: Whether an artefact's ONNX file is compiled again, to compare every byte.
        ema: Whether the candidate has the averaged weights of the reference.
        entry: Name of the entry of an artefact that is compared with the reference; None for all
            that were compiled from one file.
    """

    data: str | None = None
    background: Colour | None = None
    device: str = "local"
    images: int = 4
    seed: int = 0
    threads: int = 1
    allow_external_data: bool = False
    rebuild: bool = True
    ema: bool = False
    entry: str | None = None

    def __post_init__(self) -> None:
        if self.images < 1 or self.threads < 1:
            raise VitcError(
                f"A check needs at least one image and one thread, found {self.images} and "
                f"{self.threads}."
            )
        if self.background is not None and self.data in (None, _DIGITS):
            raise VitcError(
                "A background is for pictures, and neither probe images nor the digits are any.",
                "Name pictures with --data, or leave --background away.",
            )


def check(
    candidate: str | os.PathLike[str],
    reference: Reference | nn.Module | Traced | str | os.PathLike[str],
    options: CheckOptions | None = None,
    *,
    say: Callable[[str], None] = _NOTHING,
    note: Callable[[str], None] = _NOTHING,
) -> CheckReport:
    """Compare a candidate with its reference: parameters, every tap, logits, accuracy.

    An artefact's own ONNX file is checked too, and a file that is not what the manifest says is a
    fault.

    Args:
        candidate: An artefact folder, or an exported ``.onnx`` file.
        reference: The checkpoint it was made from, or that model, traced or not. A model without a
            configuration is run on the inputs that the candidate takes. Or a `Reference`, which
            several candidates share.
        options: Images, device.
        say: Told what is being done.
        note: Told in a sentence what a person should know about the images.

    Raises:
        VitcError: If something cannot be read or run, or the two are different networks. That the
            numbers differ is no error but the report's `equal`.
    """
    chosen = options or CheckOptions()
    wanted, plain = _reference(reference, Path(candidate), chosen)
    report, made_from = _check(Path(candidate), wanted, chosen, say, note)
    return _traced_back(report, made_from, wanted, _rounded(plain, wanted, chosen, say))


def check_farm(
    artefact: str | os.PathLike[str],
    reference: Reference | nn.Module | Traced | str | os.PathLike[str],
    options: CheckOptions,
    *,
    say: Callable[[str], None] = _NOTHING,
    note: Callable[[str], None] = _NOTHING,
) -> list[Finding[CheckReport]]:
    """Compare an artefact with its reference on every board of a farm, as `check` does on one.

    What is no matter of a board is looked at once: parameters, the library, the ONNX file.

    Args:
        artefact: An artefact folder.
        reference: As for `check`.
        options: Its device names a farm (`vitc.devices.farm.Farm`).
        say: Told what is being done.
        note: Told in a sentence what a person should know about the images.

    Raises:
        VitcError: As `check`, or if there is no such farm. That a board fails is in its finding.
    """
    farm, path = Farm.parse(options.device), Path(artefact)
    if not path.is_dir():
        raise VitcError(
            f"{path} is no artefact folder, and boards run nothing else.",
            "Compile it, and check the artefact there.",
        )
    wanted, plain = _reference(reference, path, options)
    parts = _read_parts(path, wanted, options, lambda _: farm.reach(), say, note)
    made_from = parts.artefact.manifest.source_sha256 or ""
    rounded = _rounded(plain, wanted, options, say)

    def on(board: Device) -> CheckReport:
        return _traced_back(parts.on(board, wanted, options, say), made_from, wanted, rounded)

    return on_every_board(farm, on, say)


def _reference(
    reference: Reference | nn.Module | Traced | str | os.PathLike[str],
    candidate: Path,
    chosen: CheckOptions,
) -> tuple[Reference, Network | None]:
    """The reference in the candidate's form; and what it was rounded from, if it was."""
    if isinstance(reference, str | os.PathLike):
        reference = _read_reference(Path(reference), candidate, chosen)
    if isinstance(reference, Reference):
        return reference, None
    plain = None
    if isinstance(reference, Network):
        rounded = _in_form_of(reference, candidate, chosen)
        plain, reference = (None if rounded is reference else reference), rounded
    return Reference(reference), plain


def _traced_back(
    report: CheckReport, made_from: str | None, reference: Reference, rounded: Rounded | None
) -> CheckReport:
    """The report with what both sides say of the checkpoint."""
    stated = getattr(reference.model, "source_sha256", None)
    return replace(
        report, made_from=made_from or None, reference_sha256=stated, rounded=rounded
    )


def _rounded(
    plain: Network | None, reference: Reference, chosen: CheckOptions, say: Callable[[str], None]
) -> Rounded | None:
    """How far a rounded network is from the fp32 network, on the images of the check."""
    if plain is None or not isinstance(reference.model, Network):
        return None
    config = reference.model.config
    say(f"comparing the {config.rounded} with fp32")
    port = Port("input", "uint8" if config.takes_bytes else "float32", config.input_shape)
    return rounded_by(plain, reference.model, _images(reference.model, [port], chosen))


def _read_reference(file: Path, candidate: Path, chosen: CheckOptions) -> Network:
    """Load a checkpoint; what its file does not say is as the candidate says.

    That was stated when the candidate was exported: `vitc export --labels`, ..
    """
    plain = load(file, ema=chosen.ema)
    if plain.load_report is None or plain.load_report.described:
        return plain
    found = _found(candidate, chosen)
    if found is None:
        return plain
    return load(
        file,
        ema=chosen.ema,
        scheme=found.config.scheme,
        weight_bits=1 if found.config.weight_bits == 1 else 32,
        stated=Stated.of(found.preprocessing, found.labels),
    )


def _found(candidate: Path, chosen: CheckOptions) -> Description | None:
    """What a candidate says of itself; what it lacks is said where it is checked."""
    try:
        if candidate.is_dir():
            return Description.of_artefact(Artefact.open(candidate, verify=False))
        loaded = load_onnx(candidate, allow_external_data=chosen.allow_external_data)
        return Description.of_onnx(candidate, loaded[1])
    except VitcError:
        return None


def _in_form_of(reference: Network, candidate: Path, chosen: CheckOptions) -> Network:
    """The reference, rounded as the candidate states."""
    if reference.config.rounded:
        return reference
    found = _found(candidate, chosen)
    if found is None or not found.config.rounded:
        return reference
    rounded = with_embedding(reference, found.config.embedding)
    codes = {name: Codes(scale, zero) for name, scale, zero in found.config.ends}
    return with_ends(rounded, codes) if codes else rounded


def _check(
    path: Path,
    reference: Reference,
    chosen: CheckOptions,
    say: Callable[[str], None],
    note: Callable[[str], None],
) -> tuple[CheckReport, str | None]:
    """Return the report, and the SHA-256 of the checkpoint that the candidate names."""
    model = reference.model
    if not path.is_dir():
        if chosen.device != "local":
            raise VitcError(
                f"An ONNX file runs in ONNX Runtime on this machine, not on {chosen.device!r}.",
                "Compile it, and check the artefact there.",
            )
        if chosen.entry is not None:
            raise VitcError(
                f"{path} is an ONNX file, which is compared whole.",
                "Leave --entry away, or compile it.",
            )
        loaded = load_onnx(path, allow_external_data=chosen.allow_external_data)
        images = _images(model, input_ports(loaded[0]), chosen, note)
        report = _check_onnx(path, loaded, reference, images, say)
        return report, loaded[1].source_sha256
    refuse_external_data(path, chosen.allow_external_data)
    device = parse_device(chosen.device)
    parts = _read_parts(path, reference, chosen, device.supports, say, note)
    report = parts.on(device, reference, chosen, say)
    return report, parts.artefact.manifest.source_sha256 or ""


@dataclass(frozen=True, eq=False)
class _Parts:
    """An artefact, and what is known of it before it runs.

    Attributes:
        artefact: Itself, at its entry.
        entries: Its entries that the reference is compared with.
        images: What they run on.
        faults: Sentences about its files.
        inner: The report on its ONNX file; None without one.
        library: What is known of its library's bytes, in words.
    """

    artefact: Artefact
    entries: Sequence[EntryFacts]
    images: Images
    faults: Sequence[str]
    inner: CheckReport | None
    library: str

    def on(
        self, device: Device, reference: Reference, chosen: CheckOptions, say: Callable[[str], None]
    ) -> CheckReport:
        """Compare what it computes on a device."""
        artefact, faults = self.artefact, self.faults
        say(f"checking the artefact on {device.name}")
        try:
            report = compare(
                ArtefactCandidate(
                    artefact, device, chosen.threads, tuple(entry.name for entry in self.entries)
                ),
                reference,
                self.images,
                faults=faults,
                same_when_traced=True,
                onnx=self.inner,
                say=say,
            )
        except VitcError as error:
            if not faults:
                raise
            raise VitcError(
                f"{artefact.path} does not run ({error.message}), and {faults[0]}.",
                "Compile the model again.",
            ) from error
        if self.inner is not None and report.equal:
            say("comparing the artefact with its ONNX file")
            for entry in self.entries:
                part = artefact.at(entry.name)
                report = _strict(report, check_against_onnx(part, device, images=chosen.images))
            report = replace(report, faults=(*report.faults, *_scans(artefact, device, say)))
        return replace(report, library=self.library)


def _read_parts(
    path: Path,
    reference: Reference,
    chosen: CheckOptions,
    supports: Callable[[Artefact], None],
    say: Callable[[str], None],
    note: Callable[[str], None],
) -> _Parts:
    """Look at an artefact, its library and its ONNX file; `supports` may refuse it before."""
    artefact = Artefact.open(path, verify=False).at(chosen.entry)
    changed = artefact.changed_files()
    entries = _entries(artefact)
    model = reference.model
    if isinstance(model, Network):
        _same_network(artefact.path, _described(artefact), model)
    supports(artefact)
    ports = {port.name: port for entry in entries for port in entry.inputs}
    images = _images(model, list(ports.values()), chosen, note)
    faults = [f"{name} is not the file that the manifest names" for name in changed]
    inner, library = None, _NOT_REBUILT
    if artefact.onnx.is_file():
        # TVM and zig compute outside of Python, as PyTorch does: one core each.
        with beside(_rebuilding(artefact, chosen, say)) as rebuilt:
            say("checking the artefact's ONNX file")
            loaded = load_onnx(artefact.onnx)
            inner = _check_onnx(artefact.onnx, loaded, reference, _few(images), say)
            library, found = rebuilt()
        faults += found
    elif artefact.onnx.name not in changed:
        faults.append(
            f"there is no {artefact.onnx.name}, so nothing says what it was compiled from"
        )
    return _Parts(artefact, entries, images, faults, inner, library)


def _rebuilding(
    artefact: Artefact, chosen: CheckOptions, say: Callable[[str], None]
) -> Callable[[Callable[[str], None]], tuple[str, list[str]]]:
    """What compares an artefact with what its ONNX file compiles to, if that is wanted."""
    if not chosen.rebuild:
        return lambda _: (_NOT_REBUILT, [])
    need("Compiling again", "compile", hint="or leave it out, `rebuild=False`")
    # TVM is slow to import, and an export that is checked compiles nothing.
    from vitc.verify.rebuilding import compare_with_rebuilt

    say("compiling model.onnx again")
    return partial(compare_with_rebuilt, artefact)


def _entries(artefact: Artefact) -> list[EntryFacts]:
    """The entries that a reference is compared with.

    Raises:
        VitcError: If they were compiled from several files and none was chosen, or a scan was.
    """
    every = [entry for entry in artefact.manifest.entries if not is_scan(entry)]
    chosen = artefact.chosen is not None
    if chosen and is_scan(artefact.entry):
        raise VitcError(
            f"{artefact.entry.name} scores vectors and was made from no checkpoint; it is compared "
            "with its definition whenever another entry is checked.",
            f"Check one of {', '.join(entry.name for entry in every)}." if every else "",
        )
    if not chosen and len(every) > 1 and not isinstance(artefact.source, Path):
        raise VitcError(
            f"{artefact.path} was compiled from several files, and a reference is that of one.",
            f"Name an entry with --entry: {', '.join(entry.name for entry in every)}.",
        )
    return [artefact.entry] if chosen or not every else every


def _described(artefact: Artefact) -> Description:
    """What an artefact says of the network; of one of several files, what the entry's file says."""
    if isinstance(artefact.source, Path):
        return Description.of_artefact(artefact)
    return Description.of_onnx(artefact.path, load_onnx(artefact.onnx)[1])


def _scans(artefact: Artefact, device: Device, say: Callable[[str], None]) -> list[str]:
    if not any(is_scan(entry) for entry in artefact.manifest.entries):
        return []
    say("comparing the scores of all pairs")
    return scan_faults(artefact, device)


def _strict(report: CheckReport, own: CheckReport) -> CheckReport:
    """Hold an artefact to the bits of its ONNX file also where float64 sees a tie."""
    if own.equal:
        return report
    places = [layer.name for layer in own.layers if not layer.equal]
    differ = [
        f"{name} is not what the artefact's ONNX file makes of the same input" for name in places
    ]
    return replace(
        report,
        first_difference=own.first_difference,
        faults=(*report.faults, *own.faults, *differ),
    )


def check_fresh_export(path: Path, model: nn.Module, *, images: int) -> CheckReport:
    """Compare a file that was exported a moment ago with its model, on probe images.

    Parameters are not compared: that would be a second export of the same model.

    Raises:
        VitcError: If the file cannot be read or run, or holds another network.
    """
    loaded, _ = load_onnx(path)
    probes = _images(model, input_ports(loaded), CheckOptions(images=images))
    return compare(OnnxCandidate(path, loaded), Reference(model), probes)


def _check_onnx(
    path: Path,
    found: tuple[ir.Model, ModelFacts],
    reference: Reference,
    images: Images,
    say: Callable[[str], None],
) -> CheckReport:
    loaded, facts = found
    model, source = reference.model, reference.source
    example = None
    if isinstance(model, Network):
        _same_network(path, Description.of_onnx(path, facts), model)
    elif not isinstance(source, Traced):
        example = _example(loaded)
    say("comparing every parameter")
    again, _ = build(
        source,
        form=facts.form,
        example=example,
        allow_float=tuple(facts.float_layers),
        inline=is_inlined(loaded, facts.form),
    )
    compared = compare_graphs(loaded, again)
    compared.name_taps()
    parameters = [
        ConstantDifference(entry.layer or entry.name, entry.name, entry.what)
        for entry in compared.differences
    ]
    try:
        return compare(
            OnnxCandidate(path, loaded), reference, images, parameters=parameters, say=say
        )
    except VitcError as error:
        if not parameters:
            raise
        first = parameters[0]
        raise VitcError(
            f"{path} does not run ({error.message}), and {first.name} of {first.layer or 'it'} is "
            f"not what the reference exports to: {first.detail}.",
            "Export the checkpoint again.",
        ) from error


def _example(loaded: ir.Model) -> Example:
    """What the reference is traced with: what the file takes."""
    made = {}
    for value, port in zip(loaded.graph.inputs, input_ports(loaded), strict=True):
        dtype = tensor_adapters.to_torch_dtype(value.dtype or ir.DataType.FLOAT)
        made[port.name] = torch.zeros(port.sizes(2), dtype=dtype)
    return made if len(made) > 1 else next(iter(made.values()))


def _same_network(path: Path, found: Description, model: Network) -> None:
    own, theirs = (dataclasses.asdict(config) for config in (model.config, found.config))
    differing = [
        f"{key} {theirs.get(key)} (not {own[key]})" for key in own if own[key] != theirs.get(key)
    ]
    if differing:
        raise VitcError(
            f"{path} holds another network than the reference: {', '.join(differing)}.",
            "Give the checkpoint that it was made from.",
        )


@dataclass(frozen=True)
class _Pictures:
    """Pictures of a data set, read when they are asked for; bytes, or normalised."""

    data: Dataset
    of_bytes: bool

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, numbers: list[int], /) -> dict[str, NDArray[Any]]:
        if self.of_bytes:
            pixels = np.stack([self.data.pixels(number) for number in numbers])
            return {"input": colours_first(pixels)}
        return {"input": self.data.__getitems__(numbers)[0].numpy()}


def _images(
    model: nn.Module,
    inputs: Sequence[Port],
    options: CheckOptions,
    note: Callable[[str], None] = _NOTHING,
) -> Images:
    if options.data is None:
        probes = probe_ports(inputs, options.images, seed=options.seed)
        return Images(Given(probes), options.images)
    if not isinstance(model, Network):
        raise VitcError(
            f"A {type(model).__name__} does not say how pictures become its input.",
            "Leave --data away.",
        )
    # The training package is slow to import and only wanted with data.
    if model.config.arch in TASKS:
        from vitc.verify.tasks import labelled

        return labelled(model, options.data, options.background, options.images, note)
    from vitc.training.data import load_dataset

    shown = model.preprocessing.on(options.background)
    data = load_dataset(options.data, shown, _split(options.data), model.labels)
    if data.left:
        note(f"left out of {options.data}: {counted(data.left)}")
    targets = data.targets.numpy()
    unknown = targets.max(initial=-1) >= model.config.classes
    if unknown:
        raise VitcError(
            f"{options.data} has {len(data.labels)} classes, the network {model.config.classes}.",
            "Give images of the classes that it was trained on.",
        )
    data.in_memory = False  # each is looked at once or twice
    return Images(
        _Pictures(data, model.config.takes_bytes),
        min(options.images, len(data)),
        labels=None if (targets < 0).any() else targets,
        classes=data.labels,
        names=data.names,
    )


def _split(data: str) -> Split:
    folder = Path(data)
    parted = (folder / "train").is_dir() and any((folder / n).is_dir() for n in ("test", "val"))
    return "test" if data == _DIGITS or parted else "all"


def _few(images: Images) -> Images:
    count = images.layer_images
    return Images(Given(images.inputs[list(range(count))]), count, names=images.names[:count])
