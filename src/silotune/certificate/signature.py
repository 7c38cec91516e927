"""Signatures: an account's owner vouches for a certificate and for its ledger, with a key.

Whoever owns every file of a run can write all of them anew, so that everything agrees. They cannot
sign for somebody whose key they do not have. An owner signs one statement (Ed25519, RFC 8032): the
digest of the certificate, the run, its account, and the head of its ledger, which binds every line
and by it every update that left. It lies beside the certificate, in ``signatures/``:

    signatures/<account>.json    the statement, the public key, the signature
    <owner's folder>/signing.key the private key, for its owner's eyes only

A key that comes with the signature proves that one owner signed, and not who that is: have the
public key from the owner, and give it to ``privacy verify``.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator, Mapping
from pathlib import Path

from silotune.core.files import in_words, read_json, write_json
from silotune.keys import as_public_key, holds, own_key, public_of, signature_of
from silotune.privacy.ledger.chain import Chain
from silotune.runs.digests import digest_of_file
from silotune.runs.folder import safe_name
from silotune.runs.privacy_statement import PrivacyStatement

from .consistency import Discrepancy

KEY, FOLDER = "signing.key", "signatures"

_PURPOSE = "silotune certificate 1"
"""Begins what is signed, so that it is a signature of nothing else."""


def sign(certificate: Path, said: PrivacyStatement, account: str, home: Path, chain: Chain) -> str:
    """Sign for an account, which must be in the certificate as it is in its ledger.

    Args:
        certificate: the file.
        said: what it says.
        account: whose signature it will be.
        home: its owner's folder; a key is made there if there is none.
        chain: the owner's own ledger.

    Returns:
        The public key, in hexadecimal digits.

    Raises:
        ValueError: if the certificate does not say of the account what its ledger says.
        RecordError: if the key is damaged, or something cannot be written.
    """
    silo = said.silos.get(account)
    if silo is None:
        raise ValueError(f"silo: {account} has no account here; it has {', '.join(said.silos)}")
    if (silo.lines, silo.head) != (len(chain), chain.head):
        raise ValueError(
            f"{certificate}: is of {silo.lines} charges of {account} and its own ledger has "
            f"{len(chain)}, or others; it is not signed. See: silotune privacy verify"
        )
    key = own_key(home / KEY)
    public = public_of(key)
    told = _statement(certificate, said, account)
    place = _file(certificate, account)
    with in_words(place):
        place.parent.mkdir(exist_ok=True)
    signature = base64.b64encode(signature_of(key, told)).decode()
    write_json(place, {"statement": told, "key": public, "signature": signature})
    return public


def check_signatures(
    certificate: Path,
    said: PrivacyStatement,
    keys: Mapping[str, str],
    *,
    required: bool,
) -> tuple[tuple[str, ...], list[Discrepancy]]:
    """Every signature that is there, or must be.

    Args:
        certificate: the file; signatures lie beside it.
        said: what it says.
        keys: account -> its owner's public key, in hexadecimal digits; these must have signed.
        required: whether everybody must have.

    Returns:
        Accounts whose signature holds, and what does not.
    """
    signed, wrong = [], []
    for name in sorted(keys.keys() - said.silos.keys()):
        wrong.append(Discrepancy(f"signature of {name}", "was asked for, and it has no account"))
    for name in said.silos:
        file, key = _file(certificate, name), keys.get(name)
        if not file.is_file():
            if required or key:
                wrong.append(Discrepancy(f"signature of {name}", f"is missing: no {file}"))
            continue
        found = list(_faults(file, certificate, said, name, key))
        wrong += [Discrepancy(f"signature of {name}", text) for text in found]
        if not found:
            signed.append(name)
    return tuple(signed), wrong


def public_key(text: str) -> str:
    """A public key as it is given: 64 hexadecimal digits, or a file of ``signatures/``.

    Raises:
        ValueError: if it is neither.
    """
    digits = str(read_json(Path(text)).get("key")) if Path(text).is_file() else text
    try:
        return as_public_key(digits)
    except ValueError as error:
        raise ValueError(f"{error}, or a file that holds them") from error


def _faults(
    file: Path, certificate: Path, said: PrivacyStatement, account: str, key: str | None
) -> Iterator[str]:
    try:
        found = read_json(file)
        by, told = as_public_key(found["key"]), dict(found["statement"])
        signature = base64.b64decode(found["signature"], validate=True)
    except (KeyError, TypeError, ValueError, binascii.Error) as error:
        yield f"cannot be read: {error}"
        return
    if key is not None and by != key:
        yield f"is by another key than {key[:16]}...: {by[:16]}..."
    if not holds(by, told, signature):
        yield "does not hold: it was not made with this key, or what it signs was changed"
        return
    now = _statement(certificate, said, account)
    for field, value in now.items():
        if told.get(field) != value:
            yield f"is of another {field}: {told.get(field)}, and here it is {value}"


def _statement(certificate: Path, said: PrivacyStatement, account: str) -> dict[str, object]:
    silo = said.silos[account]
    return {
        "purpose": _PURPOSE,
        "run": said.run,
        "account": account,
        "lines": silo.lines,
        "head": silo.head,
        "certificate": digest_of_file(certificate),
    }


def _file(certificate: Path, account: str) -> Path:
    return certificate.parent / FOLDER / f"{safe_name(account)}.json"
