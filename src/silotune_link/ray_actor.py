"""Ray on a machine of its cluster: an actor that hands orders to a process of that machine.

The actor computes nothing and loads no model: the process does. When Ray starts the actor again,
its process is started with it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .frames import read_frame, write_parts
from .process import Process, known


class Actor:
    """One process that answers orders, on the GPU that Ray gives it, if it gives one.

    Args:
        words: for this machine's Python, as in ``python WORDS``; what they start answers orders
            (``silotune_link.process``).
        log: what it says is added to this file.
        folder: it runs in.
        settings: variables of its environment that Ray would set otherwise; None = unset.
        told: what every process gets as it starts.
    """

    def __init__(
        self,
        words: Sequence[str],
        log: Path,
        folder: Path,
        settings: Mapping[str, str | None],
        told: Sequence[bytes] = (),
    ) -> None:
        os.chdir(folder)
        for name, value in settings.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        self._process = Process([sys.executable, *words], log, [known(part) for part in told])

    def answer(self, own: bytes, shared: Any, size: int) -> bytes:
        """The process's.

        Args:
            own: the first bytes of the order.
            shared: bytes of which the last ones follow, as Ray's store holds them; None = nothing.
            size: how many.

        Raises:
            ProcessDied: if it died at every try.
        """
        rest = memoryview(b"" if shared is None else shared).cast("B")
        parts = (own, rest[len(rest) - size :])
        total = len(own) + size
        return self._process.talk(lambda pipe: write_parts(pipe, total, parts), read_frame)
