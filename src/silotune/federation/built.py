"""Built: a federation with its data and model opened, every part checked before anything trains."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from silotune.core import ClientId
from silotune.data import ClientTables
from silotune.data.chat_dates import pin_date
from silotune.data.federated_dataset import Prepared
from silotune.engine import Client
from silotune.privacy import declared_sizes
from silotune.privacy.lifetime.budget import Account
from silotune.privacy.planned_charges import PlannedCharges
from silotune.terms import Agreement, BuiltModel, Terms, open_model, short_runs
from silotune.terms.agreement import agree

from .description import Description
from .inputs import ReadData, digests_of, public_digests_of, read_examples, read_tables
from .records import Records
from .trained_before import refuse_unbounded


@dataclass(frozen=True, kw_only=True, eq=False)
class BuiltFederation:
    """Everything that a run needs.

    Attributes:
        federation: as it was described.
        agreement: terms, model, declared sizes and mechanisms.
        data: all records as the model reads them.
        digests: by client, of its records; for itself alone.
        public_digests: of the tables beside the clients, by what they are for.
        tables: the silos' records as they are told again in a book for life; empty where none is
            kept.
        notices: what the user should know.
    """

    federation: Description
    agreement: Agreement
    data: ReadData
    digests: Mapping[str, str]
    public_digests: Mapping[str, str]
    tables: Mapping[str, ClientTables]
    notices: tuple[str, ...]

    @property
    def terms(self) -> Terms:
        """What was agreed."""
        return self.federation.terms


@dataclass(frozen=True, kw_only=True)
class Declared:
    """The public numbers of all clients.

    Attributes:
        sizes: of training records.
        held_out: of held-out ones; empty unless noisy scores are divided by them.
        notices: what the user should know.
        whose: the one client that is here; None for none or all.
    """

    sizes: Mapping[str, int]
    held_out: Mapping[str, int]
    notices: tuple[str, ...] = ()
    whose: str | None = None


Declare = Callable[[BuiltModel, tuple[str, ...]], Declared]
"""From model and label set to what clients elsewhere declare."""

Planned = Callable[[], PlannedCharges]
"""What another process of the same owner has calibrated; asked when all else is open."""


def build_federation(
    federation: Description,
    began: str | None = None,
    declare: Declare | None = None,
    tables: Prepared | None = None,
    planned: Planned | None = None,
) -> BuiltFederation:
    """Open data and model, build every part, and prove the coverage of the gradients.

    Args:
        federation: as described.
        began: when its run began, in ISO 8601: the date that chat templates print. None = now.
        declare: knows the public numbers of a federation of which this machine has a part or no
            record; None takes what is declared, or counted, here.
        tables: the data, if they are open already.
        planned: gives what was calibrated elsewhere; None = it is calibrated here.

    Raises:
        ValueError: in words, naming the field; nothing has been trained.
    """
    terms, records = federation.terms, federation.records
    labels = terms.objective.label_names
    prepared = read_tables(terms, records) if labels is None and tables is None else tables
    labels = prepared.labels if prepared else labels or ()
    model = open_model(terms, labels, federation.machine, federation.given)
    pin_date(model.loaded.tokenizer, began or now())
    prepared = prepared or read_tables(terms, records)
    refuse_unbounded(terms, prepared.silos)
    data = read_examples(terms, prepared, model.loaded)
    declared = declare(model, prepared.labels) if declare else _declared_here(terms, records, data)
    agreement = agree(
        terms,
        model,
        prepared.labels,
        declared.sizes,
        declared.held_out,
        declared.whose,
        planned() if planned else None,
    )
    return BuiltFederation(
        federation=federation,
        agreement=agreement,
        data=data,
        digests=digests_of(prepared),
        public_digests=public_digests_of(prepared),
        tables=prepared.silos if federation.is_recorded else {},
        notices=(
            *federation.reasons,
            *prepared.notices,
            *(data.notices if terms.evaluation == "simulation" else ()),
            *model.loaded.notices,
            *short_runs.notices(terms, model.axes, agreement.most_steps),
            *declared.notices,
        ),
    )


def _declared_here(terms: Terms, records: Records, data: ReadData) -> Declared:
    """What clients on this machine declare, or is counted of their records."""
    true_sizes = {name: len(silo.train.lengths) for name, silo in data.silos.items()}
    sizes, size_notices = public_sizes(terms, records, true_sizes)
    held = {
        name: len(silo.held_out.lengths) if silo.held_out is not None else 0
        for name, silo in data.silos.items()
    }
    held_out, held_notices = _public_held_out(terms, records, held)
    return Declared(sizes=sizes, held_out=held_out, notices=(*size_notices, *held_notices))


def now() -> str:
    """The time in ISO 8601, UTC."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def build_clients(
    built: BuiltFederation,
    home: Callable[[str], Path],
    run: str,
    accounts: Mapping[str, Account],
) -> dict[ClientId, Client]:
    """The clients whose records are here: all of a simulation, or a site's own.

    Args:
        built: whose clients they are.
        home: the folder of each for this run.
        run: the only one that they take part in.
        accounts: of each in its book for life; empty where none is kept.
    """
    agreement = built.agreement
    experiment = agreement.experiment(run)
    return {
        ClientId(name): Client(
            client=ClientId(name),
            train=examples.train,
            held_out=examples.held_out,
            privacy=agreement.mechanisms[name],
            home=home(name),
            budget=agreement.budget_of(name),
            releases=agreement.releases(name),
            lifetime=accounts.get(name),
            discreet=agreement.server.private,
            agreement=agreement.with_client(name, experiment),
        )
        for name, examples in built.data.silos.items()
    }


def public_sizes(
    terms: Terms, records: Records, true_sizes: Mapping[str, int]
) -> tuple[dict[str, int], list[str]]:
    """The public number of records of each client, and notices.

    Without privacy the size itself is used where none is declared.

    Args:
        terms: say whether there is privacy.
        records: may declare one number, or one for each client.
        true_sizes: real training sizes; they go no further than this function.

    Raises:
        ValueError: if a client is declared that does not exist, or one that exists is not; or if
            nothing is declared and records are too few for that.
    """
    if records.num_examples is None and not terms.private:
        return dict(true_sizes), []
    return declared_sizes("num_examples", records.num_examples, true_sizes)


def _public_held_out(
    terms: Terms, records: Records, true_sizes: Mapping[str, int]
) -> tuple[dict[str, int], list[str]]:
    """The same of held-out records; nothing unless noisy scores are divided by them."""
    if terms.privacy.metric_noise is None:
        return {}, []
    return declared_sizes("num_held_out", records.num_held_out, true_sizes)
