"""An index searched in C: the list of the reference, and one sentence for what is no index."""

from __future__ import annotations

import ctypes
import json
import platform
import struct
import subprocess
import zlib
from pathlib import Path

import numpy as np
import onnx
import pytest

from vitc import api
from vitc.compiler.link import run_zig, runtime_sources
from vitc.dialect.packing import pack_bits
from vitc.dialect.proto import to_proto
from vitc.dialect.scan_graph import scan_graph
from vitc.outputs import claim_file
from vitc.retrieval.index_file import IndexFacts, Vectors, write_index
from vitc.retrieval.scan import interactions, top
from vitc.runtime import Artefact
from vitc.targets import find

MODEL, TOKENS, WIDTH = "ab" * 32, 3, 72
OK, ARGUMENT, FILE, DAMAGED, OTHER, _, ENTRY, RUN = range(8)


class Found(ctypes.Structure):
    _fields_ = (("image", ctypes.c_int64), ("score", ctypes.c_int32))


def compiled(folder: Path, target: str = "native") -> Artefact:
    """Scans of the first vectors and of all, and a classifier beside them that is none."""
    sources = {"scan": (1, 1), "score": (2, TOKENS)}
    for name, sizes in sources.items():
        onnx.save(to_proto(scan_graph(*sizes, WIDTH)), folder / f"{name}.onnx")
    onnx.save(to_proto(scan_graph(1, 1, WIDTH, texts=3)), folder / "texts.onnx")
    files = {name: folder / f"{name}.onnx" for name in (*sources, "texts")}
    return api.compile(files, folder / target, api.CompileOptions(target=target))


def indexed(path: Path, images: int, seed: int = 0) -> Vectors:
    """Few values of vectors, so that many scores are equal."""
    rng = np.random.default_rng(seed)
    few = rng.integers(0, 2, (19, TOKENS, WIDTH), dtype=np.uint8)
    tokens = pack_bits(few[rng.integers(0, len(few), images)])
    vectors = Vectors([f"photos/{i} ü.jpg" for i in range(images)], tokens)
    with claim_file(path) as output:
        write_index(output, IndexFacts(MODEL, WIDTH, TOKENS), vectors)
    return vectors


def queried(seed: int, count: int) -> np.ndarray:
    return pack_bits(np.random.default_rng(seed).integers(0, 2, (count, WIDTH), dtype=np.uint8))


@pytest.fixture(scope="module")
def artefact(tmp_path_factory) -> Artefact:
    return compiled(tmp_path_factory.mktemp("scans"))


class Searcher:
    """A handle of the library, and its functions."""

    def __init__(self, artefact: Artefact) -> None:
        self.functions = ctypes.CDLL(str(artefact.library))
        self.functions.vitc_search_status_text.restype = ctypes.c_char_p
        self.functions.vitc_index_close.argtypes = (ctypes.c_void_p,)
        self.model = ctypes.c_void_p()
        assert self.functions.vitc_create(2, ctypes.byref(self.model)) == 0

    def open(self, path: Path, model: str | None = None) -> tuple[int, ctypes.c_void_p]:
        index = ctypes.c_void_p()
        said = None if model is None else model.encode()
        status = self.functions.vitc_index_open(str(path).encode(), said, ctypes.byref(index))
        assert (status == OK) == bool(index.value)
        return status, index

    def search(self, index, entry: str, query: np.ndarray, most: int):
        found, count = (Found * (most + 1))(), ctypes.c_int32(-1)
        found[most].score = 77
        status = self.functions.vitc_search(
            self.model, index, entry.encode(), ctypes.c_void_p(query.ctypes.data),
            ctypes.c_size_t(query.nbytes), most, found, ctypes.byref(count),
        )  # fmt: skip
        assert found[most].score == 77
        return status, [(one.image, one.score) for one in found[: max(count.value, 0)]]

    def search_texts(self, index, entry: str, queries: np.ndarray, most: int):
        texts = len(queries)
        found, count = (Found * (texts * most + 1))(), ctypes.c_int32(-1)
        found[texts * most].score = 77
        status = self.functions.vitc_search_texts(
            self.model, index, entry.encode(), ctypes.c_void_p(queries.ctypes.data),
            ctypes.c_size_t(queries.nbytes), most, found, ctypes.byref(count),
        )  # fmt: skip
        assert found[texts * most].score == 77
        lists = [found[text * most : text * most + max(count.value, 0)] for text in range(texts)]
        return status, [[(one.image, one.score) for one in each] for each in lists]

    def rank(self, index, entry: str, query: np.ndarray, images: list[int]):
        found = (Found * len(images))(*((image, 0) for image in images))
        status = self.functions.vitc_rank(
            self.model, index, entry.encode(), ctypes.c_void_p(query.ctypes.data),
            ctypes.c_size_t(query.nbytes), found, len(images),
        )  # fmt: skip
        return status, [(one.image, one.score) for one in found]


@pytest.fixture(scope="module")
def searcher(artefact) -> Searcher:
    return Searcher(artefact)


def wanted(query: np.ndarray, documents: np.ndarray, most: int) -> list[tuple[int, int]]:
    scores = interactions(query, documents, WIDTH)
    return [(int(i), int(scores[i])) for i in top(scores, most)]


@pytest.mark.parametrize("images", [0, 1, 5, 16_383, 16_384, 40_001])
def test_the_list_is_that_of_the_reference_with_equal_scores_in_order(searcher, tmp_path, images):
    vectors = indexed(tmp_path / "p.vidx", images)
    status, index = searcher.open(tmp_path / "p.vidx", MODEL)
    assert status == OK
    for most in (0, 1, 2, 10, 31, 20_000):
        one, two = queried(most, 1), queried(most, 2)
        first = vectors.tokens[:, :1]
        assert searcher.search(index, "scan", one, most) == (OK, wanted(one, first, most))
        assert searcher.search(index, "score", two, most) == (
            OK, wanted(two, vectors.tokens, most)
        )  # fmt: skip
    name = ctypes.c_char_p()
    for image in {0, images // 2, images - 1} if images else ():
        reference = ctypes.byref(name)
        assert searcher.functions.vitc_index_name(index, ctypes.c_int64(image), reference) == OK
        assert name.value.decode() == vectors.ids[image]
    far = ctypes.c_int64(images)
    assert searcher.functions.vitc_index_name(index, far, ctypes.byref(name)) == ARGUMENT
    searcher.functions.vitc_index_close(index)


@pytest.mark.parametrize("images", [0, 5, 21_845, 43_699])
def test_several_texts_have_the_list_that_each_has_alone(searcher, tmp_path, images):
    vectors = indexed(tmp_path / "p.vidx", images)
    _, index = searcher.open(tmp_path / "p.vidx", MODEL)
    queries, first = queried(1, 3)[:, None], vectors.tokens[:, :1]
    for most in (0, 1, 2, 10, 31, 3000):
        lists = [wanted(query, first, most) for query in queries]
        assert searcher.search_texts(index, "texts", queries, most) == (OK, lists), most
    searcher.functions.vitc_index_close(index)


def test_images_of_a_fast_scan_are_ordered_again_by_all_their_vectors(searcher, tmp_path):
    vectors = indexed(tmp_path / "p.vidx", 3000)
    _, index = searcher.open(tmp_path / "p.vidx")
    query = queried(3, 2)
    _, fast = searcher.search(index, "scan", np.ascontiguousarray(query[:1]), 50)
    status, again = searcher.rank(index, "score", query, [image for image, _ in fast])
    scores = interactions(query, vectors.tokens, WIDTH)
    order = sorted((-int(scores[image]), image) for image, _ in fast)
    assert (status, again) == (OK, [(image, -score) for score, image in order])
    many = np.random.default_rng(4).integers(0, 3000, 20_000).tolist()  # more than a cache takes
    order = sorted((-int(scores[image]), image) for image in many)
    status, again = searcher.rank(index, "score", query, many)
    assert (status, again) == (OK, [(image, -score) for score, image in order])
    assert searcher.rank(index, "score", query, [3000])[0] == ARGUMENT
    searcher.functions.vitc_index_close(index)


def test_an_entry_that_is_no_scan_of_these_sizes_is_refused(searcher, tmp_path):
    indexed(tmp_path / "p.vidx", 10)
    _, index = searcher.open(tmp_path / "p.vidx")
    for entry, query in (("walk", 1), ("scan", 2), ("score", 1), ("texts", 3)):
        assert searcher.search(index, entry, queried(1, query), 3)[0] == ENTRY
    for entry, query in (("walk", 3), ("scan", 1), ("score", 2), ("texts", 2), ("texts", 6)):
        assert searcher.search_texts(index, entry, queried(1, query)[:, None], 3)[0] == ENTRY
    searcher.functions.vitc_index_close(index)


def test_what_is_no_index_cut_off_or_of_another_model_is_refused(searcher, tmp_path):
    indexed(tmp_path / "p.vidx", 500)
    whole = (tmp_path / "p.vidx").read_bytes()
    other = tmp_path / "q.vidx"
    assert searcher.open(tmp_path / "p.vidx", "cd" * 32)[0] == OTHER
    for path in (tmp_path, tmp_path / "none"):
        assert searcher.open(path)[0] == FILE
    for data in (b"", b"VITCID", b"PK" + whole[2:]):
        other.write_bytes(data)
        assert searcher.open(other)[0] == FILE
    for length in (8, 15, 16, 100, len(whole) // 2, len(whole) - 1):
        other.write_bytes(whole[:length])
        assert searcher.open(other)[0] == DAMAGED, length
    other.write_bytes(whole[:7] + b"2" + whole[8:])
    assert searcher.open(other)[0] == DAMAGED


def test_a_bit_that_differs_anywhere_is_found_where_it_is_read(searcher, tmp_path):
    indexed(tmp_path / "p.vidx", 700)
    whole = (tmp_path / "p.vidx").read_bytes()
    (length,) = struct.unpack_from("<Q", whole, 8)
    stated = json.loads(whole[16 : 16 + length])["sections"]
    base = -(-(16 + length + 4) // 64) * 64
    rng, one = np.random.default_rng(2), queried(1, 1)
    places = [8 + int(i) for i in rng.integers(0, length + 8, 12)]
    for name in ("first", "tokens", "ids"):
        start, size = stated[name]["start"], stated[name]["size"]
        places += [base + start + int(i) for i in rng.integers(0, size, 4)]
    for place in places:
        damaged = bytearray(whole)
        damaged[place] ^= 1 << int(rng.integers(8))
        (tmp_path / "q.vidx").write_bytes(damaged)
        status, index = searcher.open(tmp_path / "q.vidx")
        if status == OK:
            name = ctypes.c_char_p()
            found = [
                searcher.search(index, "scan", one, 3)[0],
                searcher.search(index, "score", queried(1, 2), 3)[0],
                searcher.functions.vitc_index_name(index, ctypes.c_int64(0), ctypes.byref(name)),
            ]
            status = max(found)
            searcher.functions.vitc_index_close(index)
        assert status == DAMAGED, place


@pytest.mark.parametrize(
    "change",
    [
        lambda s: s.pop("width"),
        lambda s: s.update(width=0),
        lambda s: s.update(tokens=1 << 40),
        lambda s: s.update(images=s["images"] + 1),
        lambda s: s.update(block=1 << 19),
        lambda s: s.update(sections=[]),
        lambda s: s.update(model="x" * 500),
        lambda s: s["sections"]["first"].update(start=1 << 62),
        lambda s: s["sections"]["first"].update(size=-8),
        lambda s: s["sections"]["tokens"].update(checksums=[]),
        lambda s: s["sections"]["ids"].update(checksums=[1 << 33]),
        lambda s: s.update(made_by=[[[[[[[[[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]]]]]]]]]),
    ],
)
def test_a_header_that_says_what_cannot_be_is_refused(searcher, tmp_path, change):
    indexed(tmp_path / "p.vidx", 20)
    whole = (tmp_path / "p.vidx").read_bytes()
    (length,) = struct.unpack_from("<Q", whole, 8)
    stated = json.loads(whole[16 : 16 + length])
    change(stated)
    header = json.dumps(stated, sort_keys=True).encode()
    start = whole[:8] + struct.pack("<Q", len(header)) + header
    start += struct.pack("<I", zlib.crc32(header))
    rest = whole[-(-(16 + length + 4) // 64) * 64 :]
    (tmp_path / "q.vidx").write_bytes(start + bytes(-len(start) % 64) + rest)
    assert searcher.open(tmp_path / "q.vidx")[0] == DAMAGED


class StaticSearch:
    """A static program that searches by a library, on the processor of a target."""

    def __init__(self, folder: Path, target: str, request: pytest.FixtureRequest) -> None:
        machine = find(target)
        self._command = [str(folder / "search")]
        if platform.machine() not in machine.machine:
            emulator = request.getfixturevalue("need_emulator")(machine.emulator)
            self._command.insert(0, str(emulator))
        sources = runtime_sources()
        run_zig(
            [
                "-target", machine.runner, "-std=gnu11", "-O2", "-Wall", "-Werror", "-static",
                f"-I{sources}", str(Path(__file__).with_name("search.c")),
                str(sources / "vitc_loader.c"), "-o", "search",
            ],
            folder,
        )  # fmt: skip

    def __call__(self, *arguments: object) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*self._command, *map(str, arguments)], capture_output=True, text=True, check=False,
            timeout=600,
        )  # fmt: skip


@pytest.mark.parametrize("target", ["native", "arm", "armv7"])
def test_a_static_program_searches_on_any_processor(artefact, tmp_path, request, target):
    search = StaticSearch(tmp_path, target, request)
    made = artefact if target == "native" else compiled(tmp_path, target)
    vectors = indexed(tmp_path / "p.vidx", 20_000)
    query = queried(7, 2)
    query.tofile(tmp_path / "query")

    def run(index: Path, *more: str) -> subprocess.CompletedProcess[str]:
        return search(made.library, index, tmp_path / "query", 12, "score", *more)

    done = run(tmp_path / "p.vidx", MODEL)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        f"{image} {score} {vectors.ids[image]}"
        for image, score in wanted(query, vectors.tokens, 12)
    ]
    (tmp_path / "q.vidx").write_bytes((tmp_path / "p.vidx").read_bytes()[:-1])
    done = run(tmp_path / "q.vidx")
    assert (done.returncode, done.stdout) == (
        1, "The index is cut off, damaged or of another version; build it again.\n"
    )  # fmt: skip


@pytest.mark.parametrize("target", ["arm", "armv7"])
def test_codes_of_any_width_are_searched_on_arm(tmp_path, request, target):
    widths = (57, 64, 100, 128, 192, 256, 384, 512, 768, 1024)
    search, files = StaticSearch(tmp_path, target, request), {}
    for width in widths:
        files[f"scan_{width}"] = tmp_path / f"{width}.onnx"
        onnx.save(to_proto(scan_graph(1, 1, width)), files[f"scan_{width}"])
    options = api.CompileOptions(target=target, check=False)
    made = api.compile(files, tmp_path / target, options)
    rng = np.random.default_rng(3)
    for width in widths:
        few = rng.integers(0, 2, (9, 1, width), dtype=np.uint8)
        query = pack_bits(rng.integers(0, 2, (1, width), dtype=np.uint8))
        query.tofile(tmp_path / "query")
        for images in (0, 1, 3, 5, 16_389):
            tokens = pack_bits(few[rng.integers(0, len(few), images)])
            with claim_file(tmp_path / "p.vidx", force=True) as output:
                names = [str(number) for number in range(images)]
                write_index(output, IndexFacts(MODEL, width, 1), Vectors(names, tokens))
            done = search(made.library, tmp_path / "p.vidx", tmp_path / "query", 7, f"scan_{width}")
            assert done.returncode == 0, done.stderr
            scores = interactions(query, tokens, width)
            assert done.stdout.splitlines() == [
                f"{image} {scores[image]} {image}" for image in top(scores, 7)
            ], (width, images)
