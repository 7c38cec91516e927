"""How a site becomes a member: three letters, and no private key in any of them.

    invitation   the coordinator, to one site: who asks, and its key
    request      the site, in answer to it: its own key, which it made itself
    admission    the coordinator, in answer to that: this key speaks for this site until a date

What the letters cannot show is that they came from whom they say. Both sides see the fingerprint
of the other's key, and compare it by a way that whoever carries letters does not have.

Where there is a server of NVIDIA FLARE the same three letters bring the site a certificate for it.
They are signed, so that there is no other fingerprint to compare.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import asdict, dataclass

from silotune.core.names import is_client_name
from silotune.keys import Letter, LetterError
from silotune.keys.letters import check_key, moment
from silotune.runtimes.nvflare_kits import Address

_ID = re.compile(r"[0-9a-f]{32}")
_DIGEST = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, kw_only=True)
class Invitation(Letter):
    """What a site is handed first.

    Attributes:
        federation: identifies it among all that there are, 32 hexadecimal digits.
        federation_name: for people.
        coordinator: the name by which the coordinator asks.
        coordinator_key: its public key.
        site: the name that the site will have.
        number: 32 random digits, so that no two invitations are the same.
        expires: when it can be answered no more.
        server: of NVIDIA FLARE, ``HOST:PORT``; empty if there is none.
    """

    KIND, SIGNER = "invitation", "coordinator_key"

    federation: str
    federation_name: str
    coordinator: str
    coordinator_key: str
    site: str
    number: str
    expires: str
    server: str = ""

    def check(self) -> None:
        """Refuse what no invitation says.

        Raises:
            ValueError: naming the field.
        """
        super().check()
        _check_id("federation", self.federation)
        _check_id("number", self.number)
        for name in ("federation_name", "coordinator", "site"):
            check_name(name, getattr(self, name))
        moment(self.expires)
        _check_server(self.server)

    @property
    def digest(self) -> str:
        """SHA-256 of what it says."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True, kw_only=True)
class Request(Letter):
    """What a site answers.

    Attributes:
        federation: of the invitation.
        site: of the invitation.
        site_key: the public key that the site has made.
        invitation: SHA-256 of the invitation.
        certificate_request: for the server of the invitation, in PEM; empty if there is none.
    """

    KIND, SIGNER = "request", "site_key"

    federation: str
    site: str
    site_key: str
    invitation: str
    certificate_request: str = ""

    def check(self) -> None:
        """Refuse what no request says.

        Raises:
            ValueError: naming the field.
        """
        super().check()
        _check_id("federation", self.federation)
        check_name("site", self.site)
        _check_digest(self.invitation)


@dataclass(frozen=True, kw_only=True)
class Admission(Letter):
    """What makes a site a member.

    Attributes:
        federation: as in the invitation.
        federation_name: for people.
        coordinator: the name by which the coordinator asks.
        coordinator_key: its public key.
        site: the member's name.
        site_key: the public key that speaks for it.
        invitation: SHA-256 of the invitation that led to it; of a kit, 64 random digits.
        expires: until when.
        server: as in the invitation.
        certificate: of the site at that server, in PEM; empty if there is none.
        root: certificate of the authority that signed it and the server's, in PEM.
    """

    KIND, SIGNER = "admission", "coordinator_key"

    federation: str
    federation_name: str
    coordinator: str
    coordinator_key: str
    site: str
    site_key: str
    invitation: str
    expires: str
    server: str = ""
    certificate: str = ""
    root: str = ""

    def check(self) -> None:
        """Refuse what no admission says.

        Raises:
            ValueError: naming the field.
        """
        super().check()
        _check_id("federation", self.federation)
        for name in ("federation_name", "coordinator", "site"):
            check_name(name, getattr(self, name))
        check_key("site_key", self.site_key)
        _check_digest(self.invitation)
        moment(self.expires)
        _check_server(self.server)
        if len({bool(self.server), bool(self.certificate), bool(self.root)}) > 1:
            raise ValueError("certificate: goes with server and root")


@dataclass(frozen=True, kw_only=True)
class Rotation(Letter):
    """How a coordinator changes its key: the old one says which is the new one.

    Attributes:
        federation: of the admission.
        site: of the admission.
        old_key: the coordinator's public key until now.
        admission: the site's, by the new key, as its file holds it.
    """

    KIND, SIGNER = "rotation", "old_key"

    federation: str
    site: str
    old_key: str
    admission: str

    def check(self) -> None:
        """Refuse what no rotation says.

        Raises:
            ValueError: naming the field.
        """
        super().check()
        _check_id("federation", self.federation)
        check_name("site", self.site)

    def admitted(self, where: str) -> Admission:
        """The admission in it, its signature checked.

        Args:
            where: for messages.

        Raises:
            LetterError: if it is none, or was altered.
        """
        try:
            told = dict(json.loads(self.admission))
        except (TypeError, ValueError) as error:
            raise LetterError(f"{where}: damaged; ask for it again") from error
        return Admission.opened(told, where)


def check_name(field: str, name: str) -> None:
    """Refuse a name that no folder can have.

    Raises:
        ValueError: naming the field.
    """
    if not is_client_name(name):
        raise ValueError(
            f'{field}: {name[:100]!r} is no name that a folder can have: no / \\ : * ? " < > |, '
            "no dot or space at its beginning, at most 100 bytes"
        )


def _check_server(text: str) -> None:
    if text and str(Address.parse(text)) != text:
        raise ValueError("server: is no HOST:PORT")


def _check_id(field: str, text: str) -> None:
    if not _ID.fullmatch(text):
        raise ValueError(f"{field}: is not 32 hexadecimal digits")


def _check_digest(text: str) -> None:
    if not _DIGEST.fullmatch(text):
        raise ValueError("invitation: is no SHA-256")
