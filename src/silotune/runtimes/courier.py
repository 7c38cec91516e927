"""Courier: whoever carries bytes to clients and back. It knows no task, no model and no method."""

from collections.abc import Callable, Collection, Iterator, Mapping
from enum import StrEnum
from typing import Protocol, runtime_checkable

from silotune.core import ClientId


class Courier(Protocol):
    """The way to clients that are elsewhere: worker processes, a folder, another machine.

    One to sites may have an attribute ``transport``: its kind, by which certificates say what it
    shows to whom (``certificate.transports``).
    """

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


def refuse_strangers(orders: Collection[ClientId], names: Collection[ClientId]) -> None:
    """See that a courier knows whoever an order is for.

    Raises:
        ValueError: naming those whom it does not know.
    """
    if strangers := sorted(set(orders) - set(names)):
        raise ValueError(f"sites: {', '.join(strangers)} are not of this run")


class Sign(StrEnum):
    """What a transport may notice of a client that has not answered.

    Attributes:
        HERE: it is connected.
        WORKING: it says that it works on its order.
        GONE: it is connected no more.
    """

    HERE = "here"
    WORKING = "working"
    GONE = "gone"


Notice = Callable[[ClientId, Sign], None]
"""Takes what was noticed of a client; called within ``exchange``."""


@runtime_checkable
class Noticing(Protocol):
    """A courier that notices clients before they answer."""

    def tell(self, notice: Notice) -> None:
        """Whom to tell from now on."""
        ...
