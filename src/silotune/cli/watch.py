"""``federation watch``: a page over the loopback that shows a run over sites while it goes on.

It changes nothing, and reads the run's folder alone, so it may start and end whenever it likes.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from silotune.core.files import RecordError, finite
from silotune.reports.live_page import content_policy, damaged_page, live_page
from silotune.reports.live_view import View, view_of
from silotune.reports.prometheus import CONTENT_TYPE, prometheus
from silotune.runs.folder import RunFolder

from .console import say, speaker
from .run_over_sites import run_of

LOOPBACK = "127.0.0.1"
"""The only address it listens on."""

OWN_NAMES = frozenset({"127.0.0.1", "localhost", "::1"})
"""By which a browser of this machine calls it. Any other name in a request is a page's that has
had its own name led here (DNS rebinding), and is refused."""

_PATIENCE = 10.0
"""Seconds that a caller may be silent."""


def watch(path: Path | None, port: int) -> None:
    """Serve the page until Ctrl-C or SIGTERM.

    Raises:
        ValueError: if there is no such run, or the port cannot be had.
    """
    console, folder = speaker(), run_of(path)
    view_of(folder)
    with served(folder, port) as server:
        say(console, f"{folder.path}: http://{LOOPBACK}:{server.server_port}/  (Ctrl-C ends it)")
        server.serve_forever()


def served(folder: RunFolder, port: int) -> ThreadingHTTPServer:
    """A server of one run's page, which listens and does not serve yet.

    Args:
        folder: of the run.
        port: on the loopback; 0 = any that is free.

    Raises:
        ValueError: if the port cannot be had.
    """

    class OfThisRun(_Handler):
        run = folder

    try:
        return _Server((LOOPBACK, port), OfThisRun)
    except OSError as error:
        raise ValueError(
            f"--port: {port} cannot be had ({error.strerror}); name another one, or none"
        ) from error


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """Whoever hangs up in the middle is no news."""


class _Page(NamedTuple):
    """What is answered."""

    kind: str
    text: str
    status: HTTPStatus = HTTPStatus.OK


class _Handler(BaseHTTPRequestHandler):
    """Answers GET and HEAD of three addresses; there is nothing else to ask for."""

    run: RunFolder
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "silotune", ""
    timeout = _PATIENCE

    def do_GET(self) -> None:
        """One of the addresses."""
        self._answer(body=True)

    def do_HEAD(self) -> None:
        """The same without the content."""
        self._answer(body=False)

    def log_message(self, *_: object) -> None:
        """Nobody reads a line a second."""

    def _answer(self, *, body: bool) -> None:
        page = self._page()
        data = page.text.encode(errors="replace")
        self.send_response(page.status)
        for name, value in {
            "Content-Type": page.kind,
            "Content-Length": str(len(data)),
            "Content-Security-Policy": content_policy(),
            "Cross-Origin-Resource-Policy": "same-origin",
            "X-Content-Type-Options": "nosniff",
            "Referrer-Policy": "no-referrer",
            "Cache-Control": "no-store",
        }.items():
            self.send_header(name, value)
        self.end_headers()
        if body:
            self.wfile.write(data)

    def _page(self) -> _Page:
        if not _is_own(self.headers.get_all("Host", [])):
            return _plain("this page is for browsers of its own machine", HTTPStatus.FORBIDDEN)
        path = urlsplit(self.path).path
        if path not in _PAGES:
            return _plain(f"there are {', '.join(_PAGES)}", HTTPStatus.NOT_FOUND)
        kind, made = _PAGES[path]
        try:
            return _Page(kind, made(view_of(self.run)))
        except RecordError as error:
            if kind == _HTML:
                return _Page(kind, damaged_page(str(error)), HTTPStatus.SERVICE_UNAVAILABLE)
            return _plain(str(error), HTTPStatus.SERVICE_UNAVAILABLE)


_HTML = "text/html; charset=utf-8"
_PAGES: Mapping[str, tuple[str, Callable[[View], str]]] = {
    "/": (_HTML, live_page),
    "/status.json": ("application/json", lambda view: json.dumps(finite(view.to_json()))),
    "/metrics": (CONTENT_TYPE, prometheus),
}
"""What there is to ask for: its kind, and how it is made of a view."""


def _plain(text: str, status: HTTPStatus) -> _Page:
    return _Page("text/plain; charset=utf-8", f"{text}\n", status)


def _is_own(hosts: list[str]) -> bool:
    """Whether a request calls this machine by a name that nobody else can have."""
    try:
        return len(hosts) == 1 and urlsplit(f"//{hosts[0]}").hostname in OWN_NAMES
    except ValueError:
        return False
