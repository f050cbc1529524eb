"""The C interface: misuse is an error code, and handles do not disturb each other."""

from __future__ import annotations

import ctypes
import threading
from pathlib import Path

import numpy as np
import pytest
import tvm

ARGUMENT, BUSY = 1, 5


@pytest.fixture(scope="module")
def library(original):
    lib = ctypes.CDLL(str(original.library))
    lib.vitc_status_text.restype = ctypes.c_char_p
    lib.vitc_destroy.restype = None
    return lib


def pointer(array):
    return array.ctypes.data_as(ctypes.c_void_p)


def create(library, threads=1):
    handle = ctypes.c_void_p()
    assert library.vitc_create(threads, ctypes.byref(handle)) == 0
    return handle


@pytest.mark.parametrize("threads", [0, -1, 65, 1 << 20])
def test_thread_counts_out_of_range_are_an_argument_error(library, threads):
    handle = ctypes.c_void_p(1)
    assert library.vitc_create(threads, ctypes.byref(handle)) == ARGUMENT
    assert not handle


def test_null_pointers_are_an_argument_error(library):
    handle = create(library)
    data = np.zeros(5000, np.float32)
    assert library.vitc_create(1, None) == ARGUMENT
    assert library.vitc_run(None, pointer(data), pointer(data)) == ARGUMENT
    assert library.vitc_run(handle, None, pointer(data)) == ARGUMENT
    assert library.vitc_run(handle, pointer(data), None) == ARGUMENT
    library.vitc_get_info(None)
    library.vitc_destroy(None)
    library.vitc_destroy(handle)


def test_every_status_has_a_sentence(library):
    texts = {library.vitc_status_text(status) for status in range(-1, 8)}
    assert all((text and text.endswith(b".")) or b":" in text for text in texts)


def test_running_a_handle_within_its_own_run_is_busy(library, images):
    handle = create(library)
    seen = []
    source = np.ascontiguousarray(images[:2])
    out = np.zeros((2, 5), np.float32)
    kind = ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * 6)

    def observe(*_):
        if not seen:
            seen.append(library.vitc_run(handle, pointer(source), pointer(out)))

    assert (
        library.vitc_run_observed(handle, pointer(source), pointer(out), kind(observe), None) == 0
    )
    assert seen == [BUSY]
    library.vitc_destroy(handle)


def test_many_handles_on_many_threads_give_the_right_answers(library, original, images):
    source = np.ascontiguousarray(images[:2])
    expected = original(source)
    wrong = []

    def work(threads):
        handle = create(library, threads)
        for _ in range(30):
            out = np.full((2, 5), np.nan, np.float32)
            if library.vitc_run(handle, pointer(source), pointer(out)) or (out != expected).any():
                wrong.append(threads)
        library.vitc_destroy(handle)

    workers = [threading.Thread(target=work, args=(1 + i % 3,)) for i in range(6)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(120)
    assert not wrong


def test_handles_that_never_run_stop_at_once(library):
    for threads in (1, 2, 8):
        library.vitc_destroy(create(library, threads))


def test_the_tvm_runtime_loads_and_times_the_same_library(original, images):
    module = tvm.runtime.load_module(str(original.library))
    source = np.ascontiguousarray(images[:2])
    out = tvm.runtime.tensor(np.zeros((2, 5), np.float32))
    module["vitc_run"](tvm.runtime.tensor(source), out, 2)
    assert np.array_equal(out.numpy(), original(source))
    with pytest.raises(ValueError, match="dense CPU tensor for each port"):
        module["vitc_run"](out, out)
    with pytest.raises(TypeError, match="vitc_run"):
        module["vitc_run"](out)


def test_the_tvm_entry_reads_what_the_system_says_of_itself_and_nothing_else(original, tmp_path):
    module = tvm.runtime.load_module(str(original.library))

    def read(path: str) -> bytes:
        text = tvm.runtime.tensor(np.frombuffer(path.encode().ljust(4096, b"\0"), np.uint8).copy())
        module["vitc_read"](text)
        return bytes(text.numpy()).rstrip(b"\0")

    assert read("/proc/self/comm") == Path("/proc/self/comm").read_bytes()
    assert read("/proc/no/such/file") == b""
    secret = tmp_path / "secret"
    secret.write_text("secret")
    for path in (str(secret), f"/proc/..{secret}", "", "proc/self/comm"):
        with pytest.raises(ValueError, match="below /proc and /sys only"):
            read(path)
