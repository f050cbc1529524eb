"""What pre-training without labels gives here: rows 5 and 7 to 11 of the claims of DMJD's abstract.

    python benchmarks/dmjd.py --data cifar10.tar.xz --dense camvid.tar --void 11 --work runs
    python benchmarks/dmjd.py ... --write docs/evidence.md

What is made is kept in the work folder: a run that was stopped goes on where it was. The figures of
a seed that is whole are a result (kept.py), also for another machine. `--data` is a folder with
class folders in train/ and test/, or an archive of one, of which `--images` and `--test-images` of
each class are taken.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from kept import RESULTS, begin, kept, spread, taken, trained
from markdown import replace_section, table

from vitc.devices.machine import machine
from vitc.models import build_network, save
from vitc.models.architectures import twin_preset
from vitc.training.dmjd.options import PretrainOptions
from vitc.training.dmjd.run import pretrain
from vitc.training.options import EpochReport
from vitc.training.probes.options import ProbeOptions
from vitc.training.probes.run import probe

_SECTION: Final = "dmjd"
_CURVE: Final = 5
"""Probes on the way of a pre-training."""

_TIMED: Final = ("one-long", "dmjd")
"""Whose accuracy is followed over time."""


@dataclass(frozen=True)
class Variant:
    """A pre-training that is compared.

    Attributes:
        name: For tables.
        changes: Of the options.
        longer: Times as many epochs, for as many effective ones.
    """

    name: str
    changes: dict[str, Any]
    longer: int = 1


VARIANTS: Final = {
    "one": Variant("1 view, masked only", {"views": 1, "theta": 0.0}),
    "one-long": Variant("1 view, masked only, twice the epochs", {"views": 1, "theta": 0.0}, 2),
    "one-jd": Variant("1 view, JD", {"views": 1}),
    "dm": Variant("DM, masked only", {"theta": 0.0}),
    "dmjd": Variant("DM + JD", {}),
    "dmjd-pixels": Variant("DM + JD, normalised pixels", {"target": "pixels"}),
    "mae": Variant("MAE", {"method": "mae"}),
}


@dataclass(frozen=True)
class Bench:
    """One comparison; methods make what is missing in the work folder.

    Attributes:
        arguments: Of the command.
        data: Folder with class folders.
        dense: Folder with pictures and masks, if there is one.
    """

    arguments: argparse.Namespace
    data: Path
    dense: Path | None

    def kept(self, name: str, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """A result, made only once."""
        return kept(self.arguments.work, name, make)

    def pretrained(self, key: str, seed: int) -> tuple[Path, dict[str, Any]]:
        """A twin, and its snapshots with the seconds that each took."""
        variant = VARIANTS[key]
        out = self.arguments.work / f"{key}-{seed}.safetensors"
        epochs = self.arguments.epochs * variant.longer
        wanted = {max(1, epochs * part // _CURVE) for part in range(1, _CURVE + 1)}

        def make() -> dict[str, Any]:
            def snap(report: EpochReport) -> None:
                if report.epoch in wanted:
                    shutil.copyfile(out, self._snapshot(key, seed, report.epoch))

            options = PretrainOptions(
                out=out,
                data=str(self.data),
                preset=self.arguments.preset,
                epochs=epochs,
                batch_size=self.arguments.batch_size,
                base_rate=self.arguments.rate,
                seed=seed,
                threads=self.arguments.threads,
                pictures_every=epochs,
                resume=out.with_suffix(".last.pt").is_file(),
                force=not out.with_suffix(".last.pt").is_file(),
                **variant.changes,
            )
            result = pretrain(options, snap)
            times = [report.seconds for report in result.history]
            return {
                "views": options.chosen.views,
                "images_per_second": statistics.median(
                    report.images_per_second for report in result.history
                ),
                "seconds": {str(epoch): sum(times[:epoch]) for epoch in sorted(wanted)},
                "images": result.images,
            }

        return out, self.kept(f"{key}-{seed}.pretrain", make)

    def _snapshot(self, key: str, seed: int, epoch: int) -> Path:
        return Path(self.arguments.work / f"{key}-{seed}.epoch{epoch}.safetensors")

    def untrained(self, seed: int) -> Path:
        """A twin before its first step."""
        import torch

        out = Path(self.arguments.work / f"untrained-{seed}.safetensors")
        if not out.is_file():
            torch.manual_seed(seed)
            chosen = twin_preset(self.arguments.preset)
            save(build_network(chosen.config, chosen.preprocessing), out)
        return out

    def probed(self, checkpoint: Path, seed: int) -> dict[str, float]:
        """Linear probe and nearest neighbours of a twin."""

        def make() -> dict[str, Any]:
            options = ProbeOptions(
                checkpoint, str(self.data), epochs=self.arguments.probe_epochs, seed=seed
            )
            found = probe(options)
            assert found.linear is not None  # noqa: S101 - it was asked for
            assert found.knn is not None  # noqa: S101 - it was asked for
            return {"linear": found.linear.accuracy, "knn": found.knn.accuracy}

        return self.kept(f"{checkpoint.stem}.probe", make)

    def dense_probed(self, checkpoint: Path, seed: int) -> float | None:
        """Mean intersection by union of the dense probe of a twin."""
        if self.dense is None:
            return None

        def make() -> dict[str, Any]:
            options = ProbeOptions(
                checkpoint,
                str(self.dense),
                linear=False,
                knn=False,
                dense=True,
                epochs=self.arguments.probe_epochs,
                batch_size=32,
                void=self.arguments.void,
                seed=seed,
            )
            found = probe(options).dense
            assert found is not None  # noqa: S101 - it was asked for
            return {"miou": found.miou}

        miou: float = self.kept(f"{checkpoint.stem}.dense", make)["miou"]
        return miou

    def trained(self, name: str, seed: int, **changes: Any) -> float:
        """Test accuracy of a network that was trained with labels."""
        accuracy: float = trained(
            self.arguments.work / f"{name}-{seed}.safetensors",
            self.arguments.work,
            data=str(self.data),
            preset=self.arguments.preset,
            epochs=self.arguments.train_epochs,
            seed=seed,
            threads=self.arguments.threads,
            **changes,
        )["accuracy"]
        return accuracy

    def seed(self, seed: int) -> dict[str, Any]:
        """All figures of a seed, made only once."""
        found = kept(self.arguments.results, f"seed-{seed}", lambda: self._seed(seed))
        by_labels = kept(self.arguments.results, f"students-{seed}", lambda: self._students(seed))
        return {**found, "student": {**found["student"], **by_labels}}

    def _students(self, seed: int) -> dict[str, Any]:
        """1-bit students of twins that have seen the labels, from scratch and from DMJD."""
        made = {}
        for start in ("untrained", "dmjd"):
            twin = self.arguments.work / f"tuned-{start}-{seed}.safetensors"
            if not twin.is_file():
                (self.arguments.work / f"{twin.stem}.train.json").unlink(missing_ok=True)
                self.tuned(start, seed)
            made[f"tuned-{start}"] = self.trained(
                f"student-tuned-{start}", seed, start=twin, teacher=twin
            )
        return made

    def tuned(self, start: str, seed: int) -> float:
        """Test accuracy of the twin, trained with labels from a pre-training or from scratch."""
        checkpoint = None if start == "untrained" else self.pretrained(start, seed)[0]
        return self.trained(f"tuned-{start}", seed, full_precision=True, start=checkpoint)

    def _seed(self, seed: int) -> dict[str, Any]:
        probes: dict[str, dict[str, float]] = {"untrained": self.probed(self.untrained(seed), seed)}
        runs: dict[str, dict[str, Any]] = {}
        checkpoints: dict[str, Path] = {"untrained": self.untrained(seed)}
        curves: dict[str, list[tuple[float, float]]] = {}
        for key in VARIANTS:
            checkpoints[key], runs[key] = self.pretrained(key, seed)
            probes[key] = self.probed(checkpoints[key], seed)
            if key in _TIMED:
                curves[key] = [
                    (
                        seconds,
                        self.probed(self._snapshot(key, seed, int(epoch)), seed)["linear"],
                    )
                    for epoch, seconds in runs[key]["seconds"].items()
                ]
        tuned = {start: self.tuned(start, seed) for start in ("untrained", "mae", "dmjd")}
        student = {
            "random": self.trained("student-random", seed),
            "dmjd": self.trained(
                "student-dmjd", seed, start=checkpoints["dmjd"], teacher=checkpoints["dmjd"]
            ),
        }
        dense = {
            key: self.dense_probed(checkpoints[key], seed) for key in ("untrained", "one", "dmjd")
        }
        return {
            "probes": probes,
            "runs": runs,
            "curves": curves,
            "tuned": tuned,
            "student": student,
            "dense": dense,
        }


def reached(curve: Sequence[tuple[float, float]], wanted: float) -> float | None:
    """Seconds after which a curve is as high as wanted, between probes in a straight line."""
    before = (0.0, 0.0)
    for point in curve:
        if point[1] >= wanted:
            share = (wanted - before[1]) / (point[1] - before[1]) if point[1] > before[1] else 1.0
            return before[0] + max(share, 0.0) * (point[0] - before[0])
        before = point
    return None


def report(found: Sequence[dict[str, Any]], arguments: argparse.Namespace) -> str:
    """The tables and what they say of the claims, as Markdown."""
    images = found[0]["runs"]["dmjd"]["images"]
    rows = []
    for key in ("untrained", *VARIANTS):
        runs = [one["runs"].get(key) for one in found]
        views = runs[0]["views"] if runs[0] else 0
        epochs = arguments.epochs * (VARIANTS[key].longer if key in VARIANTS else 0)
        seconds = [max(run["seconds"].values()) for run in runs if run]
        rows.append(
            (
                _name(key),
                str(epochs),
                str(epochs * views),
                f"{statistics.fmean(seconds):.0f}" if seconds else "0",
                spread(one["probes"][key]["linear"] for one in found),
                spread(one["probes"][key]["knn"] for one in found),
            )
        )
    probes = table(
        ("pre-training", ">epochs", ">ETE", ">seconds", ">linear probe", ">20 neighbours"), rows
    )
    names = {"untrained": "scratch", "mae": "MAE", "dmjd": "DM + JD"}
    others = table(
        ("what", ">result"),
        [
            *(
                (f"fine-tuned twin, {name}", spread(one["tuned"][key] for one in found))
                for key, name in names.items()
            ),
            ("1-bit student, random start", spread(one["student"]["random"] for one in found)),
            *(
                (
                    f"1-bit student, start and teacher {name}",
                    spread(one["student"][key] for one in found),
                )
                for key, name in (
                    ("dmjd", "DM + JD"),
                    ("tuned-untrained", "the twin from scratch"),
                    ("tuned-dmjd", "the fine-tuned twin, DM + JD"),
                )
            ),
            *(
                (
                    f"dense probe, mIoU, {_name(key)}",
                    spread(one["dense"][key] for one in found),
                )
                for key in ("untrained", "one", "dmjd")
            ),
        ],
    )
    setting = (
        f"{arguments.preset}, {images} pictures of {arguments.data.name}, seeds "
        f"{', '.join(map(str, arguments.seeds))}; {machine().cpu}, "
        f"{arguments.threads or 'usual'} threads. Means, in brackets the least and the largest. "
        f"With labels: {arguments.train_epochs} epochs."
    )
    return "\n".join((setting, "", probes, "", others, "", *claims(found)))


def _name(key: str) -> str:
    return VARIANTS[key].name if key in VARIANTS else "not trained"


def claims(found: Sequence[dict[str, Any]]) -> list[str]:
    """What the figures say of each claim, as list entries."""

    def linear(key: str) -> list[float]:
        return [one["probes"][key]["linear"] for one in found]

    def gain(key: str, base: str) -> str:
        pairs = zip(linear(key), linear(base), strict=True)
        return spread((a - b for a, b in pairs), unit=" points")

    times = []
    for one in found:
        end, wanted = one["curves"]["one-long"][-1]
        own = reached(one["curves"]["dmjd"], wanted)
        times.append(None if own is None else end / own)
    known = [time for time in times if time is not None]
    faster = (
        f"reached in {len(known)} of {len(times)} seeds, {spread(known, scale=1, unit=' x')} faster"
        if known
        else "not reached by DM + JD in any seed"
    )
    best = [max(pair) for pair in zip(linear("one-jd"), linear("dm"), strict=True)]
    beside = spread((a - b for a, b in zip(linear("dmjd"), best, strict=True)), unit=" points")

    def apart(kind: str, key: str, base: str) -> str:
        pairs = ((one[kind][key], one[kind][base]) for one in found)
        return spread((None if a is None else a - b for a, b in pairs), unit=" points")

    told = {
        "5, HOG against normalised pixels, linear probe": gain("dmjd", "dmjd-pixels"),
        "7, 1 view with twice the epochs in less time": faster,
        "7, against 1 view, equal epochs": gain("dmjd", "one"),
        "8, JD beside 1 view": gain("one-jd", "one"),
        "8, JD beside DM": gain("dmjd", "dm"),
        "9, against the better of DM and JD": beside,
        "9, fine-tuned, against scratch": apart("tuned", "dmjd", "untrained"),
        "9, fine-tuned, against MAE": apart("tuned", "dmjd", "mae"),
        "10, dense probe, against 1 view": apart("dense", "dmjd", "one"),
        "11, 1-bit student, against a random start": apart("student", "dmjd", "random"),
        "11, 1-bit student of the fine-tuned twin, against that of a twin from scratch": apart(
            "student", "tuned-dmjd", "tuned-untrained"
        ),
    }
    return [f"- Row {what}: {figure}." for what, figure in told.items()]


def main() -> None:
    """Make what is missing, and print or write the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--dense", type=Path, help="folder or archive for `vitc probe --dense`")
    parser.add_argument("--void", type=int, default=255)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--results", type=Path, default=RESULTS / "dmjd")
    parser.add_argument("--images", type=int, help="of each class to learn from")
    parser.add_argument("--test-images", type=int, help="of each class to judge by")
    parser.add_argument("--preset", default="mini")
    parser.add_argument("--epochs", type=int, default=50)
    parser.add_argument("--train-epochs", type=int, default=30)
    parser.add_argument("--probe-epochs", type=int, default=90)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--rate", type=float, default=1.5e-3, help="for 256 images")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--threads", type=int)
    parser.add_argument("--write", type=Path, help="document whose section is replaced")
    arguments = parser.parse_args()
    begin(arguments, ("write", "seeds"))
    bench = Bench(
        arguments,
        taken(arguments.data, arguments.work / "data", arguments.images, arguments.test_images),
        None
        if arguments.dense is None
        else taken(arguments.dense, arguments.work / "dense", None, None),
    )
    text = report([bench.seed(seed) for seed in arguments.seeds], arguments)
    if arguments.write is None:
        print(text)
    else:
        replace_section(arguments.write, _SECTION, text)


if __name__ == "__main__":
    main()
