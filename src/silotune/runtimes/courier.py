"""Courier: whoever carries bytes to clients and back. It knows no task, no model and no method."""

from collections.abc import Iterator, Mapping
from typing import Protocol

from silotune.core import ClientId


class Courier(Protocol):
    """The way to clients that are elsewhere: worker processes, a folder, another machine."""

    def exchange(
        self, orders: Mapping[ClientId, bytes], deadline: float
    ) -> Iterator[tuple[ClientId, bytes]]:
        """Carry one order to each client; give who answered and the answer, as they come.

        Each client answers once at most; the iterator ends when all have, or at the deadline. Who
        answered is what the transport knows, never what an answer says. An order may arrive
        twice. Closing the iterator gives up what is still out.

        Args:
            orders: by client. They may be made when they are looked up, by any thread.
            deadline: seconds from now.
        """
        ...
