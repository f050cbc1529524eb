"""A search by an artefact's scans gives the list of numpy: images, scores, and order of ties."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.retrieval.test_scan import bits
from vitc import api
from vitc.dialect.packing import pack_bits
from vitc.dialect.proto import to_proto
from vitc.dialect.scan_graph import scan_graph
from vitc.errors import VitcError
from vitc.outputs import claim_file
from vitc.retrieval import shards
from vitc.retrieval.compiled_scan import CompiledScans
from vitc.retrieval.index_file import Index, IndexFacts, Vectors, write_index
from vitc.retrieval.scan import find
from vitc.retrieval.shards import search_shards, split_index
from vitc.runtime import Artefact

WIDTH, TOKENS, WORDS, TEXTS = 40, 3, 2, 4


@pytest.fixture(scope="module")
def artefact(tmp_path_factory) -> Artefact:
    folder = tmp_path_factory.mktemp("scans")
    graphs = {
        "first": scan_graph(1, 1, WIDTH),
        "all": scan_graph(WORDS, TOKENS, WIDTH),
        "texts": scan_graph(1, 1, WIDTH, texts=TEXTS),
    }
    for name, graph in graphs.items():
        onnx.save(to_proto(graph), folder / f"{name}.onnx")
    files = {name: folder / f"{name}.onnx" for name in graphs}
    return api.compile(files, folder / "scans", api.CompileOptions(check=False))


@pytest.fixture(scope="module")
def scans(artefact) -> CompiledScans:
    found = CompiledScans.of(artefact.load(2))
    assert found is not None
    return found


def written(path: Path, images: int, tokens: int, seed: int, values: int = 7) -> Path:
    """An index of few different images, so that many scores are equal."""
    rng = np.random.default_rng(seed)
    few = rng.integers(0, 2, (values, tokens, WIDTH), dtype=np.uint8)
    packed = pack_bits(few[rng.integers(0, values, images)])
    names = [f"{i} ü.jpg" for i in range(images)]
    with claim_file(path, force=True) as output:
        write_index(output, IndexFacts("00" * 32, WIDTH, tokens), Vectors(names, packed))
    return path


@pytest.mark.parametrize("images", [0, 1, 9, 40_001])
@pytest.mark.parametrize(("tokens", "words", "ranked"), [(1, 1, 0), (3, 2, 0), (3, 2, 25)])
def test_lists_are_those_of_numpy(scans, tmp_path, images, tokens, words, ranked):
    with Index.open(written(tmp_path / "p.vidx", images, tokens, images)) as index:
        for seed, count in enumerate((1, 10, 25)):
            query = pack_bits(bits(seed, words, WIDTH))
            wanted = find(index, query, count, ranked=ranked)
            assert find(index, query, count, ranked=ranked, compiled=scans) == wanted
            vectors, asked = (1, query[:1]) if ranked else (tokens, query)
            assert scans.best(index, asked, vectors, count) is not None
            if ranked:
                numbers = np.arange(min(images, 25))
                assert scans.order(index, query, numbers) is not None
            assert len(wanted) == min(count, images)


@settings(max_examples=40, deadline=None)
@given(
    images=st.integers(0, 70),
    count=st.integers(1, 80),
    ranked=st.integers(0, 80),
    values=st.integers(1, 9),
    seed=st.integers(0, 1 << 30),
)
def test_any_index_and_query(scans, tmp_path_factory, images, count, ranked, values, seed):
    path = tmp_path_factory.mktemp("any") / "p.vidx"
    ranked = ranked if ranked >= count else 0
    with Index.open(written(path, images, TOKENS, seed, values)) as index:
        query = pack_bits(bits(seed + 1, WORDS, WIDTH))
        wanted = find(index, query, count, ranked=ranked)
        assert find(index, query, count, ranked=ranked, compiled=scans) == wanted


def test_several_texts_at_once_find_what_each_finds(scans, tmp_path):
    with Index.open(written(tmp_path / "p.vidx", 300, 1, 5)) as index:
        queries = pack_bits(bits(6, TEXTS, 1, WIDTH))
        lists = scans.best_of_each(index, queries, 1, 12)
        assert lists is not None
        for query, (images, scores) in zip(queries, lists, strict=True):
            wanted = find(index, query, 12)
            assert images.tolist() == [each.index for each in wanted]
            assert scores.tolist() == [each.score for each in wanted]
        assert scans.best_of_each(index, queries[1:], 1, 12) is None


def test_what_no_entry_compares_is_left_to_numpy(scans, tmp_path):
    with Index.open(written(tmp_path / "p.vidx", 50, 4, 7)) as index:
        query = pack_bits(bits(8, 5, WIDTH))  # as of a photo: other numbers on both sides
        assert scans.best(index, query, 4, 5) is None
        assert scans.order(index, query, np.arange(3)) is None
        assert find(index, query, 5, compiled=scans) == find(index, query, 5)


def test_an_index_that_was_replaced_since_is_searched_as_it_was(scans, tmp_path):
    with Index.open(written(tmp_path / "p.vidx", 50, 1, 9)) as index:
        query = pack_bits(bits(10, 1, WIDTH))
        wanted = find(index, query, 5)
        written(tmp_path / "p.vidx", 40, 1, 11)
        assert scans.best(index, query, 1, 5) is None
        assert find(index, query, 5, compiled=scans) == wanted
        with Index.open(tmp_path / "p.vidx") as other:
            assert find(other, query, 5, compiled=scans) == find(other, query, 5) != wanted
            (tmp_path / "p.vidx").unlink()  # what is mapped stays
            assert find(other, query, 5, compiled=scans) == find(other, query, 5)


def test_a_damaged_index_is_one_sentence(scans, tmp_path):
    path = written(tmp_path / "p.vidx", 50, 1, 12)
    data = bytearray(path.read_bytes())
    query = pack_bits(bits(13, 1, WIDTH))
    with Index.open(path) as index:
        start = index._base + index._sections["first"].start
    data[start + 3] ^= 1
    path.write_bytes(data)
    with Index.open(path) as index, pytest.raises(VitcError, match="damaged") as caught:
        find(index, query, 5, compiled=scans)
    assert str(path) in caught.value.message
    assert "vitc index build" in caught.value.hint


def test_a_model_that_was_closed_is_one_sentence(artefact, tmp_path):
    model = artefact.load()
    closed = CompiledScans.of(model)
    assert closed is not None
    model.close()
    with (
        Index.open(written(tmp_path / "p.vidx", 5, 1, 14)) as index,
        pytest.raises(VitcError, match="was closed"),
    ):
        closed.best(index, pack_bits(bits(15, 1, WIDTH)), 1, 3)


def test_a_library_without_scans_has_none(tmp_path):
    api.export(api.new("micro", depth=1), tmp_path / "m.onnx", api.ExportOptions(check=False))
    made = api.compile(tmp_path / "m.onnx", tmp_path / "m", api.CompileOptions(check=False))
    assert CompiledScans.of(made.load()) is None


def test_processes_search_parts_by_an_artefact_that_they_find(artefact, tmp_path):
    query = pack_bits(bits(16, WORDS, WIDTH))
    with Index.open(written(tmp_path / "p.vidx", 60, TOKENS, 17)) as index:
        parts, wanted = split_index(index, tmp_path / "parts", 3), find(index, query, 9)
    for place, jobs in ((artefact.path, 2), (artefact.path, 1), (tmp_path / "nowhere", 1)):
        found = search_shards(parts, "00" * 32, query, 9, jobs=jobs, artefact=place)
        assert found == wanted
    assert shards._scans(str(artefact.path)) is shards._scans(str(artefact.path)) is not None
