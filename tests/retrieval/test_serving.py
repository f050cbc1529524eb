"""The page on loopback: words find photos, and nothing else is given away."""

from __future__ import annotations

import http.client
import threading
from collections.abc import Iterator
from html.parser import HTMLParser
from io import BytesIO
from pathlib import Path
from urllib.parse import quote

import numpy as np
import pytest
from PIL import Image

from tests.retrieval.towers import WIDTH, towers
from vitc.errors import VitcError
from vitc.models.checkpoint import save
from vitc.outputs import claim_file
from vitc.retrieval.building import build_index
from vitc.retrieval.encoder import Encoder, open_encoder
from vitc.retrieval.index_file import Index, IndexFacts, Vectors, write_index
from vitc.retrieval.querying import query
from vitc.retrieval.serving import PageServer

NAMES = ("a.png", 'below/"onerror=alert(1) x=.png', "below/ü <b>.png", "%2e%2e.png", "d#?.png")


class Page(HTMLParser):
    """Photos of a page, its field, its texts, and every tag with its attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data) -> None:
        self.texts.append(data)

    def of(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def ask(server: PageServer, path: str, host: str | None = None, method: str = "GET"):
    """Status, headers and body."""
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=120)
    connection.putrequest(method, path, skip_host=True)
    connection.putheader("Host", host or f"127.0.0.1:{server.server_port}")
    connection.endheaders()
    answer = connection.getresponse()
    body = answer.read()
    connection.close()
    return answer.status, dict(answer.headers), body


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Photos with names that mean something to HTML and to URLs, and a picture beside them."""
    place = tmp_path_factory.mktemp("served")
    for seed, name in enumerate(NAMES):
        file = place / "photos" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), np.uint8)
        Image.fromarray(pixels).resize((640, 480)).save(file)
    Image.new("RGB", (8, 8)).save(place / "secret.png")
    save(towers("base", 3), place / "m.safetensors")
    return place


@pytest.fixture(scope="module")
def encoder(folder) -> Encoder:
    return open_encoder(folder / "m.safetensors")


@pytest.fixture(scope="module")
def server(folder, encoder) -> Iterator[PageServer]:
    build_index(folder / "photos", encoder, folder / "p.vidx")
    with PageServer(folder / "p.vidx", encoder, count=3) as made:
        thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield made
        made.shutdown()
        thread.join()


def test_words_find_the_photos_that_a_search_finds(server, folder, encoder):
    status, headers, body = ask(server, "/?q=a+red+dog")
    page = Page(body.decode())
    assert status == 200
    with Index.open(folder / "p.vidx") as index:
        wanted = query(index, encoder, text="a red dog", like=None, count=3).found
    sources = [image["src"] for image in page.of("img")]
    assert sources == ["/photo/" + quote(found.name) for found in wanted]
    for found in wanted:
        assert any(found.name in text for text in page.texts)
    for source in sources:
        status, headers, body = ask(server, str(source))
        assert (status, headers["Content-Type"]) == (200, "image/jpeg")
        assert max(Image.open(BytesIO(body)).size) == 240


def test_an_empty_page_has_a_field_and_nothing_else(server):
    for path in ("/", "/?q=", "/?q=+", "/?other=3"):
        status, _, body = ask(server, path)
        page = Page(body.decode())
        assert status == 200
        assert [field["name"] for field in page.of("input")] == ["q"]
        assert page.of("img") == []


@pytest.mark.parametrize(
    "words",
    ['"><script>alert(1)</script>', "<img src=x onerror=alert(1)>", "\0\x1b[2J", "ü" * 5000],
)
def test_words_are_text_whatever_they_are(server, words):
    status, headers, body = ask(server, f"/?q={quote(words)}")
    page = Page(body.decode())
    assert status == 200
    assert page.of("script") == []
    assert all(set(image) == {"alt", "src"} for image in page.of("img"))
    assert all(str(image["src"]).startswith("/photo/") for image in page.of("img"))
    (field,) = page.of("input")
    assert str(field["value"]).strip("\0\ufffd") in words
    assert "default-src 'none'" in headers["Content-Security-Policy"]
    assert headers["X-Content-Type-Options"] == "nosniff"


@pytest.mark.parametrize(
    "path",
    [
        "/photo/../secret.png",
        "/photo/%2e%2e/secret.png",
        "/photo/..%2fsecret.png",
        "/photo//etc/passwd",
        "/photo/",
        "/photo/%00",
        "/photo/%ff%fe",
        "/secret.png",
        "/p.vidx",
        "//127.0.0.1/photo/a.png",
    ],
)
def test_nothing_but_photos_of_the_index_is_given(server, path):
    assert ask(server, path)[0] == 404


def test_a_request_in_the_name_of_another_host_is_refused(server):
    assert ask(server, "/", host="evil.example")[0] == 403
    assert ask(server, "/photo/a.png", host=f"evil.example:{server.server_port}")[0] == 403
    assert ask(server, "/", host=f"localhost:{server.server_port}")[0] == 200
    assert ask(server, "/?q=dog", method="POST")[0] == 501
    assert server.server_address[0] == "127.0.0.1"


def test_a_name_is_not_looked_for_along_the_whole_list(server, monkeypatch):
    class Whole(tuple):
        def __contains__(self, name: object) -> bool:
            raise AssertionError("looked for along the list")

        index = __contains__

    with server.index() as index:
        monkeypatch.setattr(index, "_ids", Whole(index.ids))
    assert ask(server, "/photo/a.png")[0] == 200
    assert ask(server, "/photo/b.png")[0] == 404


def test_an_index_that_points_outside_its_photos_gives_nothing(folder, encoder, tmp_path):
    names = ["../secret.png", str(folder / "secret.png"), "link.png"]
    photos = tmp_path / "photos"
    photos.mkdir()
    (photos / "link.png").symlink_to(folder / "secret.png")
    (tmp_path / "secret.png").write_bytes((folder / "secret.png").read_bytes())
    facts = IndexFacts(encoder.model, WIDTH, 17, photos=str(photos))
    with claim_file(tmp_path / "p.vidx") as output:
        vectors = np.zeros((3, 17, WIDTH // 8), np.uint8)
        write_index(output, facts, Vectors(names, vectors))
    with PageServer(tmp_path / "p.vidx", encoder) as made:
        thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        found = [ask(made, "/photo/" + quote(name))[0] for name in names]
        made.shutdown()
        thread.join()
    assert found == [404, 404, 404]


def test_an_index_that_is_built_meanwhile_is_searched(folder, encoder, tmp_path):
    out = tmp_path / "p.vidx"
    photos = tmp_path / "photos"
    photos.mkdir()
    (photos / "a.png").write_bytes((folder / "secret.png").read_bytes())
    build_index(photos, encoder, out)
    with PageServer(out, encoder) as made:
        thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        before = Page(ask(made, "/?q=dog")[2].decode()).of("img")
        (photos / "b.png").write_bytes((folder / "secret.png").read_bytes())
        build_index(photos, encoder, out)
        after = Page(ask(made, "/?q=dog")[2].decode()).of("img")
        out.unlink()
        gone = Page(ask(made, "/?q=dog")[2].decode())
        made.shutdown()
        thread.join()
    assert (len(before), len(after)) == (1, 2)
    assert any("cannot be read" in text for text in gone.texts)


def test_a_port_that_is_taken_is_one_sentence(server, folder, encoder):
    with pytest.raises(VitcError, match="cannot be listened on"):
        PageServer(folder / "p.vidx", encoder, port=server.server_port)
