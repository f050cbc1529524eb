"""An index holds what was written, or says in a sentence why not."""

from __future__ import annotations

import copy
import json
import os
import re
import signal
import struct
import subprocess
import sys
import textwrap
import zlib
from collections.abc import Iterator
from contextlib import suppress
from functools import reduce
from operator import getitem
from pathlib import Path

import numpy as np
import pytest

from vitc.dialect.packing import pack_bits, packed_width
from vitc.errors import VitcError
from vitc.outputs import claim_file
from vitc.retrieval.index_file import Index, IndexFacts, Vectors, write_index

MODEL, OTHER = "ab" * 32, "cd" * 32
WIDTH, TOKENS, IMAGES = 100, 3, 40


def vectors(seed: int, images: int = IMAGES) -> Vectors:
    bits = np.random.default_rng(seed).integers(0, 2, (images, TOKENS, WIDTH))
    return Vectors([f"photos/{i} \udcff {seed}.jpg" for i in range(images)], pack_bits(bits))


def written(path: Path, given: Vectors, *, force: bool = False) -> Path:
    with claim_file(path, force=force) as output:
        write_index(output, IndexFacts(MODEL, WIDTH, TOKENS), given)
    return path


@pytest.mark.parametrize("images", [0, 1, IMAGES, 30_000])
def test_an_index_gives_back_what_was_written(tmp_path, images):
    given = vectors(1, images)
    with Index.open(written(tmp_path / "p.vidx", given), model=MODEL) as index:
        assert index.images == images
        assert index.facts == IndexFacts(MODEL, WIDTH, TOKENS)
        assert [index.name(number) for number in range(images)] == list(given.ids)
        assert list(index.ids) == list(given.ids)
        assert [index.number(name) for name in given.ids] == [*range(images)]
        assert index.number("photos") is None
        assert np.array_equal(index.vectors().tokens, given.tokens)
        assert np.array_equal(index.first(), given.tokens[:, 0])
        assert np.array_equal(index.first(7, 11), given.tokens[7:11, 0])
        last = max(images - 2, 0)
        assert np.array_equal(index.tokens(last, images + 9), given.tokens[last:])


def test_rows_lie_in_the_file_at_multiples_of_64_bytes(tmp_path):
    with Index.open(written(tmp_path / "p.vidx", vectors(2))) as index:
        for rows in (index.first(), index.tokens()):
            assert rows.__array_interface__["data"][0] % 64 == 0
            assert not rows.flags.owndata
            assert not rows.flags.writeable


def test_a_million_images_of_one_vector_of_256_bits_take_32_megabytes_and_their_names(tmp_path):
    images = 100_000
    one = Vectors([f"{i}" for i in range(images)], np.zeros((images, 1, 32), np.uint8))
    with claim_file(tmp_path / "p.vidx") as output:
        write_index(output, IndexFacts(MODEL, 256, 1), one)
    with Index.open(tmp_path / "p.vidx") as index:
        assert index.first().nbytes == 32 * images


def test_every_byte_that_changes_is_seen(tmp_path):
    path = written(tmp_path / "p.vidx", vectors(3, 6))
    whole, given = path.read_bytes(), vectors(3, 6)
    for at in range(len(whole)):
        for bit in (1, 128):
            path.write_bytes(whole[:at] + bytes([whole[at] ^ bit]) + whole[at + 1 :])
            try:
                with Index.open(path, model=MODEL) as index:
                    found = index.vectors()
            except VitcError:
                continue
            # Padding between sections says nothing.
            assert (list(found.ids), found.tokens.tobytes()) == (given.ids, given.tokens.tobytes())
            assert whole[at] == 0


def test_every_length_that_is_cut_is_seen(tmp_path):
    path = written(tmp_path / "p.vidx", vectors(4, 6))
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(VitcError, match=r"cut off|no index|damaged"):
            Index.open(path).vectors()


def test_damage_is_found_where_it_is_read_and_only_there(tmp_path):
    path = written(tmp_path / "p.vidx", vectors(5))
    whole = bytearray(path.read_bytes())
    given = vectors(5).tokens.tobytes()
    whole[bytes(whole).index(given) + 50] ^= 4
    path.write_bytes(whole)
    with Index.open(path) as index:
        assert index.first().shape == (IMAGES, packed_width(WIDTH))
        with pytest.raises(VitcError, match="block 0 of its tokens"):
            index.tokens()


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "is no index"),
        (b"\x89PNG\r\n", "is no index"),
        (b"VITCIDX9" + bytes(100), "of another version"),
        (b"VITCIDX1" + b"\xff" * 100, "cut off"),
        (b"VITCIDX1" + b"\xff" * 4, "damaged: it is cut off"),
    ],
)
def test_what_is_no_index_of_this_vitc_is_named(tmp_path, content, says):
    (tmp_path / "x").write_bytes(content)
    with pytest.raises(VitcError, match=says):
        Index.open(tmp_path / "x")


def restated(path: Path, header: bytes) -> None:
    """Give an index another header, with the checksum of that."""
    whole = path.read_bytes()
    (length,) = struct.unpack_from("<Q", whole, 8)
    rest = whole[-(-(16 + length + 4) // 64) * 64 :]
    start = whole[:8] + struct.pack("<Q", len(header)) + header
    start += struct.pack("<I", zlib.crc32(header))
    path.write_bytes(start + bytes(-len(start) % 64) + rest)


def places(value: object, at: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """Where values of parsed JSON lie."""
    keys = value if isinstance(value, dict) else range(len(value)) if type(value) is list else ()
    for key in keys:
        yield (*at, key)
        yield from places(value[key], (*at, key))  # type: ignore[index]


WRONG = (-1, 0, 1, 0.5, 1e300, True, None, "x", [], {}, [1], [[]], 1 << 31, 1 << 64, float("nan"))


def test_a_header_of_other_values_is_damage_or_an_index(tmp_path):
    path = written(tmp_path / "p.vidx", vectors(7, 5))
    whole = path.read_bytes()
    (length,) = struct.unpack_from("<Q", whole, 8)
    stated = json.loads(whole[16 : 16 + length])
    for place in places(stated):
        for value in WRONG:
            changed = copy.deepcopy(stated)
            *above, last = place
            reduce(getitem, above, changed)[last] = value
            restated(path, json.dumps(changed).encode())
            said = None
            try:
                with Index.open(path) as index:
                    index.vectors()
                    with suppress(VitcError):
                        index.refuse_other(MODEL)
            except VitcError as error:
                said = error.message
            assert said is None or re.search("damaged: (it|block|its) ", said), (place, value)


@pytest.mark.parametrize(
    "header", [b"", b"[]", b"1", b"{}", b"\xff", b"[" * 100_000, b"9" * 5000, b'{"block": 1}']
)
def test_a_header_that_states_no_index_is_damage(tmp_path, header):
    path = written(tmp_path / "p.vidx", vectors(8, 5))
    restated(path, header)
    with pytest.raises(VitcError, match="damaged: its header is not that of an index"):
        Index.open(path)


def test_a_missing_file_a_folder_and_a_pipe_are_no_index(tmp_path):
    with pytest.raises(VitcError, match="cannot be read: No such file"):
        Index.open(tmp_path / "x")
    with pytest.raises(VitcError, match="is no index"):
        Index.open(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(VitcError, match="is no index"):
        Index.open(tmp_path / "pipe")


def test_an_index_of_another_model_is_refused(tmp_path):
    path = written(tmp_path / "p.vidx", vectors(6))
    with pytest.raises(VitcError, match="another model") as caught:
        Index.open(path, model=OTHER)
    for model in (MODEL, OTHER):
        assert model[:12] in caught.value.message


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda v: Vectors([*v.ids[:-1], v.ids[0]], v.tokens), "Two images are called"),
        (lambda v: Vectors(v.ids[1:], v.tokens), "were given for an index of"),
        (lambda v: Vectors(v.ids, v.tokens[..., :-1]), "were given for an index of"),
        (lambda v: Vectors(v.ids, v.tokens.astype(np.int32)), "were given for an index of"),
        (lambda v: Vectors(["a\0b", *v.ids[1:]], v.tokens), "zero byte"),
    ],
)
def test_vectors_that_are_no_index_are_refused_and_nothing_is_written(tmp_path, change, says):
    with pytest.raises(VitcError, match=says):
        written(tmp_path / "p.vidx", change(vectors(7)))
    assert list(tmp_path.iterdir()) == []


def test_a_reader_keeps_what_it_opened_while_the_index_is_built_again(tmp_path):
    path = written(tmp_path / "p.vidx", vectors(8))
    with Index.open(path) as before:
        written(path, vectors(9), force=True)
        assert np.array_equal(before.tokens(), vectors(8).tokens)
    with Index.open(path) as after:
        assert np.array_equal(after.tokens(), vectors(9).tokens)


def test_a_writer_that_is_killed_leaves_the_old_index(tmp_path):
    path = written(tmp_path / "p.vidx", vectors(10))
    whole = path.read_bytes()
    program = textwrap.dedent("""
        import os, signal, sys
        from pathlib import Path
        import numpy as np
        from vitc.outputs import claim_file
        from vitc.retrieval import index_file

        class Dies:
            def __init__(self, file): self.file = file
            def __getattr__(self, name): return getattr(self.file, name)
            def write(self, data):
                self.file.write(data); self.file.flush()
                if self.file.tell() > 300: os.kill(os.getpid(), signal.SIGKILL)
        real = Path.open
        class Opened:
            def __init__(self, file): self.file = file
            def __enter__(self): return Dies(self.file.__enter__())
            def __exit__(self, *e): return self.file.__exit__(*e)
        Path.open = lambda self, *a, **k: Opened(real(self, *a, **k))
        given = index_file.Vectors([str(i) for i in range(50)], np.ones((50, 2, 8), np.uint8))
        with claim_file(sys.argv[1], force=True) as output:
            index_file.write_index(output, index_file.IndexFacts("00" * 32, 64, 2), given)
    """)
    done = subprocess.run(
        [sys.executable, "-c", program, str(path)], check=False, timeout=300, capture_output=True
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert path.read_bytes() == whole
    # The next build takes away what the killed one left.
    written(path, vectors(11), force=True)
    assert [each.name for each in tmp_path.iterdir() if each.suffix != ".lock"] == ["p.vidx"]
