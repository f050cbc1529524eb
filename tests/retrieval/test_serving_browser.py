"""The page of `vitc search --serve` in a real browser: type words, press Enter, see photos."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.browser import Browser, Tab
from tests.retrieval.towers import towers
from vitc.models.checkpoint import save
from vitc.retrieval.building import build_index
from vitc.retrieval.encoder import Encoder, open_encoder
from vitc.retrieval.index_file import Index
from vitc.retrieval.page import page
from vitc.retrieval.querying import query
from vitc.retrieval.serving import PageServer

HANG_S = 120
NAMES = (
    "a.png",
    'below/"onerror=alert(1) x=.png',
    "below/<img src=x onerror=alert(2)>.png",
    "<script>alert(3)<",
    "%2e%2e.png",
    "d#?&amp;.png",
    "\u00fc '.png",
    "no_blank_" * 20 + ".png",
)
HOSTILE = (
    '"><script>alert(1)</script>',
    "'><img src=x onerror=alert(1)>",
    "</title></style><svg onload=alert(1)>",
    "javascript:alert(1)",
)
SHOWN = """[...document.querySelectorAll('figure')].map(each => [
  each.querySelector('img').naturalWidth, each.querySelector('img').naturalHeight,
  each.querySelector('figcaption').firstChild.data, each.querySelectorAll('*').length])"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An index of photos whose names are markup."""
    place = tmp_path_factory.mktemp("browsed")
    for seed, name in enumerate(NAMES):
        # A name that ends in markup cannot end in .png as well.
        file = place / "photos" / (name if name.endswith(".png") else f"{name}/script>.png")
        file.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), np.uint8)
        Image.fromarray(pixels).resize((640, 480)).save(file)
    save(towers("base", 3), place / "m.safetensors")
    build_index(place / "photos", open_encoder(place / "m.safetensors"), place / "p.vidx")
    return place


@pytest.fixture(scope="module")
def encoder(folder: Path) -> Encoder:
    return open_encoder(folder / "m.safetensors")


@pytest.fixture(scope="module")
def server(folder: Path, encoder: Encoder) -> Iterator[PageServer]:
    with PageServer(folder / "p.vidx", encoder, count=len(NAMES)) as made:
        thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield made
        made.shutdown()
        thread.join()


def search(tab: Tab, words: str) -> None:
    """Type words into the field, as the page has it in focus, and press Enter."""
    tab.ask("document.querySelector('input').select()")
    tab.type(words)
    with tab.loading():
        tab.enter()


def assert_shows(tab: Tab, folder: Path, encoder: Encoder, words: str, count: int) -> None:
    """The page shows what a search finds, each with a thumbnail and its name as text."""
    with Index.open(folder / "p.vidx") as index:
        found = query(index, encoder, text=words, like=None, count=count).found
    shown = tab.ask(SHOWN)
    assert [text for _, _, text, _ in shown] == [
        f"{place}. {each.name}" for place, each in enumerate(found, 1)
    ]
    assert all((wide, high) == (240, 180) for wide, high, *_ in shown)
    assert all(elements == 3 for *_, elements in shown)  # img, figcaption, br
    assert tab.ask("document.querySelector('input').value") == words
    assert tab.complaints() == []


def test_words_are_typed_and_photos_are_seen(
    browser: Browser, folder: Path, encoder: Encoder, tmp_path: Path
) -> None:
    command = ["search", folder / "p.vidx", "--serve", "--port", "0", "--top", "3"]
    process = subprocess.Popen(
        [sys.executable, "-m", "vitc.cli", *map(str, command)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "TMPDIR": str(tmp_path)},
    )
    try:
        assert process.stdout is not None
        url = process.stdout.readline().split()[0]
        assert url.startswith("http://127.0.0.1:")
        tab = browser.open()
        tab.go(url)
        assert tab.ask("document.activeElement.name") == "q"
        assert tab.ask("document.images.length") == 0
        search(tab, "a dog on a beach")
        assert_shows(tab, folder, encoder, "a dog on a beach", 3)
        search(tab, "a red chess knight")
        assert_shows(tab, folder, encoder, "a red chess knight", 3)
        process.send_signal(signal.SIGINT)
        assert process.wait(HANG_S) in (0, 130)
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize("words", HOSTILE)
def test_hostile_words_and_names_are_text(
    browser: Browser, server: PageServer, folder: Path, encoder: Encoder, words: str
) -> None:
    tab = browser.open()
    tab.go(server.url)
    search(tab, words)
    assert_shows(tab, folder, encoder, words, len(NAMES))
    assert tab.ask("document.title") == words
    assert tab.ask("document.querySelectorAll('script, svg, [onerror], [onload]').length") == 0
    assert tab.ask("location.href").startswith(server.url)


@pytest.mark.parametrize("width", [1280, 400])
def test_the_page_fits(browser: Browser, server: PageServer, width: int) -> None:
    tab = browser.open(width)
    tab.go(server.url)
    search(tab, "dog" * 300)
    assert tab.ask("document.images.length") == len(NAMES)
    assert tab.overflow() == {}


def test_the_file_of_a_search_shows_the_same_and_runs_nothing(
    browser: Browser, folder: Path, encoder: Encoder, tmp_path: Path
) -> None:
    with Index.open(folder / "p.vidx") as index:
        answer = query(index, encoder, text=HOSTILE[0], like=None, count=len(NAMES))
    path = tmp_path / "found.html"
    path.write_text(page(HOSTILE[0], folder / "photos", answer))
    tab = browser.open(400)
    tab.go(path.as_uri())
    shown = tab.ask(SHOWN)
    assert [text for _, _, text, _ in shown] == [
        f"{place}. {each.name}" for place, each in enumerate(answer.found, 1)
    ]
    assert all((wide, high) == (240, 180) for wide, high, *_ in shown)
    assert tab.ask("document.querySelectorAll('script').length") == 0
    assert tab.complaints() == []
    assert tab.overflow() == {}
