"""Worker: a process that makes one run after another, each in a process of its own.

A run is a fork, whose memory is its own and is given back. What one run had to import, which takes
longer than a small run, is imported before the next one is begun. Whoever started the worker may
die: then the run dies too, at once, and is continued from its last whole round by whoever takes
the grid up again.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import threading
from collections.abc import Iterable
from contextlib import suppress
from typing import BinaryIO, NoReturn

import torch

from silotune_link.frames import READY, read_frame, write_frame

from .job import Job, reason, run_job


def serve(orders: BinaryIO, answers: BinaryIO) -> None:
    """Make the runs that are ordered until whoever orders is gone.

    Args:
        orders: frames, each a job, one after the answer to the other.
        answers: frames, each why there is no result, or nothing.
    """
    torch.set_num_threads(1)
    write_frame(answers, READY)
    while True:
        try:
            order = read_frame(orders)
        except EOFError:
            return
        failed, modules = _in_a_fork(order, orders)
        write_frame(answers, failed.encode())
        _import(modules)


def _in_a_fork(order: bytes, orders: BinaryIO) -> tuple[str, list[str]]:
    """Make a run.

    Returns:
        Why there is no result, and which modules it has imported.
    """
    told, tell = os.pipe()
    child = os.fork()
    if not child:
        os.close(told)
        _be_the_run(order, orders, tell)
    os.close(tell)
    with os.fdopen(told, "rb") as pipe:
        answer = pipe.read()
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    if code < 0:
        return f"its process was ended by signal {-code}, as when memory runs out", []
    if code or not answer:
        return f"its process ended with code {code}", []
    failed, modules = json.loads(answer)
    return failed, modules


def _be_the_run(order: bytes, orders: BinaryIO, tell: int) -> NoReturn:
    threading.Thread(target=_end_with, args=(orders,), daemon=True).start()
    before, code = set(sys.modules), 1
    try:
        failed = _failed(order)
        modules = [name for name in sys.modules if name not in before]
        with os.fdopen(tell, "wb") as pipe:
            pipe.write(json.dumps([failed, modules]).encode())
        code = 0
    finally:
        os._exit(code)


def _failed(order: bytes) -> str:
    try:
        return run_job(Job.from_bytes(order))
    except Exception as error:  # of its note
        return reason(error)


def _end_with(orders: BinaryIO) -> None:
    """Nothing is ordered while a run goes on: the pipe ends when whoever ordered is gone."""
    os.read(orders.fileno(), 1)
    os._exit(1)


def _import(modules: Iterable[str]) -> None:
    for name in modules:
        with suppress(Exception):  # a run that needs it imports it by itself, and says why
            importlib.import_module(name)
