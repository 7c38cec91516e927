"""What those who look after a site are told while it serves; never anything of a record."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from silotune.config.site_file import read_site
from silotune.core.files import RecordError
from silotune.core.plain import plain
from silotune.federation.offer import Offer
from silotune.site import OwnSite
from silotune.site.approval import WAITS, hindrance
from silotune.site.home import Home
from silotune.site.keeping import ERRORS
from silotune.site.refusal import refusal
from silotune.site.site import BEGUN


class News:
    """Each thing is told once, and an offer again when what this site says to it has changed.

    Args:
        file: the site's own.
        own: what it says now.
    """

    def __init__(self, file: Path, own: OwnSite) -> None:
        self._file, self._home = file, Home(own.home)
        self._states = self._state()
        self._said = dict(self._open(own))
        self._told = ""

    def waiting(self, own: OwnSite) -> Iterator[str]:
        """What a person has to look at."""
        for found in self._home.offers():
            if isinstance(found, RecordError):
                yield str(found)
            elif _hindrance(own, self._home, found) == WAITS and not _refused(own, found):
                yield _line(own, self._home, found)

    def look(self) -> Iterator[str]:
        """Lines of what is new since the last look."""
        now = self._state()
        try:
            own = read_site(self._file)
        except (OSError, ValueError) as error:
            if self._told != (told := str(error)):
                self._told = told
                yield f"every order is refused until this is mended: {told}"
            return
        self._told = ""
        before, self._states = self._states, now
        if self._states[0] != before[0]:
            for digest, line in self._open(own):
                if self._said.get(digest) != line:
                    self._said[digest] = line
                    yield line
        if self._states[1] != before[1]:
            yield f"an order could not be carried out; why stands in {self._home.path / ERRORS}"

    def _open(self, own: OwnSite) -> Iterator[tuple[str, str]]:
        """Digest and line of every offer whose run has not begun."""
        for found in self._home.offers():
            if isinstance(found, Offer) and not (self._home.run(found.run) / BEGUN).exists():
                yield found.digest, _line(own, self._home, found)

    def _state(self) -> tuple[tuple[int, ...], int]:
        """When offers, people's words and the site's file changed; how many bytes errors have."""
        home, errors = self._home.path, self._home.path / ERRORS
        places = home / "offers", home / "approvals", self._file
        return (
            tuple(place.stat().st_mtime_ns if place.exists() else 0 for place in places),
            errors.stat().st_size if errors.is_file() else 0,
        )


def _line(own: OwnSite, home: Home, offer: Offer) -> str:
    """What is asked, and what this site says to it."""
    asks = f"{offer.run}: {plain(offer.coordinator, 60)} asks for {plain(repr(offer.title), 60)}"
    look = f"look at it: silotune site show {offer.run}"
    if (key := _refused(own, offer)) is not None:
        return f"{asks}; refused by {key.replace(':', '.', 1)}; {look}"
    if own.lacks(offer.base_files):
        look = f"it lacks the base; {look}"
    match _hindrance(own, home, offer):
        case None if own.lacks(offer.base_files):
            return f"{asks}; {look}"
        case None:
            return f"{asks}; this site takes part"
        case code if code == WAITS:
            return f"{asks}; it waits for a person; {look}"
        case _:
            return f"{asks}; a person has refused it"


def _refused(own: OwnSite, offer: Offer) -> str | None:
    return refusal(own.policy, offer, own.num_examples)


def _hindrance(own: OwnSite, home: Home, offer: Offer) -> str | None:
    try:
        return hindrance(own.policy, offer, home.approval(offer.run))
    except RecordError:
        return WAITS  # nobody can tell what was said, so it is to be said again
