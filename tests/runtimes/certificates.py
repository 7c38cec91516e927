"""Certificates of no authority, for kits that are made by hand."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

DAY = timedelta(days=1)
KEY = Ed25519PrivateKey.generate()


def certificate(file: Path, begins: timedelta, ends: timedelta) -> None:
    """One whose time is reckoned from now."""
    now, name = datetime.now(UTC), x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "fed")])
    one = (
        x509.CertificateBuilder(name, name, KEY.public_key(), 1)
        .not_valid_before(now + begins)
        .not_valid_after(now + ends)
        .sign(KEY, None)
    )
    file.write_bytes(one.public_bytes(Encoding.PEM))
