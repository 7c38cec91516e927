"""Flower at the server: orders from the coordinator's socket to nodes, and answers back.

A process that the SuperLink starts runs it. On the socket are the messages of ``flare_server``; a
site is called by the number of its node. Nothing here knows who is behind a node: orders are signed
for one site, and what another says to them does not count.
"""

from __future__ import annotations

import queue
import socket
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, BinaryIO

from flwr.app import Message
from flwr.serverapp import ServerApp

from .flower_site import ANSWER, WAIT, WORKING, unwrapped, wrapped
from .frames import read_message, write_message

_LOOK = 0.2
"""Seconds between two looks for answers."""

_START = 60.0
"""Seconds that Flower has for a message besides what its node waits: polls, a process, a queue."""

_SLOWEST = 500_000.0
"""Bytes a second that a site's line has at least."""

_AGAIN = 2.0
"""Seconds until a node that failed, or is not there, is asked again."""

server_app = ServerApp()


@dataclass(frozen=True, eq=False)
class _Order:
    """What one node is asked."""

    node: str
    number: int
    body: bytes


@server_app.main()
def main(grid: Any, context: Any) -> None:
    """Until the coordinator hangs up."""
    with socket.socket(socket.AF_UNIX) as link:
        link.connect(str(context.run_config["socket"]))
        with link.makefile("rb") as orders, link.makefile("wb") as answers:
            write_message(answers, {"event": "up", "sites": []})
            inbox: queue.SimpleQueue[_Order | None] = queue.SimpleQueue()
            threading.Thread(target=_listen, args=(orders, inbox), daemon=True).start()
            _Carrying(grid, answers, float(context.run_config[WAIT])).until_over(inbox)


def _listen(pipe: BinaryIO, inbox: queue.SimpleQueue[_Order | None]) -> None:
    try:
        while True:
            head, body = read_message(pipe)
            inbox.put(_Order(str(head.get("site", "")), int(str(head.get("number", 0))), body))
    except (EOFError, OSError):
        inbox.put(None)


class _Carrying:
    """Orders that are out, each as one message of Flower."""

    def __init__(self, grid: Any, answers: BinaryIO, wait: float) -> None:
        self._grid, self._answers, self._wait = grid, answers, wait
        self._newest: dict[str, _Order] = {}
        self._out: dict[str, tuple[_Order, float]] = {}  # by message, and when it is given up
        self._later: list[tuple[float, _Order]] = []

    def until_over(self, inbox: queue.SimpleQueue[_Order | None]) -> None:
        """Until there is nobody to tell."""
        with suppress(EOFError, OSError):
            while True:
                try:
                    order = inbox.get(timeout=_LOOK)
                except queue.Empty:
                    self._look()
                    continue
                if order is None:
                    return
                self._begin(order)

    def _begin(self, order: _Order) -> None:
        if order.node:
            self._newest[order.node] = order
            self._send(order)
        else:  # nothing that is out is wanted any more
            self._newest.clear()

    def _send(self, order: _Order) -> None:
        seconds = self._wait + _START + len(order.body) / _SLOWEST
        content = wrapped("order", order.body)
        message = Message(content, int(order.node), "train", ttl=seconds)
        (name,) = self._grid.push_messages([message])
        if name:
            self._out[name] = order, time.monotonic() + seconds
        else:
            self._failed(order, "silent")

    def _look(self) -> None:
        now = time.monotonic()
        for reply in self._grid.pull_messages(list(self._out)) if self._out else ():
            order, _ = self._out.pop(reply.metadata.reply_to_message_id)
            if self._newest.get(order.node) is order:
                self._heard(order, reply)
        for name, (order, end) in list(self._out.items()):
            if self._newest.get(order.node) is not order:
                del self._out[name]
            elif now > end:
                del self._out[name]
                self._failed(order, "silent")
        due = [order for when, order in self._later if when <= now]
        self._later = [(when, order) for when, order in self._later if when > now]
        for order in due:
            if self._newest.get(order.node) is order:
                self._send(order)

    def _heard(self, order: _Order, reply: Any) -> None:
        if reply.has_error():
            self._failed(order, "silent")
            return
        state = reply.content["head"]["state"]
        if state == ANSWER:
            del self._newest[order.node]
            self._tell("answer", order, unwrapped(reply.content))
        elif state == WORKING:
            self._tell("working", order)
            self._send(order)
        else:
            self._failed(order, "failed")

    def _failed(self, order: _Order, event: str) -> None:
        self._tell(event, order)
        self._later.append((time.monotonic() + _AGAIN, order))

    def _tell(self, event: str, order: _Order, body: bytes = b"") -> None:
        about = {"event": event, "site": order.node, "number": order.number}
        write_message(self._answers, about, body)
