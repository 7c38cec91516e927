"""Run: what ``fit`` leaves, as objects: metrics, pictures, the guarantee, the model."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from silotune.certificate.circumstances import Described
from silotune.certificate.guarantee import NOT_PRIVATE
from silotune.certificate.verify import Verification, verify
from silotune.core.files import read_json
from silotune.core.units import count_text, epsilon_text, metric_text, number_text
from silotune.reports.prose import WORSE
from silotune.reports.tables import as_text, rounds_table
from silotune.reports.totals import outcome
from silotune.runs.facts import RunFacts, read_facts
from silotune.runs.folder import RoundRecord, RunFolder
from silotune.runs.privacy_statement import PrivacyStatement, read_statement
from silotune.runs.standing import standing

from .description import Description
from .export import export_peft, merged
from .identity import decisive, digest_of
from .load import load_given
from .offer import digest_of_terms
from .results import Evaluation, Generate, Split, evaluate, evaluate_table
from .run import described

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

    from silotune.data.given import Table
    from silotune.objectives.answers import Answer

    from .loaded_model import LoadedModel


@dataclass(frozen=True, eq=False, repr=False)
class Metrics(Sequence[RoundRecord]):
    """The records of all rounds; the one before training has round -1.

    Attributes:
        records: in order.
        first: the metric to look at first.
    """

    records: tuple[RoundRecord, ...]
    first: str = "accuracy"

    def __repr__(self) -> str:
        """One row a round."""
        return as_text(rounds_table(self.records, self.first))

    def __getitem__(self, index: Any) -> Any:
        return self.records[index]

    def __len__(self) -> int:
        return len(self.records)

    def to_pandas(self) -> pd.DataFrame:
        """One row a round: its number, seconds, bytes, aggregation error and every metric."""
        import pandas as pd

        return pd.DataFrame(list(map(_row, self.records)))


@dataclass(frozen=True, eq=False, repr=False)
class RunPrivacy:
    """What a run has spent and guarantees.

    Attributes:
        statement: the certificate; None where nothing is hidden.
    """

    federation: Description
    folder: RunFolder
    statement: PrivacyStatement | None

    def __repr__(self) -> str:
        """Epsilon of every client, in a line each."""
        said = self.statement
        if said is None:
            return "NOT PRIVATE: nothing is claimed"
        title = f"hides every {said.unit} ({said.relation})"
        if not said.private:
            title = f"{NOT_PRIVATE}: {said.not_private_because}"
        rows = (
            f"  {name}: ε = {epsilon_text(silo.epsilon)} at δ = {number_text(silo.delta)}, "
            f"{count_text(silo.steps, 'step')}"
            for name, silo in said.silos.items()
        )
        return "\n".join([title, *rows])

    @property
    def epsilon(self) -> Mapping[str, float]:
        """Of every client (or of ``every client`` under ``ClientDP``); empty where nothing is."""
        silos = self.statement.silos if self.statement else {}
        return {name: silo.epsilon for name, silo in silos.items()}

    def verify(self) -> Verification:
        """Make figures and sentences again, and compare with all that lies in the run's folder."""
        federation = self.federation

        def describe(folder: RunFolder) -> Described:
            file = folder.description
            written = digest_of(decisive(read_json(file)))  # objects may be known to nobody else
            offered = digest_of_terms(federation.terms) if federation.records.elsewhere else ""
            return Described(federation.terms, described(federation), written, file.name, offered)

        return verify(self.folder.path, {self.folder.description.name: describe})


@dataclass(frozen=True, eq=False, repr=False)
class Run:
    """A run that is on the disk.

    Attributes:
        federation: that it is of.
        folder: its result folder.
    """

    federation: Description
    folder: RunFolder

    def __repr__(self) -> str:
        """Where it is, how far it came, and its first metric."""
        facts, total = self.facts, outcome(self.folder.read_rounds(), self.facts.metric)
        words = [standing(self.folder, facts), count_text(total.rounds, "round")]
        if math.isfinite(total.after):
            words.append(f"{facts.metric} {metric_text(facts.metric, total.after)}")
        if total.worse:
            words.append(WORSE.lower())
        if self.privacy.epsilon:
            words.append(f"largest ε {epsilon_text(max(self.privacy.epsilon.values()))}")
        return f"Run({str(self.folder.path)!r}: {', '.join(words)})"

    @property
    def facts(self) -> RunFacts:
        """What ran, where and from what."""
        return read_facts(self.folder)

    @property
    def metrics(self) -> Metrics:
        """The records of all rounds."""
        return Metrics(tuple(self.folder.read_rounds()), self.facts.metric)

    @property
    def privacy(self) -> RunPrivacy:
        """Epsilon of every client, and the certificate."""
        return RunPrivacy(self.federation, self.folder, read_statement(self.folder))

    def plot(self, what: str | None = None) -> Figure:
        """A picture by round.

        Args:
            what: a metric, ``epsilon`` or ``bytes``; None = the run's first metric.

        Raises:
            ValueError: if the run has no such metric.
        """
        from silotune.reports.plots import bytes_figure, epsilon_figure, metric_figure

        rounds, metric = self.metrics.records, what or self.facts.metric
        if what == "bytes":
            return bytes_figure(rounds)
        if what == "epsilon":
            return epsilon_figure(rounds, self.federation.terms.privacy.target_epsilon)
        known = sorted({name for record in rounds for name in record.metrics})
        if metric not in known:
            raise ValueError(
                f"plot: the run has no {metric}; it has {', '.join(known) or 'no metric'}, "
                "epsilon and bytes"
            )
        return metric_figure(rounds, metric)

    def evaluate(
        self,
        table: Table | None = None,
        *,
        split: Split | None = None,
        generate: Generate = False,
    ) -> Evaluation:
        """Score what was learned.

        Args:
            table: records that may be looked at; None = those of the federation.
            split: of the federation's own records: ``test``, or else ``valid``.
            generate: also let a language model write what each record says that it should, and
                score these texts by ``exact_match`` and ``rouge1``, ``rouge2`` and ``rougeL``
                (needs ``rouge-score``); an ``int`` is the most tokens of one. That takes a pass
                for every token.

        Raises:
            ValueError: in words.
        """
        if table is None:
            return evaluate(self.federation, self.folder, split, generate=generate)
        return evaluate_table(self.federation, self.folder, table, generate)

    def load(self, client: str | None = None) -> LoadedModel:
        """The model that was learned, which predicts, or generates.

        Args:
            client: whose own, where clients have one; None for the shared one.

        Raises:
            ValueError: if there is none.
        """
        return load_given(self.folder.path, client, self.federation.given, self.federation.machine)

    def predict(
        self, records: Sequence[Any], *, client: str | None = None, batch_size: int = 64
    ) -> list[Answer]:
        """What the model says of records; ``load`` it once to ask it more than once.

        Args:
            records: as ``LoadedModel.predict`` takes them.
            client: by whose own model, where clients have one; None for the shared one.
            batch_size: records that go through the model at once.

        Raises:
            ValueError: as ``LoadedModel.predict``.
        """
        return self.load(client).predict(records, batch_size=batch_size)

    def save_pretrained(self, folder: str | Path, client: str | None = None) -> None:
        """Copy the adapter to a new folder; PEFT loads it, with the lines in its README.

        Args:
            folder: a new one.
            client: whose own adapter, where clients have one; None for the shared one.

        Raises:
            ValueError: if PEFT cannot hold it, or the folder is in use.
        """
        export_peft(self.folder, Path(folder), client)

    def merged_model(self, client: str | None = None) -> Any:
        """The whole model with adapters and heads merged in, as transformers has it.

        Args:
            client: whose own, where clients have one; None for the shared one.

        Raises:
            ValueError: if nothing can be merged.
        """
        return merged(self.federation, self.folder, client)

    def report(self) -> Path:
        """The page for people."""
        return self.folder.report


def _row(record: RoundRecord) -> dict[str, object]:
    return {
        "round": record.round,
        "seconds": record.seconds,
        "bytes_up": record.bytes_up,
        "bytes_down": record.bytes_down,
        "aggregation_error": record.aggregation_error,
        **record.metrics,
    }
