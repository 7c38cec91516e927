"""What a site has once it is a member of a federation."""

from __future__ import annotations

from dataclasses import dataclass, field

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from .signing import public_of


@dataclass(frozen=True)
class Member:
    """One site of one federation, as the site itself has it.

    Attributes:
        federation: identifies it among all that there are.
        site: the name by which this site is known there.
        coordinator: the public key of who asks.
        key: the site's own, secret.
    """

    federation: str
    site: str
    coordinator: str
    key: Ed25519PrivateKey = field(repr=False)

    @property
    def public(self) -> str:
        """The site's public key."""
        return public_of(self.key)
