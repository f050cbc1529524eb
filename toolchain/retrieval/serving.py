"""A page on loopback: type words, see photos.

Nothing but this machine reaches it: it listens on 127.0.0.1, and requests that name another host
are refused, so that no page of somebody else's name can read it. A photo is sent as a thumbnail
that is drawn anew, and only if the index has its name and it lies in the folder of the photos.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Final
from urllib.parse import parse_qs, unquote, urlsplit

from vitc.errors import VitcError
from vitc.retrieval.encoder import Encoder
from vitc.retrieval.index_file import Index
from vitc.retrieval.page import PHOTO, query_page, thumbnail
from vitc.retrieval.querying import query

__all__ = ["LOOPBACK", "PageServer"]

LOOPBACK: Final = "127.0.0.1"
_NAMES: Final = (LOOPBACK, "localhost")
_LONGEST: Final = 1000
"""Characters of a query."""
_PATIENCE_S: Final = 30.0
"""For a request that was begun."""


class PageServer(ThreadingHTTPServer):
    """Serves the page until `shutdown`; close it, or use it in a `with` block.

    Args:
        path: The index; a new one that takes its place is searched from then on.
        encoder: Of the queries.
        port: Where to listen; 0 for any that is free.
        count: Photos that a search shows.

    Raises:
        VitcError: If the index is damaged or of another model, or the port is taken.
    """

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, path: Path, encoder: Encoder, *, port: int = 0, count: int = 10) -> None:
        self.path = path
        self.encoder = encoder
        self.count = count
        self._one = threading.Lock()
        self._index: Index | None = None
        self._seen: tuple[int, ...] = ()
        with self.index():
            pass
        try:
            super().__init__((LOOPBACK, port), _Handler)
        except OSError as error:
            raise VitcError(
                f"Port {port} of this machine cannot be listened on: {error.strerror or error}.",
                "Choose another with --port, or 0 for any that is free.",
            ) from error

    @property
    def url(self) -> str:
        """Where a browser finds it."""
        return f"http://{LOOPBACK}:{self.server_port}/"

    @contextmanager
    def index(self) -> Iterator[Index]:
        """The index as it is now, for one thread at a time.

        Raises:
            VitcError: If it is gone, damaged or of another model.
        """
        with self._one:
            seen: tuple[int, ...] = ()
            with suppress(OSError):  # opening it says what is wrong
                facts = self.path.stat()
                seen = (facts.st_dev, facts.st_ino, facts.st_mtime_ns, facts.st_size)
            if self._index is None or seen != self._seen:
                fresh = Index.open(self.path, model=self.encoder.model)
                if self._index is not None:
                    self._index.close()
                self._index, self._seen = fresh, seen
            yield self._index

    def server_close(self) -> None:
        """Let port and index go."""
        super().server_close()
        with self._one:
            if self._index is not None:
                self._index.close()
                self._index = None


class _Handler(BaseHTTPRequestHandler):
    server: PageServer
    server_version = "vitc"
    sys_version = ""
    timeout = _PATIENCE_S

    def do_GET(self) -> None:
        """The page, or a photo of it."""
        if not self._meant():
            self.send_error(HTTPStatus.FORBIDDEN, "This page is for this machine only")
            return
        asked = urlsplit(self.path)
        if asked.path == "/":
            self._page(asked.query)
        elif asked.path.startswith(PHOTO):
            self._photo(unquote(asked.path.removeprefix(PHOTO), errors="surrogateescape"))
        else:
            self.send_error(HTTPStatus.NOT_FOUND)

    def _meant(self) -> bool:
        """Whether the request names this machine, as one that a foreign page causes does not."""
        port = self.server.server_port
        return self.headers.get("Host") in {f"{name}:{port}" for name in _NAMES}

    def _page(self, asked: str) -> None:
        try:
            given = parse_qs(asked, max_num_fields=8).get("q", [""])[0]
        except ValueError:
            self.send_error(HTTPStatus.BAD_REQUEST)
            return
        words, answer, trouble = given[:_LONGEST], None, ""
        if words.strip():
            try:
                with self.server.index() as index:
                    answer = query(
                        index, self.server.encoder, text=words, like=None, count=self.server.count
                    )
            except VitcError as error:
                trouble = error.message
        self._send("text/html; charset=utf-8", query_page(words, answer, trouble).encode())

    def _photo(self, name: str) -> None:
        try:
            with self.server.index() as index:
                known = index.number(name) is not None
                file = _inside(Path(index.facts.photos), name) if known else None
        except VitcError:
            file = None
        data = None if file is None else thumbnail(file)
        if data is None:
            self.send_error(HTTPStatus.NOT_FOUND)
        else:
            self._send("image/jpeg", data)

    def _send(self, kind: str, data: bytes) -> None:
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def end_headers(self) -> None:
        """What holds for every answer."""
        self.send_header(
            "Content-Security-Policy",
            "default-src 'none'; img-src 'self'; style-src 'unsafe-inline'; form-action 'self'; "
            "base-uri 'none'; frame-ancestors 'none'",
        )
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Referrer-Policy", "no-referrer")
        self.send_header("Cross-Origin-Resource-Policy", "same-origin")
        self.send_header("Cache-Control", "no-store")
        super().end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing: what is searched for is nobody's business."""


def _inside(folder: Path, name: str) -> Path | None:
    """A photo by its name in an index, which may have been made to point elsewhere."""
    try:
        whole, file = folder.resolve(), (folder / name).resolve()
    except (OSError, ValueError):
        return None
    return file if file.is_relative_to(whole) and file.is_file() else None
