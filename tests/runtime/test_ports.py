"""Entries and ports through the C interface: by name, checked, in any number."""

from __future__ import annotations

import ctypes
import platform

import numpy as np
import pytest
import tvm

from tests.runtime import hand_made
from tests.runtime.hand_made import BATCH, TABLE

pytestmark = pytest.mark.skipif(platform.machine() != "x86_64", reason="builds x86-64 kernels")

ARGUMENT, PORT, INDEX = 1, 6, 7


class Array(ctypes.Structure):
    _fields_ = (("port", ctypes.c_char_p), ("data", ctypes.c_void_p), ("bytes", ctypes.c_size_t))


class Call(ctypes.Structure):
    _fields_ = (
        ("size", ctypes.c_size_t),
        ("entry", ctypes.c_char_p),
        ("arrays", ctypes.POINTER(Array)),
        ("count", ctypes.c_int32),
        ("n", ctypes.c_int64),
        ("observer", ctypes.c_void_p),
        ("user", ctypes.c_void_p),
    )


class Library:
    """A handle, and what it is given."""

    def __init__(self, path, threads: int = 1) -> None:
        self.path = path
        self.functions = ctypes.CDLL(str(path))
        self.handle = ctypes.c_void_p()
        assert self.functions.vitc_create(threads, ctypes.byref(self.handle)) == 0

    def run(
        self, entry, arrays: dict[str, np.ndarray], n: int = 0, *, observer=None, **wrong
    ) -> int:
        made = [
            Array(name.encode(), a.ctypes.data, wrong.get(name, a.nbytes))
            for name, a in arrays.items()
        ]
        made += [made[0]] * wrong.get("again", 0)
        shown = ctypes.cast(observer, ctypes.c_void_p) if observer else None
        call = Call(
            wrong.get("size", ctypes.sizeof(Call)), entry, (Array * len(made))(*made), len(made), n,
            shown,
        )  # fmt: skip
        return self.functions.vitc_run_ports(self.handle, ctypes.byref(call))


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return hand_made.make_library(tmp_path_factory.mktemp("ports"))


@pytest.fixture(scope="module", params=[1, 3])
def library(path, request):
    return Library(path, request.param)


@pytest.fixture
def two(rng):
    """Arrays of the entry `run`; outputs hold what no run leaves."""
    arrays = {name: rng.standard_normal((BATCH, 2, 3)).astype(np.float32) for name in "xy"}
    arrays["y"][0, 1, 2] = arrays["x"][0, 1, 2]
    arrays["sum"] = np.full((BATCH, 2, 3), np.nan, np.float32)
    arrays["turned"] = np.full((BATCH, 3, 2), np.nan, np.float32)
    arrays["larger"] = np.full((BATCH, 2, 3), 7, np.uint8)
    return arrays


def found(rng, n: int) -> dict[str, np.ndarray]:
    """Arrays of the entry `search`."""
    return {
        "query": rng.standard_normal((BATCH, 4)).astype(np.float32),
        "codes": rng.standard_normal((n, 4)).astype(np.float32),
        "picks": rng.integers(0, len(TABLE), (BATCH, 3), dtype=np.int32),
        "picked": np.full((BATCH, 3, 2), np.nan, np.float32),
        "scores": np.full((BATCH, n), np.nan, np.float32),
    }


@pytest.fixture
def rng():
    return np.random.default_rng(5)


def need_right(a: dict[str, np.ndarray]) -> None:
    assert np.array_equal(a["sum"], a["x"] + a["y"])
    assert np.array_equal(a["turned"], (a["x"] - a["y"]).swapaxes(1, 2))
    assert np.array_equal(a["larger"], a["x"] >= a["y"])


def test_two_inputs_and_three_outputs_are_found_by_name_in_any_order(library, two):
    for order in (1, -1):
        arrays = dict(list(two.items())[::order])
        assert library.run(None, arrays) == 0
        need_right(two)
        two["sum"][:] = np.nan
    assert library.run(b"run", two) == 0
    need_right(two)


def test_inputs_need_no_alignment(library, two):
    for name in "xy":
        room = np.zeros(two[name].nbytes + 4, np.uint8)
        place = room[4:].view(np.float32).reshape(two[name].shape)
        place[:] = two[name]
        two[name] = place
    assert library.run(None, two) == 0
    need_right(two)


@pytest.mark.parametrize("n", [0, 1, 2, 7, 1000])
def test_the_extent_is_chosen_by_each_run(library, rng, n):
    arrays = found(rng, n)
    assert library.run(b"search", arrays, n) == 0
    assert np.allclose(arrays["scores"], arrays["query"] @ arrays["codes"].T, atol=1e-5)
    assert np.array_equal(arrays["picked"], TABLE[arrays["picks"]])


@pytest.mark.parametrize("wrong", [-1, len(TABLE), np.iinfo(np.int32).max, np.iinfo(np.int32).min])
@pytest.mark.parametrize("place", [(0, 0), (1, 2)])
def test_an_index_beyond_its_limit_is_refused_before_anything_is_computed(
    library, rng, wrong, place
):
    arrays = found(rng, 3)
    arrays["picks"][place] = wrong
    assert library.run(b"search", arrays, 3) == INDEX
    assert np.isnan(arrays["picked"]).all()
    assert np.isnan(arrays["scores"]).all()


def test_ports_that_do_not_fit_are_refused(library, two, rng):
    assert library.run(b"walk", two) == PORT
    assert library.run(None, {**two, "z": two["x"]}) == PORT
    assert library.run(None, {k: v for k, v in two.items() if k != "sum"}) == PORT
    one_less = dict(list(two.items())[1:])
    assert library.run(None, {**one_less, "z": two["x"]}) == PORT
    assert library.run(None, one_less, again=1) == PORT
    for name in two:
        assert library.run(None, two, **{name: two[name].nbytes - 4}) == PORT
        assert library.run(None, two, **{name: 0}) == PORT
    assert library.run(None, two, 1) == PORT, "an extent that nothing has"
    arrays = found(rng, 5)
    for n in (0, 4, 6, -1, 1 << 31, 1 << 62, -(1 << 63)):
        assert library.run(b"search", arrays, n) == PORT
    assert library.run(None, two, size=8) == ARGUMENT
    assert np.isnan(two["sum"]).all()


def test_the_simple_call_is_refused_for_other_ports(library):
    data = np.zeros(100, np.float32)
    pointer = data.ctypes.data_as(ctypes.c_void_p)
    assert library.functions.vitc_run(library.handle, pointer, pointer) == PORT


def test_an_observer_sees_every_buffer_and_what_is_written_to_ports(library, rng):
    seen = []
    kind = ctypes.CFUNCTYPE(
        None, ctypes.c_void_p, ctypes.c_int32, ctypes.c_int32, ctypes.c_char_p, ctypes.c_void_p,
        ctypes.c_size_t,
    )  # fmt: skip

    def observe(_user, image, step, name, data, size):
        seen.append((image, step, name, ctypes.string_at(data, size)))

    arrays = found(rng, 6)
    assert library.run(b"search", arrays, 6, observer=kind(observe)) == 0
    assert [entry[:3] for entry in seen] == [
        (image, step, name)
        for image in range(BATCH)
        for step, name in enumerate((b"picked", b"scores"))
    ]
    assert seen[1][3] + seen[3][3] == arrays["scores"].tobytes()


def test_entries_and_ports_describe_themselves(library):
    class Entry(ctypes.Structure):
        _fields_ = (
            ("name", ctypes.c_char_p),
            *((n, ctypes.c_int32) for n in ("ports", "inputs", "steps")),
        )

    class Port(ctypes.Structure):
        _fields_ = (
            ("name", ctypes.c_char_p),
            *((n, ctypes.c_int32) for n in ("dtype", "per_image", "limit", "axes")),
            ("shape", ctypes.c_int64 * 8),
        )

    entry, port = Entry(), Port()
    get_entry, get_port = library.functions.vitc_get_entry, library.functions.vitc_get_port
    assert get_entry(1, ctypes.byref(entry)) == 0
    assert (entry.name, entry.ports, entry.inputs, entry.steps) == (b"search", 5, 3, 2)
    assert get_port(1, 1, ctypes.byref(port)) == 0
    assert (port.name, port.dtype, port.per_image, port.limit) == (b"codes", 0, 0, 0)
    assert list(port.shape[: port.axes]) == [-1, 4]
    assert get_port(1, 2, ctypes.byref(port)) == 0
    assert (port.name, port.dtype, port.per_image, port.limit) == (b"picks", 1, 1, len(TABLE))
    for wrong in (-1, 2, 1 << 30):
        assert get_entry(wrong, ctypes.byref(entry)) == PORT
        assert get_port(wrong, 0, ctypes.byref(port)) == PORT
    assert get_port(0, 5, ctypes.byref(port)) == PORT
    assert get_port(0, 0, None) == ARGUMENT


def test_the_tvm_runtime_runs_every_entry(path, two, rng):
    module = tvm.runtime.load_module(str(path))
    tensors = {name: tvm.runtime.tensor(array) for name, array in two.items()}
    module["vitc_run"](*tensors.values(), 2)
    need_right({name: tensor.numpy() for name, tensor in tensors.items()})
    arrays = found(rng, 9)
    tensors = {name: tvm.runtime.tensor(array) for name, array in arrays.items()}
    trace = tvm.runtime.tensor(np.zeros((BATCH, 6 * 4 + 9 * 4), np.uint8))
    module["vitc_trace"](1, *tensors.values(), trace)
    scores = tensors["scores"].numpy()
    assert np.allclose(scores, arrays["query"] @ arrays["codes"].T, atol=1e-5)
    assert np.array_equal(trace.numpy()[:, 24:], scores.view(np.uint8))
    tensors["codes"] = tvm.runtime.tensor(arrays["codes"][:8])
    with pytest.raises(ValueError, match="for each port"):
        module["vitc_run"](1, *tensors.values())
    with pytest.raises(ValueError, match="entry"):
        module["vitc_run"](2, *tensors.values())
