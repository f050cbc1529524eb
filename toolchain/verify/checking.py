"""`vitc check`: an ONNX file or an artefact against the checkpoint that it was made from."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from torch import nn

from vitc.devices import Device, parse_device
from vitc.devices.farm import Farm, Finding, on_every_board
from vitc.devices.source import Description, refuse_external_data
from vitc.errors import VitcError
from vitc.exporter import Traced
from vitc.models.checkpoint import load
from vitc.models.embedding import with_embedding
from vitc.models.ends import Codes, with_ends
from vitc.models.network import Network
from vitc.models.stated import Stated
from vitc.onnx_files import load_onnx
from vitc.onnx_files.ports import input_ports
from vitc.runtime.artefact import Artefact
from vitc.runtime.port import Port
from vitc.verify.candidate import OnnxCandidate
from vitc.verify.check_artefact import read_parts
from vitc.verify.check_file import check_file
from vitc.verify.check_images import images_for
from vitc.verify.check_options import CheckOptions
from vitc.verify.comparison import compare
from vitc.verify.forcing import Reference
from vitc.verify.report import CheckReport, Rounded
from vitc.verify.rounding_distance import rounded_by

__all__ = ["CheckOptions", "check", "check_farm", "check_fresh_export"]

_NOTHING: Callable[[str], None] = lambda _: None  # noqa: E731


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
    parts = read_parts(path, wanted, options, lambda _: farm.reach(), say, note)
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
    return replace(report, made_from=made_from or None, reference_sha256=stated, rounded=rounded)


def _rounded(
    plain: Network | None, reference: Reference, chosen: CheckOptions, say: Callable[[str], None]
) -> Rounded | None:
    """How far a rounded network is from the fp32 network, on the images of the check."""
    if plain is None or not isinstance(reference.model, Network):
        return None
    config = reference.model.config
    say(f"comparing the {config.rounded} with fp32")
    port = Port("input", "uint8" if config.takes_bytes else "float32", config.input_shape)
    return rounded_by(plain, reference.model, images_for(reference.model, [port], chosen))


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
        images = images_for(model, input_ports(loaded[0]), chosen, note)
        report = check_file(path, loaded, reference, images, say)
        return report, loaded[1].source_sha256
    refuse_external_data(path, chosen.allow_external_data)
    device = parse_device(chosen.device)
    parts = read_parts(path, reference, chosen, device.supports, say, note)
    report = parts.on(device, reference, chosen, say)
    return report, parts.artefact.manifest.source_sha256 or ""


def check_fresh_export(path: Path, model: nn.Module, *, images: int) -> CheckReport:
    """Compare a file that was exported a moment ago with its model, on probe images.

    Parameters are not compared: that would be a second export of the same model.

    Raises:
        VitcError: If the file cannot be read or run, or holds another network.
    """
    loaded, _ = load_onnx(path)
    probes = images_for(model, input_ports(loaded), CheckOptions(images=images))
    return compare(OnnxCandidate(path, loaded), Reference(model), probes)
