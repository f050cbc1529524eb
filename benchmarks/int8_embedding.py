"""Table: what an integer embedding changes, in the product's own forms, and how fast it is.

    python benchmarks/table.py --only embedding --keep WORK --write docs/performance.md

Networks are trained once: micro on the digits, and others on class folders of 32 px pictures that
lie in WORK/cifar10, if there are any. What is found of them is kept in results/embedding.
"""

from __future__ import annotations

import ctypes
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from contenders import pinned
from kept import RESULTS, kept
from markdown import table
from networks import MAIN, Workshop

from vitc.compiler.codegen import emit_object, lower
from vitc.compiler.link import run_zig
from vitc.devices.machine import machine
from vitc.models import checkpoint
from vitc.models.embedding import with_embedding
from vitc.models.ends import calibrated, with_ends
from vitc.models.preprocessing import colours_first
from vitc.targets import TARGETS
from vitc.targets.isa import ISAS
from vitc.targets.kernels.byte_linear import ByteLinearShape, byte_linear_kernel
from vitc.targets.kernels.emitter import Kernel
from vitc.targets.kernels.float_linear import FloatLinearShape, float_linear_kernel
from vitc.targets.packing import round_up
from vitc.targets.table import Target, host_features
from vitc.training import TrainOptions, load_dataset, train
from vitc.training.data import Dataset
from vitc.verify.calibration import calibration
from vitc.verify.comparison import Given, Images
from vitc.verify.rounding_distance import rounded_by

__all__ = ["embedding_table"]

Say = Callable[[str], None]

_RESULTS = RESULTS / "embedding"
_FORMS = {"int15": 2, "int8": 1}
_TARGETS = ("x86", "x86-avx512bw", "x86-avx512")
_RUNS = 200
_ON_PICTURES = ("micro", "micro-swin", "micro-pvt")
_CALIBRATED = 64
_EPOCHS = 12
"""Of pictures in WORK/cifar10."""


def embedding_table(workshop: Workshop, say: Say) -> str:
    """Time of the embedding in each form, and what becomes of bits and classes."""
    columns = ("network", ">images", "form", ">bits that differ", ">same class", ">accuracy fp32")
    rows = []
    for name, found in _judged(workshop, say):
        for form, own in found.items():
            accuracy = own["accuracy"]
            rows.append(
                (
                    name,
                    str(own["images"]),
                    form,
                    f"{own['bits_that_differ']:.2%}",
                    f"{own['same_class']:.2%}",
                    f"{accuracy['fp32']:.2%}",
                    f"{accuracy['integer']:.2%}",
                )
            )
    judged = table((*columns, ">accuracy of the form"), rows)
    return f"{_timed(kept(_RESULTS, 'times', partial(_time, say)))}\n\n{judged}"


def _judged(workshop: Workshop, say: Say) -> Iterator[tuple[str, dict[str, Any]]]:
    """What is known of each trained network, and of those that can be made here."""
    pictures = workshop.folder / "cifar10"
    for preset, name, data in (
        ("micro", "digits", None),
        *((preset, "CIFAR-10", pictures) for preset in _ON_PICTURES),
    ):
        result = name if preset == "micro" else f"{preset} {name}"
        if data is None or data.is_dir() or (_RESULTS / f"{result}.json").is_file():
            make = partial(_judge, workshop, preset, data, say)
            yield f"{preset}, {name}", kept(_RESULTS, result, make)


def _judge(workshop: Workshop, preset: str, data: Path | None, say: Say) -> dict[str, Any]:
    path = workshop.folder / f"{preset}{'' if data is None else '-cifar10'}.safetensors"
    if not path.is_file():
        say(f"training {path.name}")
        options = TrainOptions(out=path, preset=preset)
        if data is not None:
            options = replace(options, data=str(data), epochs=_EPOCHS)
        train(options)
    model = checkpoint.load(path)
    say(f"rounding {path.name}")
    where = "digits" if data is None else str(data)
    images = _images(load_dataset(where, model.preprocessing, "test"))
    found = {
        form: rounded_by(model, with_embedding(model, form), images).to_dict() for form in _FORMS
    }
    # Of micro, nothing but the head is left for its ends.
    if preset != "micro":
        other = with_embedding(model, "int8")
        codes = calibrated(other, calibration(other, where, _CALIBRATED))
        found["int8, ends too"] = rounded_by(model, with_ends(other, codes), images).to_dict()
    return found


def _images(data: Dataset) -> Images:
    pixels = np.stack([data.pixels(number) for number in range(len(data))])
    return Images(Given({"input": colours_first(pixels)}), 1, labels=data.targets.numpy())


def _timed(found: dict[str, Any]) -> str:
    columns = ("target", ">fp32", ">int15", ">int8")
    rows = [
        (name, *(f"{own[form]:.2f} ms" for form in ("fp32", *_FORMS)))
        for name, own in found["milliseconds"].items()
    ]
    return (
        f"{table(columns, rows)}\n\nPatch embedding of {MAIN.preset} (196 x 768 x 384), one pinned "
        f"thread, fastest of {_RUNS} in turns; {found['machine']['cpu']}, load {found['load']}."
    )


def _time(say: Say) -> dict[str, Any]:
    """The kernels of DeiT-S beside the fp32 one, in turns."""
    best: dict[str, dict[str, float]] = {}
    load = Path("/proc/loadavg").read_text().split()[0]
    for name in _TARGETS:
        target = TARGETS[name]
        if not host_features().issuperset(target.features):
            continue
        say(f"timing embeddings of {name}")
        own = best[name] = {}
        calls = {form: _built(kernel, target) for form, kernel in _kernels(target).items()}
        with pinned(1):
            for _ in range(_RUNS):
                for form, call in calls.items():
                    start = time.perf_counter()
                    call()
                    taken = (time.perf_counter() - start) * 1e3
                    own[form] = min(own.get(form, taken), taken)
    return {"milliseconds": best, "machine": machine().to_dict(), "load": load}


def _kernels(target: Target) -> dict[str, Kernel]:
    isa, config = ISAS[target.isa], MAIN.config
    patch, outputs = config.patch_size, config.width
    rows, stride, runs = config.tokens - 1, round_up(config.width, 32), 3 * config.patch_size
    plain = FloatLinearShape(
        rows, outputs, runs, patch, "corners", 0, stride, prefix=1, by_row=True
    )
    made = {"fp32": float_linear_kernel("fp32", isa, plain)}
    for form, digits in _FORMS.items():
        shape = ByteLinearShape(rows, outputs, runs, patch, digits, stride, 1, by_row=True)
        made[form] = byte_linear_kernel(form, isa, shape)
    return made


def _built(kernel: Kernel, target: Target) -> Callable[[], object]:
    """The kernel on patches where they lie in a picture of zeros, with weights of zero."""
    with tempfile.TemporaryDirectory(prefix="vitc-embedding-") as name:
        folder = Path(name)
        emit_object(lower([kernel], target), target, folder / "k.o")
        run_zig(["-target", target.link, "-shared", "-o", "k.so", "k.o"], folder)
        function = getattr(ctypes.CDLL(str(folder / "k.so")), kernel.symbol)
    (height, width), patch = MAIN.config.sides, MAIN.config.patch_size
    down, across = (np.arange(0, side, patch) for side in (height, width))
    corners = (down[:, None] * width + across).reshape(-1).astype(np.int32)
    lines = np.arange(3)[:, None] * height * width + np.arange(patch) * width
    tables = [corners, lines.reshape(-1).astype(np.int32)]
    zeros = [np.zeros(1 << 21, np.uint8) for _ in range(6)]
    operands = [zeros[0], *tables, *zeros[1:3]]
    if kernel.symbol != "fp32":
        operands += zeros[3:5]
    memory = [*operands, zeros[5]]
    pointers = [ctypes.c_void_p(array.ctypes.data) for array in memory]
    return partial(_call, function, pointers, kernel.tasks, memory)


def _call(function: Any, pointers: list[ctypes.c_void_p], tasks: int, _kept: object) -> None:
    function(*pointers, 0, tasks)
