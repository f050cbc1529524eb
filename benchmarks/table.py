"""Makes every table of docs/performance.md.

python benchmarks/table.py                               all tables, to the screen
python benchmarks/table.py --quick                       DeiT-S only, fewer runs
python benchmarks/table.py --write docs/performance.md   and into the document
python benchmarks/table.py --only layers,arm             some tables
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from amx_table import amx_table
from arm_table import arm_table
from family_table import family_table
from int8_embedding import embedding_table
from kernel_table import kernel_table
from library_tables import layer_table, memory_table, thread_table
from machine_table import machine_table
from markdown import replace_section
from networks import Workshop
from ratio_table import avx2_table, ratio_table
from task_table import task_table
from training_table import training_table

from vitc.devices.machine import machine

_RUNS = 60
_QUICK_RUNS = 30
_KERNEL_RUNS = 600
_TIMED = (
    *("ratios", "avx2", "tasks", "kernels", "layers", "layers-avx2"),
    *("threads", "memory", "training"),
)
"""Tables whose machine is said below them; others say it themselves, or are not of one."""


def say(text: str) -> None:
    """Say on stderr what is being done."""
    print(text, file=sys.stderr, flush=True)


def tables(workshop: Workshop, *, quick: bool) -> dict[str, tuple[str, Callable[[], str]]]:
    """Name of each table: its title, and what makes it."""
    runs = _QUICK_RUNS if quick else _RUNS
    return {
        "machine": ("Machine and peaks", machine_table),
        "ratios": ("One thread", lambda: ratio_table(workshop, runs, say, quick=quick)),
        "avx2": ("AVX2 only", lambda: avx2_table(workshop, runs, say)),
        "family": ("Backbones", lambda: family_table(workshop, runs, say)),
        "tasks": ("Detection and segmentation", lambda: task_table(workshop, runs, say)),
        "kernels": ("fp32 kernels", lambda: kernel_table(_KERNEL_RUNS, say)),
        "layers": ("Layers", lambda: layer_table(workshop, say)),
        "layers-avx2": ("Layers, AVX2 only", lambda: layer_table(workshop, say, "x86")),
        "threads": ("Two threads", lambda: thread_table(workshop, runs, say)),
        "memory": ("Memory and start", lambda: memory_table(workshop, say, quick=quick)),
        "embedding": ("An int8 embedding", lambda: embedding_table(workshop, say)),
        "training": ("Training", lambda: training_table(say)),
        "amx": ("AMX, modelled", lambda: amx_table(workshop, say)),
        "arm": ("ARM, counted and modelled", lambda: arm_table(workshop, say)),
    }


def main() -> None:
    """Parse, make the tables that are asked for, print and write them."""
    parser = argparse.ArgumentParser(description="Makes the tables of docs/performance.md.")
    parser.add_argument("--quick", action="store_true", help="DeiT-S only, fewer runs")
    parser.add_argument("--write", type=Path, metavar="FILE", help="document to update")
    parser.add_argument("--only", default="", metavar="NAMES", help="tables, with commas between")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="where models are made and kept")
    options = parser.parse_args()
    wanted = [name for name in options.only.split(",") if name]
    with tempfile.TemporaryDirectory(prefix="vitc-tables-") as scratch:
        folder: Path = options.keep or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        every = tables(Workshop(folder), quick=options.quick)
        unknown = sorted(set(wanted) - set(every))
        if unknown:
            parser.error(f"no table {', '.join(unknown)}; known: {', '.join(every)}")
        for name in wanted or every:
            title, make = every[name]
            text = make()
            if name in _TIMED:
                text = f"{text}\n\nMade on {machine().cpu}."
            print(f"## {title}\n\n{text}\n", flush=True)
            if options.write is not None:
                replace_section(options.write, name, text)


if __name__ == "__main__":
    main()
