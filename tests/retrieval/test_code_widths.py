"""Codes of 7 to 1,100 bits are searched by every processor's scan as by numpy."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.processors import HOST
from vitc import api
from vitc.dialect.packing import pack_bits
from vitc.dialect.proto import to_proto
from vitc.dialect.scan_graph import scan_graph
from vitc.outputs import claim_file
from vitc.retrieval.compiled_scan import CompiledScans
from vitc.retrieval.index_file import Index, IndexFacts, Vectors, write_index
from vitc.retrieval.scan import find

WIDTHS = (7, 64, 100, 128, 192, 256, 320, 384, 512, 768, 1000, 1024, 1100)


@pytest.fixture(scope="module", params=HOST)
def scans(request, tmp_path_factory) -> CompiledScans:
    folder, files = tmp_path_factory.mktemp(request.param), {}
    for width in WIDTHS:
        files[f"scan_{width}"] = folder / f"{width}.onnx"
        onnx.save(to_proto(scan_graph(1, 1, width)), files[f"scan_{width}"])
    options = api.CompileOptions(target=request.param, check=False)
    found = CompiledScans.of(api.compile(files, folder / "scans", options).load())
    assert found is not None
    return found


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    width=st.sampled_from(WIDTHS),
    images=st.one_of(st.integers(0, 70), st.sampled_from([4095, 16_385])),
    count=st.integers(1, 90),
    values=st.one_of(st.integers(1, 9), st.none()),
    seed=st.integers(0, 1 << 30),
)
def test_the_list_is_that_of_numpy(scans, tmp_path_factory, width, images, count, values, seed):
    """With ties, where images have few values; with more wanted than there are."""
    rng = np.random.default_rng(seed)
    bits = rng.integers(0, 2, (values or images, 1, width), dtype=np.uint8)
    if values:
        bits = bits[rng.integers(0, values, images)]
    query = pack_bits(rng.integers(0, 2, (1, width), dtype=np.uint8))
    path = tmp_path_factory.mktemp("any") / "p.vidx"
    with claim_file(path) as output:
        names = [str(number) for number in range(images)]
        write_index(output, IndexFacts("00" * 32, width, 1), Vectors(names, pack_bits(bits)))
    with Index.open(path) as index:
        assert scans.best(index, query, 1, count) is not None
        assert find(index, query, count, compiled=scans) == find(index, query, count)
