"""The emulator of AMX does what the Intel SDM says, on encodings that an assembler made.

Where the processor has AMX, the same programs run on it, and so check what the tests expect.
"""

from __future__ import annotations

import ctypes
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from vitc.compiler.link import run_zig

SIGNS = {
    "signed_signed": (np.int8, np.int8),
    "signed_unsigned": (np.int8, np.uint8),
    "unsigned_signed": (np.uint8, np.int8),
    "unsigned_unsigned": (np.uint8, np.uint8),
}
# Rows, columns and depth (in groups of four) of a product.
SHAPES = [(16, 16, 16), (1, 1, 1), (5, 3, 7), (16, 2, 9)]


@pytest.fixture(scope="module")
def programs(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("programs")
    source = Path(__file__).with_name("programs.S")
    run_zig(["-shared", "-o", "programs.so", str(source)], folder)
    return folder / "programs.so"


def configuration(*shapes) -> np.ndarray:
    """64 bytes for LDTILECFG; a shape is rows and bytes a row."""
    memory = np.zeros(64, np.uint8)
    memory[0] = 1
    for tile, (rows, width) in enumerate(shapes):
        memory[16 + 2 * tile] = width
        memory[48 + tile] = rows
    return memory


def of_product(rows: int, columns: int, depth: int) -> np.ndarray:
    return configuration((rows, 4 * columns), (rows, 4 * depth), (depth, 4 * columns))


def call(path: Path, name: str, *arrays: np.ndarray) -> None:
    getattr(ctypes.CDLL(str(path)), name)(*(ctypes.c_void_p(a.ctypes.data) for a in arrays))


def random_tiles(seed: int) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.integers(0, 256, (16, 64), dtype=np.uint8) for _ in range(3)]


def product(a: np.ndarray, b: np.ndarray, kinds) -> np.ndarray:
    """a [rows, 4 depth] times b [depth, 4 columns], of which four bytes go together."""
    left = a.view(kinds[0]).astype(np.int64)
    right = b.view(kinds[1]).astype(np.int64).reshape(len(b), -1, 4)
    return np.einsum("mki,kni->mn", left.reshape(len(a), -1, 4), right)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", SIGNS)
def test_products_are_those_of_numpy(amx, programs, name, shape):
    rows, columns, depth = shape
    a, b, c = random_tiles(1)
    before = c.copy()
    used = np.s_[:rows, : 4 * columns]
    sums = before[used].copy().view(np.uint32)
    wanted = sums + product(a[:rows, : 4 * depth], b[:depth, : 4 * columns], SIGNS[name])

    call(programs, name, of_product(*shape), a, b, c)

    assert np.array_equal(c[used].copy().view(np.uint32), wanted.astype(np.uint32))
    c[used] = before[used]
    assert np.array_equal(c, before), "bytes beyond the shape were written"


def test_all_tile_registers_and_a_cleared_sum(amx, programs):
    a, b, c = random_tiles(2)
    call(programs, "upper_tiles", of_product(16, 16, 16), a, b, c)
    assert np.array_equal(c.view(np.int32), product(a, b, (np.int8, np.int8)))


def test_the_emulator_counts_what_it_executes(amx, programs):
    if amx is None:
        pytest.skip("this processor has AMX")
    counter = ctypes.c_ulong.in_dll(amx, "amx_products")
    before = counter.value
    call(programs, "signed_signed", of_product(16, 16, 16), *random_tiles(3))
    assert counter.value == before + 1


@pytest.mark.parametrize(
    ("program", "memory", "sentence"),
    [
        ("before_configuration", of_product(1, 1, 1), "used before LDTILECFG"),
        ("after_release", of_product(1, 1, 1), "used before LDTILECFG"),
        ("same_tile_twice", of_product(1, 1, 1), "the same tile"),
        ("tile_without_shape", of_product(1, 1, 1), "without a configured shape"),
        ("not_amx", of_product(1, 1, 1), "not AMX"),
        ("signed_signed", configuration((17, 64)), "more than 16 rows"),
        ("signed_signed", configuration((16, 68)), "more than 64 bytes"),
        ("signed_signed", configuration((16, 0)), "rows without columns"),
        ("signed_signed", configuration((4, 8), (4, 8), (3, 8)), "do not fit"),
        ("signed_signed", configuration((4, 8), (4, 6), (2, 8)), "multiple of 4"),
        ("signed_signed", np.full(64, 2, np.uint8), "palette"),
        ("signed_signed", np.ones(64, np.uint8), "reserved"),
    ],
)
def test_what_a_processor_refuses_ends_the_process(amx, programs, program, memory, sentence):
    if amx is None:
        pytest.skip("this processor has AMX")
    code = (
        "import ctypes\n"
        f"ctypes.CDLL({amx._name!r})\n"
        f"memory = ctypes.create_string_buffer({memory.tobytes()!r}, 64)\n"
        "tile = ctypes.create_string_buffer(1024)\n"
        f"ctypes.CDLL({str(programs)!r}).{program}(memory, tile, tile, tile)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=600
    )
    assert done.returncode == 134
    assert sentence in done.stderr
