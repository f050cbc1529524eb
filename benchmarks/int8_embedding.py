"""Table: what a patch embedding of uint8 pixels x int8 weights would give, and what it would cost.

The product's embedding is fp32 and exact to rounding. This one is not offered; the table says why.
"""

from __future__ import annotations

import copy
import ctypes
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from contenders import pinned
from markdown import table
from networks import MAIN, Workshop
from tvm.script.ir_builder import tirx as T

from vitc.compiler.codegen import emit_object, lower
from vitc.compiler.link import run_zig
from vitc.models import checkpoint, taps
from vitc.models.sibivit import SIBiViT
from vitc.targets import TARGETS
from vitc.targets.isa import ISAS, Isa
from vitc.targets.kernels.emitter import Emitter, Kernel
from vitc.targets.kernels.float_linear import FloatLinearShape, float_linear_kernel
from vitc.targets.packing import round_up
from vitc.targets.table import Target, host_features
from vitc.training import TrainOptions, load_dataset, train

__all__ = ["embedding_table"]

Say = Callable[[str], None]

_TARGET = "x86-avx512"
_RUNS = 200
_GROUP = 4
"""Products that one lane of `vpdpbusd` adds."""


def embedding_table(workshop: Workshop, say: Say) -> str:
    """Time of the embedding in fp32 and int8, and what becomes of bits and classes."""
    timed = _time()
    model = checkpoint.load(_trained(workshop, say))
    say("judging an int8 embedding on the digits")
    data = load_dataset("digits", model.preprocessing, "test")
    images = torch.cat(list(data.images))
    columns = ("network", ">bits that differ", ">same class", ">accuracy fp32", ">accuracy int8")
    row = (f"micro, {len(images)} test images", *_judge(model, images, data.targets))
    return f"{timed}\n\n{table(columns, [row])}"


def _trained(workshop: Workshop, say: Say) -> Path:
    path = workshop.folder / "micro.safetensors"
    if not path.is_file():
        say("training micro on the digits")
        train(TrainOptions(out=path))
    return path


def quantized(model: SIBiViT) -> SIBiViT:
    """A copy whose embedding weights, with the normalisation folded in, are int8 by channel.

    Pixels are bytes already, so weights are all that is rounded.
    """
    other = copy.deepcopy(model)
    std = torch.tensor(model.preprocessing.std, dtype=torch.float64).reshape(1, 3, 1, 1)
    with torch.no_grad():
        weight = other.patch_embed.proj.weight
        folded = weight.double() / std
        scale = folded.abs().amax((1, 2, 3), keepdim=True) / 127
        weight.copy_((folded / scale).round() * scale * std)
    return other


@torch.inference_mode()
def _judge(model: SIBiViT, images: torch.Tensor, targets: torch.Tensor) -> tuple[str, ...]:
    """Share of differing bits, agreement, and both accuracies."""
    found = []
    for network in (model.eval(), quantized(model).eval()):
        bits: list[torch.Tensor] = []
        with taps.observe(partial(_keep_bits, bits)):
            logits = network(images)
        found.append((logits.argmax(1), torch.cat(bits)))
    (left, left_bits), (right, right_bits) = found
    differing = (left_bits != right_bits).double().mean().item()
    agreement = (left == right).double().mean().item()
    accuracies = [f"{(p == targets).double().mean():.2%}" for p in (left, right)]
    return (f"{differing:.2%}", f"{agreement:.1%}", *accuracies)


def _keep_bits(kept: list[torch.Tensor], event: taps.TapEvent) -> None:
    if event.kind == "bits" and not event.name.endswith("mask"):
        kept.append(event.value.reshape(-1).to(torch.uint8))


def _time() -> str:
    """The kernel of DeiT-S with AVX-512 VNNI beside the fp32 one, in turns."""
    target = TARGETS[_TARGET]
    if not host_features().issuperset({*target.features, "avx512_vnni"}):
        return "This machine has no AVX-512 VNNI, so an int8 kernel was not timed."
    isa = ISAS[target.isa]
    config = MAIN.config
    size = config.image_size
    patch, stride = config.patch_size, round_up(config.width, 32)
    shape = _Patches((size, size), patch, 3, stride, 1)
    grid_y, grid_x = shape.grid
    product = FloatLinearShape(
        grid_y * grid_x, config.width, 3 * patch, patch, "corners", 0, stride, prefix=1, by_row=True
    )
    fp32 = _built(float_linear_kernel("fp32", isa, product), target, 5)
    int8 = _built(_int8_kernel("int8", isa, shape), target, 4)
    best = {}
    with pinned(1):
        for _ in range(_RUNS):
            for name, call in (("fp32", fp32), ("int8", int8)):
                start = time.perf_counter()
                call()
                taken = time.perf_counter() - start
                best[name] = min(best.get(name, taken), taken)
    return (
        f"Embedding of {MAIN.preset} with {isa.name}, one pinned thread, fastest of {_RUNS} in "
        f"turns: fp32 {best['fp32'] * 1e3:.2f} ms, uint8 pixels x int8 weights "
        f"{best['int8'] * 1e3:.2f} ms."
    )


def _built(kernel: Kernel, target: Target, operands: int) -> Callable[[], object]:
    """The kernel on zeros."""
    with tempfile.TemporaryDirectory(prefix="vitc-embedding-") as name:
        folder = Path(name)
        emit_object(lower([kernel], target), target, folder / "k.o")
        run_zig(["-target", target.link, "-shared", "-o", "k.so", "k.o"], folder)
        function = getattr(ctypes.CDLL(str(folder / "k.so")), kernel.symbol)
    memory = [np.zeros(1 << 21, np.uint8) for _ in range(operands + 1)]
    pointers = [ctypes.c_void_p(array.ctypes.data) for array in memory]
    return partial(_call, function, pointers, kernel.tasks, memory)


def _call(function: Any, pointers: list[ctypes.c_void_p], tasks: int, _kept: object) -> None:
    function(*pointers, 0, tasks)


@dataclass(frozen=True)
class _Patches:
    """Height and width of the image, side of a patch, colours, floats of a token, tokens before."""

    image: tuple[int, int]
    patch: int
    colours: int
    stride: int
    prefix: int

    @property
    def grid(self) -> tuple[int, int]:
        """Patches along height and width."""
        return self.image[0] // self.patch, self.image[1] // self.patch


def _tile(isa: Isa, stride: int) -> int:
    """Channels of one weight tile: as many vectors as the Isa holds and the width divides."""
    return next(
        tile * isa.float_lanes
        for tile in range(isa.float_tile, 0, -1)
        if stride % (tile * isa.float_lanes) == 0
    )


def _int8_kernel(symbol: str, isa: Isa, shape: _Patches) -> Kernel:
    """A tile of patches x channels, four pixels of a row at a time.

    Arguments of the C function: image [3, H, W] (uint8), weights [C / tile, K / 4, tile, 4] (int8),
    scale [C], start [tokens, C], out, begin, end.
    """
    emitter = Emitter(symbol)
    tile, lanes, rows = _tile(isa, shape.stride), isa.float_lanes, isa.float_rows
    vectors = tile // lanes
    height, width = shape.image
    grid_y, grid_x = shape.grid
    patches = grid_y * grid_x
    steps = shape.patch // _GROUP
    with emitter.open() as e:
        image, weight, scale, start, out = e.pointers(
            image="int32", weight="int32", scale="float32", start="float32", out="float32"
        )
        with e.loop(0, shape.stride // tile) as block, e.loop(e.begin, e.end) as task:
            first = e.let(T.min(task * rows, patches - rows))
            corners: list[Any] = []
            for r in range(rows):
                y, x = T.floordiv(first + r, grid_x), T.floormod(first + r, grid_x)
                corners.append(e.let((y * width + x) * steps))
            sums = e.local("int32", rows * tile)
            for slot in range(0, rows * tile, lanes):
                e.store(sums, slot, e.constant("int32", 0, lanes), lanes)
            with (
                e.loop(0, shape.colours) as colour,
                e.loop(0, shape.patch) as dy,
                e.loop(0, steps) as dx,
            ):
                pixel = e.let((colour * height + dy) * (width // _GROUP) + dx)
                k = (colour * shape.patch + dy) * steps + dx
                row = e.let((block * (shape.colours * shape.patch * steps) + k) * tile)
                loaded = [
                    e.let(T.reinterpret("int8x64", e.load(weight, row + v * lanes, lanes)))
                    for v in range(vectors)
                ]
                for r in range(rows):
                    four = e.splat(image[corners[r] + pixel], lanes)
                    value = e.let(T.reinterpret("uint8x64", four))
                    for v in range(vectors):
                        slot = r * tile + v * lanes
                        added = T.call_llvm_pure_intrin(
                            f"int32x{lanes}",
                            "llvm.x86.avx512.vpdpbusd.512",
                            e.load(sums, slot, lanes),
                            value,
                            loaded[v],
                        )
                        e.store(sums, slot, added, lanes)
            for slot in range(0, rows * tile, lanes):
                r, column = divmod(slot, tile)
                channel = block * tile + column
                index = (first + r + shape.prefix) * shape.stride + channel
                product = e.cast("float32", e.load(sums, slot, lanes), lanes)
                value = e.load(start, index, lanes) + product * e.load(scale, channel, lanes)
                e.store(out, index, value, lanes)
    return emitter.kernel(-(-patches // rows))
