"""What inflating and shrinking give, and what a bit costs: recall, bytes and words a pair.

    python benchmarks/retrieval.py --work runs --rows I I-B --seeds 0
    python benchmarks/retrieval.py --data flickr8k.tar --work runs --write docs/evidence.md

Each row is a training of `vitc retrieve`, judged by the test pictures. Every result is a file
(kept.py): a run that was stopped goes on where it was, on another machine too, and the table is
made of what there is; `--report` trains nothing.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from kept import RESULTS, begin, kept, remake, spread, taken
from markdown import replace_section, table

from vitc.devices.machine import machine
from vitc.models import load
from vitc.models.architectures.retrieval import RetrievalConfig
from vitc.names import GLYPHS
from vitc.training.retrieval.options import RetrievalOptions, RetrievalResult, ShrinkOptions
from vitc.training.retrieval.run import shrink, train

_SECTION: Final = "retrieval"
_RECALLS: Final = tuple(
    f"{way}_r{k}" for way in ("text_to_image", "image_to_text") for k in (1, 5, 10)
)


@dataclass(frozen=True)
class Row:
    """A training.

    Attributes:
        said: What it is, in words.
        claim: Number of the claim that it is for (Inflate and Shrink, the abstract's).
        teacher: Row that it is shrunken from; empty for a training of its own.
        options: Of the training.
    """

    said: str
    claim: str
    teacher: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)


_TRAIN: Final = RetrievalOptions.epochs
_SHRINK: Final = ShrinkOptions.epochs

ROWS: Final[Mapping[str, Row]] = {
    "B": Row("base", "4, 6, 8", options={"mode": "base"}),
    "I": Row("inflated, 8 codes", "4, 8", options={"mode": "inflate"}),
    "I32": Row("inflated, 32 codes", "4", options={"mode": "inflate", "codes": 32}),
    "F": Row("fast, trained directly", "6", options={"mode": "fast"}),
    "B+": Row(
        "base, epochs of I and I-B", "6",
        options={"mode": "base", "epochs": _TRAIN + _SHRINK},
    ),
    "F+": Row(
        "fast, epochs of I, I-B and I-B-F", "6",
        options={"mode": "fast", "epochs": _TRAIN + 2 * _SHRINK},
    ),
    "I-B": Row("shrunken base", "6, 8", "I", {"to": "base"}),
    "I-B0": Row(
        "shrunken base, encoders anew", "6", "I",
        {"to": "base", "epochs": _TRAIN, "float_epochs": -(-_TRAIN // 2)},
    ),
    "I-B-F": Row("shrunken fast", "6, 8", "I-B", {"to": "fast"}),
    "I-F": Row("fast, not by way of base", "6", "I", {"to": "fast"}),
    "B64": Row("base, d 64", "11", options={"mode": "base", "width": 64}),
    "B128": Row("base, d 128", "11", options={"mode": "base", "width": 128}),
    "BF": Row(
        "base, float vectors, d 256", "11", options={"mode": "base", "floats": True}
    ),
    "twin": Row(
        "base, full precision", "11",
        options={"mode": "base", "floats": True, "full_precision": True},
    ),
    "ranking": Row(
        "base, ranking loss alone", "recipe", options={"mode": "base", "contrast": 0.0}
    ),
    "2e-3": Row("base, packed rate 2e-3", "recipe", options={"mode": "base", "packed_rate": 2e-3}),
    "1e-2": Row("base, packed rate 1e-2", "recipe", options={"mode": "base", "packed_rate": 1e-2}),
    "alone": Row(
        "base, no twin before", "recipe", options={"mode": "base", "float_epochs": 0}
    ),
}  # fmt: skip


class Runs:
    """Trainings by row and seed.

    Args:
        arguments: Of the command.
    """

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.arguments = arguments

    def path(self, name: str, seed: int) -> Path:
        """Checkpoint of a row."""
        return Path(self.arguments.work / f"{name}-{seed}.safetensors")

    def make(self, name: str, seed: int) -> dict[str, Any]:
        """The result of a row, trained if it is missing, its teacher before it."""
        row, out = ROWS[name], self.path(name, seed)
        asked = {} if self.arguments.epochs is None else {"epochs": self.arguments.epochs}
        if row.teacher and not self._result(name, seed).is_file():
            teacher = self.path(row.teacher, seed)
            remake(teacher, self.arguments.results, f"{row.teacher}-{seed}")
            self.make(row.teacher, seed)

        def run() -> dict[str, Any]:
            resume = out.with_suffix(".last.pt").is_file()
            given: dict[str, Any] = {
                "out": out,
                "data": self.arguments.data,
                "threads": self.arguments.threads,
                "seed": seed,
                "resume": resume,
                "force": not resume,
                **asked,
                **row.options,
            }
            if row.teacher:
                teacher = self.path(row.teacher, seed)
                return _facts(shrink(ShrinkOptions(teacher=teacher, **given)))
            return _facts(train(RetrievalOptions(**given)))

        return kept(self.arguments.results, f"{name}-{seed}", run)

    def _result(self, name: str, seed: int) -> Path:
        return Path(self.arguments.results / f"{name}-{seed}.json")

    def found(self, name: str) -> dict[int, dict[str, Any]]:
        """Results of the seeds that there are."""
        seeds = self.arguments.seeds
        there = [s for s in seeds if self._result(name, s).is_file()]
        return {seed: self.make(name, seed) for seed in there}


def _facts(result: RetrievalResult) -> dict[str, Any]:
    config = load(result.checkpoint).config
    assert isinstance(config, RetrievalConfig)  # noqa: S101 - of this run
    bits = config.width if config.packed else 32 * config.width
    return {
        "test": dict(result.test),
        "chance": dict(result.chance),
        "images": result.test_images,
        "texts": result.test_texts,
        "epochs": len(result.history),
        "seconds": result.seconds,
        "bytes": config.image_vectors * bits // 8,
        "words": config.image_vectors * config.text_vectors * -(-bits // 64),
    }


def report(runs: Runs) -> str:
    """The table, as Markdown."""
    arguments, rows, sizes = runs.arguments, list[tuple[str, ...]](), ""
    for name, row in ROWS.items():
        found = list(runs.found(name).values())
        if not found:
            continue
        first = found[0]
        chance = first["chance"]["text_to_image_r10"]
        sizes = (
            f"{first['images']} test pictures, {first['texts']} captions, chance R@10 {chance:.1%}"
        )
        recalls = (spread([one["test"][key] for one in found], unit="") for key in _RECALLS)
        minutes = sum(one["seconds"] for one in found) / len(found) / 60
        rows.append(
            (
                name,
                row.said,
                row.claim,
                f"{first['epochs']}",
                *recalls,
                f"{first['bytes']:,}",
                f"{first['words']:,}",
                f"{minutes:.1f}",
            )
        )
    ways = ((way, k) for way in ("by text", "by image") for k in (1, 5, 10))
    columns = (
        "row", "model", "claim", ">epochs", *(f">{way} R@{k}" for way, k in ways),
        ">bytes an image", ">words a pair", ">minutes",
    )  # fmt: skip
    setting = (
        f"{Path(arguments.data).name}, seeds "
        f"{', '.join(map(str, arguments.seeds))}; {sizes}; {machine().cpu}. Recalls in percent: "
        "means, in brackets the least and the largest."
    )
    return "\n".join((setting, "", table(columns, rows)))


def main() -> None:
    """Make what is missing, and print or write the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--data", default=GLYPHS)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--results", type=Path, default=RESULTS / "retrieval")
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=[*ROWS])
    parser.add_argument("--epochs", type=int, help="by default the commands' own")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--threads", type=int)
    parser.add_argument("--report", action="store_true", help="train nothing")
    parser.add_argument("--write", type=Path, help="document whose section is replaced")
    arguments = parser.parse_args()
    begin(arguments, ("write", "seeds", "rows", "report", "threads"))
    if arguments.data != GLYPHS:
        arguments.data = str(taken(Path(arguments.data), arguments.work / "data", None, None))
    runs = Runs(arguments)
    if not arguments.report:
        for seed in arguments.seeds:
            for name in arguments.rows:
                runs.make(name, seed)
    text = report(runs)
    if arguments.write is None:
        print(text)
    else:
        replace_section(arguments.write, _SECTION, text)


if __name__ == "__main__":
    main()
