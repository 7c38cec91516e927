"""Transports: how messages went between a coordinator and its sites, and whom that shows what.

What a certificate guarantees does not follow from it; whom one trusts besides does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

OWN = "own"
"""A courier that is none of this package's."""

SIMULATION = (
    "by nobody: this was a simulation, on machines of one owner, who had the records of all silos"
)

CROSSES = {
    "example": "updates with their noise, charges, declared numbers and codes of refusals: what is "
    "counted, or public",
    "client": "every client's update as it is, so that whoever sees it must be trusted as the "
    "server is",
}
"""Unit of privacy -> what a way shows."""

TRANSPORTS: Mapping[str, str] = {
    "folder": "as files in a folder, each signed by its sender and none encrypted. Whoever can "
    "read there sees {crosses}; whoever can write there can hold messages back, and forge none. "
    "The coordinator is trusted to say whose keys are the members'",
    "nvflare": "by NVIDIA FLARE, over mutual TLS that ends at its server. Whoever runs that server "
    "sees {crosses}; whoever has the key of its certificate authority can speak for any site. At "
    "a site it carries bytes; that no job brings code there rests on the site's hardened kit",
    "flower": "by Flower, over TLS that ends at its server, each signed by its sender. Whoever "
    "runs that server sees {crosses}, and can hold messages back, and forge none. But whoever "
    "reaches its port with the certificate that every site has can run code at every site, so that "
    "all of them are trusted as the site's own machine is",
    OWN: "by a courier that is not of this package: who sees {crosses}, and how it knows who "
    "answered, is not known",
}
"""Kind of a courier -> how it carries messages, and whom it shows what."""


def carried(unit: str, transports: Sequence[str]) -> list[str]:
    """A sentence for every way that messages took.

    Args:
        unit: of privacy.
        transports: kinds of couriers; none in a simulation.

    Raises:
        KeyError: if one is not known.
    """
    if not transports:
        return [SIMULATION]
    return [TRANSPORTS[kind].format(crosses=CROSSES[unit]) for kind in transports]


def kind_of(courier: object) -> str:
    """The kind by which a courier is known here."""
    kind = getattr(courier, "transport", OWN)
    return kind if kind in TRANSPORTS else OWN
