"""Home: the folder of a site, which outlives all runs. Private to its owner.

    offers/<run>.json       what a coordinator asked, byte for byte as it came
    approvals/<run>.json    what a person said to it
    approvals/<run>.shown   digest of the offer that was shown to people last
    runs/<run>/             accepted.jsonl, ledger.jsonl, sent/, orders/, errors.jsonl,
                            certificate.json, adapter/
    life/                   the book of what the records have paid in all runs
    keys/, flare/, site.sock, trainer.log, flare.log

Folders have mode 0700 and files 0600. A file is replaced whole.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from silotune.core.files import DamagedError, RecordError, build, in_words, json_text, read_json
from silotune.core.names import is_run_name
from silotune.federation.offer import Offer, OfferError
from silotune.privacy.ledger.private_files import make_private, write_private
from silotune.privacy.ledger.store import LEDGER
from silotune.privacy.lifetime.spent import SetSpent, spent

from .approval import Approval
from .guarded import check_guarded, check_private

MOST_OFFERS = 1000
"""That are kept; whoever may ask could fill the disk otherwise."""


FINISHED = "finished.json"
"""In the folder of a run: of which round the result is that came at its end."""

SAID = "accepted.jsonl"
"""In the folder of a run: what the site declared when it accepted, a line each time that it was
something else."""


@dataclass(frozen=True)
class Home:
    """A site's folder.

    Attributes:
        path: of the folder; made when something is first written.
    """

    path: Path

    @property
    def life(self) -> Path:
        """The folder of the book of all runs."""
        return self.path / "life"

    @property
    def keys(self) -> Path:
        """The folder of its keys."""
        return self.path / "keys"

    @property
    def socket(self) -> Path:
        """Where its daemon listens."""
        return self.path / "site.sock"

    @property
    def log(self) -> Path:
        """What its trainer says."""
        return self.path / "trainer.log"

    def run(self, run: str) -> Path:
        """The folder of a run, which may not be there.

        Raises:
            ValueError: if that is no name of a run.
        """
        return self.path / "runs" / _checked(run)

    def finished(self, run: str) -> int | None:
        """How many rounds are behind the result of a run that has come; None if none has.

        Raises:
            RecordError: if that cannot be read.
        """
        file = self.run(run) / FINISHED
        return int(read_json(file).get("round", 0)) if file.is_file() else None

    def certificate(self, run: str) -> Path:
        """The certificate that came when a run ended."""
        return self.run(run) / "certificate.json"

    def opened_run(self, run: str) -> Path:
        """The folder of a run, made if it is not there.

        Raises:
            RecordError: if it cannot be made, or others can write in the home.
        """
        return self._made(self.run(run))

    def keep(self, data: bytes) -> Offer:
        """Keep an offer as it came; another one of the same name is replaced.

        Where there are too many, the oldest goes that nobody has answered, and no run is of: so
        whoever offers without end pushes out what was offered, and nothing that was said or done.

        Args:
            data: of the message.

        Raises:
            OfferError: if it is none.
            RecordError: if it cannot be written, or too many are kept already.
        """
        offer = Offer.parse(data)
        file = self._offer(offer.run)
        with in_words(file):
            if file.is_file() and file.read_bytes() == data:
                return offer
            if not file.exists() and len(self._names()) >= MOST_OFFERS:
                self._make_room()
        self._write(file, data)
        return offer

    def offer(self, run: str) -> Offer:
        """The offer of a run.

        Raises:
            ValueError: in words, if there is none, or it is damaged.
        """
        file = self._offer(run)
        if not file.is_file():
            raise RecordError(
                f"{run}: no such run was offered; `silotune site offers` lists those that were"
            )
        with in_words(file):
            data = file.read_bytes()
        try:
            offer = Offer.parse(data)
        except OfferError as error:
            raise DamagedError(
                f"{file}: damaged, or of another version of silotune ({error})"
            ) from error
        if offer.run != run:
            raise DamagedError(f"{file}: damaged, it is the offer of another run")
        return offer

    def offers(self) -> Iterator[Offer | RecordError]:
        """Every offer that is kept, by name; the words for one that cannot be read."""
        for run in self._names():
            try:
                yield self.offer(run)
            except RecordError as error:
                yield error

    def decide(self, offer: Offer, decision: Literal["approved", "refused"]) -> Approval:
        """Write down what a person says to the offer that was looked at.

        Raises:
            RecordError: if it cannot be written.
        """
        said = Approval(offer=offer.digest, decision=decision, time=now())
        self._write(self._approval(offer.run), json_text(asdict(said)).encode())
        return said

    def note_shown(self, offer: Offer) -> None:
        """Remember which offer of its name people have seen last.

        Raises:
            RecordError: if it cannot be written.
        """
        self._write(self._shown(offer.run), offer.digest.encode())

    def was_shown(self, offer: Offer) -> bool:
        """Whether people have seen this very offer last, under its name.

        Raises:
            RecordError: if that cannot be read.
        """
        file = self._shown(offer.run)
        with in_words(file):
            return file.is_file() and file.read_bytes() == offer.digest.encode()

    def approval(self, run: str) -> Approval | None:
        """What a person has said to an offer of this name; None if nothing.

        Raises:
            RecordError: if that cannot be read.
        """
        file = self._approval(run)
        if not file.exists():
            return None
        with in_words(file):
            _owned(file, check_guarded)
        try:
            return build(Approval, read_json(file), str(file), typed=False)
        except ValueError as error:
            raise DamagedError(
                f"{file}: damaged; say it again (site approve, or refuse)"
            ) from error

    def spent(self, delta: float | None = None) -> list[SetSpent]:
        """What the records have paid in all runs, as the book says.

        Args:
            delta: for life; None = the smallest of the runs of a set.

        Raises:
            ValueError: if the book is damaged, or gone though runs have paid.
        """
        if self.life.exists():
            return spent(self.life, delta)
        paid = [f.parent.name for f in self.path.glob(f"runs/*/{LEDGER}") if f.stat().st_size]
        if paid:
            raise DamagedError(
                f"{self.life}: is gone, though {', '.join(sorted(paid))} has charges; bring it "
                "back from a copy, or what was spent is not known"
            )
        return []

    def _make_room(self) -> None:
        """Remove the oldest offer that nothing hangs on.

        Raises:
            RecordError: if there is none.
        """
        idle = [
            self._offer(run)
            for run in self._names()
            if not self._approval(run).exists() and not self.run(run).exists()
        ]
        if not idle:
            raise RecordError(
                f"{self.path / 'offers'}: holds {MOST_OFFERS} offers that were approved, refused "
                "or begun; remove those that are over"
            )
        min(idle, key=lambda file: file.stat().st_mtime_ns).unlink()

    def _offer(self, run: str) -> Path:
        return self.path / "offers" / f"{_checked(run)}.json"

    def _approval(self, run: str) -> Path:
        return self.path / "approvals" / f"{_checked(run)}.json"

    def _shown(self, run: str) -> Path:
        return self._approval(run).with_suffix(".shown")

    def _names(self) -> list[str]:
        files = (self.path / "offers").glob("*.json")
        return sorted(file.stem for file in files if is_run_name(file.stem))

    def _write(self, file: Path, data: bytes) -> None:
        self._made(file.parent)
        with in_words(file):
            write_private(file, data)

    def _made(self, folder: Path) -> Path:
        with in_words(folder):
            make_private(folder)
            _owned(self.path, check_private)
        return folder


def now() -> str:
    """The time in ISO 8601, UTC."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def _owned(path: Path, check: Callable[[Path], None]) -> None:
    """A check, as an error of a record.

    Raises:
        RecordError: if others can write it, or read what they must not.
    """
    try:
        check(path)
    except PermissionError as error:
        raise RecordError(str(error)) from error


def _checked(run: str) -> str:
    if not is_run_name(run):
        raise ValueError("run: a run's name is of letters, digits, - and _, at most 64 of them")
    return run
