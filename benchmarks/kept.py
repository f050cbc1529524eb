"""Results that a script makes once and keeps as files, so that it goes on where it was stopped.

A script has two folders: one for what is large and can be made again (data, checkpoints), and one
for its results, a small JSON file each. The second is in the repository, under results/, so that a
table that took days grows on any machine; what a missing result needs from the first is made again.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import tarfile
from collections import Counter
from collections.abc import Callable, Collection, Iterable
from pathlib import Path, PurePosixPath
from typing import Any

from vitc.training import TrainOptions, train

__all__ = ["RESULTS", "begin", "kept", "remake", "spread", "taken", "trained"]


RESULTS = Path(__file__).parent / "results"
"""Where results are kept by default, in a folder for each script."""


def begin(arguments: argparse.Namespace, free: Collection[str]) -> None:
    """Make the folders, which belong to one set of options.

    Args:
        arguments: Of the script; `work` is the folder of what is large, `results` of the results.
        free: Names of those that may change from one call to the next, beside those two. Of paths
            only the name counts.

    Raises:
        SystemExit: If a folder was made with other options.
    """
    asked = {
        name: value.name if isinstance(value, Path) else str(value)
        for name, value in vars(arguments).items()
        if name not in {*free, "work", "results"}
    }
    for folder in (arguments.work, arguments.results):
        folder.mkdir(parents=True, exist_ok=True)
        state = folder / "asked.json"
        if state.is_file() and json.loads(state.read_text()) != asked:
            raise SystemExit(
                f"{folder} was made with other options: {state.read_text()}\n"
                "Give --work and --results folders of their own."
            )
        state.write_text(json.dumps(asked, indent=1) + "\n")


def kept(results: Path, name: str, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """A result, made only once."""
    file = results / f"{name}.json"
    if not file.is_file():
        print(f"{name} ..", flush=True)
        part = file.with_suffix(".part")
        part.write_text(json.dumps(make(), indent=1) + "\n")
        part.replace(file)
    found: dict[str, Any] = json.loads(file.read_text())
    return found


def trained(out: Path, results: Path, *, weights: bool = False, **options: Any) -> dict[str, Any]:
    """A training with labels, which goes on where it was stopped; its test accuracy and more.

    Args:
        out: Its checkpoint.
        results: Folder of results.
        weights: Whether the checkpoint is needed, so that it is trained again where only the result
            is there.
        **options: Of the training.
    """
    last = out.with_suffix(".last.pt")

    def make() -> dict[str, Any]:
        resume = last.is_file()
        result = train(TrainOptions(out=out, resume=resume, force=not resume, **options))
        return {
            "accuracy": result.test_accuracy,
            "best_epoch": result.best_epoch,
            "loss": result.history[-1].loss,
            "seconds": result.seconds,
            "images_per_second": statistics.median(
                report.images_per_second for report in result.history
            ),
        }

    name = f"{out.stem}.train"
    if weights:
        remake(out, results, name)
    return kept(results, name, make)


def remake(out: Path, results: Path, name: str) -> None:
    """Forget a result whose checkpoint is needed and is not there."""
    if not out.is_file():
        (results / f"{name}.json").unlink(missing_ok=True)


def taken(source: Path, folder: Path, images: int | None, tests: int | None) -> Path:
    """A folder, or that of an archive, extracted once.

    Args:
        source: A folder or an archive.
        folder: Where an archive is extracted.
        images: Of each class folder of train/, of an archive.
        tests: Of each other one.
    """
    if source.is_dir():
        return source
    if not folder.is_dir():
        part = folder.with_suffix(".part")
        shutil.rmtree(part, ignore_errors=True)
        counts: Counter[PurePosixPath] = Counter()
        with tarfile.open(source) as archive:
            for member in archive:
                place = PurePosixPath(member.name)
                most = images if "train" in place.parts else tests
                if member.isfile():
                    counts[place.parent] += 1
                if member.isdir() or most is None or counts[place.parent] <= most:
                    archive.extract(member, part, filter="data")
        part.replace(folder)
    inside = [entry for entry in folder.iterdir() if entry.is_dir()]
    return inside[0] if len(inside) == 1 else folder


def spread(values: Iterable[float | None], *, scale: float = 100, unit: str = " %") -> str:
    """A mean, with the least and the largest of the seeds."""
    known = [scale * value for value in values if value is not None]
    if not known:
        return "-"
    mean = statistics.fmean(known)
    return f"{mean:.1f}{unit} ({min(known):.1f} to {max(known):.1f})"
