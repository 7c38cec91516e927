"""Standing: how it is with one site, and the public keys of those that are members now."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from silotune.core import ClientId

from .admission import Admission

State = Literal["invited", "admitted", "revoked", "over"]


@dataclass(frozen=True)
class Standing:
    """How it stands with one site.

    Attributes:
        site: its name.
        state: ``over`` if the date of its invitation, or of its admission, has passed.
        expires: that date; when it was revoked, if it was.
        key: its public key; empty before it was admitted.
    """

    site: ClientId
    state: State
    expires: str
    key: str = ""


@dataclass(frozen=True)
class Membership:
    """What the coordinator keeps of a site that was admitted.

    Attributes:
        admission: the last one.
        revoked: when it was revoked; empty if it was not.
    """

    admission: Admission
    revoked: str = ""


@dataclass(frozen=True, eq=False)
class PublicKeys(Mapping[ClientId, str]):
    """Read anew at every look, so that who is revoked is so in a run that is going on.

    Attributes:
        standing: how it is with a site at this moment.
        sites: nobody else is looked for.
    """

    standing: Callable[[str], Standing]
    sites: frozenset[str]

    def __getitem__(self, site: ClientId) -> str:
        if site not in self.sites:
            raise KeyError(site)
        standing = self.standing(site)
        if standing.state != "admitted":
            raise KeyError(site)
        return standing.key

    def __iter__(self) -> Iterator[ClientId]:
        standings = map(self.standing, sorted(self.sites))
        return (s.site for s in standings if s.state == "admitted")

    def __len__(self) -> int:
        return sum(1 for _ in self)
