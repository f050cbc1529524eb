"""The whole way on a small network: train, export, compile, check on two architectures, bench."""

from __future__ import annotations

import platform
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from vitc import api
from vitc.bench import BenchOptions, BenchReport, bench
from vitc.devices.qemu import INSTALL_HINT, find_emulator
from vitc.dialect.metadata import FORMS
from vitc.exporter import trace
from vitc.models.checkpoint import load
from vitc.outputs import check_file, check_folder, explained
from vitc.runtime.artefact import MANIFEST, own_files
from vitc.targets import find
from vitc.training import TrainOptions, train
from vitc.training.run_outputs import check_outputs
from vitc.verify import CheckOptions, CheckReport, check
from vitc.verify.forcing import Reference

if TYPE_CHECKING:
    from vitc.training import EpochReport, TrainResult

__all__ = ["DemoOptions", "DemoReport", "TargetReport", "demo"]

DATA: Final = "digits"
_EPOCHS: Final = 20
"""Twice as many take most of the demo's time, for three more images of the 360."""

_QUICK_EPOCHS: Final = 8
_TARGETS: Final = ("native", "arm")


@dataclass(frozen=True)
class DemoOptions:
    """What the demo does.

    Attributes:
        out: Folder for its files; made if missing.
        quick: Train for a few epochs only, which leaves the accuracy low.
        seed: Of the training.
        force: Replace the files of an earlier demo.
    """

    out: Path = Path("demo")
    quick: bool = False
    seed: int = 0
    force: bool = False

    @property
    def report(self) -> Path:
        """The page that is written of its result."""
        return self.out / "report.html"

    @property
    def training(self) -> TrainOptions:
        """How the network is trained."""
        return TrainOptions(
            out=self.out / "micro.safetensors",
            data=DATA,
            epochs=_QUICK_EPOCHS if self.quick else _EPOCHS,
            seed=self.seed,
            force=self.force,
        )


@dataclass(frozen=True)
class TargetReport:
    """One compiled artefact.

    Attributes:
        target: What it was compiled for.
        artefact: Its folder.
        library_bytes: Size of the library, weights included.
        check: Against the checkpoint, on all test images; None if it could not run.
        skipped: Why it could not run; empty if it could.
    """

    target: str
    artefact: Path
    library_bytes: int
    check: CheckReport | None
    skipped: str = ""


@dataclass(frozen=True)
class DemoReport:
    """What came out.

    Attributes:
        training: The trained network and its accuracies.
        onnx: Format to file.
        targets: The artefacts.
        bench: Of the native one.
        checkpoint_bytes: Size of the checkpoint, which is fp32.
    """

    training: TrainResult
    onnx: dict[str, Path]
    targets: tuple[TargetReport, ...]
    bench: BenchReport
    checkpoint_bytes: int

    @property
    def equal(self) -> bool:
        """Whether every artefact that could run equals the checkpoint."""
        return all(entry.check.equal for entry in self.targets if entry.check is not None)

    def to_dict(self) -> dict[str, Any]:
        """The JSON form."""
        return {
            "equal": self.equal,
            "checkpoint": str(self.training.checkpoint),
            "best_epoch": self.training.best_epoch,
            "validation_accuracy": self.training.validation_accuracy,
            "test_accuracy": self.training.test_accuracy,
            "checkpoint_bytes": self.checkpoint_bytes,
            "onnx": {form: str(path) for form, path in self.onnx.items()},
            "onnx_bytes": {form: path.stat().st_size for form, path in self.onnx.items()},
            "targets": [
                {
                    "target": entry.target,
                    "artefact": str(entry.artefact),
                    "library_bytes": entry.library_bytes,
                    "skipped": entry.skipped or None,
                    "check": None if entry.check is None else entry.check.to_dict(),
                }
                for entry in self.targets
            ],
            "bench": self.bench.to_dict(),
        }


def demo(
    options: DemoOptions,
    *,
    say: Callable[[str], None] = lambda _: None,
    trained: Callable[[EpochReport], None] = lambda _: None,
) -> DemoReport:
    """Run the demo.

    Args:
        options: Where to, and how long to train.
        say: Told what is being done.
        trained: Called after each epoch.

    Raises:
        VitcError: If a step fails, or an export or compilation does not pass its short check.
    """
    with explained(options.out):
        options.out.mkdir(parents=True, exist_ok=True)
    files = {form: options.out / f"micro.{form}.onnx" for form in FORMS}
    check_outputs(options.training)
    for file in (*files.values(), options.report):
        check_file(file, force=options.force)
    for name in _TARGETS:
        check_folder(options.out / name, marker=MANIFEST, force=options.force, parts=own_files)
    say("training micro on the digits")
    training = train(options.training, trained)
    checkpoint = training.checkpoint
    # Traced once for every format, and run once for every target.
    traced = trace(load(checkpoint))
    for form, file in files.items():
        api.export(traced, file, api.ExportOptions(form=form, force=options.force), say=say)
    reference = Reference(traced)
    targets = tuple(_target(name, files["packed"], reference, options, say) for name in _TARGETS)
    say("timing the native artefact and its full-precision twin in turns")
    measured = bench(targets[0].artefact, BenchOptions(), say=say)
    return DemoReport(training, files, targets, measured, checkpoint.stat().st_size)


def _target(
    name: str,
    onnx_file: Path,
    reference: Reference,
    options: DemoOptions,
    say: Callable[[str], None],
) -> TargetReport:
    say(f"compiling for {name}")
    compiled = api.CompileOptions(target=name, force=options.force)
    artefact = api.compile(onnx_file, options.out / name, compiled, say=say)
    target = find(name)
    size = artefact.library.stat().st_size
    device = "local" if platform.machine() in target.machine else "qemu"
    emulator = f"qemu-{target.emulator}"
    if device == "qemu" and find_emulator(emulator) is None:
        skipped = f"not run, {emulator} is not installed. {INSTALL_HINT}"
        return TargetReport(name, artefact.path, size, None, skipped)
    say(f"checking {name} on every test image")
    # Compiled a moment ago, by this very compiler.
    values = CheckOptions(data=DATA, device=device, rebuild=False)
    report = check(artefact.path, reference, values, say=say)
    return TargetReport(name, artefact.path, size, report)
