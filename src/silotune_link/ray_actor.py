"""Ray on a machine of its cluster: an actor that hands orders to a process of that machine.

The actor computes nothing and loads no model: the process does. When Ray starts the actor again,
its process is started with it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from .process import Process


class Actor:
    """One process that answers orders, on the GPU that Ray gives it, if it gives one.

    Args:
        words: for this machine's Python, as in ``python WORDS``; what they start answers orders
            (``silotune_link.process``).
        log: what it says is added to this file.
        folder: it runs in.
        settings: variables of its environment that Ray would set otherwise; None = unset.
    """

    def __init__(
        self, words: Sequence[str], log: Path, folder: Path, settings: Mapping[str, str | None]
    ) -> None:
        os.chdir(folder)
        for name, value in settings.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        self._process = Process([sys.executable, *words], log)

    def answer(self, order: bytes) -> bytes:
        """The process's.

        Raises:
            ProcessDied: if it died at every try.
        """
        return self._process.ask(order)
