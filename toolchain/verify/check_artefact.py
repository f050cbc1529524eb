"""An artefact against its reference: its files, the ONNX file in it, and what it computes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from vitc.devices import Device
from vitc.devices.source import Description
from vitc.errors import VitcError
from vitc.extras import need
from vitc.models.network import Network
from vitc.onnx_files import load_onnx
from vitc.runtime.artefact import Artefact
from vitc.runtime.manifest import EntryFacts
from vitc.verify.beside import beside
from vitc.verify.candidate import ArtefactCandidate
from vitc.verify.check_file import check_file, same_network
from vitc.verify.check_images import few, images_for
from vitc.verify.check_options import CheckOptions
from vitc.verify.comparison import Images, compare
from vitc.verify.forcing import Reference
from vitc.verify.portable import begin_against_onnx
from vitc.verify.report import CheckReport
from vitc.verify.scans import is_scan, scan_faults

__all__ = ["Parts", "read_parts"]

_NOT_REBUILT: Final = "not compiled again, so judged by its values alone"


@dataclass(frozen=True, eq=False)
class Parts:
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
            # ONNX Runtime opens the file beside the float64 run.
            against_file = [
                begin_against_onnx(artefact.at(entry.name), device, images=chosen.images)
                for entry in (() if self.inner is None else self.entries)
            ]
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
            for finish in against_file:
                report = _strict(report, finish())
            report = replace(report, faults=(*report.faults, *_scans(artefact, device, say)))
        return replace(report, library=self.library)


def read_parts(
    path: Path,
    reference: Reference,
    chosen: CheckOptions,
    supports: Callable[[Artefact], None],
    say: Callable[[str], None],
    note: Callable[[str], None],
) -> Parts:
    """Look at an artefact, its library and its ONNX file.

    Args:
        path: Of the artefact.
        reference: What it was made from.
        chosen: How to check.
        supports: May refuse it before anything is compared.
        say: Told what is being done.
        note: Told in a sentence what a person should know about the images.

    Raises:
        VitcError: If something cannot be read or run, or it is another network.
    """
    artefact = Artefact.open(path, verify=False).at(chosen.entry)
    changed = artefact.changed_files()
    entries = _entries(artefact)
    model = reference.model
    if isinstance(model, Network):
        same_network(artefact.path, _described(artefact), model)
    supports(artefact)
    ports = {port.name: port for entry in entries for port in entry.inputs}
    images = images_for(model, list(ports.values()), chosen, note)
    faults = [f"{name} is not the file that the manifest names" for name in changed]
    inner, library = None, _NOT_REBUILT
    if artefact.onnx.is_file():
        # TVM and zig compute outside of Python, as PyTorch does: one core each.
        with beside(_rebuilding(artefact, chosen, say)) as rebuilt:
            say("checking the artefact's ONNX file")
            loaded = load_onnx(artefact.onnx)
            inner = check_file(artefact.onnx, loaded, reference, few(images), say)
            library, found = rebuilt()
        faults += found
    elif artefact.onnx.name not in changed:
        faults.append(
            f"there is no {artefact.onnx.name}, so nothing says what it was compiled from"
        )
    return Parts(artefact, entries, images, faults, inner, library)


def _rebuilding(
    artefact: Artefact, chosen: CheckOptions, say: Callable[[str], None]
) -> Callable[[Callable[[str], None]], tuple[str, list[str]]]:
    """What compares an artefact with what its ONNX file compiles to, if that is wanted."""
    if not chosen.rebuild:
        return lambda _: (_NOT_REBUILT, [])
    need("Compiling again", "compile", hint="or leave it out, `rebuild=False`")
    say("compiling model.onnx again")

    def work(step: Callable[[str], None]) -> tuple[str, list[str]]:
        # TVM is slow to import, and an export that is checked compiles nothing.
        from vitc.verify.rebuilding import compare_with_rebuilt

        return compare_with_rebuilt(artefact, step)

    return work


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
