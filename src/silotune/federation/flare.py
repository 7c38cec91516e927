"""The coordinator's part in NVIDIA FLARE: an authority, a server, and who may connect to it.

    nvflare/credentials.json    the authority and the server's and coordinator's own, with all keys
    nvflare/issued/<name>.crt   every certificate that a site was ever given
    nvflare/server/, lead/      kits, as FLARE reads them
    nvflare/work/               the server's jobs, and what FLARE notes at home

FLARE knows no list of revoked certificates, but one of names that may not connect. Since a site has
another name for every key (``flare_name``), that is as good.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from silotune.core.files import DamagedError, in_words, json_text, read_json, write_json
from silotune.keys.letters import EARLY
from silotune.privacy.ledger.private_files import make_private, write_private
from silotune.runtimes.nvflare_certificates import Credentials, Root, end_of, valid_until
from silotune.runtimes.nvflare_kits import (
    LEAD,
    Address,
    Kit,
    flare_name,
    lead_kit,
    placed,
    server_kit,
    write_kit,
)

DAYS = 365
"""That what the server and the coordinator show is valid."""

DISABLED = "disabled_clients.json"
"""In the server's kit: FLARE reads it when it starts."""


@dataclass(frozen=True)
class Flare:
    """A server, and the authority that it and its sites trust.

    Attributes:
        folder: of all its files.
        federation: its identity.
        address: of the server.
    """

    folder: Path
    federation: str
    address: Address

    def create(self, name: str) -> None:
        """Make an authority, and what server and coordinator show; those before count no more.

        Args:
            name: of the federation, for people.

        Raises:
            RecordError: if it cannot be written.
        """
        self._keep(Root.create(name))

    def replace(self, root: Root) -> None:
        """Put another authority in place of the one before; kits that know that one count no more.

        Raises:
            RecordError: if it cannot be written.
        """
        self._keep(root)

    def sign(self, site: str, site_key: str, request: str, until: datetime) -> str:
        """A site's certificate, in PEM.

        Args:
            site: its name.
            site_key: its public key.
            request: as it came, in PEM.
            until: the end of it.

        Raises:
            ValueError: if the request asks for another name, shows no key, or one of another kind.
            RecordError: if something cannot be read or written.
        """
        name = flare_name(site, site_key)
        return self._issued(name, self.root.site(request, name, until))

    @property
    def root(self) -> Root:
        """The authority.

        Raises:
            RecordError: if it cannot be read.
        """
        root, _ = self._read()
        return root

    def lead(self) -> Path:
        """The coordinator's kit, by which jobs are submitted.

        Raises:
            RecordError: if it was altered.
            ValueError: if its time is over, or not yet come.
        """
        return self._checked("lead")

    def server(self) -> Path:
        """The server's kit.

        Raises:
            RecordError: if it was altered.
            ValueError: if its time is over, or not yet come.
        """
        return self._checked("server")

    @property
    def work(self) -> Path:
        """The server's own folder."""
        return self.folder / "work"

    def valid_until(self) -> datetime:
        """When the first of the server's, the coordinator's and the authority's own ends.

        Raises:
            ValueError: if one is over, or not valid yet.
        """
        root, shown = self._read()
        certificates = [root.certificate, *(one.certificate for one in shown.values())]
        cure = f"make them anew: silotune federation rotate --federation {self.folder.parent}"
        return valid_until(certificates, f"{self.folder}: a certificate", cure)

    def renew(self) -> str:
        """Make what server and coordinator show anew if its end is near.

        Returns:
            The server's certificate; a server that runs with another has to be started again.

        Raises:
            RecordError: if something cannot be read or written.
        """
        root, shown = self._read()
        near = datetime.now(UTC) + EARLY
        if any(end_of(one.certificate) <= near for one in shown.values()):
            self._keep(root)
            _, shown = self._read()
        return shown["server"].certificate

    def disable(self, members: Iterable[str]) -> bool:
        """Write down who may not connect: all that ever had a certificate and are no members now.

        Args:
            members: FLARE's names of those that are.

        Returns:
            Whether that is another list than before; a server that runs has to be started again.

        Raises:
            RecordError: if it cannot be written.
        """
        issued = {file.stem for file in (self.folder / "issued").glob("*.crt")}
        away = sorted(issued - set(members))
        file = self.folder / "server" / DISABLED
        if file.exists() and read_json(file).get("disabled_clients") == away:
            return False
        with in_words(file):
            make_private(file.parent)
        write_json(file, {"disabled_clients": away})
        return True

    def _issued(self, name: str, certificate: str) -> str:
        file = self.folder / "issued" / f"{name}.crt"
        with in_words(file):
            make_private(file.parent)
            write_private(file, certificate.encode())
        return certificate

    def _checked(self, place: str) -> Path:
        self.valid_until()
        return placed(self.folder / place, self._kits()[place])

    def _kits(self) -> dict[str, Kit]:
        _, shown = self._read()
        about = self.address, self.federation
        return {
            "server": server_kit(*about, shown["server"], self.folder / "work"),
            "lead": lead_kit(*about, shown["lead"]),
        }

    def _keep(self, root: Root) -> None:
        until = datetime.now(UTC) + timedelta(days=DAYS)
        told = {
            "root": asdict(root),
            "server": asdict(root.server(self.address.host, until)),
            "lead": asdict(root.lead(LEAD, until)),
        }
        with in_words(self._file):
            make_private(self.folder)
            write_private(self._file, json_text(told).encode())
        for place, kit in self._kits().items():
            write_kit(self.folder / place, kit)

    def _read(self) -> tuple[Root, dict[str, Credentials]]:
        told = read_json(self._file)
        try:
            shown = {name: Credentials(**told[name]) for name in ("server", "lead")}
            return Root(**told["root"]), shown
        except (KeyError, TypeError) as error:
            raise DamagedError(f"{self._file}: damaged; bring it back from a copy") from error

    @property
    def _file(self) -> Path:
        return self.folder / "credentials.json"
