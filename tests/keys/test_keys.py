"""Keys: who may read them, and what a signature is of."""

import os
import stat

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from silotune.core import RecordError
from silotune.keys import (
    Member,
    as_public_key,
    fingerprint,
    holds,
    own_key,
    public_of,
    read_key,
    signature_of,
)

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
PUBLIC = "03a107bff3ce10be1d70dd18e74bc09967e4d6309ba50d5f1ddc8664125531b8"  # RFC 8032's way


def test_a_key_is_made_once_for_its_owner_alone(tmp_path):
    place = tmp_path / "keys" / "site.key"
    key = own_key(place)
    assert stat.S_IMODE(place.stat().st_mode) == 0o600
    assert stat.S_IMODE(place.parent.stat().st_mode) == 0o700
    assert public_of(own_key(place)) == public_of(read_key(place)) == public_of(key)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o602, 0o610])
def test_a_key_that_others_may_read_or_change_is_refused(tmp_path, mode):
    place = tmp_path / "site.key"
    own_key(place)
    place.chmod(mode)
    for use in (own_key, read_key):
        with pytest.raises(RecordError, match=r"site\.key: others than its owner.*chmod 600"):
            use(place)


@pytest.mark.parametrize("content", [b"", b"short", bytes(33)])
def test_a_damaged_key_is_refused_and_kept(tmp_path, content):
    place = tmp_path / "site.key"
    place.write_bytes(content)
    place.chmod(0o600)
    with pytest.raises(RecordError, match=r"site\.key: is no key of ours"):
        own_key(place)
    assert place.read_bytes() == content


def test_a_key_that_is_missing_or_no_file_is_said_in_words(tmp_path):
    with pytest.raises(RecordError, match=r"site\.key: is missing"):
        read_key(tmp_path / "site.key")
    (tmp_path / "site.key").mkdir(0o700)
    with pytest.raises(RecordError, match=r"site\.key: Is a directory"):
        own_key(tmp_path / "site.key")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_key_that_may_not_be_read(tmp_path):
    own_key(tmp_path / "site.key")
    (tmp_path / "site.key").chmod(0)
    with pytest.raises(RecordError, match=r"site\.key: Permission denied"):
        read_key(tmp_path / "site.key")


def test_public_keys_have_one_form():
    assert public_of(KEY) == PUBLIC
    assert as_public_key(PUBLIC.upper()) == PUBLIC
    for wrong in ("", "12", "z" * 64, PUBLIC + "00", 5, None, ["a"]):
        with pytest.raises(ValueError, match="is no public key; give 64 hexadecimal digits"):
            as_public_key(wrong)


def test_a_signature_is_of_every_field_and_of_one_key():
    said = {"purpose": "a test", "number": 3, "site": "Straße"}
    signature = signature_of(KEY, said)
    assert holds(PUBLIC, said, signature)
    assert holds(PUBLIC, dict(reversed(said.items())), signature)
    other = public_of(Ed25519PrivateKey.generate())
    assert not holds(other, said, signature)
    for changed in ({**said, "number": 4}, {**said, "more": 1}, {"purpose": "a test"}, {}):
        assert not holds(PUBLIC, changed, signature)
    for wrong in (b"", signature[:-1], signature + b"0", bytes(64), bytes([signature[0] ^ 1])):
        assert not holds(PUBLIC, said, wrong)
    for nobody in ("", "zz", PUBLIC[:-2], "0" * 64):
        assert not holds(nobody, said, signature)


def test_a_fingerprint_can_be_read_out():
    words = fingerprint(PUBLIC).split()
    assert [len(word) for word in words] == [4] * 8
    assert fingerprint(PUBLIC) != fingerprint(public_of(Ed25519PrivateKey.generate()))


def test_a_member_does_not_show_its_key():
    assert "key" not in repr(Member("fed", "east", PUBLIC, KEY)).replace("coordinator", "")
    assert Member("fed", "east", PUBLIC, KEY).public == PUBLIC
