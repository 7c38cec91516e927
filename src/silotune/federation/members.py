"""The coordinator's folder: its key, whom it has invited, and who was admitted until when.

    federation.json             which federation this is, and the names of its sites
    keys/coordinator.key        the coordinator's private key
    invitations/<site>.invitation   what was last handed to a site
    rotations/<site>.<n>.rotation   what told a site that the coordinator's key has changed
    members/<site>.json         a site's admission, and when it was revoked
    kits/<site>.kit             only with keys made here: a site's admission and its private keys
    nvflare/                    only with a server of NVIDIA FLARE: ``flare.py``

Nobody but the coordinator has business here.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from silotune.core import ClientId
from silotune.core.files import DamagedError, RecordError, in_words, read_json, write_json
from silotune.keys import LetterError, own_key, public_of, read_key
from silotune.keys.letters import is_over, moment
from silotune.privacy.ledger.private_files import make_private
from silotune.runtimes.nvflare_certificates import new_key, request_of
from silotune.runtimes.nvflare_kits import Address, flare_name

from . import rotation
from .admission import Admission, Invitation, Request, check_name
from .flare import Flare
from .kit import Kit, write_kit
from .sites import Sites
from .standing import Membership, PublicKeys, Standing, State

INVITED_DAYS, ADMITTED_DAYS = 30, 365
"""How long an invitation can be answered, and a site is a member, unless somebody says else."""


@dataclass(frozen=True)
class Members:
    """A federation, as its coordinator has it.

    Attributes:
        folder: of all its files.
        federation: identifies it among all that there are.
        name: for people.
        coordinator: the name by which the coordinator asks.
        sites: all that were ever invited, by name.
        server: of NVIDIA FLARE; None if there is none.
    """

    folder: Path
    federation: str
    name: str
    coordinator: str
    sites: tuple[str, ...]
    server: Address | None = None

    @classmethod
    def create(
        cls,
        folder: Path,
        sites: Sequence[str],
        coordinator: str | None = None,
        server: Address | None = None,
    ) -> Members:
        """A new federation, with a key of its own. Nobody is invited yet.

        Args:
            folder: a new one; its last part is the federation's name.
            sites: their names.
            coordinator: the name by which the coordinator asks; None = that of the federation.
            server: of NVIDIA FLARE, where there is to be one; its credentials are made too.

        Raises:
            ValueError: if a name is none of a folder, or two cannot be told apart.
            RecordError: if the folder is in use, or cannot be written.
        """
        name = folder.resolve().name
        check_name("name", name)
        check_name("coordinator", coordinator or name)
        names = Sites(tuple(sites)).names
        with in_words(folder):
            if folder.exists() and any(folder.iterdir()):
                raise RecordError(f"{folder}: is not empty; choose another name")
            make_private(folder)
        own_key(folder / "keys" / "coordinator.key")
        members = cls(folder, secrets.token_hex(16), name, coordinator or name, names, server)
        if members.flare is not None:
            members.flare.create(name)
        members._write()
        return members

    @classmethod
    def open(cls, folder: Path) -> Members:
        """A federation that was created here.

        Raises:
            RecordError: if there is none, or it is damaged.
        """
        file = folder / "federation.json"
        if not file.is_file():
            raise RecordError(
                f"{folder}: no federation was created here; see: silotune federation create"
            )
        told = read_json(file)
        try:
            sites = Sites(tuple(told["sites"])).names
            if list(sites) != told["sites"]:
                raise TypeError
            names = told["federation"], told["name"], told["coordinator"]
            for field, name in zip(("federation", "name", "coordinator"), names, strict=True):
                check_name(field, name)
            server = Address.parse(told["server"]) if told["server"] else None
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise DamagedError(f"{file}: damaged; bring it back from a copy") from error
        members = cls(folder, *names, sites, server)
        members._go_on()
        return members

    @property
    def key(self) -> Ed25519PrivateKey:
        """The coordinator's.

        Raises:
            RecordError: if it is lost, damaged, or not the coordinator's alone.
        """
        return read_key(self.folder / "keys" / "coordinator.key")

    @property
    def flare(self) -> Flare | None:
        """Its part in NVIDIA FLARE, if it has one."""
        if self.server is None:
            return None
        return Flare(self.folder / "nvflare", self.federation, self.server)

    def invite(self, site: str, days: int = INVITED_DAYS) -> Path:
        """A new invitation, to a new site or to one whose key is to change.

        An older one can be answered no more. Whoever is admitted stays so until the new one led to
        an admission.

        Args:
            site: its name.
            days: that it can be answered.

        Returns:
            The file to hand over.

        Raises:
            ValueError: if the name is none of a folder, or cannot be told from another.
            RecordError: if it cannot be written.
        """
        sites = Sites(tuple({*self.sites, site})).names
        if sites != self.sites:
            replace(self, sites=sites)._write()
        invitation = Invitation(
            federation=self.federation,
            federation_name=self.name,
            coordinator=self.coordinator,
            coordinator_key=public_of(self.key),
            site=site,
            number=secrets.token_hex(16),
            expires=_in(days),
            server=self._server,
        )
        file = self._invitation(site)
        self._put(file, invitation.signed(self.key))
        return file

    def approve(self, request: Request, days: int = ADMITTED_DAYS) -> Admission:
        """Admit a site by the key that it asks with. The same request has the same admission.

        Args:
            request: as it came.
            days: that the site is a member.

        Raises:
            LetterError: if it is to another federation, answers no invitation that is open, asks
                for another certificate than its own, or another key has answered it already.
            RecordError: if something cannot be read or written.
        """
        site = request.site
        if request.federation != self.federation:
            raise LetterError(f"request: {site} asks another federation than {self.name}")
        if site not in self.sites or not self._invitation(site).is_file():
            raise LetterError(f"request: {site} was not invited to {self.name}")
        invitation = Invitation.read(self._invitation(site))
        if request.invitation != invitation.digest:
            raise LetterError(
                f"request: {site} answers an invitation that another has replaced; hand over "
                f"{self._invitation(site)}"
            )
        before = self._member(site)
        if before is not None and before.admission.invitation == invitation.digest:
            return self._same(before, request)
        if is_over(invitation.expires):
            raise LetterError(
                f"request: the invitation of {site} was open until {invitation.expires}; make "
                f"another: silotune federation invite {site}"
            )
        try:
            admission = self._admission(
                site, request.site_key, invitation.digest, days, request.certificate_request
            )
        except RecordError:
            raise
        except ValueError as error:
            raise LetterError(f"request: of {site}: {error}; ask for another") from error
        self._keep(Membership(admission))
        return admission

    def make_kit(self, site: str, days: int = ADMITTED_DAYS) -> Path:
        """Make a site's key here, and admit it: the way of those who trust the coordinator.

        Returns:
            The file to hand over, and to delete here.

        Raises:
            RecordError: if it cannot be written.
        """
        key, tls_key, request = Ed25519PrivateKey.generate(), "", ""
        if self.server is not None:
            tls_key = new_key()
            request = request_of(tls_key, flare_name(site, public_of(key)))
        number = secrets.token_hex(32)
        admission = self._admission(site, public_of(key), number, days, request)
        file = self.folder / "kits" / f"{site}.kit"
        with in_words(file):
            make_private(file.parent)
            write_kit(file, Kit(admission, key, tls_key), self.key)
        self._keep(Membership(admission))
        return file

    def rotate(self) -> Mapping[ClientId, Path]:
        """Make the coordinator's key anew, and the authority of its server, if it has one.

        Members stay members; each is told by a letter that the old key signs. Until a site has
        accepted it, it takes orders by the old key alone. Open invitations count no more.

        Returns:
            The files to hand over.

        Raises:
            RecordError: if something cannot be read or written.
        """
        found = [member for site in self.sites if (member := self._member(site)) is not None]
        admissions = {member.admission: member.revoked for member in found}
        current = frozenset(self.public_keys())
        rotation.begin(self.folder, self.name, self.key, admissions, current)
        self._go_on()
        return {site: rotation.newest(self.folder, site) for site in sorted(current)}

    def _go_on(self) -> None:
        """Bring a rotation to its end that was begun."""
        told = rotation.under_way(self.folder)
        if told is None:
            return
        root = rotation.go_on(self.folder, told)
        if root is not None and self.flare is not None:
            self.flare.replace(root)
        for site in self.sites:  # what is still open was signed by the old key
            file, member = self._invitation(site), self._member(site)
            answered = "" if member is None else member.admission.invitation
            if file.exists() and Invitation.read(file).digest != answered:
                file.unlink()
        rotation.end(self.folder)

    def revoke(self, site: str) -> None:
        """End a membership now: nothing that this site signs counts any more.

        Raises:
            ValueError: if there is none.
            RecordError: if it cannot be written.
        """
        member = self._member(site) if site in self.sites else None
        if member is None:
            raise ValueError(f"site: {site} was not admitted; see: silotune federation status")
        if not member.revoked:
            self._keep(Membership(member.admission, revoked=_in(0)))

    def standings(self) -> tuple[Standing, ...]:
        """How it stands with every site.

        Raises:
            RecordError: if something cannot be read, or was altered.
        """
        return tuple(map(self.standing, self.sites))

    def public_keys(self, sites: Sequence[str] | None = None) -> Mapping[ClientId, str]:
        """Who is a member, and by which key: of the moment in which it is looked up.

        Args:
            sites: of which nobody else is looked for; None = all.
        """
        wanted = self.sites if sites is None else set(self.sites).intersection(sites)
        return PublicKeys(self.standing, frozenset(wanted))

    def flare_names(self) -> frozenset[str]:
        """By which FLARE knows those that are members now."""
        return frozenset(flare_name(site, key) for site, key in self.public_keys().items())

    def standing(self, site: str) -> Standing:
        """How it stands with one of them.

        Raises:
            RecordError: if something cannot be read, or was altered.
        """
        member = self._member(site)
        if member is None:
            file = self._invitation(site)
            expires = Invitation.read(file).expires if file.is_file() else ""
            state: State = "over" if not expires or is_over(expires) else "invited"
            return Standing(ClientId(site), state, expires)
        admission = member.admission
        if member.revoked:
            return Standing(ClientId(site), "revoked", member.revoked, admission.site_key)
        state = "over" if is_over(admission.expires) else "admitted"
        return Standing(ClientId(site), state, admission.expires, admission.site_key)

    def _same(self, member: Membership, request: Request) -> Admission:
        """What an invitation that was answered before has led to."""
        site, admission = request.site, member.admission
        again = f"make another invitation: silotune federation invite {site}"
        if request.site_key != admission.site_key:
            raise LetterError(
                f"request: another key has answered the invitation of {site} already. One of the "
                f"two is not the site's: compare fingerprints, revoke it, and {again}"
            )
        if member.revoked or is_over(admission.expires):
            raise LetterError(f"request: the membership of {site} has ended; {again}")
        return admission

    def _admission(
        self, site: str, key: str, invitation: str, days: int, request: str
    ) -> Admission:
        expires, certificate, root = _in(days), "", ""
        if self.flare is not None:
            certificate = self.flare.sign(site, key, request, moment(expires))
            root = self.flare.root.certificate
        return Admission(
            federation=self.federation,
            federation_name=self.name,
            coordinator=self.coordinator,
            coordinator_key=public_of(self.key),
            site=site,
            site_key=key,
            invitation=invitation,
            expires=expires,
            server=self._server,
            certificate=certificate,
            root=root,
        )

    def _member(self, site: str) -> Membership | None:
        file = self.folder / "members" / f"{site}.json"
        if not file.exists():
            return None
        told = read_json(file)
        where = str(file)
        try:
            revoked = str(told["revoked"])
            admission = Admission.opened(told["admission"], where)
        except (KeyError, TypeError, AttributeError) as error:
            raise DamagedError(f"{where}: damaged; bring it back from a copy") from error
        ours = (self.federation, site, public_of(self.key))
        if (admission.federation, admission.site, admission.coordinator_key) != ours:
            raise DamagedError(f"{where}: is of another federation or site; bring it back")
        return Membership(admission, revoked)

    def _keep(self, member: Membership) -> None:
        told = {"revoked": member.revoked, "admission": member.admission.signed(self.key)}
        self._put(self.folder / "members" / f"{member.admission.site}.json", told)

    def _invitation(self, site: str) -> Path:
        return self.folder / "invitations" / f"{site}.invitation"

    def _write(self) -> None:
        told = {"federation": self.federation, "name": self.name, "coordinator": self.coordinator}
        told |= {"server": self._server}
        self._put(self.folder / "federation.json", {**told, "sites": list(self.sites)})

    @property
    def _server(self) -> str:
        """As letters and files say it."""
        return "" if self.server is None else str(self.server)

    def _put(self, file: Path, told: Mapping[str, object]) -> None:
        with in_words(file):
            make_private(file.parent)
        write_json(file, told)


def _in(days: int) -> str:
    return (datetime.now(UTC) + timedelta(days=days)).isoformat(timespec="seconds")
