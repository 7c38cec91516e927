"""NVIDIA FLARE at the server: orders from the coordinator's socket to sites, and answers back.

FLARE's job process runs it. Every task is short (``flare_site``), so that a site which says nothing
for ``SILENT`` seconds is gone, however long training takes.

On the socket, messages are (``frames.write_message``): down ``{"site", "number"}`` with an order,
or ``{}`` which gives up all orders; up ``{"event", "site", "number"}``, where an event is
``answer``, ``working``, ``silent``, ``failed`` or ``lost`` (the same order is to be sent down once
more), and at first ``{"event": "up", "sites"}``. No order is kept here once a site has it, and no
answer once the coordinator has it: one that is large would be in memory for as long as training
takes.
"""

from __future__ import annotations

import contextlib
import queue
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, BinaryIO

from nvflare.apis.controller_spec import Task
from nvflare.apis.fl_constant import ReturnCode
from nvflare.apis.impl.controller import Controller
from nvflare.apis.shareable import Shareable

from .flare_site import ANSWER, LOST, MORE, ORDER, READY, TAKE, WORKING
from .frames import read_message, write_message

SILENT = 15.0
"""Seconds for a task that carries next to nothing."""

_SLOWEST = 500_000.0
"""Bytes a second that a site's line has at least; what a large task is given more time for."""

_AGAIN = 1.0
"""Seconds until a site whose process failed is asked again."""


@dataclass(frozen=True, eq=False)
class _Order:
    """What one site is asked."""

    site: str
    number: int


@dataclass(frozen=True)
class _Step:
    """The next task of an order, what it brings, and how many bytes it carries there or back."""

    order: _Order
    task: str
    size: int = 0
    body: bytes = b""


class CourierController(Controller):
    """The one class that a server lets a job name.

    Args:
        socket_path: where the coordinator waits for this call.
    """

    def __init__(self, socket_path: str) -> None:
        super().__init__(task_check_period=0.05)
        _write_no_message_out()
        self._path = socket_path
        self._newest: dict[str, _Order] = {}
        self._steps: queue.SimpleQueue[_Step | None] = queue.SimpleQueue()

    def start_controller(self, fl_ctx: Any) -> None:
        """Nothing is to be prepared."""

    def stop_controller(self, fl_ctx: Any) -> None:
        """Nothing is to be put away."""

    def process_result_of_unknown_task(
        self, client: Any, task_name: str, client_task_id: str, result: Any, fl_ctx: Any
    ) -> None:
        """It came too late, and is asked for again."""

    def control_flow(self, abort_signal: Any, fl_ctx: Any) -> None:
        """Until the coordinator hangs up, or FLARE ends the job."""
        with socket.socket(socket.AF_UNIX) as link:
            link.connect(self._path)
            with link.makefile("rb") as orders, link.makefile("wb") as answers:
                tell = _Teller(answers, lambda: self._steps.put(None))
                sites = [client.name for client in fl_ctx.get_engine().get_clients()]
                tell({"event": "up", "sites": sites})
                threading.Thread(target=self._listen, args=(orders,), daemon=True).start()
                while not abort_signal.triggered and self._step(tell, abort_signal, fl_ctx):
                    pass

    def _step(self, tell: Callable[..., None], abort_signal: Any, fl_ctx: Any) -> bool:
        """Take the next step, if there is one; False if the coordinator is gone."""
        try:
            step = self._steps.get(timeout=0.1)
        except queue.Empty:
            return True
        if step is not None and self._newest.get(step.order.site) is step.order:  # it is waited for
            self._send(step, tell, abort_signal, fl_ctx)
        return step is not None

    def _listen(self, orders: BinaryIO) -> None:
        try:
            while True:
                self._take(*read_message(orders))
        except (EOFError, OSError):
            self._steps.put(None)

    def _take(self, head: dict[str, object], body: bytes) -> None:
        if not head:
            self._newest.clear()
            return
        order = _Order(str(head["site"]), int(str(head["number"])))
        self._newest[order.site] = order
        self._steps.put(_Step(order, ORDER, len(body), body))

    def _send(self, step: _Step, tell: Callable[..., None], abort_signal: Any, fl_ctx: Any) -> None:
        order, heard = step.order, threading.Event()
        about = {"site": order.site, "number": order.number}

        def received(client_task: Any, fl_ctx: Any) -> None:
            heard.set()
            result, client_task.result = client_task.result, None  # or payloads pile up
            if client_task.client.name != order.site:
                return
            state = result.get("state")
            if result.get_return_code() != ReturnCode.OK or state is None:
                tell({"event": "failed", **about})
                late = threading.Timer(_AGAIN, self._steps.put, [_Step(order, MORE)])
                late.daemon = True
                late.start()
            elif state == ANSWER and isinstance(result.get("body"), bytes):
                tell({"event": "answer", **about}, result["body"])
            elif state == READY:
                self._steps.put(_Step(order, TAKE, int(result["size"])))
            elif state == LOST:
                tell({"event": "lost", **about})
            elif state == WORKING:
                tell({"event": "working", **about})
                self._steps.put(_Step(order, MORE))

        def over(task: Any, fl_ctx: Any) -> None:
            if not heard.is_set() and not abort_signal.triggered:
                tell({"event": "silent", **about})
                self._steps.put(_Step(order, MORE))

        data: dict[str, object] = {"order": str(order.number)}
        if step.task == ORDER:
            data["body"] = step.body
        task = Task(
            name=step.task,
            data=Shareable(data),
            timeout=int(SILENT + step.size / _SLOWEST),
            result_received_cb=received,
            task_done_cb=over,
        )
        self.send(task, fl_ctx, targets=[order.site])


def _write_no_message_out() -> None:
    """FLARE 2.9 makes a text of every message that arrives, for a line of a log that is off.

    That takes 0.7 s and 300 MB for 100 MB, in which nothing else of the process runs.
    """
    with contextlib.suppress(ImportError):
        from nvflare.fuel.utils.buffer_list import ConsumableBufferList

        ConsumableBufferList.__repr__ = lambda parts: f"<{len(parts)} parts of a message>"


class _Teller:
    """Says things to the coordinator, from any thread; calls ``gone`` if it is not there."""

    def __init__(self, pipe: BinaryIO, gone: Callable[[], None]) -> None:
        self._pipe, self._gone, self._lock = pipe, gone, threading.Lock()

    def __call__(self, head: dict[str, object], body: bytes = b"") -> None:
        try:
            with self._lock:
                write_message(self._pipe, head, body)
        except (EOFError, OSError):
            self._gone()
