"""A library of two entries, of kernels written for it: what no exported network has.

`run`: float x, y [2, 3] of each image to their sum and, turned, their difference, and the bits
x >= y of both halves. `search`: codes [n, 4] of the whole run and a query and picks of each image
to scores [n] and the rows of a table that are picked.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np

from vitc.compiler.codegen import emit_object, lower
from vitc.compiler.link import link_library
from vitc.compiler.plan import Buffer, Constant, Cost, Output, Plan, Port, Step, plan_workspace
from vitc.compiler.tables import collect_weights, write_tables
from vitc.targets import find
from vitc.targets.kernels.emitter import Emitter, Kernel
from vitc.targets.layouts import Floats, Plain, Rows
from vitc.targets.packing import Axis

BATCH = 2
TABLE = np.arange(10, dtype=np.float32).reshape(5, 2) ** 2
X, Y = (Port(name, "float32", (2, 3)) for name in "xy")
QUERY = Port("query", "float32", (4,))
CODES = Port("codes", "float32", (None, 4), per_image=False)
PICKS = Port("picks", "int32", (3,), limit=len(TABLE))
SCORES = Port("scores", "float32", (None,))


def _both() -> Kernel:
    emitter = Emitter("both")
    with emitter.open() as e:
        x, y, total, difference = e.pointers(
            x="float32", y="float32", total="float32", difference="float32"
        )
        with e.loop(e.begin, e.end) as row:
            for column in range(3):
                at = row * 3 + column
                e.store(total, at, x[at] + y[at])
                e.store(difference, row * 32 + column, x[at] - y[at])
    return emitter.kernel(2)


def _larger() -> Kernel:
    emitter = Emitter("larger")
    with emitter.open() as e:
        x, y, out = e.pointers(x="float32", y="float32", out="uint32")
        with e.loop(e.begin, e.end) as row:
            word = e.constant("uint32", 0)
            for column in range(3):
                at = row * 3 + column
                word = word + e.cast("uint32", x[at] >= y[at]) * e.constant("uint32", 1 << column)
            e.store(out, row, word)
    return emitter.kernel(2)


def _score() -> Kernel:
    emitter = Emitter("score")
    with emitter.open() as e:
        query, codes, scores = e.pointers(query="float32", codes="float32", scores="float32")
        with e.loop(e.begin, e.end) as row:
            total = e.constant("float32", 0.0)
            for i in range(4):
                total = total + query[i] * codes[row * 4 + i]
            e.store(scores, row, total)
    return emitter.kernel(0)


def _pick() -> Kernel:
    emitter = Emitter("pick")
    with emitter.open() as e:
        picks, table, out = e.pointers(picks="int32", table="float32", out="float32")
        with e.loop(e.begin, e.end) as i:
            for column in range(2):
                e.store(out, i * 2 + column, table[picks[i] * 2 + column])
    return emitter.kernel(3)


def _step(kernel: Kernel, reads, writes, over: Port | None = None) -> Step:
    return Step(kernel, tuple(reads), tuple(writes), "layer", writes[0].name, Cost(), over)


def program() -> dict[str, Plan]:
    """Both entries, planned."""
    total = Buffer("0:sum", Plain(6, 6), (("sum", (("reshape", (2, 3)),)),))
    difference = Buffer("0:difference", Floats(2, 3, 32), (("difference", ()),))
    bits = Buffer("1:larger", Rows(2, Axis(3)), (("larger", ()),))
    turned = Output(Port("turned", "float32", (3, 2)), difference, (("transpose", (1, 0)),))
    run = Plan(
        [_step(_both(), [X, Y], [total, difference]), _step(_larger(), [X, Y], [bits])],
        (X, Y),
        (
            Output(Port("sum", "float32", (2, 3)), total, (("reshape", (2, 3)),)),
            turned,
            Output(Port("larger", "uint8", (2, 3)), bits, (("reshape", (2, 3)),)),
        ),
    )
    picked = Buffer("0:picked", Plain(6, 6), (("picked", ()),))
    search = Plan(
        [
            _step(_pick(), [PICKS, Constant(TABLE)], [picked]),
            _step(_score(), [QUERY, CODES], [SCORES], CODES),
        ],
        (QUERY, CODES, PICKS),
        (Output(Port("picked", "float32", (3, 2)), picked, (("reshape", (3, 2)),)),),
    )
    made = {"run": run, "search": search}
    for plan in made.values():
        plan_workspace(plan)
    return made


def make_library(folder: Path, keep: Path | None = None) -> Path:
    """Link the library; `keep` gets what it is linked of."""
    machine, made = find("x86-64-v2"), program()
    work = folder / "work"
    work.mkdir()
    kernels = [kernel for plan in made.values() for kernel in plan.kernels]
    emit_object(lower(kernels, machine, _nothing), machine, work / "kernels.o", _nothing)
    weights = collect_weights(made)
    tables = write_tables(made, weights, BATCH, machine)
    library = folder / "libvitc_model.so"
    link_library(work, library, work / "kernels.o", tables, weights.data, machine)
    if keep is not None:
        shutil.copytree(work, keep, dirs_exist_ok=True)
    return library


def _nothing(*_: object) -> None:
    pass
