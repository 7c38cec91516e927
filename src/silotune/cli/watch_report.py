"""``report --watch``: the page of a grid or of runs over the loopback, drawn again as they go on.

It changes nothing, and reads folders alone. It is drawn when something has ended since the last
look, as pictures take a second.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from http.server import ThreadingHTTPServer
from pathlib import Path
from threading import Lock

from silotune.comparison import Compared, compared, compared_runs
from silotune.comparison.record import FILE
from silotune.reports.live_page import damaged_page
from silotune.runs.folder import RunFolder

from .console import say, speaker
from .loopback import HTML, LOOPBACK, Pages, serving

AGAIN = 10
"""Seconds after which a browser looks again."""

POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'"
)
"""The page has a style of its own, pictures in its text, and no script."""


def watch_report(paths: Sequence[Path], port: int) -> None:
    """Serve the page until Ctrl-C or SIGTERM.

    Args:
        paths: one grid, or runs.
        port: on the loopback; 0 = any that is free.

    Raises:
        ValueError: if nothing was begun there, or the port cannot be had.
    """
    console = speaker()
    read(paths)
    with served(paths, port) as server:
        where = ", ".join(map(str, paths))
        say(console, f"{where}: http://{LOOPBACK}:{server.server_port}/  (Ctrl-C ends it)")
        server.serve_forever()


def served(paths: Sequence[Path], port: int) -> ThreadingHTTPServer:
    """A server of the page, which listens and does not serve yet.

    Args:
        paths: one grid, or runs.
        port: on the loopback; 0 = any that is free.

    Raises:
        ValueError: if the port cannot be had.
    """
    pages = {"/": (HTML, _Drawn(lambda: read(paths).html(), lambda: _stamps(paths)))}
    return serving(Pages(pages, POLICY, damaged_page, again=AGAIN), port)


def read(paths: Sequence[Path]) -> Compared:
    """What is on the disk: one grid, or runs beside each other.

    Raises:
        RecordError: if there is nothing, or something is damaged.
    """
    if is_grid(paths):
        return compared(paths[0])
    return compared_runs(paths, Path())


def is_grid(paths: Sequence[Path]) -> bool:
    """Whether it is one grid."""
    return len(paths) == 1 and (paths[0] / FILE).is_file()


class _Drawn:
    """What was drawn last, until something changes; by one caller at a time."""

    def __init__(self, draw: Callable[[], str], stamps: Callable[[], object]) -> None:
        self._draw, self._stamps, self._lock = draw, stamps, Lock()
        self._known: tuple[object, str] | None = None

    def __call__(self) -> str:
        with self._lock:
            now = self._stamps()  # asked first: what changes meanwhile is drawn next time
            if self._known is None or self._known[0] != now:
                self._known = now, self._draw()
            return self._known[1]


def _stamps(paths: Sequence[Path]) -> list[tuple[str, int, int]]:
    """Size and time of every file that a page is made of."""
    notes = (note for path in paths for note in path.glob("cells/**/*.json"))
    runs = (getattr(RunFolder(path), name) for path in paths for name in ("run", "metrics"))
    files = [*(path / FILE for path in paths), *runs, *notes]
    found = [(str(file), file.stat()) for file in files if file.is_file()]
    return [(name, stat.st_mtime_ns, stat.st_size) for name, stat in found]
