"""Ray's cluster: joined, or started where there is none; and the actors that a command gets there.

Every member of a Ray cluster can run any code on all others. So it is for one owner's machines, and
never between organisations. They share the disk that a run's folder and its data are on.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from silotune_link.process import TRIES
from silotune_link.ray_actor import Actor

_SETTINGS = ("OMP_NUM_THREADS", "PYTHONPATH")
"""What workers take over from this process: Ray would set threads, on which last bits depend."""


@dataclass(frozen=True, kw_only=True)
class Actors:
    """Those of one command.

    Attributes:
        ray: the library.
        size: how many there can be at a time.
        begin: starts one. Ray starts an actor again that died, on the same machine or another, and
            gives it its order once more.
    """

    ray: Any
    size: int
    begin: Callable[[], Any]


@contextmanager
def actors(
    command: Sequence[str],
    log: Path,
    *,
    workers: int | None = None,
    device: Literal["auto", "cpu", "cuda"] = "auto",
    told: Sequence[bytes] = (),
) -> Iterator[Actors]:
    """The cluster that this machine is part of, or that ``RAY_ADDRESS`` names, or one begun here.

    Args:
        command: starts what answers orders (``silotune_link.process``). Its first word is Python,
            which on another machine is that machine's.
        log: what it says is added to this file.
        workers: how many there are where no GPU is used, each of which takes a CPU; None = as many
            as there are CPUs. Where GPUs are used, there is one a GPU.
        device: ``cuda`` = on GPUs; ``cpu`` = on none; ``auto`` = on GPUs if the cluster has any.
        told: what every one gets as it starts.

    Raises:
        ValueError: if Ray is not installed, or the cluster has not what is asked for.
        ConnectionError: if Ray does not start.
    """
    ray = installed()
    log.parent.mkdir(parents=True, exist_ok=True)
    ours = not ray.is_initialized()
    if ours:
        _start(ray)
    try:
        kind, size = _chosen(ray, workers, device)
        settings = {name: os.environ.get(name) for name in _SETTINGS}
        given = list(command[1:]), log, Path.cwd(), settings, list(told)
        yield Actors(ray=ray, size=size, begin=lambda: kind.remote(*given))
    finally:
        if ours:
            ray.shutdown()


def _chosen(ray: Any, workers: int | None, device: str) -> tuple[Any, int]:
    """The kind of actor, and how many."""
    here = ray.cluster_resources()
    gpus, cpus = int(here.get("GPU", 0)), int(here.get("CPU", 0))
    if device == "cuda" and not gpus:
        raise ValueError("device: cuda is not available in Ray's cluster; use cpu or auto")
    on_gpus = gpus > 0 and device != "cpu"
    if not gpus and not cpus:
        raise ValueError("Ray's cluster has no CPU and no GPU; wait until its machines have joined")
    if not on_gpus and (workers or 0) > cpus:
        raise ValueError(f"workers: Ray's cluster has {cpus} CPUs; ask for {cpus} at most")
    options = {
        "num_cpus": 0 if on_gpus else 1,
        "num_gpus": 1 if on_gpus else 0,
        "max_restarts": -1,
        "max_task_retries": TRIES - 1,
        "scheduling_strategy": "SPREAD",
    }
    return ray.remote(**options)(Actor), gpus if on_gpus else workers or cpus


def installed() -> Any:
    """The library.

    Raises:
        ValueError: if it is not there.
    """
    try:
        import ray
    except ImportError as error:
        raise ValueError("runtime: ray needs Ray; pip install 'silotune[ray]'") from error
    return ray


def _start(ray: Any) -> None:
    """Join a cluster, or start one; on a busy machine the first attempt may fail."""
    for last in (False, True):
        try:
            with _own_signals():
                ray.init(include_dashboard=False, log_to_driver=False, logging_level="ERROR")
            return
        except Exception as error:  # Ray's errors have no base of their own
            ray.shutdown()
            if last:
                raise ConnectionError(f"Ray does not start: {error}") from error


@contextmanager
def _own_signals() -> Iterator[None]:
    """Ray would hear SIGTERM itself; it stays with whoever ends this process in order."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)
