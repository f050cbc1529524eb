"""Linking: what a library needs and shows, and failures that say what to do."""

from __future__ import annotations

import platform
import struct
import subprocess

import numpy as np
import pytest

from tests.runtime import hand_made
from vitc.compiler.link import LIBRARY, link_library, linking_runner, run_zig
from vitc.errors import VitcError
from vitc.targets import find

pytestmark = pytest.mark.skipif(platform.machine() != "x86_64", reason="builds x86-64 kernels")

EXPORTED = {
    "vitc_create",
    "vitc_create_with",
    "vitc_destroy",
    "vitc_get_entry",
    "vitc_get_info",
    "vitc_get_port",
    "vitc_get_preprocessing",
    "vitc_label",
    "vitc_preprocess",
    "vitc_preprocess_u8",
    "vitc_run",
    "vitc_run_observed",
    "vitc_run_ports",
    "vitc_run_u8",
    "vitc_status_text",
    "vitc_threads",
    "__tvm_ffi_vitc_read",
    "__tvm_ffi_vitc_run",
    "__tvm_ffi_vitc_trace",
}


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    return hand_made.make_library(tmp_path_factory.mktemp("link")).read_bytes()


def symbols(data: bytes) -> dict[str, bool]:
    """Dynamic symbols of a 64-bit ELF file; whether each is defined in it."""
    (sections,) = struct.unpack_from("<Q", data, 40)
    size, count = struct.unpack_from("<HH", data, 58)
    headers = [struct.unpack_from("<IIQQQQII", data, sections + i * size) for i in range(count)]
    _, _, _, _, start, length, link, _ = next(h for h in headers if h[1] == 11)
    strings = headers[link][4]
    found = {}
    for at in range(start + 24, start + length, 24):
        name, _, _, section = struct.unpack_from("<IBBH", data, at)
        text = data[strings + name : data.index(b"\0", strings + name)].decode()
        found[text] = section != 0
    return found


def test_a_library_shows_its_interface_and_nothing_else(library):
    shown = {name for name, defined in symbols(library).items() if defined}
    assert shown == EXPORTED


def test_a_library_needs_the_c_library_and_nothing_else(library):
    needed = {name for name, defined in symbols(library).items() if not defined}
    # Of TVM's runtime, where there is one: weak.
    needed.discard("TVMFFIErrorSetRaisedFromCStr")
    known = {
        "free", "getauxval", "memcmp", "memcpy", "memset", "posix_memalign", "pthread_create",
        "pthread_join", "sched_yield", "strcmp", "strlen", "syscall",
    }  # fmt: skip
    assert needed <= known


def test_constants_lie_in_the_library_as_they_are(library):
    assert hand_made.TABLE.tobytes() in library


def test_the_runner_of_a_target_is_static(tmp_path):
    with linking_runner(tmp_path / "work", tmp_path / "vitc-run", find("x86-64-v2")) as wait:
        wait()
    data = (tmp_path / "vitc-run").read_bytes()
    (programs,) = struct.unpack_from("<Q", data, 32)
    size, count = struct.unpack_from("<HH", data, 54)
    kinds = [struct.unpack_from("<I", data, programs + i * size)[0] for i in range(count)]
    interpreter = 3
    assert interpreter not in kinds
    done = subprocess.run([tmp_path / "vitc-run", "--help"], capture_output=True, check=False)
    assert done.returncode == 0


def test_tables_that_name_no_kernel_are_one_sentence(tmp_path):
    (tmp_path / "none.c").write_text("")
    run_zig(["-c", "none.c", "-o", "kernels.o"], tmp_path)
    tables = '#include "vitc_tables.h"\nint wrong(void) { return missing; }\n'
    with pytest.raises(VitcError, match=r"The linker failed: .*missing") as failed:
        link_library(
            tmp_path, tmp_path / LIBRARY, tmp_path / "kernels.o", tables, b"", find("x86-64-v2")
        )
    assert "\n" not in failed.value.message
    assert not (tmp_path / LIBRARY).exists()


def test_a_library_is_the_same_bytes_again(tmp_path, library):
    assert np.array_equal(
        np.frombuffer(hand_made.make_library(tmp_path).read_bytes(), np.uint8),
        np.frombuffer(library, np.uint8),
    )
