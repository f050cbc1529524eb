"""What spatial interaction and decoupled training give: every scheme on every backbone.

    python benchmarks/si_gain.py --data cifar10.tar.xz --images 500 --work runs
    python benchmarks/si_gain.py ... --write docs/evidence.md
    python benchmarks/si_gain.py ... --epochs 36 --results si36 --write .. --section si-long

Of each pair and seed, three networks are trained for the same number of epochs, by the same
teacher (the pair's full-precision twin, trained for as many): without SI, with SI at once, and with
SI by the decoupled recipe. Every result is a file (kept.py): a run that was stopped goes on where
it was, on another machine too, and the tables are made of what there is; `--report` trains nothing.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any, Final

from kept import RESULTS, begin, spread, taken, trained
from markdown import replace_section, table

from vitc.devices.machine import machine

_SCHEMES: Final = ("bibert", "recu", "bit")
_PLAIN: Final = "none"
_PRESETS: Final = ("micro", "micro-swin", "micro-pvt", "micro-nest")

WAYS: Final[Mapping[str, tuple[str, dict[str, Any]]]] = {
    _PLAIN: ("without SI", {"si": False}),
    "joint": ("SI, joint", {"si": True}),
    "decoupled": ("SI, decoupled", {"si": True, "recipe": "decoupled"}),
}


class Runs:
    """Trainings by preset, scheme, way and seed.

    Args:
        arguments: Of the command.
        data: Folder with class folders.
    """

    def __init__(self, arguments: argparse.Namespace, data: Path) -> None:
        self.arguments = arguments
        self.data = data
        self.found: dict[tuple[str, ...], dict[str, Any]] = {}

    def make(self) -> None:
        """Train what is missing, one seed after the other."""
        for seed, name in product(map(str, self.arguments.seeds), self.arguments.presets):
            twin = self._path(name, "twin", seed)
            students = [(name, *pair, seed) for pair in product(self.arguments.schemes, WAYS)]
            missing = not all(self._result(key).is_file() for key in students)
            self._train((name, "twin", seed), weights=missing, full_precision=True)
            for key in students:
                _, scheme, way, _ = key
                self._train(key, scheme=scheme, teacher=twin, **WAYS[way][1])

    def _path(self, *key: str) -> Path:
        return Path(self.arguments.work / f"{'-'.join(key)}.safetensors")

    def _result(self, key: tuple[str, ...]) -> Path:
        return Path(self.arguments.results / f"{'-'.join(key)}.train.json")

    def _train(self, key: tuple[str, ...], *, weights: bool = False, **options: Any) -> None:
        if self.arguments.report and not self._result(key).is_file():
            return
        self.found[key] = trained(
            self._path(*key),
            self.arguments.results,
            weights=weights and not self.arguments.report,
            preset=key[0],
            seed=int(key[-1]),
            data=str(self.data),
            epochs=self.arguments.epochs,
            learning_rate=self.arguments.learning_rate,
            threads=self.arguments.threads,
            **options,
        )

    def accuracies(self, *key: str) -> dict[str, float]:
        """Of the seeds that there are."""
        runs = {seed: self.found.get((*key, seed)) for seed in map(str, self.arguments.seeds)}
        return {seed: run["accuracy"] for seed, run in runs.items() if run}


def report(runs: Runs, images: int) -> str:
    """The tables, as Markdown."""
    arguments = runs.arguments
    rows: list[tuple[str, ...]] = []
    gains: dict[str, list[float]] = {way: [] for way in WAYS if way != _PLAIN}
    for name, scheme in product(arguments.presets, arguments.schemes):
        found = {way: runs.accuracies(name, scheme, way) for way in WAYS}
        if not found[_PLAIN]:
            continue
        more = {
            way: [value - found[_PLAIN][seed] for seed, value in found[way].items()]
            for way in gains
        }
        for way, values in more.items():
            gains[way] += values
        rows.append(
            (
                name,
                scheme,
                spread(runs.accuracies(name, "twin").values(), unit=""),
                *(spread(found[way].values(), unit="") for way in WAYS),
                *(spread(values, unit="") for values in more.values()),
            )
        )
    columns = (
        "backbone",
        "scheme",
        ">twin",
        *(f">{said}" for said, _ in WAYS.values()),
        *(f">gain of {WAYS[way][0]}" for way in gains),
    )
    setting = (
        f"{images} pictures of {arguments.data.name}, {arguments.epochs} epochs, rate "
        f"{arguments.learning_rate}, seeds {', '.join(map(str, arguments.seeds))}; "
        f"{machine().cpu}. Top-1 of the test images in percent, gains in points of the same seed: "
        "means, in brackets the least and the largest."
    )
    means = [f"- {WAYS[way][0]}: {_mean(values)}." for way, values in gains.items() if values]
    return "\n".join((setting, "", table(columns, rows), "", *means))


def _mean(values: Sequence[float]) -> str:
    points = [100 * value for value in values]
    spread_by = f", standard deviation {statistics.stdev(points):.1f}" if len(points) > 1 else ""
    return f"{statistics.fmean(points):+.1f} points in the mean of {len(points)} runs{spread_by}"


def main() -> None:
    """Make what is missing, and print or write the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--results", type=Path, default=RESULTS / "si_gain")
    parser.add_argument("--images", type=int, help="of each class to learn from")
    parser.add_argument("--test-images", type=int, help="of each class to judge by")
    parser.add_argument("--presets", nargs="+", default=_PRESETS)
    parser.add_argument("--schemes", nargs="+", default=_SCHEMES)
    parser.add_argument("--epochs", type=int, default=24)
    parser.add_argument("--learning-rate", type=float, default=5e-3)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--threads", type=int)
    parser.add_argument("--report", action="store_true", help="train nothing")
    parser.add_argument("--write", type=Path, help="document whose section is replaced")
    parser.add_argument("--section", default="si", help="the section's name")
    arguments = parser.parse_args()
    begin(arguments, ("write", "section", "seeds", "presets", "schemes", "report", "threads"))
    data = taken(arguments.data, arguments.work / "data", arguments.images, arguments.test_images)
    runs = Runs(arguments, data)
    runs.make()
    text = report(runs, sum(file.is_file() for file in (data / "train").rglob("*")))
    if arguments.write is None:
        print(text)
    else:
        replace_section(arguments.write, arguments.section, text)


if __name__ == "__main__":
    main()
