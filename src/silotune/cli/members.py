"""``federation create, invite, approve, revoke, status``: the coordinator's folder, in words."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path

from rich import box
from rich.table import Table
from rich.text import Text

from silotune.core.files import write_json
from silotune.federation.admission import Request
from silotune.federation.members import Members
from silotune.keys import fingerprint, public_of
from silotune.keys.letters import ends_soon
from silotune.runtimes.nvflare_kits import Address

from .console import emit, say, speaker

TRUST = (
    "Keys made here: whoever has had a kit, you first of all, can answer in that site's name, and "
    "nobody can tell. What a site signs proves nothing against you. Hand each kit over by a way "
    "that nobody else reads, and delete it here."
)


def found(
    folder: Path,
    sites: Sequence[str],
    coordinator: str | None,
    server: str | None,
    *,
    with_keys: bool,
) -> None:
    """Make a federation, and say what to hand over.

    Raises:
        ValueError: if a name is none of a folder or host, or the folder is in use.
    """
    address = None if server is None else Address.parse(server)
    console, members = speaker(), Members.create(folder, sites, coordinator, address)
    say(console, f"made {folder}: its keys/ is for your eyes only; back it up")
    for site in members.sites:
        file = members.make_kit(site) if with_keys else members.invite(site)
        say(console, f"  for {site}: {file}")
    if address is not None:
        say(
            console,
            f"its server: silotune federation serve, on {address.host} (port {address.port})",
        )
    _key(members)
    if with_keys:
        say(console, TRUST)
        say(console, "next, at each site: silotune site join SITE.kit --data DATA")
    else:
        say(console, "next, at each site: silotune site join SITE.invitation --data DATA")


def invite_again(folder: Path | None, site: str) -> None:
    """Write a new invitation.

    Raises:
        ValueError: if the name is none of a folder, or there is no federation.
    """
    members = Members.open(place_of(folder))
    say(speaker(), f"for {site}: {members.invite(site)}")
    _key(members)


def admit(folder: Path | None, file: Path, told: str | None, days: int) -> None:
    """Approve a request; the admission lies in the current folder.

    Raises:
        ValueError: if the request is refused, or has another fingerprint than was told.
    """
    console, request = speaker(), Request.read(file)
    members, mark = Members.open(place_of(folder)), fingerprint(request.site_key)
    if told is not None and _digits(told) != _digits(mark):
        raise ValueError(
            f"{file}: has the fingerprint {mark}, and not that which was told; it is not admitted"
        )
    admission = members.approve(request, days)
    place = Path(f"{request.site}.admission")
    write_json(place, admission.signed(members.key))
    say(console, f"admitted {request.site} until {admission.expires}: {place}")
    say(console, f"its key: {mark}")
    if told is None:
        say(console, "Compare this with the site by telephone before you hand the admission over;")
        say(console, f"if it is another: {_command(folder, 'revoke', request.site)}")
    say(console, f"next: send {place} to {request.site}; there: silotune site join {place}")


def end(folder: Path | None, site: str) -> None:
    """Revoke a membership.

    Raises:
        ValueError: if there is none.
    """
    Members.open(place_of(folder)).revoke(site)
    say(speaker(), f"revoked {site}; to admit it again: {_command(folder, 'invite', site)}")


def renew(folder: Path | None) -> None:
    """Change the coordinator's key, and say what to hand over.

    Raises:
        ValueError: if there is no federation, or something in it was altered.
    """
    console, members = speaker(), Members.open(place_of(folder))
    say(console, f"your key until now: {fingerprint(public_of(members.key))}")
    for site, file in members.rotate().items():
        say(console, f"  for {site}: {file}")
    _key(members)
    if waiting := [s.site for s in members.standings() if s.state == "over" and not s.expires]:
        say(console, f"to be invited again: {', '.join(waiting)}")
    say(console, "next, at each site: silotune site join SITE.rotation")
    say(
        console,
        "A `federation serve` that runs changes over by itself; sites come back as they join.",
    )


def tell(folder: Path | None, *, as_json: bool) -> None:
    """List the members, in words or as JSON.

    Raises:
        ValueError: if there is no federation, or something in it was altered.
    """
    console, members = speaker(as_json=as_json), Members.open(place_of(folder))
    standings, own = members.standings(), fingerprint(public_of(members.key))
    say(console, f"{members.name}: {members.coordinator} asks, with the key {own}")
    table = Table("site", "state", "until", "key", box=box.SIMPLE_HEAD, header_style="dim")
    for s in standings:
        table.add_row(Text(s.site), s.state, s.expires, fingerprint(s.key) if s.key else "")
    console.print(table)
    if members.flare is not None:
        until = members.flare.valid_until().isoformat(timespec="seconds")
        say(
            console,
            f"its server of NVIDIA FLARE: {members.server}, with certificates until {until}",
        )
    for line in endings(members):
        say(console, line)
    if as_json:
        sites = {s.site: {"state": s.state, "expires": s.expires, "key": s.key} for s in standings}
        emit(
            {
                "federation": members.federation,
                "name": members.name,
                "coordinator": members.coordinator,
                "key": public_of(members.key),
                "server": None if members.server is None else str(members.server),
                "sites": sites,
            }
        )


def endings(members: Members, sites: Sequence[str] | None = None) -> Iterator[str]:
    """What to do about memberships that end soon, in words.

    Args:
        members: the federation.
        sites: of which; None = all.
    """
    for site in members.sites if sites is None else sites:
        standing = members.standing(site)
        if standing.state == "admitted" and ends_soon(standing.expires):
            again = _command(members.folder, "invite", site)
            yield f"{site}: its membership ends at {standing.expires}; renew it: {again}"


def _command(folder: Path | None, verb: str, site: str) -> str:
    """A command to type, for the same federation."""
    where = [] if folder is None else ["--federation", str(folder)]
    return shlex.join(["silotune", "federation", verb, site, *where])


def _key(members: Members) -> None:
    mark = fingerprint(public_of(members.key))
    say(speaker(), f"your key: {mark}; tell it to the sites by telephone, for them to compare")


def place_of(folder: Path | None) -> Path:
    """The folder that was named, or the only federation here."""
    if folder is not None:
        return folder
    here = [file.parent for file in (*Path().glob("federation.json"), *_below())]
    if len(here) != 1:
        found = ", ".join(map(str, here)) or "none"
        raise ValueError(f"--federation: name its folder; found here: {found}")
    return here[0]


def _below() -> list[Path]:
    """Federations in folders of this one; runs have a file of that name too, and no members."""
    return sorted(f for f in Path().glob("*/federation.json") if (f.parent / "keys").is_dir())


def _digits(mark: str) -> str:
    return "".join(mark.split()).lower()
