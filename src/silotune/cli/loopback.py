"""Loopback: pages that browsers of this machine may look at, made anew at every look.

Nothing can be changed by them, and nobody else can reach them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NamedTuple
from urllib.parse import urlsplit

from silotune.core.files import RecordError

LOOPBACK = "127.0.0.1"
"""The only address that is listened on."""

OWN_NAMES = frozenset({"127.0.0.1", "localhost", "::1"})
"""By which a browser of this machine calls it. Any other name in a request is a page's that has
had its own name led here (DNS rebinding), and is refused."""

HTML = "text/html; charset=utf-8"

_PATIENCE = 10.0
"""Seconds that a caller may be silent."""


class Pages(NamedTuple):
    """What there is to look at.

    Attributes:
        made: address -> its kind, and what makes it.
        policy: the header ``Content-Security-Policy``.
        damaged: makes the page of why another cannot be read.
        again: seconds after which a browser looks again; None where the page does that itself.
    """

    made: Mapping[str, tuple[str, Callable[[], str]]]
    policy: str
    damaged: Callable[[str], str]
    again: int | None = None


class _Page(NamedTuple):
    """What is answered."""

    kind: str
    text: str
    status: HTTPStatus = HTTPStatus.OK


def serving(shown: Pages, port: int) -> ThreadingHTTPServer:
    """A server of pages, which listens and does not serve yet.

    Args:
        shown: what there is.
        port: on the loopback; 0 = any that is free.

    Raises:
        ValueError: if the port cannot be had.
    """

    class OfThese(_Handler):
        pages = shown

    try:
        return _Server((LOOPBACK, port), OfThese)
    except OSError as error:
        raise ValueError(
            f"--port: {port} cannot be had ({error.strerror}); name another one, or none"
        ) from error


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """Whoever hangs up in the middle is no news."""


class _Handler(BaseHTTPRequestHandler):
    """Answers GET and HEAD of a few addresses; there is nothing else to ask for."""

    pages: Pages
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
        again = {} if self.pages.again is None else {"Refresh": str(self.pages.again)}
        for name, value in {
            "Content-Type": page.kind,
            "Content-Length": str(len(data)),
            "Content-Security-Policy": self.pages.policy,
            "Cross-Origin-Resource-Policy": "same-origin",
            "X-Content-Type-Options": "nosniff",
            "Referrer-Policy": "no-referrer",
            "Cache-Control": "no-store",
            **again,
        }.items():
            self.send_header(name, value)
        self.end_headers()
        if body:
            self.wfile.write(data)

    def _page(self) -> _Page:
        if not _is_own(self.headers.get_all("Host", [])):
            return _plain("this page is for browsers of its own machine", HTTPStatus.FORBIDDEN)
        path = urlsplit(self.path).path
        if path not in self.pages.made:
            return _plain(f"there are {', '.join(self.pages.made)}", HTTPStatus.NOT_FOUND)
        kind, made = self.pages.made[path]
        try:
            return _Page(kind, made())
        except RecordError as error:
            if kind == HTML:
                text = self.pages.damaged(str(error))
                return _Page(kind, text, HTTPStatus.SERVICE_UNAVAILABLE)
            return _plain(str(error), HTTPStatus.SERVICE_UNAVAILABLE)


def _plain(text: str, status: HTTPStatus) -> _Page:
    return _Page("text/plain; charset=utf-8", f"{text}\n", status)


def _is_own(hosts: list[str]) -> bool:
    """Whether a request calls this machine by a name that nobody else can have."""
    try:
        return len(hosts) == 1 and urlsplit(f"//{hosts[0]}").hostname in OWN_NAMES
    except ValueError:
        return False
