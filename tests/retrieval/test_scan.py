"""A scan's scores and lists are those of products of signs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from vitc.dialect.packing import pack_bits
from vitc.errors import VitcError
from vitc.models.retrieval.scores import sign_interaction
from vitc.outputs import claim_file
from vitc.retrieval import scan as module
from vitc.retrieval.index_file import Index, IndexFacts, Vectors, write_index
from vitc.retrieval.scan import interactions, scan, search, top


def bits(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 2, shape).astype(np.uint8)


def index_of(path: Path, images: np.ndarray) -> Index:
    count, tokens, width = images.shape
    with claim_file(path) as output:
        names = [f"{i}.jpg" for i in range(count)]
        write_index(output, IndexFacts("00" * 32, width, tokens), Vectors(names, pack_bits(images)))
    return Index.open(path)


@pytest.mark.parametrize("width", [1, 8, 63, 64, 100, 256])
@pytest.mark.parametrize(("a", "b"), [(1, 1), (3, 5), (8, 1)])
def test_scores_are_those_of_products_of_signs(width, a, b):
    query, images = bits(1, a, width), bits(2, 17, b, width)
    wanted = sign_interaction(torch.from_numpy(images), torch.from_numpy(query)[None])[:, 0]
    made = interactions(pack_bits(query), pack_bits(images), width)
    assert made.dtype == np.int32
    assert made.tolist() == wanted.tolist()


@pytest.mark.parametrize("ranked", [0, 12, 50, 500])
def test_a_search_gives_the_list_that_sorting_gives(tmp_path, monkeypatch, ranked):
    monkeypatch.setattr(module, "_ROWS", 7)  # several parts
    images, query = bits(3, 50, 4, 20), bits(4, 3, 20)
    with index_of(tmp_path / "p.vidx", images) as index:
        found = search(index, pack_bits(query), 12, ranked=ranked)
        first = scan(index, pack_bits(query)[0]).tolist()
    signs = [2 * each.astype(int) - 1 for each in (query, images)]
    assert first == [int(signs[0][0] @ image[0]) for image in signs[1]]
    whole = [int((signs[0] @ image.T).max(axis=1).sum()) for image in signs[1]]
    best = sorted(range(50), key=lambda i: (-first[i], i))
    if ranked:
        best = sorted(best[:ranked], key=lambda i: (-whole[i], i))
    scores = whole if ranked else first
    assert [(f.index, f.name, f.score) for f in found] == [
        (i, f"{i}.jpg", scores[i]) for i in best[:12]
    ]
    # Signs of 20 bits: equal scores there are, so their order was looked at.
    assert len({f.score for f in found}) < len(found)


@pytest.mark.parametrize("count", [0, 1, 5, 9, 20])
def test_the_best_come_first_and_of_equal_ones_the_earlier(count):
    scores = np.array([3, 7, 3, 7, -2, 3, 9, 3, 3], np.int32)
    wanted = sorted(range(9), key=lambda i: (-scores[i], i))[:count]
    assert top(scores, count).tolist() == wanted


def test_an_empty_index_finds_nothing(tmp_path):
    with index_of(tmp_path / "p.vidx", bits(5, 0, 2, 24)) as index:
        assert search(index, pack_bits(bits(6, 2, 24)), 10, ranked=20) == []


@pytest.mark.parametrize(
    ("query", "says"),
    [
        (np.zeros((2, 4), np.uint8), "meets vectors of 20 bits"),
        (np.zeros((2, 3), np.int8), "meets vectors of 20 bits"),
        (np.zeros((0, 3), np.uint8), "meets vectors of 20 bits"),
        (np.full((1, 3), 255, np.uint8), "spare bits"),
    ],
)
def test_a_query_that_does_not_fit_is_refused(tmp_path, query, says):
    with (
        index_of(tmp_path / "p.vidx", bits(7, 5, 2, 20)) as index,
        pytest.raises(VitcError, match=says),
    ):
        search(index, query, 3)
    with (
        Index.open(tmp_path / "p.vidx") as index,
        pytest.raises(VitcError, match="only the best 2 are ranked"),
    ):
        search(index, pack_bits(bits(8, 2, 20)), 3, ranked=2)
