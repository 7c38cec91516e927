"""Measuring on a machine that is not quiet: turns, paired ratios, and peaks in fresh processes.

Runs take turns, A B C then C B A, so that a drift of the machine hits all alike, and a ratio is
the median of the ratios of neighbours. With one thread the clock is the process's CPU time, which
a pre-emption does not move. Memory is Linux's high-water mark of one step above what the process
held before it, with glibc's allocator set so that fragmentation does not drown it.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import re
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import TypeVar

import torch

T = TypeVar("T")
Clock = Callable[[], float]

_STATUS, _RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


@dataclass(frozen=True)
class Ratio:
    """The median of paired ratios, and their quartiles."""

    median: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.median:.3f} ({self.low:.3f}-{self.high:.3f})"

    def to_json(self) -> list[float]:
        """Median, lower and upper quartile."""
        return [round(x, 4) for x in (self.median, self.low, self.high)]


@dataclass(frozen=True)
class Peak:
    """Bytes that a process held before something ran, and at most while it did."""

    before: int
    most: int

    @property
    def step(self) -> int:
        """What the thing itself needed."""
        return self.most - self.before


def arguments(description: str) -> argparse.ArgumentParser:
    """The options that every benchmark has."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--quick", action="store_true", help="small and few: does it run at all?")
    parser.add_argument("--threads", type=int, default=1, help="of torch (default 1)")
    return parser


def clock_for(threads: int) -> Clock:
    """CPU time with one thread; wall-clock time with more, where waiting threads burn CPU too."""
    torch.set_num_threads(threads)
    return time.process_time if threads == 1 else time.perf_counter


def in_turns(
    runs: Mapping[str, Callable[[], object]], repetitions: int, clock: Clock
) -> dict[str, list[float]]:
    """Seconds of every repetition of every run, after one run of each to warm up."""
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for run in runs.values():
        run()
    gc.collect()
    gc.freeze()  # so that no collection goes through the libraries' own objects
    for repetition in range(repetitions):
        for name in list(runs)[:: -1 if repetition % 2 else 1]:
            start = clock()
            runs[name]()
            seconds[name].append(clock() - start)
    gc.unfreeze()
    return seconds


def ratio(above: Sequence[float], below: Sequence[float]) -> Ratio:
    """How many times ``below`` fits into ``above``, pair by pair."""
    ratios = [a / b for a, b in zip(above, below, strict=True)]
    low, median, high = statistics.quantiles(ratios, n=4, method="inclusive")
    return Ratio(median, low, high)


def in_child(function: Callable[..., T], *args: object) -> T:
    """The result of ``function(*args)`` in a fresh process.

    Args:
        function: of a module, so that the child can import it.
        args: small and picklable.
    """
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        return pool.submit(function, *args).result()


@contextmanager
def frugal_allocator() -> Iterator[None]:
    """Children started inside give back at once what they free: their peaks are what they need."""
    before = dict(os.environ)
    os.environ.update(MALLOC_ARENA_MAX="1", MALLOC_MMAP_THRESHOLD_="65536")
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def peak(run: Callable[[], object]) -> Peak:
    """The peak of resident memory during ``run``. Warm up before, in a process of its own."""
    gc.collect()
    _RESET.write_text("5")  # the high-water mark begins anew
    before = _status("VmRSS")
    run()
    return Peak(before, _status("VmHWM"))


def print_table(title: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A table in aligned columns, the first one to the left."""
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    print(f"\n{title}")
    for first, *others in (header, ["-" * w for w in widths], *rows):
        cells = [c.rjust(w) for c, w in zip(others, widths[1:], strict=True)]
        print("  ".join([first.ljust(widths[0]), *cells]))


def print_json(**figures: object) -> None:
    """The last line of a benchmark."""
    print(json.dumps(figures))


def _status(field: str) -> int:
    found = re.search(rf"{field}:\s+(\d+) kB", _STATUS.read_text())
    assert found, f"{_STATUS} has no {field}"
    return int(found[1]) * 1024
