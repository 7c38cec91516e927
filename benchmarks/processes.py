"""What the processes below this one take: seconds of processor time, and memory, by kind."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

TICK = os.sysconf("SC_CLK_TCK")

KINDS = {
    "silotune_link.daemon": "daemon",
    "runner_process": "server's job",
    "worker_process": "site's job",
    "server_train": "server",
    "client_train": "site",
}
"""Word of a command line -> what it is; anything else is a trainer."""


@dataclass(frozen=True)
class Usage:
    """Of one process: seconds of processor time so far, and bytes that it has held at once."""

    pid: int
    parent: int
    kind: str
    seconds: float
    most: int


def below() -> list[Usage]:
    """This process and all below it, by Linux's ``/proc``."""
    by_parent: dict[int, list[Usage]] = {}
    for usage in _all():
        by_parent.setdefault(usage.parent, []).append(usage)
    found = [usage for usages in by_parent.values() for usage in usages if usage.pid == os.getpid()]
    for usage in found:  # which grows
        found += by_parent.get(usage.pid, [])
    return found


def seconds() -> float:
    """Of all of them together."""
    return sum(usage.seconds for usage in below())


def most() -> dict[str, int]:
    """Bytes that the largest of each kind has held at once."""
    found: dict[str, int] = {}
    for usage in below():
        found[usage.kind] = max(usage.most, found.get(usage.kind, 0))
    return found


def _all() -> Iterator[Usage]:
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError, IndexError):  # it has ended
            words = (folder / "cmdline").read_text()
            status = (folder / "status").read_text()
            stat = (folder / "stat").read_text().rpartition(")")[2].split()
            pid = int(folder.name)
            kind = next((kind for word, kind in KINDS.items() if word in words), "trainer")
            yield Usage(
                pid=pid,
                parent=int(stat[1]),
                kind="coordinator" if pid == os.getpid() else kind,
                seconds=sum(map(int, stat[11:15])) / TICK,
                most=1024 * int(status.partition("VmHWM:")[2].split()[0]),
            )
