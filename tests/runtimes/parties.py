"""A coordinator and sites whose keys every process of a test can make."""

import hashlib

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from silotune.keys import Member, public_of

FEDERATION = "f" * 32


def key(name: str) -> Ed25519PrivateKey:
    return Ed25519PrivateKey.from_private_bytes(hashlib.sha256(name.encode()).digest())


COORDINATOR = key("the coordinator")


def member(site: str) -> Member:
    return Member(FEDERATION, site, public_of(COORDINATOR), key(site))
