"""Certificates for NVIDIA FLARE: whom the authority signs for, and what anybody can check."""

from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from silotune.runtimes import nvflare_certificates
from silotune.runtimes.nvflare_certificates import (
    Root,
    check_certificate,
    end_of,
    new_key,
    request_of,
    valid_until,
)

SOON = datetime.now(UTC).replace(microsecond=0) + timedelta(days=9)
ROOT, OTHER = Root.create("north"), Root.create("north")
KEY = new_key()
REQUEST = request_of(KEY, "hosp-1")
CERTIFICATE = ROOT.site(REQUEST, "hosp-1", SOON)


def loaded(text: str) -> x509.Certificate:
    return x509.load_pem_x509_certificate(text.encode())


def subject(one: x509.Certificate) -> dict:
    return {part.oid: part.value for part in one.subject}


def test_a_sites_certificate_is_for_its_key_and_name_and_nothing_more():
    one = loaded(CERTIFICATE)
    assert one.not_valid_after_utc == end_of(CERTIFICATE) == SOON
    assert subject(one)[NameOID.COMMON_NAME] == "hosp-1"
    assert NameOID.UNSTRUCTURED_NAME not in subject(one), "no role: it submits no jobs"
    uses = one.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(uses) == [ExtendedKeyUsageOID.CLIENT_AUTH], "it cannot pass for the server"
    assert not one.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    check_certificate(CERTIFICATE, ROOT.certificate, KEY, "hosp-1")
    assert "PRIVATE" not in REQUEST + CERTIFICATE + ROOT.certificate
    assert KEY not in repr(ROOT.lead("x", SOON))


@pytest.mark.parametrize("host", ["fl.coord.org", "192.0.2.7"])
def test_clients_find_the_servers_name_where_they_look_for_it(host):
    shown = ROOT.server(host, SOON)
    check_certificate(shown.certificate, ROOT.certificate, shown.key, host)
    one = loaded(shown.certificate)
    names = one.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    [name] = [str(n.value) for n in names]
    assert name == host
    assert subject(loaded(ROOT.lead("x", SOON).certificate))[NameOID.UNSTRUCTURED_NAME] == "lead"


def asked(key, *parts, oid=NameOID.COMMON_NAME) -> str:
    name = x509.Name([x509.NameAttribute(oid, part) for part in parts])
    made = x509.CertificateSigningRequestBuilder(name).sign(key, hashes.SHA256())
    return made.public_bytes(Encoding.PEM).decode()


def own():
    return load_pem_private_key(KEY.encode(), None)


FOREIGN = {
    "another name": lambda: asked(own(), "hosp-2"),
    "two names": lambda: asked(own(), "hosp-1", "hosp-1"),
    "a role": lambda: asked(own(), "hosp-1", oid=NameOID.UNSTRUCTURED_NAME),
    "no name": lambda: asked(own()),
    "another kind of key": lambda: asked(ec.generate_private_key(ec.SECP256R1()), "hosp-1"),
    "a weak key": lambda: asked(rsa.generate_private_key(65537, 1024), "hosp-1"),
    "a key that took no time": lambda: asked(rsa.generate_private_key(65537, 2048), "hosp-1"),
    "nothing": str,
    "a certificate": lambda: CERTIFICATE,
    "bytes": lambda: REQUEST.replace("M", "N"),
}


@pytest.mark.parametrize("what", FOREIGN)
def test_what_no_site_asks_is_not_signed(what):
    with pytest.raises(ValueError, match="the request for a certificate"):
        ROOT.site(FOREIGN[what](), "hosp-1", SOON)


def test_a_request_that_somebody_else_signed_is_not_signed():
    der = x509.load_pem_x509_csr(REQUEST.encode()).public_bytes(Encoding.DER)
    altered = der[:-1] + bytes([der[-1] ^ 1])
    text = x509.load_der_x509_csr(altered).public_bytes(Encoding.PEM).decode()
    with pytest.raises(ValueError, match="not signed by the key that it names"):
        ROOT.site(text, "hosp-1", SOON)


@pytest.mark.parametrize(
    ("root", "key", "name", "words"),
    [
        (OTHER.certificate, KEY, "hosp-1", "of another authority"),
        ("", KEY, "hosp-1", "damaged"),
        (ROOT.certificate, OTHER.key, "hosp-1", "for another key"),
        (ROOT.certificate, KEY, "hosp-2", "for another name than hosp-2"),
    ],
)
def test_a_certificate_that_was_not_asked_for_is_refused(root, key, name, words):
    with pytest.raises(ValueError, match=words):
        check_certificate(CERTIFICATE, root, key, name)


def test_nothing_outlives_the_authority():
    far = datetime.now(UTC) + timedelta(days=9999)
    assert end_of(ROOT.site(REQUEST, "hosp-1", far)) == end_of(ROOT.certificate)


def test_another_authority_signs_the_same_again():
    again = OTHER.again(CERTIFICATE, SOON)
    check_certificate(again, OTHER.certificate, KEY, "hosp-1")
    assert loaded(again).subject == loaded(CERTIFICATE).subject


@pytest.mark.parametrize(
    ("days", "words"), [(10, r"x: was valid until .* UTC; y"), (-1, "by this machine's clock; set")]
)
def test_what_is_over_or_to_come_is_refused_in_words(monkeypatch, days, words):
    assert valid_until([CERTIFICATE, ROOT.certificate], "x", "y") == SOON
    then = datetime.now(UTC) + timedelta(days=days)
    monkeypatch.setattr(nvflare_certificates, "_now", lambda: then)
    with pytest.raises(ValueError, match=words):
        valid_until([CERTIFICATE], "x", "y")
    with pytest.raises(ValueError, match="x: damaged; y"):
        valid_until(["none"], "x", "y")


def test_clocks_may_differ_by_some_minutes(monkeypatch):
    then = datetime.now(UTC) - timedelta(minutes=50)
    monkeypatch.setattr(nvflare_certificates, "_now", lambda: then)
    valid_until([CERTIFICATE, ROOT.certificate], "x", "y")
