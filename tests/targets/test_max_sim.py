"""Scans of packed vectors: every form, on every instruction set that this machine executes."""

from __future__ import annotations

import ctypes
import mmap
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from tests.compiler.programs import load_kernels
from tests.processors import HOST
from vitc.dialect.packing import pack_bits
from vitc.retrieval.scan import interactions
from vitc.targets.isa import ISAS
from vitc.targets.kernels.count_table import fits_table
from vitc.targets.kernels.max_sim import (
    MaxSimShape,
    lay_lanes_kernel,
    pairs_kernel,
    tile_kernel,
    uses_tile,
)
from vitc.targets.kernels.max_sim_across import across_kernel, fits_across
from vitc.targets.kernels.max_sim_single import fits_single, single_kernel
from vitc.targets.packing import Axis, to_lanes
from vitc.targets.table import TARGETS

SHAPES = [
    MaxSimShape(*sizes)
    for sizes in (
        (1, 1, 1, 256), (1, 1, 1, 64), (1, 1, 1, 7), (1, 1, 1, 40), (1, 1, 1, 200), (1, 1, 1, 2100),
        (2, 1, 1, 256), (5, 1, 1, 96), (20, 1, 1, 64), (32, 1, 1, 256), (35, 1, 1, 256),
        (1, 2, 70, 40), (1, 3, 2, 130), (1, 20, 20, 256), (1, 32, 3, 64), (1, 32, 33, 256),
        (2, 20, 5, 128), (3, 1, 2, 520), (40, 3, 1, 32), (48, 1, 3, 256), (1, 70, 9, 264),
        (1, 17, 16, 256), (3, 5, 2, 72), (1, 4, 1, 24), (1, 1, 1, 128), (1, 1, 1, 192),
        (1, 1, 1, 250), (1, 1, 1, 320), (1, 1, 1, 384), (1, 1, 1, 512), (1, 1, 1, 768),
        (1, 1, 1, 960), (1, 1, 1, 1024), (1, 1, 1, 1088), (3, 1, 1, 384), (7, 1, 1, 1024),
        (8, 1, 1, 64), (64, 1, 1, 256), (64, 1, 1, 264), (33, 1, 1, 248), (96, 1, 2, 104),
        (32, 1, 1, 1024),
    )
]  # fmt: skip
COUNTS = (0, 1, 2, 3, 4, 5, 9, 15, 16, 17, 50, 133)

# What has no instructions of its own in its kernels is executed by any machine of 64 bits.
KINDS = [*((name, TARGETS[name].isa) for name in HOST), (HOST[0], "avx512-vpopcntdq")]


@pytest.fixture(scope="module", params=KINDS, ids=lambda kind: "-".join(kind))
def built(request, tmp_path_factory):
    """The instruction set, and a library with the kernels of every shape."""
    target, isa = TARGETS[request.param[0]], ISAS[request.param[1]]
    if isa.name != target.isa:
        isa = replace(isa, adds_words="")
    kernels = []
    for number, shape in enumerate(SHAPES):
        kernels.append(pairs_kernel(f"pairs_{number}", isa, shape))
        if fits_across(isa, shape):
            kernels.append(across_kernel(f"across_{number}", isa, shape))
        if fits_single(isa, shape):
            kernels.append(single_kernel(f"single_{number}", isa, shape))
        if shape.bytes % (isa.element_bits // 8) == 0:
            kernels += [
                tile_kernel(f"tile_{number}", isa, shape),
                lay_lanes_kernel(f"lay_{number}", isa, shape),
            ]
    folder = tmp_path_factory.mktemp(isa.name)
    return isa, load_kernels(kernels, target, folder), {k.symbol: k for k in kernels}


class Guarded:
    """Bytes that end where no page follows: a read behind them ends the process."""

    def __init__(self, data: np.ndarray) -> None:
        flat = np.ascontiguousarray(data).reshape(-1).view(np.uint8)
        whole = -(-max(flat.size, 1) // mmap.PAGESIZE) * mmap.PAGESIZE
        self._memory = mmap.mmap(-1, whole + mmap.PAGESIZE)
        start = ctypes.addressof(ctypes.c_char.from_buffer(self._memory))
        libc = ctypes.CDLL(None, use_errno=True)
        assert libc.mprotect(ctypes.c_void_p(start + whole), mmap.PAGESIZE, 0) == 0
        self.address = ctypes.c_void_p(start + whole - flat.size)
        ctypes.memmove(self.address, flat.ctypes.data, flat.size)


def given(rng, shape: MaxSimShape, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Packed queries and documents, with equal and opposite vectors among them."""
    queries = rng.integers(0, 2, (shape.texts, shape.queries, shape.width), dtype=np.uint8)
    documents = rng.integers(0, 2, (n, shape.documents, shape.width), dtype=np.uint8)
    documents[:1, -1] = queries[0, 0]
    documents[1:2] = 1 - queries[-1, -1]
    return pack_bits(queries), pack_bits(documents)


@pytest.mark.parametrize("number", range(len(SHAPES)), ids=lambda i: str(SHAPES[i]))
def test_scores_are_those_of_numpy_for_any_number_of_documents(built, number):
    isa, library, kernels = built
    shape, rng = SHAPES[number], np.random.default_rng(number)
    for n in COUNTS:
        queries, documents = given(rng, shape, n)
        wanted = np.stack([interactions(text, documents, shape.width) for text in queries], 1)
        plain = Guarded(queries)
        forms = {"pairs": plain.address}
        forms |= {
            form: plain.address for form in ("across", "single") if f"{form}_{number}" in kernels
        }
        if f"lay_{number}" in kernels:
            lanes = to_lanes(
                np.unpackbits(queries, axis=-1, bitorder="little")[..., : shape.width].reshape(
                    -1, shape.width
                ),
                Axis(shape.width), isa.lanes, isa.element_bits,
            )  # fmt: skip
            laid = np.full(lanes.size + 128, 0xA5, np.uint8)
            laid = laid[-laid.ctypes.data % 64 :]
            getattr(library, f"lay_{number}")(
                plain.address, ctypes.c_void_p(laid.ctypes.data), 0, kernels[f"lay_{number}"].tasks
            )
            assert (laid[lanes.size :] == 0xA5).all(), "it wrote behind the lanes"
            forms["tile"] = ctypes.c_void_p(laid.ctypes.data)
        for form, operand in forms.items():
            scores = np.full((n + 1, shape.texts), -77, np.int32)
            places = sorted({0, n // 3, n})
            for begin, end in pairwise(places) if n else [(0, 0)]:
                kept = Guarded(documents)
                getattr(library, f"{form}_{number}")(
                    operand, kept.address, ctypes.c_void_p(scores.ctypes.data), begin, end
                )
            assert np.array_equal(scores[:n], wanted), (form, n)
            assert (scores[n:] == -77).all(), "it wrote behind the scores"


@pytest.mark.parametrize("isa", ISAS.values(), ids=lambda isa: isa.name)
def test_a_table_of_counts_stays_small_and_is_for_shuffles(isa):
    assert fits_table(isa, 1, 32) == bool(isa.shuffle)
    # 3 blocks take as much as 4: an entry is a power of two.
    assert not fits_table(isa, 3, 24)
    assert not fits_table(isa, 1, 128)


@pytest.mark.parametrize("isa", ISAS.values(), ids=lambda isa: isa.name)
def test_the_tile_is_for_whole_elements_that_fill_the_lanes(isa):
    one = MaxSimShape(1, 1, 1, 256)
    assert not uses_tile(isa, one)
    full = 2 * isa.lanes
    assert uses_tile(isa, replace(one, texts=full))
    assert uses_tile(isa, replace(one, queries=full, documents=32))
    odd = replace(one, queries=full, width=8 * 5)
    assert uses_tile(isa, odd) == (isa.element_bits == 8)
