"""Scans from a file to an artefact: ports of the whole run, the extent, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from vitc import api
from vitc.compiler import tables
from vitc.compiler.pipeline import make_plan
from vitc.compiler.plan import describe
from vitc.dialect.packing import pack_bits
from vitc.dialect.proto import to_proto
from vitc.dialect.scan_graph import scan_graph
from vitc.errors import VitcError
from vitc.retrieval.scan import interactions
from vitc.runtime import Artefact
from vitc.runtime.port import Port
from vitc.targets import find


def written(path: Path, *sizes: int, texts: int | None = None) -> Path:
    onnx.save(to_proto(scan_graph(*sizes, texts=texts)), path)
    return path


def given(seed: int, n: int, a: int, b: int, d: int, texts: int | None) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    lead = () if texts is None else (texts,)
    query = rng.integers(0, 2, (*lead, a, d), dtype=np.uint8)
    documents = rng.integers(0, 2, (n, b, d), dtype=np.uint8)
    return {"query": pack_bits(query), "documents": pack_bits(documents)}


def wanted(arrays: dict[str, np.ndarray], d: int) -> np.ndarray:
    query, documents = arrays["query"], arrays["documents"]
    if query.ndim == 2:
        return interactions(query, documents, d)
    return np.stack([interactions(text, documents, d) for text in query], axis=1)


CASES = {
    "one vector": (1, 1, 256, None),
    "tokens": (20, 7, 100, None),
    "texts": (1, 1, 64, 33),
}


@pytest.fixture(scope="module", params=CASES.values(), ids=CASES)
def scanned(request, tmp_path_factory) -> tuple[tuple, Artefact]:
    a, b, d, texts = request.param
    folder = tmp_path_factory.mktemp("scan")
    file = written(folder / "scan.onnx", a, b, d, texts=texts)
    return request.param, api.compile(file, folder / "out")


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("n", [0, 1, 2, 41, 3000])
def test_a_run_of_any_extent_gives_the_scores_of_numpy(scanned, n, threads):
    (a, b, d, texts), artefact = scanned
    arrays = given(n, n, a, b, d, texts)
    found = artefact.load(threads).run(arrays)["scores"]
    assert found.dtype == np.int32
    assert np.array_equal(found, wanted(arrays, d))


def test_its_ports_are_of_the_whole_run_and_its_self_test_passes(scanned):
    (a, b, d, texts), artefact = scanned
    lead, row = () if texts is None else (texts,), -(-d // 8)
    (entry,) = artefact.manifest.entries
    assert entry.ports == (
        Port("query", "uint8", (*lead, a, row), per_image=False),
        Port("documents", "uint8", (None, b, row), per_image=False),
        Port("scores", "int32", (None, *lead), per_image=False),
    )
    assert entry.steps[-1].tasks is None
    assert entry.steps[-1].binary == (texts or 1) * a * b * d
    assert artefact.manifest.check["equal"]


@pytest.mark.parametrize("target", ["arm", "armv7"])
def test_an_emulated_processor_gives_the_scores_of_onnx_runtime(tmp_path, need_emulator, target):
    need_emulator(find(target).emulator)
    for number, (a, b, d, texts) in enumerate(CASES.values()):
        file = written(tmp_path / f"{number}.onnx", a, b, d, texts=texts)
        options = api.CompileOptions(target=target)
        check = api.compile(file, tmp_path / f"{number}", options).manifest.check
        assert (check["device"], check["equal"]) == ("qemu", True)


def test_offsets_beyond_32_bits_are_computed_before_a_kernel(tmp_path, monkeypatch):
    monkeypatch.setattr(tables, "_MOST_OFFSET", 100)
    file = written(tmp_path / "scan.onnx", 3, 2, 90)
    model = api.compile(file, tmp_path / "out").load(2)
    arrays = given(5, 29, 3, 2, 90, None)
    assert np.array_equal(model.run(arrays)["scores"], wanted(arrays, 90))


def test_few_vectors_are_compared_as_they_come_and_many_in_lanes():
    few, many = (
        describe(make_plan(scan_graph(count, count, 256), find("x86"), [])) for count in (1, 32)
    )
    assert [line.split()[1] for line in few.splitlines()] == ["vitc_max_sim_single_0"]
    kernels = [line.split()[1] for line in many.splitlines()]
    assert kernels == ["vitc_lay_lanes_0", "vitc_max_sim_0"]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (("documents", 0, ""), r"no input \[n, vectors, bytes\]"),
        (("documents", 1, "b"), "the axis n first and all other sizes fixed"),
        (("query", 0, "a"), "no input of fixed sizes"),
        (("query", 1, "p"), "query has no fixed size"),
    ],
)
def test_what_no_kernel_scans_is_refused(tmp_path, change, says):
    name, axis, symbol = change
    proto = to_proto(scan_graph(3, 2, 90))
    (port,) = (value for value in proto.graph.input if value.name == name)
    port.type.tensor_type.shape.dim[axis].dim_param = symbol
    onnx.save(proto, tmp_path / "scan.onnx")
    with pytest.raises(VitcError, match=says):
        api.compile(tmp_path / "scan.onnx", tmp_path / "out")


@pytest.mark.parametrize(
    ("sizes", "says"), [((1, 1, 1 << 17), "131072 bits"), ((1025, 1, 8), "1025 vectors of queries")]
)
def test_what_sums_and_stacks_cannot_hold_is_refused(sizes, says):
    with pytest.raises(VitcError, match=says):
        make_plan(scan_graph(*sizes), find("x86"), [])
