"""Certificates for NVIDIA FLARE (X.509): one authority a federation, and what it signs.

FLARE knows a party by the common name in its certificate, and who may submit jobs by a role beside
it. Both are the authority's to give: of a request it takes the key alone, once it has seen that
whoever asks has the other half of it.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.rsa import (
    RSAPrivateKey,
    RSAPublicKey,
    generate_private_key,
)
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

BITS, MOST_BITS = 3072, 4096
"""Of an RSA key that is made, and that is signed at most. FLARE signs with no other kind."""

ROOT_DAYS = 3650
"""That a root is valid."""

LONGEST_NAME = 64
"""Letters of a common name (RFC 5280)."""

_SKEW = timedelta(hours=1)
"""By how much the clocks of two parties may differ."""


@dataclass(frozen=True)
class Credentials:
    """What one party shows, in PEM.

    Attributes:
        root: certificate of the authority.
        certificate: the party's, signed by it.
        key: the party's private key.
    """

    root: str
    certificate: str
    key: str = field(repr=False)


@dataclass(frozen=True)
class Root:
    """An authority.

    Attributes:
        certificate: in PEM; whoever trusts it trusts all that was signed.
        key: its private key, in PEM.
    """

    certificate: str
    key: str = field(repr=False)

    @classmethod
    def create(cls, name: str) -> Root:
        """A new one.

        Args:
            name: of the federation; its first 64 letters are the common name.
        """
        key = _new_key()
        subject = _subject(name[:LONGEST_NAME])
        builder = _begun(subject, subject, key.public_key(), _now() + timedelta(days=ROOT_DAYS))
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), True)
        builder = builder.add_extension(_usage(authority=True), True)
        signed = builder.sign(key, hashes.SHA256())
        return cls(_text(signed), _key_text(key))

    def site(self, request: str, name: str, until: datetime) -> str:
        """A site's certificate, in PEM.

        Args:
            request: as the site made it (``request_of``).
            name: by which FLARE is to know it.
            until: the end of it.

        Raises:
            ValueError: if the request asks for another name, shows no key, or one of another kind.
        """
        return self._leaf(requested_key(request, name), _subject(name, "site"), until)

    def again(self, certificate: str, until: datetime) -> str:
        """A certificate of the same name and key, by this authority.

        Args:
            certificate: by the one before it.
            until: the end of it.
        """
        before = x509.load_pem_x509_certificate(certificate.encode())
        return self._leaf(before.public_key(), before.subject, until)

    def lead(self, name: str, until: datetime) -> Credentials:
        """What lets a coordinator submit jobs, with a key made here."""
        return self._made(_subject(name, "coordinator", "lead"), until)

    def server(self, host: str, until: datetime) -> Credentials:
        """What a server shows, with a key made here.

        Args:
            host: as sites call it.
            until: the end of it.
        """
        names = x509.SubjectAlternativeName([_general_name(host)])
        return self._made(_subject(host, "coordinator"), until, names)

    def _made(
        self, subject: x509.Name, until: datetime, hosts: x509.SubjectAlternativeName | None = None
    ) -> Credentials:
        key = _new_key()
        leaf = self._leaf(key.public_key(), subject, until, hosts)
        return Credentials(self.certificate, leaf, _key_text(key))

    def _leaf(
        self,
        key: object,
        subject: x509.Name,
        until: datetime,
        hosts: x509.SubjectAlternativeName | None = None,
    ) -> str:
        root = x509.load_pem_x509_certificate(self.certificate.encode())
        own = load_pem_private_key(self.key.encode(), None)
        assert isinstance(own, RSAPrivateKey), "made by create"
        assert isinstance(key, RSAPublicKey), "made here, or looked at"
        end = min(until, root.not_valid_after_utc)
        builder = _begun(subject, root.subject, key, end, own.public_key())
        builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), True)
        builder = builder.add_extension(_usage(authority=False), True)
        purposes = [ExtendedKeyUsageOID.CLIENT_AUTH]
        if hosts is not None:  # no site can pass for the server
            purposes.append(ExtendedKeyUsageOID.SERVER_AUTH)
            builder = builder.add_extension(hosts, False)
        builder = builder.add_extension(x509.ExtendedKeyUsage(purposes), False)
        return _text(builder.sign(own, hashes.SHA256()))


def new_key() -> str:
    """A private key, in PEM."""
    return _key_text(_new_key())


def request_of(key: str, name: str) -> str:
    """What asks an authority for a certificate, in PEM; the private key is not in it.

    Args:
        key: the private one, in PEM.
        name: by which FLARE is to know the party.
    """
    own = load_pem_private_key(key.encode(), None)
    assert isinstance(own, RSAPrivateKey), "made by new_key"
    request = x509.CertificateSigningRequestBuilder(_subject(name)).sign(own, hashes.SHA256())
    return request.public_bytes(Encoding.PEM).decode()


def requested_key(request: str, name: str) -> RSAPublicKey:
    """The key of whoever asks for a certificate.

    Raises:
        ValueError: if the request asks for another name, shows no key, or one of another kind.
    """
    try:
        asked = x509.load_pem_x509_csr(request.encode())
        key, holds = asked.public_key(), asked.is_signature_valid
        names = [(one.oid, one.value) for one in asked.subject]
    except (ValueError, TypeError, InvalidSignature) as error:
        raise ValueError("the request for a certificate is damaged") from error
    if not holds:
        raise ValueError("the request for a certificate is not signed by the key that it names")
    if names != [(NameOID.COMMON_NAME, name)]:
        raise ValueError(f"the request for a certificate is for another name than {name}")
    if not isinstance(key, RSAPublicKey) or not BITS <= key.key_size <= MOST_BITS:
        raise ValueError(
            f"the request for a certificate has a key that FLARE does not take, or a weak one; RSA "
            f"of {BITS} to {MOST_BITS} bits"
        )
    return key


def check_certificate(certificate: str, root: str, key: str, name: str) -> None:
    """That a certificate is what was asked for.

    Args:
        certificate: in PEM.
        root: of whoever must have signed it, in PEM.
        key: the private one that it must be for, in PEM.
        name: that it must have.

    Raises:
        ValueError: if it is for another key or name, or another authority signed it.
    """
    try:
        leaf = x509.load_pem_x509_certificate(certificate.encode())
        above = x509.load_pem_x509_certificate(root.encode())
        leaf.verify_directly_issued_by(above)
        own = load_pem_private_key(key.encode(), None).public_key()
    except (ValueError, TypeError, InvalidSignature) as error:
        what = "the certificate is damaged, or of another authority"
        raise ValueError(what) from error
    if leaf.public_key() != own:
        raise ValueError("the certificate is for another key than this party's")
    found = [str(one.value) for one in leaf.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
    if found != [name]:
        raise ValueError(f"the certificate is for another name than {name}")


def end_of(certificate: str) -> datetime:
    """When a certificate ends (UTC), whether or not that has passed."""
    return x509.load_pem_x509_certificate(certificate.encode()).not_valid_after_utc


def valid_until(certificates: list[str], what: str, cure: str) -> datetime:
    """When the first of some certificates ends (UTC).

    Args:
        certificates: in PEM.
        what: they are, for messages.
        cure: what helps where one is over.

    Raises:
        ValueError: if one is none, is over, or is not valid yet.
    """
    now, ends = _now(), []
    for text in certificates:
        try:
            one = x509.load_pem_x509_certificate(text.encode())
        except ValueError as error:
            raise ValueError(f"{what}: damaged; {cure}") from error
        begins, end = one.not_valid_before_utc, one.not_valid_after_utc
        if now > end:
            raise ValueError(f"{what}: was valid until {end:%Y-%m-%d %H:%M} UTC; {cure}")
        if now < begins:
            raise ValueError(
                f"{what}: is valid from {begins:%Y-%m-%d %H:%M} UTC, and it is "
                f"{now:%Y-%m-%d %H:%M} by this machine's clock; set the clock, or wait"
            )
        ends.append(end)
    return min(ends)


def _new_key() -> RSAPrivateKey:
    return generate_private_key(65537, BITS)


def _key_text(key: RSAPrivateKey) -> str:
    form = PrivateFormat.TraditionalOpenSSL
    return key.private_bytes(Encoding.PEM, form, NoEncryption()).decode()


def _text(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(Encoding.PEM).decode()


def _subject(name: str, organisation: str = "", role: str = "") -> x509.Name:
    """FLARE reads all three from here."""
    parts = {
        NameOID.COMMON_NAME: name,
        NameOID.ORGANIZATION_NAME: organisation,
        NameOID.UNSTRUCTURED_NAME: role,
    }
    return x509.Name([x509.NameAttribute(oid, text) for oid, text in parts.items() if text])


def _begun(
    subject: x509.Name,
    issuer: x509.Name,
    key: RSAPublicKey,
    until: datetime,
    signer: RSAPublicKey | None = None,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .issuer_name(issuer)
        .subject_name(subject)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(_now() - _SKEW)
        .not_valid_after(until)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer or key), False)
    )


def _usage(*, authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=not authority,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=authority,
        crl_sign=authority,
        encipher_only=False,
        decipher_only=False,
    )


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _now() -> datetime:
    return datetime.now(UTC)
