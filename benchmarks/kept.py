"""Results that a script makes once and keeps as files, so that it goes on where it was stopped."""

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

__all__ = ["begin", "kept", "spread", "taken", "trained"]


def begin(arguments: argparse.Namespace, free: Collection[str]) -> None:
    """Make the work folder, which belongs to one set of options.

    Args:
        arguments: Of the script; `work` is the folder.
        free: Names of those that may change from one call to the next, beside `work`.

    Raises:
        SystemExit: If the folder was made with other options.
    """
    arguments.work.mkdir(parents=True, exist_ok=True)
    asked = {k: str(v) for k, v in vars(arguments).items() if k not in {*free, "work"}}
    state = arguments.work / "asked.json"
    if state.is_file() and json.loads(state.read_text()) != asked:
        raise SystemExit(f"{arguments.work} was made with other options: {state.read_text()}")
    state.write_text(json.dumps(asked))


def kept(work: Path, name: str, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """A result, made only once."""
    file = work / f"{name}.json"
    if not file.is_file():
        print(f"{name} ..", flush=True)
        part = file.with_suffix(".part")
        part.write_text(json.dumps(make(), indent=1))
        part.replace(file)
    found: dict[str, Any] = json.loads(file.read_text())
    return found


def trained(out: Path, **options: Any) -> dict[str, Any]:
    """A training with labels, which goes on where it was stopped; its test accuracy and more."""
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

    return kept(out.parent, f"{out.stem}.train", make)


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
