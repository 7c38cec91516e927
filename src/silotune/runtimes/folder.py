"""Folder: the courier for sites that no wire reaches. Orders and answers are files.

    <root>/outbox/<site>/<SHA-256 of the order>.order     written by the coordinator
    <root>/inbox/<site>/<SHA-256 of the order>.working    by the site while it works on it
    <root>/inbox/<site>/<SHA-256 of the order>.answer     and when it is done

The folder may lie on a shared disk, or be carried on a stick; nobody who has it in hand is trusted.
Every file is signed, and bound to its federation and site; an answer also to its order. An order
has the same name whenever it is asked, so that carrying it twice is harmless, and a number: how
often it was answered before. An answer counts if its number is not lower, so that what a site said
long ago is not taken for what it says now. A refusal that lies there when a courier first asks is
of long ago, since what stood in the way may be mended; a result is not, as it was worked for. Files
go when their writer no longer needs them.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, NamedTuple

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from silotune.core import ClientId
from silotune.core.files import RecordError, in_words
from silotune.core.locks import locked
from silotune.core.names import is_client_name
from silotune.keys import Member, public_of

from .courier import Notice, Sign, refuse_strangers
from .messages import REFUSED
from .signed_files import Reader, Signed, digest_of, state_of, write_signed

ORDER, WORKING, ANSWER = ".order", ".working", ".answer"

_SHORTEST, _LONGEST, _GROWTH = 0.01, 2.0, 1.5
"""Seconds between two looks; they grow by a factor while nothing comes."""


def to_stderr(text: str) -> None:
    """Where notes go that nobody asked for."""
    print(text, file=sys.stderr, flush=True)


class FolderCourier:
    """The coordinator's end. Use it as a context manager."""

    transport = "folder"

    def __init__(
        self,
        root: Path,
        federation: str,
        key: Ed25519PrivateKey,
        sites: Mapping[ClientId, str],
        note: Callable[[str], object] = to_stderr,
    ) -> None:
        """Nothing is written before it is entered.

        Args:
            root: the folder.
            federation: identifies it among all that there are.
            key: the coordinator's.
            sites: public keys, by name. They are looked up when they are needed: who is no longer
                there is neither asked nor heard.
            note: is told the names of files that count as absent.

        Raises:
            ValueError: if a site's name is none of a folder.
        """
        self._names = frozenset(sites)
        for site in self._names:
            _check_name(site)
        self._root, self._federation, self._key, self._sites = root, federation, key, sites
        self._note, self._reader = note, Reader(note)
        self._held = ExitStack()
        self._answered: dict[tuple[ClientId, str], int] = {}
        self._notice: Notice | None = None

    def __enter__(self) -> FolderCourier:
        with ExitStack() as stack:
            stack.enter_context(_alone(self._root / "outbox"))
            for site in self._names:
                self._clear(site)
            self._held = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._held.close()

    def tell(self, notice: Notice) -> None:
        """Whom to tell, from now on, which sites say that they work on an order."""
        self._notice = notice

    def exchange(
        self, orders: Mapping[ClientId, bytes], deadline: float
    ) -> Iterator[tuple[ClientId, bytes]]:
        """Put orders down, and look for answers until all are there or the deadline is over.

        Raises:
            ValueError: if an order is for nobody of this federation.
            RecordError: if an order cannot be written.
        """
        refuse_strangers(orders, self._names)
        end = time.monotonic() + deadline
        waiting: dict[ClientId, _Asked] = {}
        try:
            for client in orders:
                if client in self._sites:
                    waiting[client] = self._ask(client, orders[client])
                else:
                    self._note(f"{client}: is no member any more; not asked")
            pauses = _pauses()
            while waiting:
                last = time.monotonic() >= end
                for client, asked in list(waiting.items()):
                    answer = self._answer(client, asked)
                    if answer is not None:
                        self._answered[client, asked.digest] = answer.number + 1
                        asked.file.unlink(missing_ok=True)
                        del waiting[client]
                        pauses = _pauses()
                        yield client, answer.content
                    elif self._notice and not asked.begun and self._begun(client, asked):
                        waiting[client] = asked._replace(begun=True)
                        self._notice(client, Sign.WORKING)
                if last:
                    return
                time.sleep(max(0.0, min(next(pauses), end - time.monotonic())))
        finally:
            for asked in waiting.values():
                asked.file.unlink(missing_ok=True)

    def _ask(self, client: ClientId, order: bytes) -> _Asked:
        digest = digest_of(order)
        if (client, digest) not in self._answered:
            self._answered[client, digest] = self._first_number(client, digest)
        asked = _Asked(
            file=self._outbox(client) / f"{digest}{ORDER}",
            digest=digest,
            number=self._answered[client, digest],
        )
        what = about(ORDER, self._federation, client, digest)
        write_signed(asked.file, self._key, what, asked.number, order)
        return asked

    def _first_number(self, client: ClientId, digest: str) -> int:
        """Of an order: one that no refusal has which lies there from a courier before this one."""
        answer = self._lying(client, digest)
        return 0 if answer is None or answer.content[:1] != REFUSED else answer.number + 1

    def _answer(self, client: ClientId, asked: _Asked) -> Signed | None:
        answer = self._lying(client, asked.digest)
        return answer if answer is not None and answer.number >= asked.number else None

    def _begun(self, client: ClientId, asked: _Asked) -> bool:
        """Whether the client says that it works on its order."""
        word = self._lying(client, asked.digest, WORKING)
        return word is not None and word.number >= asked.number

    def _lying(self, client: ClientId, digest: str, suffix: str = ANSWER) -> Signed | None:
        """What the client says of an order, of whatever number: its answer, if nothing else."""
        public = self._sites.get(client)
        if public is None:
            return None
        file = self._root / "inbox" / client / f"{digest}{suffix}"
        return self._reader.read(file, public, about(suffix, self._federation, client, digest))

    def _clear(self, client: ClientId) -> None:
        """Take away orders that a courier before this one left, when it was killed."""
        outbox = self._outbox(client)
        with in_words(outbox):
            outbox.mkdir(parents=True, exist_ok=True)
        for file in outbox.glob(f"*{ORDER}"):
            what = about(ORDER, self._federation, client, file.stem)
            if self._reader.read(file, public_of(self._key), what) is not None:
                file.unlink(missing_ok=True)

    def _outbox(self, client: ClientId) -> Path:
        return self._root / "outbox" / client


class _Asked(NamedTuple):
    """An order that lies in the folder."""

    file: Path
    digest: str
    number: int
    begun: bool = False


def answer_folder(
    root: Path,
    member: Member,
    answer: Callable[[bytes], bytes],
    *,
    watch: bool = False,
    note: Callable[[str], object] = to_stderr,
) -> int:
    """The site's end: answer the orders that lie there and have no answer yet.

    Args:
        root: the folder.
        member: who answers, and to whom.
        answer: an order -> its answer.
        watch: go on looking for orders until the process is told to end.
        note: is told the names of files that count as absent.

    Returns:
        How many orders were answered.

    Raises:
        ValueError: if the site's name is none of a folder.
        RecordError: if somebody else answers there, or an answer cannot be written.
    """
    _check_name(member.site)
    with _alone(root / "inbox" / member.site):
        site = _Site(root, member, Reader(note))
        count, pauses = site.answer_all(answer), _pauses()
        while watch:
            time.sleep(next(pauses))
            if site.answer_all(answer):
                pauses = _pauses()
        return count


class _Site:
    """One site's two folders."""

    def __init__(self, root: Path, member: Member, reader: Reader) -> None:
        self._outbox, self._inbox = (root / box / member.site for box in ("outbox", "inbox"))
        self._member, self._reader = member, reader
        self._done: dict[Path, tuple[int, ...]] = {}  # orders, as they were on the disk

    def answer_all(self, answer: Callable[[bytes], bytes]) -> int:
        """Answer what is new, the oldest first; how many."""
        found = {file: state for file in self._outbox.glob(f"*{ORDER}") if (state := _state(file))}
        self._done = {file: state for file, state in self._done.items() if file in found}
        new = [file for file in found if self._done.get(file) != found[file]]
        count = 0
        for file in sorted(new, key=lambda file: found[file][2]):
            order = self._read(file)
            if order is not None:
                count += self._answer_one(file, order, answer)
                self._done[file] = found[file]
        if count:
            self._clear({file.stem for file in found})
        return count

    def _read(self, file: Path) -> Signed | None:
        return self._reader.read(file, self._member.coordinator, self._about(ORDER, file))

    def _answer_one(self, file: Path, order: Signed, answer: Callable[[bytes], bytes]) -> bool:
        me, place = self._member, self._inbox / f"{file.stem}{ANSWER}"
        what = self._about(ANSWER, file)
        before = self._reader.read(place, me.public, what)
        if before is not None and before.number >= order.number:
            return False
        word = place.with_suffix(WORKING)
        write_signed(word, me.key, self._about(WORKING, word), order.number, b"")
        write_signed(place, me.key, what, order.number, answer(order.content))
        word.unlink(missing_ok=True)
        return True

    def _clear(self, asked: set[str]) -> None:
        """Take away what was said of orders that are gone: when others have come, nobody waits."""
        for file in (*self._inbox.glob(f"*{ANSWER}"), *self._inbox.glob(f"*{WORKING}")):
            if file.stem not in asked:
                what = self._about(file.suffix, file)
                if self._reader.read(file, self._member.public, what) is not None:
                    file.unlink(missing_ok=True)

    def _about(self, suffix: str, file: Path) -> dict[str, str]:
        return about(suffix, self._member.federation, self._member.site, file.stem)


def about(suffix: str, federation: str, site: str, order: str) -> dict[str, str]:
    """What is signed of a file besides what it holds.

    Args:
        suffix: ``ORDER``, ``WORKING`` or ``ANSWER``.
        federation: of both parties.
        site: who is asked, or answers.
        order: SHA-256 of the order.
    """
    purpose = f"silotune folder 1 {suffix[1:]}"
    return {"purpose": purpose, "federation": federation, "site": site, "order": order}


def _alone(folder: Path) -> BinaryIO:
    """The folder's lock, held until it is closed.

    Raises:
        RecordError: if somebody else has it.
    """
    with in_words(folder):
        folder.mkdir(parents=True, exist_ok=True)
    try:
        with in_words(folder):
            return locked(folder / ".lock")
    except RecordError as error:
        if isinstance(error.__cause__, BlockingIOError):
            raise RecordError(f"{folder}: another process writes here; stop it first") from error
        raise


def _pauses() -> Iterator[float]:
    pause = _SHORTEST
    while True:
        yield pause
        pause = min(pause * _GROWTH, _LONGEST)


def _state(file: Path) -> tuple[int, ...] | None:
    with suppress(OSError):
        return state_of(file.lstat())
    return None


def _check_name(site: str) -> None:
    if not is_client_name(site):
        raise ValueError("sites: a name must be one that a folder can have")
