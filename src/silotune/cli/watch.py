"""``federation watch``: a page over the loopback that shows a run over sites while it goes on.

It changes nothing, and reads the run's folder alone, so it may start and end whenever it likes.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from http.server import ThreadingHTTPServer
from pathlib import Path

from silotune.core.files import finite
from silotune.reports.live_page import content_policy, damaged_page, live_page
from silotune.reports.live_view import View, view_of
from silotune.reports.prometheus import CONTENT_TYPE, prometheus
from silotune.runs.folder import RunFolder

from .console import say, speaker
from .loopback import HTML, LOOPBACK, Pages, serving
from .run_over_sites import run_of


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

    def of_view(make: Callable[[View], str]) -> Callable[[], str]:
        return lambda: make(view_of(folder))

    pages = {
        "/": (HTML, of_view(live_page)),
        "/status.json": ("application/json", of_view(_as_json)),
        "/metrics": (CONTENT_TYPE, of_view(prometheus)),
    }
    return serving(Pages(pages, content_policy(), damaged_page), port)


def _as_json(view: View) -> str:
    return json.dumps(finite(view.to_json()))
