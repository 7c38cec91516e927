"""NVIDIA FLARE at a site: hands orders to the site's own daemon. FLARE's job process runs it.

FLARE never waits for training: every task is answered within seconds, with the answer or with the
word that work goes on. Where the daemon is comes from the site's own file, never from the job.
"""

from __future__ import annotations

import json
import threading
import time
from concurrent.futures import Future
from concurrent.futures import TimeoutError as NotYet
from pathlib import Path
from typing import Any

from nvflare.apis.executor import Executor
from nvflare.apis.fl_constant import ReturnCode
from nvflare.apis.shareable import Shareable, make_reply

from .daemon import ask

ORDER, MORE, TAKE = "order", "more", "take"
"""Tasks: a new order; ask for its answer again; hand over an answer of any size."""

WORKING, READY, ANSWER, LOST = "working", "ready", "answer", "lost"
"""States: not done; done, but to be taken; here it is; this process knows no such order."""

OWN_FILE = "silotune.json"
"""In the kit's local folder; its ``socket`` is the daemon's."""

AT_ONCE = 1 << 20
"""Bytes of an answer that any task brings."""

_PATIENCE = 2.0
"""Seconds that a task waits for an answer."""

_PAUSE = 1.0
"""Seconds between two attempts to reach a daemon that is away."""


class SiteExecutor(Executor):
    """The one class that a site lets a job name."""

    def __init__(self) -> None:
        super().__init__()
        self._work: dict[str, Future[bytes]] = {}

    def execute(
        self, task_name: str, shareable: Any, fl_ctx: Any, abort_signal: Any
    ) -> Any:  # FLARE's own types
        """One short task. What fails is said by a code, never in words: they may be of data."""
        try:
            if task_name == ORDER:
                local = Path(fl_ctx.get_workspace().get_site_config_dir())
                socket = Path(json.loads((local / OWN_FILE).read_text())["socket"])
                self._begin(socket, shareable["order"], shareable["body"])
                return self._state(shareable["order"], AT_ONCE)
            if task_name == MORE:
                return self._state(shareable["order"], AT_ONCE)
            if task_name == TAKE:
                return self._state(shareable["order"], None)
        except Exception:
            return make_reply(ReturnCode.EXECUTION_EXCEPTION)
        return make_reply(ReturnCode.TASK_UNKNOWN)

    def _begin(self, socket: Path, name: str, order: bytes) -> None:
        """Ask the daemon, unless that was done; the order before is no longer wanted.

        The name is the job's own, and tells its orders apart here alone; the daemon knows them by
        their SHA-256.
        """
        if name not in self._work:
            self._work = {name: Future()}
            threading.Thread(target=self._bring, args=(name, socket, order), daemon=True).start()

    def _bring(self, name: str, socket: Path, order: bytes) -> None:
        """Until there is an answer, or another order; the daemon may be started again meanwhile."""
        while (future := self._work.get(name)) is not None:
            try:
                future.set_result(ask(socket, order))
                return
            except ConnectionError:
                time.sleep(_PAUSE)
            except Exception as error:
                future.set_exception(error)
                return

    def _state(self, name: str, most: int | None) -> Any:
        future = self._work.get(name)
        if future is None:
            return Shareable({"state": LOST})
        try:
            answer = future.result(timeout=_PATIENCE)
        except NotYet:
            return Shareable({"state": WORKING})
        if most is not None and len(answer) > most:
            return Shareable({"state": READY, "size": len(answer)})
        return Shareable({"state": ANSWER, "body": answer})
