"""A headless Chromium that tests talk to by its own protocol, over a pipe."""

from __future__ import annotations

import base64
import fcntl
import json
import os
import select
import shutil
import signal
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import pytest

from tests.absent import absent

__all__ = ["Browser", "Tab", "need_chromium", "running"]

_PATIENCE_S: Final = 120.0
_READ, _WRITE = 3, 4  # of the browser, as it has them
_OPTIONS: Final = (
    "--headless", "--remote-debugging-pipe", "--no-sandbox", "--disable-gpu", "--no-first-run",
    "--disable-dev-shm-usage", "--disable-extensions", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--no-proxy-server", "about:blank",
)  # fmt: skip


def need_chromium() -> str:
    """Path of Chromium."""
    found = filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome")))
    path = next(found, None)
    if path is None:
        absent("no Chromium, `apt install chromium` brings it", "VITC_REQUIRE_CHROMIUM")
    return path


@dataclass
class Browser:
    """A running browser.

    Attributes:
        reads: Descriptor that its answers come from.
        writes: Descriptor of what it is told.
    """

    reads: int
    writes: int
    events: list[dict[str, Any]] = field(default_factory=list)
    _number: int = 0
    _rest: bytes = b""

    def call(self, method: str, session: str | None = None, **parameters: Any) -> dict[str, Any]:
        """Have something done; what it answers."""
        self._number += 1
        said: dict[str, Any] = {"id": self._number, "method": method, "params": parameters}
        if session is not None:
            said["sessionId"] = session
        os.write(self.writes, json.dumps(said).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") != self._number:
                self.events.append(answer)
                continue
            assert "error" not in answer, answer["error"]
            result: dict[str, Any] = answer["result"]
            return result

    def wait_for(self, event: str, session: str) -> None:
        """Wait for an event of a tab that has come, or comes."""
        while not any(
            e["method"] == event and e.get("sessionId") == session for e in self.events
        ):
            self.events.append(self._next())

    def open(self, width: int = 1280, height: int = 900, *, dark: bool = False) -> Tab:
        """An empty tab."""
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        tab = Tab(self, session)
        for domain in ("Page", "Runtime", "Log", "Network"):
            tab.call(f"{domain}.enable")
        tab.call(
            "Emulation.setDeviceMetricsOverride",
            width=width, height=height, deviceScaleFactor=1, mobile=False,
        )  # fmt: skip
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        tab.call("Emulation.setEmulatedMedia", features=[scheme])
        tab.call("Emulation.setFocusEmulationEnabled", enabled=True)
        tab.call("Page.bringToFront")  # what is behind is not drawn
        return tab

    def _next(self) -> dict[str, Any]:
        deadline = time.monotonic() + _PATIENCE_S
        while b"\0" not in self._rest:
            left = deadline - time.monotonic()
            assert left > 0, "the browser says nothing"
            if select.select([self.reads], [], [], left)[0]:
                more = os.read(self.reads, 1 << 16)
                assert more, "the browser died"
                self._rest += more
        answer, self._rest = self._rest.split(b"\0", 1)
        told: dict[str, Any] = json.loads(answer)
        return told


@dataclass
class Tab:
    """A page in a browser."""

    browser: Browser
    session: str

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Have something done in this tab."""
        return self.browser.call(method, self.session, **parameters)

    def go(self, url: str) -> None:
        """Load a page, with all that it shows."""
        with self.loading():
            assert "errorText" not in self.call("Page.navigate", url=url)

    @contextmanager
    def loading(self) -> Iterator[None]:
        """Wait until the page that something in the block has loaded is drawn."""
        self.browser.events.clear()
        yield
        self.browser.wait_for("Page.loadEventFired", self.session)
        twice = "new Promise(f => requestAnimationFrame(() => requestAnimationFrame(f)))"
        self.call("Runtime.evaluate", expression=f"{twice}.then(() => 0)", awaitPromise=True)

    def ask(self, script: str) -> Any:
        """The value of a JavaScript expression in the page."""
        told = self.call("Runtime.evaluate", expression=script, returnByValue=True)
        assert "exceptionDetails" not in told, told
        return told["result"].get("value")

    def type(self, text: str) -> None:
        """Type into what has the focus."""
        self.call("Input.insertText", text=text)

    def enter(self) -> None:
        """Press Enter."""
        key: Mapping[str, Any] = {"key": "Enter", "code": "Enter", "windowsVirtualKeyCode": 13}
        self.call("Input.dispatchKeyEvent", type="keyDown", text="\r", **key)
        self.call("Input.dispatchKeyEvent", type="keyUp", **key)

    def overflow(self) -> dict[str, int]:
        """By how many pixels something sticks out of the window at its right, by element."""
        found: dict[str, int] = self.ask(
            """(() => {
              const wide = document.documentElement.clientWidth, out = {};
              document.querySelectorAll('details').forEach(each => each.open = true);
              const page = document.documentElement.scrollWidth - wide;
              if (page > 0) out.page = page;
              document.querySelectorAll('body *').forEach(each => {
                const past = each.getBoundingClientRect().right - wide;
                const hidden = each.scrollWidth - each.clientWidth;
                const name = each.tagName + '.' + each.className + ' ' +
                  each.textContent.slice(0, 40);
                if (past > 0.5) out[name] = past;
                if (each.clientWidth && hidden > 1 && each.tagName != 'INPUT')
                  out['inside ' + name] = hidden;
              });
              return out;
            })()"""
        )
        return found

    def complaints(self) -> list[str]:
        """What the browser has logged of this page: refused scripts, missing files, errors."""
        return [
            json.dumps(event["params"])
            for event in self.browser.events
            if event.get("sessionId") == self.session
            and event["method"] in ("Log.entryAdded", "Runtime.exceptionThrown",
                                    "Runtime.consoleAPICalled", "Page.javascriptDialogOpening")
        ]  # fmt: skip

    def picture(self, file: Path) -> None:
        """Take a picture of the whole page."""
        data = self.call("Page.captureScreenshot", captureBeyondViewport=True)["data"]
        file.write_bytes(base64.b64decode(data))


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """A browser that the tests of one process share."""
    with running(tmp_path_factory.mktemp("browser")) as made:
        yield made


@contextmanager
def running(profile: Path) -> Iterator[Browser]:
    """A browser as long as the block lasts.

    Args:
        profile: Empty folder for what it writes.
    """
    path = need_chromium()
    to_it, writes = os.pipe()
    reads, from_it = os.pipe()
    # Above all that it is to have, so that neither is lost when they take their places.
    theirs = [fcntl.fcntl(each, fcntl.F_DUPFD_CLOEXEC, 10) for each in (to_it, from_it)]
    os.close(to_it)
    os.close(from_it)
    null = os.open(os.devnull, os.O_RDWR)
    process = os.posix_spawn(
        path,
        [path, f"--user-data-dir={profile}", *_OPTIONS],
        {**os.environ, "HOME": str(profile)},
        file_actions=[
            *((os.POSIX_SPAWN_DUP2, null, each) for each in (0, 1, 2)),
            (os.POSIX_SPAWN_DUP2, theirs[0], _READ),
            (os.POSIX_SPAWN_DUP2, theirs[1], _WRITE),
        ],
        setpgroup=0,
    )
    for each in (*theirs, null):
        os.close(each)
    try:
        yield Browser(reads, writes)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process, signal.SIGKILL)
        os.waitpid(process, 0)
        os.close(reads)
        os.close(writes)
