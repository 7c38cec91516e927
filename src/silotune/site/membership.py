"""Membership: how a site answers an invitation, and by which key it speaks afterwards.

    keys/invitation.json    the invitation that was answered, until an admission comes
    keys/<digits>.key       the site's private key, made here for that invitation
    keys/<digits>.pem       that of its certificate, where there is a server of NVIDIA FLARE
    keys/admission.json     what makes it a member

All of it lies in the site's home, which belongs to one federation.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from silotune.core.files import RecordError, in_words, json_text
from silotune.federation.admission import Admission, Invitation, Request, Rotation
from silotune.federation.kit import Kit
from silotune.keys import LetterError, Member, fingerprint, own_key, public_of, read_key
from silotune.keys.letters import is_over, read_small
from silotune.privacy.ledger.private_files import make_private, write_private
from silotune.runtimes.nvflare_certificates import check_certificate, new_key, request_of
from silotune.runtimes.nvflare_kits import flare_name


def answer_invitation(home: Path, file: Path) -> dict[str, str]:
    """Make a key for an invitation; give the request that answers it. The same one each time.

    Args:
        home: the site's folder.
        file: the invitation.

    Returns:
        The request, as its file holds it.

    Raises:
        LetterError: if it is none, was altered, is over, or the home is another federation's.
        RecordError: if something cannot be read or written.
    """
    invitation = Invitation.read(file)
    if is_over(invitation.expires):
        raise LetterError(
            f"{file}: could be answered until {invitation.expires}; ask for a new invitation"
        )
    _check_own(home, invitation)
    key = own_key(_key_file(home, invitation.digest))
    asks = ""
    if invitation.server:
        name = flare_name(invitation.site, public_of(key))
        asks = request_of(_own_tls_key(home, invitation.digest), name)
    _keep(home, "invitation.json", file)
    request = Request(
        federation=invitation.federation,
        site=invitation.site,
        site_key=public_of(key),
        invitation=invitation.digest,
        certificate_request=asks,
    )
    return request.signed(key)


def accept_admission(home: Path, file: Path) -> Admission:
    """Become a member, or one with another key. The same admission may come twice.

    Args:
        home: the site's folder.
        file: the admission.

    Raises:
        LetterError: if it is none, was altered, is over, or answers no request of this site.
        RecordError: if something cannot be read or written.
    """
    admission, pending = Admission.read(file), _pending(home)
    if is_over(admission.expires):
        raise LetterError(f"{file}: ended at {admission.expires}; ask for a new invitation")
    if any(k and k.federation != admission.federation for k in (pending, own_admission(home))):
        _check_own(home, admission)
    if pending is None:
        if admission == own_admission(home):
            return admission
        raise LetterError(f"{file}: no invitation was answered here; join with that first")
    asked = (pending.digest, pending.coordinator_key, pending.coordinator, pending.site)
    given = (admission.invitation, admission.coordinator_key, admission.coordinator, admission.site)
    if (*asked, pending.server) != (*given, admission.server):
        raise LetterError(
            f"{file}: does not answer what {pending.site} has asked; it is for another site or an "
            f"older request, or by another than {pending.coordinator}, who has invited it"
        )
    _key(home, admission)
    _check_certificate(admission, read_tls_key(home, admission), file)
    _keep(home, "admission.json", file)
    _clear(home, admission)
    return admission


def accept_kit(home: Path, kit: Kit, file: Path) -> Admission:
    """Become a member by a key that the coordinator has made.

    Args:
        home: the site's folder.
        kit: what the file holds.
        file: for messages.

    Raises:
        LetterError: if it is over, or the home is another federation's.
        RecordError: if something cannot be read or written.
    """
    admission = kit.admission
    if is_over(admission.expires):
        raise LetterError(f"{file}: ended at {admission.expires}; ask for a new one")
    _check_own(home, admission)
    _check_certificate(admission, kit.tls_key, file)
    place = _key_file(home, admission.invitation)
    with in_words(place):
        make_private(place.parent)
        write_private(place, kit.key.private_bytes_raw())
        if kit.tls_key:
            write_private(_tls_file(home, admission.invitation), kit.tls_key.encode())
        told = read_small(file)["admission"]
        write_private(home / "keys" / "admission.json", json_text(told).encode())
    _clear(home, admission)
    return admission


def rotated(home: Path, file: Path) -> Admission:
    """What a letter would make of this site's membership: the coordinator has another key.

    Nothing is changed: the old key could be a thief's, so a person compares the new one first.

    Args:
        home: the site's folder.
        file: the rotation.

    Raises:
        LetterError: if it is none, was altered, or is not by whoever admitted this site.
        RecordError: if something cannot be read.
    """
    return _rotated(home, Rotation.read(file), file)


def accept_rotation(home: Path, file: Path, mark: str) -> Admission:
    """Take the coordinator's new key for its own from now on; errors as ``rotated``.

    The letter is read once: the key that is compared is the key that is taken.

    Args:
        home: the site's folder.
        file: the rotation.
        mark: fingerprint of the new key, as a person heard it by another way.

    Raises:
        LetterError: if its key has another fingerprint.
    """
    letter = Rotation.read(file)
    after = _rotated(home, letter, file)
    if "".join(mark.split()).lower() != "".join(fingerprint(after.coordinator_key).split()):
        raise LetterError(f"{file}: its key is not the one that was told; nothing is changed")
    place = home / "keys" / "admission.json"
    with in_words(place):
        write_private(place, json_text(json.loads(letter.admission)).encode())
    return after


def _rotated(home: Path, letter: Rotation, file: Path) -> Admission:
    own, after = own_admission(home), letter.admitted(str(file))
    by = letter.federation, letter.site, letter.old_key
    if own is None or by != (own.federation, own.site, own.coordinator_key):
        raise LetterError(
            f"{file}: is not by the coordinator that has admitted this site, or is of another "
            "federation; ask for a new invitation"
        )
    by_old_key = replace(
        after,
        coordinator_key=own.coordinator_key,
        certificate=own.certificate,
        root=own.root,
    )
    if by_old_key != own:
        raise LetterError(f"{file}: changes more than the coordinator's key; ask for another")
    _check_certificate(after, read_tls_key(home, own), file)
    return after


def membership(home: Path) -> Member:
    """As whom this site speaks.

    Raises:
        LetterError: if it is no member, or no longer.
        RecordError: if something cannot be read.
    """
    admission = own_admission(home)
    if admission is None:
        raise LetterError(
            f"{home}: this site is a member of no federation; join one: silotune site join"
        )
    if is_over(admission.expires):
        raise LetterError(
            f"{home}: the admission of {admission.site} ended at {admission.expires}; ask for a "
            "new invitation"
        )
    key = _key(home, admission)
    return Member(admission.federation, admission.site, admission.coordinator_key, key)


def coordinator_key(home: Path, name: str) -> str:
    """Fingerprint of a coordinator's key, as the site's admission has it; empty if it has none.

    Args:
        home: the site's folder.
        name: the coordinator's.

    Raises:
        LetterError: if the admission was altered.
    """
    admission = own_admission(home)
    if admission is None or admission.coordinator != name:
        return ""
    return fingerprint(admission.coordinator_key)


def own_admission(home: Path) -> Admission | None:
    """What made this site a member, whether or not it is over; None if nothing did."""
    file = home / "keys" / "admission.json"
    return Admission.read(file) if file.exists() else None


def read_tls_key(home: Path, admission: Admission) -> str:
    """The private key of a site's certificate, in PEM; empty where it has none.

    Raises:
        RecordError: if it is lost, or somebody else may read it.
    """
    if not admission.server:
        return ""
    place = _tls_file(home, admission.invitation)
    if not place.exists():
        raise RecordError(
            f"{place}: is missing; bring the key back from a copy, or ask for a new invitation"
        )
    return _secret(place)


def _own_tls_key(home: Path, invitation: str) -> str:
    """Made when it is first needed."""
    place = _tls_file(home, invitation)
    with in_words(place):
        if not place.exists():
            write_private(place, new_key().encode())
    return _secret(place)


def _secret(place: Path) -> str:
    with in_words(place):
        if place.stat().st_mode & 0o077:
            raise RecordError(f"{place}: others may read or change this key; chmod go= {place}")
        return place.read_text()


def _check_certificate(admission: Admission, key: str, file: Path) -> None:
    """Refuse a certificate by which FLARE would know another site, or none."""
    if not admission.server:
        return
    name = flare_name(admission.site, admission.site_key)
    try:
        check_certificate(admission.certificate, admission.root, key, name)
    except ValueError as error:
        raise LetterError(f"{file}: {error}; ask for a new invitation") from error


def _pending(home: Path) -> Invitation | None:
    file = home / "keys" / "invitation.json"
    return Invitation.read(file) if file.exists() else None


def _check_own(home: Path, letter: Admission | Invitation) -> None:
    """Refuse a letter of another federation, or to another site, than the home is of."""
    asked = letter.federation, letter.coordinator_key, letter.site
    for known in (own_admission(home), _pending(home)):
        if known and asked != (known.federation, known.coordinator_key, known.site):
            raise LetterError(
                f"{home}: belongs to {known.site} in the federation {known.federation_name}, and "
                f"this is for {letter.site} in {letter.federation_name}; give each a home of its "
                "own (--home)"
            )


def _key(home: Path, admission: Admission) -> Ed25519PrivateKey:
    """The key that an admission speaks of."""
    place = _key_file(home, admission.invitation)
    key = read_key(place)
    if public_of(key) != admission.site_key:
        raise RecordError(
            f"{place}: is not the key that was admitted; bring it back from a copy, or ask for a "
            "new invitation"
        )
    return key


def _key_file(home: Path, invitation: str) -> Path:
    return home / "keys" / f"{invitation[:16]}.key"


def _tls_file(home: Path, invitation: str) -> Path:
    return _key_file(home, invitation).with_suffix(".pem")


def _keep(home: Path, name: str, file: Path) -> None:
    """A letter, as it came."""
    place = home / "keys" / name
    with in_words(place):
        write_private(place, json_text(read_small(file)).encode())


def _clear(home: Path, admission: Admission) -> None:
    """Take away what an admission has replaced: older keys, and the invitation."""
    current = _key_file(home, admission.invitation)
    for place in (home / "keys").glob("*.[kp]e[ym]"):
        if place.stem != current.stem:
            place.unlink()
    (home / "keys" / "invitation.json").unlink(missing_ok=True)
