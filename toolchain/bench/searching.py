"""Time of a search among random packed vectors, beside what else searches them.

Every contender finds the largest scores of all images, alone for one query and for a batch, and its
scores are compared with those of `vitc.retrieval.scan` before it is timed.
"""

from __future__ import annotations

import importlib
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np
import onnx
from numpy.typing import NDArray

from vitc import api
from vitc.dialect.packing import packed_width
from vitc.dialect.proto import to_proto
from vitc.dialect.scan_graph import scan_graph
from vitc.errors import VitcError
from vitc.outputs import claim_file
from vitc.places import scratch_folder
from vitc.retrieval.compiled_scan import CompiledScans, Listed
from vitc.retrieval.index_file import Index, IndexFacts, Packed, Vectors, write_index
from vitc.retrieval.scan import interactions, top
from vitc.runtime.artefact import Artefact

__all__ = ["SearchBenchOptions", "SearchTime", "bench_searches"]

_MODEL: Final = "00" * 32
_ONE, _MANY = "scan", "texts"
_BLOCK: Final = 1 << 12
"""Images that numpy compares at once."""


@dataclass(frozen=True, kw_only=True)
class SearchBenchOptions:
    """How to measure.

    Attributes:
        images: How many there are, each of one vector.
        width: d, bits of a vector.
        batch: Queries that are answered together.
        top: How many images a query finds.
        repeats: Timed searches of each kind.
        target: What vitc's library is compiled for: a key of `vitc.targets.TARGETS`, or ``native``.
        threads: Threads of a contender.
        seed: Of the random bits.

    Raises:
        VitcError: If a number is out of range.
    """

    images: int = 1_000_000
    width: int = 256
    batch: int = 32
    top: int = 10
    repeats: int = 7
    target: str = "native"
    threads: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("images", "width", "batch", "top", "repeats", "threads"):
            if getattr(self, name) < 1:
                raise VitcError(f"{name} must be 1 or more, found {getattr(self, name)}.")
        if self.width % 8:
            raise VitcError(
                f"Vectors of {self.width} bits do not fill bytes, as faiss and usearch want them.",
                "Choose a multiple of 8.",
            )


@dataclass(frozen=True)
class SearchTime:
    """What a contender took.

    Attributes:
        name: The contender.
        single_ms: Of one query, the fastest and the median.
        batch_ms: Of a query in a batch, the same.
        note: Why it was not timed; empty where it was.
    """

    name: str
    single_ms: tuple[float, float] | None = None
    batch_ms: tuple[float, float] | None = None
    note: str = ""


class _Contender(Protocol):
    """Something that searches."""

    def __call__(self, queries: Packed) -> NDArray[np.int64]:
        """Packed queries uint8 [q, P] to the largest scores of each, [q, top], largest first."""


def bench_searches(
    options: SearchBenchOptions, say: Callable[[str], None] = lambda _: None
) -> list[SearchTime]:
    """Time all contenders that are installed.

    Args:
        options: How.
        say: Told what is being done.

    Raises:
        VitcError: If one gives other scores than the definition.
    """
    rng = np.random.default_rng(options.seed)
    row = packed_width(options.width)
    images = rng.integers(0, 256, (options.images, row), dtype=np.uint8)
    queries = rng.integers(0, 256, (options.batch, row), dtype=np.uint8)
    wanted = _of_numpy(images, options)(queries[:2])
    times = []
    with scratch_folder("scan") as folder:
        for name, package, build in _CONTENDERS:
            missing = [each for each in package if not _installed(each)]
            if missing:
                times.append(SearchTime(name, note=f"{missing[0]} is not installed"))
                continue
            say(f"timing {name}")
            with build(images, options, folder) as search:
                found = search(queries[:2])
                if not np.array_equal(found, wanted):
                    raise VitcError(
                        f"{name} finds scores {found[0].tolist()}, wanted {wanted[0].tolist()}."
                    )
                times.append(_timed(name, search, queries, options.repeats))
    return times


def _timed(name: str, search: _Contender, queries: Packed, repeats: int) -> SearchTime:
    def seconds(asked: Packed) -> tuple[float, float]:
        search(asked)
        taken = []
        for _ in range(repeats):
            began = time.perf_counter()
            search(asked)
            taken.append(1e3 * (time.perf_counter() - began) / len(asked))
        return min(taken), statistics.median(taken)

    return SearchTime(name, seconds(queries[:1]), seconds(queries))


def _installed(package: str) -> bool:
    try:
        importlib.import_module(package)
    except ImportError:
        return False
    return True


def _of_numpy(images: Packed, options: SearchBenchOptions) -> _Contender:
    def search(queries: Packed) -> NDArray[np.int64]:
        found = np.empty((len(queries), min(options.top, len(images))), np.int64)
        for query, row in zip(queries, found, strict=True):
            scores = np.concatenate(
                [
                    interactions(query[None], images[at : at + _BLOCK, None], options.width)
                    for at in range(0, len(images), _BLOCK)
                ]
            )
            row[:] = scores[top(scores, options.top)]
        return found

    return search


@contextmanager
def _numpy(images: Packed, options: SearchBenchOptions, _: Path) -> Iterator[_Contender]:
    yield _of_numpy(images, options)


@contextmanager
def _vitc(images: Packed, options: SearchBenchOptions, folder: Path) -> Iterator[_Contender]:
    """The search in C, of one query and of all of a batch."""
    artefact = _compiled(options, folder)
    path = folder / "images.vidx"
    with claim_file(path) as output:
        names = [str(number) for number in range(len(images))]
        write_index(output, IndexFacts(_MODEL, options.width, 1), Vectors(names, images[:, None]))
    scans = CompiledScans.of(artefact.load(options.threads))
    with Index.open(path) as index:

        def listed(queries: Packed) -> Sequence[Listed | None]:
            if scans is None:
                return [None]
            if len(queries) == options.batch > 1:
                together = scans.best_of_each(index, queries[:, None], 1, options.top)
                return [None] if together is None else together
            return [scans.best(index, query[None], 1, options.top) for query in queries]

        def search(queries: Packed) -> NDArray[np.int64]:
            found = [scores for each in listed(queries) if each is not None for scores in each[1:]]
            return np.stack(found).astype(np.int64)

        yield search


def _compiled(options: SearchBenchOptions, folder: Path) -> Artefact:
    texts = {_ONE: None, _MANY: options.batch}
    files: dict[str, str | Path | None] = {}
    for name, count in texts.items():
        file = folder / f"{name}.onnx"
        onnx.save(to_proto(scan_graph(1, 1, options.width, texts=count)), file)
        files[name] = file
    return api.compile(files, folder / "scan", api.CompileOptions(options.target, check=False))


@contextmanager
def _faiss(images: Packed, options: SearchBenchOptions, _: Path) -> Iterator[_Contender]:
    faiss: Any = importlib.import_module("faiss")
    faiss.omp_set_num_threads(options.threads)
    index = faiss.IndexBinaryFlat(options.width)
    index.add(images)

    def search(queries: Packed) -> NDArray[np.int64]:
        distances, _ = index.search(queries, min(options.top, len(images)))
        scores: NDArray[np.int64] = options.width - 2 * distances.astype(np.int64)
        return scores

    yield search


@contextmanager
def _usearch(images: Packed, options: SearchBenchOptions, _: Path) -> Iterator[_Contender]:
    usearch: Any = importlib.import_module("usearch.index")

    def search(queries: Packed) -> NDArray[np.int64]:
        found = usearch.search(
            images,
            queries,
            min(options.top, len(images)),
            usearch.MetricKind.Hamming,
            exact=True,
            threads=options.threads,
        )
        distances = np.asarray(found.distances).reshape(len(queries), -1)
        return options.width - 2 * distances.astype(np.int64)

    yield search


_Build = Callable[[Packed, SearchBenchOptions, Path], Any]

_CONTENDERS: Final[Sequence[tuple[str, Sequence[str], _Build]]] = (
    ("vitc", (), _vitc),
    ("numpy", (), _numpy),
    ("faiss IndexBinaryFlat", ("faiss",), _faiss),
    ("usearch, exact", ("usearch",), _usearch),
)
