"""Detection and segmentation: no blocks, the full-precision twin, binarized, with SI.

    python benchmarks/tasks.py --work runs --write docs/evidence.md
    python benchmarks/tasks.py --work runs --bccd bccd.tar --camvid camvid.tar ...

Of each data set and task, networks of one trunk, head and number of epochs. Every result is a file
(kept.py): a run that was stopped goes on where it was, on another machine too, and the table is
made of what there is; `--sets` and `--rows` choose what is trained now, `--report` trains nothing.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any, Final

from kept import RESULTS, begin, kept, remake, taken
from markdown import replace_section, table

from vitc.devices.machine import machine
from vitc.training.tasks.options import TaskOptions
from vitc.training.tasks.train import train_task

_SECTION: Final = "tasks"
_TWIN: Final = "twin"

ROWS: Final[Mapping[str, tuple[str, dict[str, Any]]]] = {
    "control": ("no blocks", {"blocks": False}),
    _TWIN: ("float twin", {"full_precision": True}),
    "plain": ("binarized", {"si": False}),
    "si": ("binarized + SI", {"si": True}),
    "distilled": ("binarized + SI, from the twin", {"si": True}),
}
"""Rows of the table; the last one begins with the twin's weights and learns from it."""


@dataclass(frozen=True)
class Set:
    """A data set and a task.

    Attributes:
        task: As of `vitc train --task`.
        data: As of ``--data``; None for an archive that the command names.
        archive: Option that names it.
        epochs: Of each of its trainings.
        options: Of its trainings.
        floats: Of those without bits alone.
    """

    task: str
    data: str | None = None
    archive: str | None = None
    epochs: int = 40
    options: Mapping[str, Any] = field(default_factory=dict)
    floats: Mapping[str, Any] = field(default_factory=dict)


# Photos are few, 205 and 367 where an epoch has 768 scenes, so batches are small.
_PHOTOS: Final = {"image_size": (96, 128), "batch_size": 8, "learning_rate": 2e-3}
_PHOTOS_SLOWER: Final = {"learning_rate": 1e-3}

# The head reads digits, and does not see as far as their marks; every block of `micro` does.
# At half the rate bits stay behind (mAP@0.5 0.77 in place of 0.88).
_MARKED: Final = {"preset": "micro"}
_SLOWER: Final = {"learning_rate": 2e-3}

SETS: Final[Mapping[str, Set]] = {
    "digits-detection": Set("detection", "digits"),
    "digits-segmentation": Set("segmentation", "digits", epochs=20),
    "marked-detection": Set(
        "detection", "digits-marked", epochs=50, options=_MARKED, floats=_SLOWER
    ),
    "marked-segmentation": Set(
        "segmentation", "digits-marked", epochs=60, options=_MARKED, floats=_SLOWER
    ),
    "bccd": Set("detection", archive="bccd", options=_PHOTOS, floats=_PHOTOS_SLOWER),
    "camvid": Set(
        "segmentation",
        archive="camvid",
        epochs=20,
        options={**_PHOTOS, "void": 11},
        floats=_PHOTOS_SLOWER,
    ),
}


def made(arguments: argparse.Namespace, name: str, row: str) -> dict[str, Any] | None:
    """Figures of a network, trained if it is asked for; None if there are none."""
    chosen = SETS[name]
    out: Path = arguments.work / f"{name}-{row}.safetensors"
    known = (arguments.results / f"{name}-{row}.train.json").is_file()
    archive = None if chosen.archive is None else getattr(arguments, chosen.archive)
    wanted = name in arguments.sets and row in arguments.rows and not arguments.report
    if not known and (not wanted or (chosen.data is None and archive is None)):
        return None
    twin = out.with_name(f"{name}-{_TWIN}.safetensors")
    more = {"start": twin, "teacher": twin} if row == "distilled" else {}
    floats = chosen.floats if row in ("control", _TWIN) else {}
    if more and not known and not twin.is_file():
        remake(twin, arguments.results, f"{name}-{_TWIN}.train")
        made(arguments, name, _TWIN)

    def make() -> dict[str, Any]:
        data = chosen.data or str(taken(archive, arguments.work / name, None, None))
        resume = out.with_suffix(".last.pt").is_file()
        result = train_task(
            TaskOptions(
                task=chosen.task,
                data=data,
                out=out,
                seed=arguments.seed,
                threads=arguments.threads,
                resume=resume,
                force=not resume,
                epochs=chosen.epochs,
                **{**chosen.options, **floats, **ROWS[row][1], **more},
            ),
            progress=lambda report: print(" ", report.flat(), flush=True),
        )
        speeds = [report.images_per_second for report in result.history]
        return {
            "test": result.test,
            "validation": result.validation,
            "best_epoch": result.best_epoch,
            "epochs": len(result.history),
            "processor": machine().cpu,
            "seconds": result.seconds,
            "images_per_second": statistics.median(speeds),
        }

    return kept(arguments.results, f"{name}-{row}.train", make)


def report(found: Mapping[tuple[str, str], dict[str, Any]], arguments: argparse.Namespace) -> str:
    """The table, as Markdown."""
    rows = []
    for (name, row), figures in found.items():
        test, chosen = figures["test"], SETS[name]
        size = chosen.options.get("image_size", (64, 64))
        rows.append(
            (
                f"{name.partition('-')[0]}, {chosen.task}, {size[0]} x {size[1]}",
                f"`{chosen.options.get('preset', 'micro-swin')}`",
                ROWS[row][0],
                f"{figures['epochs']}",
                *(f"{test[key]:.3f}" if key in test else "" for key in ("map50", "map", "miou")),
                f"{figures['images_per_second']:.0f}",
            )
        )
    columns = ("data", "trunk", "network", ">epochs", ">mAP@0.5", ">mAP", ">mIoU", ">images/s")
    made_on = sorted({figures["processor"] for figures in found.values()})
    setting = (
        f"BiBERT, dense towers, seed {arguments.seed}; of the test pictures, by the epoch that "
        f"validation chose; {', '.join(made_on)}."
    )
    return "\n".join((setting, "", table(columns, rows)))


def main() -> None:
    """Make what is missing, and print or write the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--results", type=Path, default=RESULTS / "tasks")
    parser.add_argument("--bccd", type=Path, help="folder or archive")
    parser.add_argument("--camvid", type=Path, help="folder or archive")
    parser.add_argument("--sets", nargs="+", default=list(SETS), choices=list(SETS))
    parser.add_argument("--rows", nargs="+", default=list(ROWS), choices=list(ROWS))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--report", action="store_true", help="train nothing")
    parser.add_argument("--write", type=Path, help="document whose section is replaced")
    arguments = parser.parse_args()
    begin(arguments, ("write", "sets", "rows", "report", "threads", "bccd", "camvid"))
    found = {}
    for name, row in product(SETS, ROWS):
        figures = made(arguments, name, row)
        if figures is not None:
            found[name, row] = figures
    text = report(found, arguments)
    if arguments.write is None:
        print(text)
    else:
        replace_section(arguments.write, _SECTION, text)


if __name__ == "__main__":
    main()
