"""The result folder of one run: the names of its files, and its rounds."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from silotune.core.files import (
    DamagedError,
    RecordError,
    append_bytes,
    build,
    in_words,
    json_line,
    read_lines,
    write_lines,
)


@dataclass(frozen=True, kw_only=True)
class RoundRecord:
    """One line of ``metrics.jsonl``: what one round did.

    JSON has no numbers that are not finite: they become null, which is read as NaN, or as
    infinity for an epsilon and noise over signal.

    Attributes:
        round: 0-based; -1 is the state before training.
        seconds: wall time of the round; where records are hidden in whole seconds, rounded up.
        bytes_up: from all clients to the server, in bytes.
        bytes_down: from the server to all clients, in bytes.
        clients: silos whose result was used.
        missing: silos whose result was not, with the reason.
        aggregation_error: ``||E[BA] - B'A'|| / ||E[BA]||``, Frobenius.
        epsilon: spent so far by each silo, infinite without noise; empty without privacy.
        metrics: the global metrics by name; empty where no public data were scored.
        silos: metrics of each silo's own records; only in a simulation.
        update_norm: Euclidean norm of the change of the server's tensors, but for those that a
            seed draws, and of what was added to the base.
        noise_to_signal: norm of the privacy noise in that change over what is left of it as signal,
            infinite where none can be told from noise. None, and not in the line, without noise
            and where the noise is not known.
    """

    round: int
    seconds: float = 0.0
    bytes_up: int = 0
    bytes_down: int = 0
    clients: tuple[str, ...] = ()
    missing: Mapping[str, str] = field(default_factory=dict)
    aggregation_error: float = 0.0
    epsilon: Mapping[str, float] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)
    silos: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    update_norm: float = 0.0
    noise_to_signal: float | None = None

    def to_json(self) -> dict[str, Any]:
        """The fields as JSON values, but for those that are None."""
        return {name: value for name, value in vars(self).items() if value is not None}

    @classmethod
    def from_json(cls, data: Mapping[str, Any], where: str) -> RoundRecord:
        """The inverse of ``to_json``; unknown fields are ignored.

        Args:
            data: of a line.
            where: file and line, for the message.

        Raises:
            RecordError: if a field is missing or of another type.
        """
        record = build(cls, data, where)
        drowned = "noise_to_signal" in data and record.noise_to_signal is None
        return cls(
            **{
                **vars(record),
                "clients": tuple(record.clients),
                "seconds": _number(record.seconds),
                "aggregation_error": _number(record.aggregation_error),
                "update_norm": _number(record.update_norm),
                "epsilon": unbounded(record.epsilon),
                "metrics": _numbers(record.metrics),
                "silos": {name: _numbers(metrics) for name, metrics in record.silos.items()},
                "noise_to_signal": math.inf if drowned else record.noise_to_signal,
            }
        )


@dataclass(frozen=True)
class RunFolder:
    """Where one run keeps its results. Two folders are equal if their paths are."""

    path: Path

    @classmethod
    def create(cls, path: str | Path) -> RunFolder:
        """Make the folder of a new run.

        Raises:
            RecordError: if the folder holds a run already or cannot be made.
        """
        folder = cls(Path(path))
        if any(file.exists() for file in folder.own_files()):
            raise RecordError(
                f"folder: {path} already holds a run; continue it with --resume "
                "(resume=True), or choose another folder (--output-dir)"
            )
        with in_words(folder.path):
            folder.path.mkdir(parents=True, exist_ok=True)
        return folder

    @classmethod
    def existing(cls, path: str | Path) -> RunFolder:
        """The folder of a run that was started before.

        Raises:
            RecordError: if no run is there.
        """
        folder = cls(Path(path))
        if not folder.run.is_file():
            with folder.advising():
                raise DamagedError(f"{path}: no run is here (there is no {folder.run.name})")
        return folder

    def own_files(self) -> tuple[Path, ...]:
        """Those by which one sees that a run was begun here."""
        return (self.state, self.config, self.description, self.run, self.metrics)

    @contextmanager
    def advising(self) -> Iterator[None]:
        """Say, of a file that is gone or damaged, how it comes back, if it does."""
        try:
            yield
        except DamagedError as error:
            if not self.state.is_file():
                raise
            raise DamagedError(
                f"{error}; resume the run (--resume), which writes it again from its checkpoint"
            ) from error

    @property
    def lock(self) -> Path:
        """There while a run is going on."""
        return self.path / "lock"

    @property
    def config(self) -> Path:
        """The resolved configuration."""
        return self.path / "config.yaml"

    @property
    def description(self) -> Path:
        """What decides the run, as values: objects by their qualified names and fields."""
        return self.path / "federation.json"

    @property
    def run(self) -> Path:
        """What ran: versions, seed, command, status."""
        return self.path / "run.json"

    @property
    def live(self) -> Path:
        """Of a run over sites: what each does now, for whoever looks on."""
        return self.path / "live.json"

    @property
    def metrics(self) -> Path:
        """One line a round."""
        return self.path / "metrics.jsonl"

    @property
    def ledger(self) -> Path:
        """One line for every charge of privacy, of all silos."""
        return self.path / "ledger.jsonl"

    @property
    def privacy(self) -> Path:
        """The privacy statement."""
        return self.path / "privacy.json"

    @property
    def sites_told(self) -> Path:
        """Who accepted which offer, under which policy, and who has the result; if there are sites.

        Beside it lie ``offer.json``, the offer that is out, and ``unheard``.
        """
        return self.path / "sites.json"

    @property
    def unheard(self) -> Path:
        """Orders that sites may have charged for, and have told nothing of since."""
        return self.path / "unheard.json"

    @property
    def server(self) -> Path:
        """What belongs to the server alone, where it hides its clients."""
        return self.path / "server"

    @property
    def checkpoint(self) -> Path:
        """The folder from which ``--resume`` continues."""
        return self.path / "checkpoint"

    @property
    def state(self) -> Path:
        """The state after the last whole round."""
        return self.checkpoint / "state.bin"

    @property
    def history(self) -> Path:
        """A copy of the rounds, beside the state."""
        return self.checkpoint / self.metrics.name

    @property
    def adapter(self) -> Path:
        """The result in PEFT's format, with its model card."""
        return self.path / "adapter"

    @property
    def report(self) -> Path:
        """The page for people."""
        return self.path / "report.html"

    @property
    def tensorboard(self) -> Path:
        """Event files, if ``report_to`` asks for them."""
        return self.path / "tensorboard"

    def site(self, silo: str) -> Path:
        """What belongs to one silo alone. Any name is safe: odd characters become ``%XX``."""
        return self.path / "sites" / safe_name(silo)

    def append_round(self, record: RoundRecord) -> bytes:
        """Add a round; it is on disk when this returns.

        Returns:
            The line, as it stands in the file.

        Raises:
            RecordError: if it cannot be written; the rounds before it are intact.
        """
        append_bytes(self.metrics, line := json_line(record.to_json()))
        return line

    def read_rounds(self) -> list[RoundRecord]:
        """All rounds so far, oldest first.

        Raises:
            RecordError: if a line is damaged or was written by a newer version, or if there are
                fewer than in the copy beside the checkpoint, which is written after them.
        """
        with self.advising():
            found, copied = rounds_in(self.metrics), self._copied_rounds()
            if len(found) < copied:
                raise DamagedError(f"{self.metrics}: has {len(found)} of {copied} lines")
            return found

    def _copied_rounds(self) -> int:
        try:
            return len(read_lines(self.history))
        except DamagedError:  # the rounds themselves may be whole
            return 0

    def write_rounds(self, records: Sequence[RoundRecord]) -> None:
        """Make these all the rounds that there are.

        Raises:
            RecordError: if the file cannot be rewritten; it is then as it was.
        """
        write_lines(self.metrics, [record.to_json() for record in records])


def rounds_in(path: Path) -> list[RoundRecord]:
    """The rounds in a file; none if it is not there.

    Raises:
        RecordError: if a line is damaged or was written by a newer version.
    """
    lines = enumerate(read_lines(path), start=1)
    return [RoundRecord.from_json(line, f"{path}, line {i}") for i, line in lines]


def safe_name(name: str) -> str:
    """A name as that of one file: odd characters become ``%XX``."""
    safe = re.sub(r"^\.|[^\w .\-]", lambda odd: "".join(map(_percent, odd[0].encode())), name)
    return safe or "%"


def unbounded(epsilons: Mapping[str, float | None]) -> dict[str, float]:
    """Epsilons as they were before JSON: what is null was infinite."""
    return {name: math.inf if value is None else value for name, value in epsilons.items()}


def _number(value: float | None) -> float:
    return math.nan if value is None else float(value)


def _numbers(values: Mapping[str, float | None]) -> dict[str, float]:
    return {name: _number(value) for name, value in values.items()}


def _percent(byte: int) -> str:
    return f"%{byte:02X}"
