"""Ray: the runs of a grid on a cluster, one a GPU, or one a CPU where there is no GPU.

An actor holds a process that makes runs (``worker``). A run whose machine is lost is continued on
another from its last whole round: all machines share the disk that the grid's folder is on.
"""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from queue import SimpleQueue
from threading import Event
from typing import Any

from silotune.runtimes.ray_cluster import actors, installed
from silotune_link.process import ProcessStopped

from .complete import WORKER, Hands, Runner, log_of
from .job import Job


def on_ray(folder: Path, at_once: int | None = None) -> Runner:
    """Each run in a process of its own with one thread, on any machine of a cluster.

    Args:
        folder: of the grid.
        at_once: how many runs at a time; None = as many as the cluster has GPUs, or CPUs.

    Raises:
        ValueError: if Ray is not installed, before anything is written.
    """
    installed()
    return lambda: _hands(folder, at_once)


def _hands(folder: Path, at_once: int | None) -> Hands:
    with ExitStack() as begun:
        there = begun.enter_context(actors(WORKER, log_of(folder)))
        count = at_once or there.size
        if count > there.size:
            raise ValueError(
                f"at_once: Ray's cluster can make {there.size} runs at a time, one a GPU, or one a "
                f"CPU where there is no GPU; ask for {there.size} at most"
            )
        free: SimpleQueue[Any] = SimpleQueue()
        for _ in range(count):
            actor = there.begin()
            begun.callback(there.ray.kill, actor)
            free.put(actor)
        ended, stopped = begun.pop_all(), Event()

    def run(job: Job) -> str:
        actor = free.get()
        try:
            answer: bytes = there.ray.get(actor.answer.remote(job.to_bytes(), None, 0))
            return answer.decode(errors="replace")
        except there.ray.exceptions.RayError as error:
            if stopped.is_set():  # which is no failure of the run
                raise ProcessStopped("it was stopped") from error
            why = getattr(error, "cause", None) or type(error).__name__
            return f"its worker is given up: {why}; see {log_of(folder)}"
        finally:
            free.put(actor)

    def stop() -> None:
        stopped.set()
        ended.close()

    return Hands(run=run, at_once=count, stop=stop)
