"""Agreement: terms with what the parties declared, and what follows: mechanisms, prices, orders."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from functools import partial

from silotune.core import ClientId, GlobalState
from silotune.core.names import rank_name
from silotune.engine import ClientAgreement, Experiment
from silotune.engine.tail_average import TailAverage, tail_start
from silotune.optim.reach import reach
from silotune.privacy import (
    AnyCharge,
    ClientMechanism,
    FullParticipation,
    PrivacyBudget,
    ServerMechanism,
)
from silotune.privacy.ledger.noisy_counts import Releases
from silotune.privacy.mechanisms_from_choice import (
    client_mechanisms,
    server_budget,
    server_mechanism,
)
from silotune.privacy.planned_charges import (
    PlannedCharges,
    check_planned,
    client_budget,
    planned_charges,
    releases,
)

from .build import BuiltModel
from .cohort_rules import check_clients
from .epoch_rules import check_epochs
from .terms import Terms


@dataclass(frozen=True, kw_only=True, eq=False)
class Agreement:
    """What a coordinator can know without a record.

    Attributes:
        terms: what was agreed.
        labels: the public label set.
        model: the base model, adapted, with its first tensors.
        sizes: each client's declared number of records.
        held_out: each client's declared number of held-out ones; empty unless scores are released.
        planned: what the whole run of a client may cost, by declared size; empty without a target.
        mechanisms: each client's.
        server: whom the server asks, and how it forms their mean.
    """

    terms: Terms
    labels: tuple[str, ...]
    model: BuiltModel
    sizes: Mapping[str, int]
    held_out: Mapping[str, int]
    planned: PlannedCharges
    mechanisms: Mapping[str, ClientMechanism]
    server: ServerMechanism

    @property
    def budget(self) -> PrivacyBudget | None:
        """What is enforced; None if the noise was given instead of an epsilon."""
        return self.terms.privacy.budget

    def budget_of(self, account: str) -> PrivacyBudget | None:
        """The same of one account, which knows that the whole of the run fits."""
        choice = self.terms.privacy
        if self.server.private:
            training = self.terms.training_of(len(self.sizes))
            return server_budget(choice, self.server, training)
        return client_budget(choice, self.planned.get(self.sizes[account]))

    def price(self, account: str) -> AnyCharge | None:
        """Of one more round for an account: a client, or every client where the server hides."""
        if self.server.private:
            return self.server.charge()
        return self.mechanisms[account].charge(self.terms.steps_of(self.sizes[account]))

    @property
    def most_steps(self) -> int:
        """The most local steps that any client takes in a round."""
        return max(map(self.terms.steps_of, self.sizes.values()))

    def releases(self, client: str) -> Releases:
        """What a client sends besides its update."""
        held_out = self.held_out.get(client, 0)
        return releases(self.terms.privacy, client, held_out, self.terms.seed)

    def experiment(self, run: str) -> Experiment:
        """What decides the run, but for the records.

        Args:
            run: identifies the run.
        """
        return experiment(self.terms, self.model, self.sizes, run, self.server)

    def with_client(self, client: str, experiment: Experiment) -> ClientAgreement:
        """What one client lets itself be asked in a run.

        Args:
            client: its name.
            experiment: of the run, the same for all clients.
        """
        return ClientAgreement(
            client=ClientId(client),
            experiment=experiment,
            first=self.model.first,
            base=self.model.digest,
            start=self.model.start,
            mechanism=repr(self.mechanisms[client]),
            clips=self.mechanisms[client].private,
            scored=self.terms.scored,
        )

    def result(self, state: GlobalState) -> GlobalState:
        """What a run that ended after ``state`` would give: that state, or a mean of the last."""
        return tail.mean(state) if (tail := self._tail) else state

    def averaged(self, state: GlobalState) -> tuple[int, ...]:
        """The first and the last round of whose states ``result`` is the mean; empty if of none."""
        number = tail.number(state) if (tail := self._tail) else 0
        return (state.round - number, state.round - 1) if number > 1 else ()

    @property
    def _tail(self) -> TailAverage | None:
        return tail_average(self.terms, self.model)

    def first_state(self) -> GlobalState:
        """Before round 0."""
        return self.model.first_state()


def agree(
    terms: Terms,
    model: BuiltModel,
    labels: tuple[str, ...],
    sizes: Mapping[str, int],
    held_out: Mapping[str, int],
    whose: str | None = None,
    planned: PlannedCharges | None = None,
) -> Agreement:
    """Calibrate everybody's mechanism, or one client's.

    Args:
        terms: what was agreed.
        model: built from them.
        labels: the public label set.
        sizes: each client's declared number of records.
        held_out: the same of held-out ones; empty unless scores are released.
        whose: the one client whose mechanism is wanted: a site has no use for those of others.
        planned: what a process of the same owner has calibrated; None = it is calibrated here.

    Raises:
        ValueError: naming a field, if sizes do not fit the terms or a target cannot be reached.
    """
    most = terms.cohorts.most_asked(len(sizes), terms.seed, terms.rounds)
    check_clients(terms.cohorts, sizes, terms.min_clients, most)
    training = terms.training_of(len(sizes))
    check_epochs(terms, model.axes, sizes)
    ranks(terms, sizes)  # a client that does not exist ends here, before anything is written
    hidden = sizes if whose is None else {whose: sizes[whose]}
    if planned is None:
        planned = planned_charges(terms.privacy, hidden, training)
    else:
        check_planned(terms.privacy, hidden, training, planned)
    return Agreement(
        terms=terms,
        labels=labels,
        model=model,
        sizes=sizes,
        held_out=held_out,
        planned=planned,
        mechanisms=client_mechanisms(terms.privacy, hidden, training, planned),
        server=server_mechanism(terms.privacy, len(sizes), training),
    )


def with_clients(
    agreement: Agreement, sizes: Mapping[str, int], held_out: Mapping[str, int]
) -> Agreement:
    """An agreement with clients that join later; the mechanisms of the others stay.

    Args:
        agreement: as it was.
        sizes: the number of records that each newcomer declares.
        held_out: the same of held-out ones; empty unless scores are released.

    Raises:
        ValueError: as ``agree``.
    """
    terms = agreement.terms
    planned = planned_charges(terms.privacy, sizes, terms.training)
    added = client_mechanisms(terms.privacy, sizes, terms.training, planned)
    return replace(
        agreement,
        sizes=dict(sorted({**agreement.sizes, **sizes}.items())),
        held_out=dict(sorted({**agreement.held_out, **held_out}.items())),
        planned={**agreement.planned, **planned},
        mechanisms=dict(sorted({**agreement.mechanisms, **added}.items())),
    )


def experiment(
    terms: Terms,
    model: BuiltModel,
    sizes: Mapping[str, int],
    run: str,
    server: ServerMechanism | None = None,
) -> Experiment:
    """What decides a run, but for the records.

    Args:
        terms: what was agreed.
        model: brings the method at work and what travels as a seed.
        sizes: each client's declared number of records.
        run: identifies the run.
        server: whom the server asks, and how it forms their mean; None for everybody, plainly.

    Raises:
        ValueError: if the clients do not fit the terms.
    """
    noisy = terms.privacy.count_noise is not None

    def weight(size: int) -> float | None:
        if terms.weighting == "uniform":
            return 1.0
        return None if noisy else float(size)

    return Experiment(
        run=run,
        axes=model.axes,
        weights={ClientId(name): weight(size) for name, size in sizes.items()},
        rounds=terms.rounds,
        local_steps={ClientId(name): terms.steps_of(size) for name, size in sizes.items()},
        lr_schedule=terms.learning_rate_schedule,
        seed=terms.seed,
        draw=model.trainer.draw,
        sites=tuple(model.trainer.adapted.layers),
        fixed=model.fixed,
        ranks=ranks(terms, sizes),
        upload=terms.upload_dtype,
        declared={ClientId(name): size for name, size in sizes.items()} if noisy else {},
        largest_update=terms.largest_update,
        cohorts=terms.cohorts,
        quorum=terms.min_clients or len(sizes),
        private=terms.private,
        carried=terms.local_state == "carried",
        central=server or FullParticipation(),
        reach=partial(reach, model.axes.optimizer) if terms.normalize_steps else None,
        tail=tail_average(terms, model),
    )


def tail_average(terms: Terms, model: BuiltModel) -> TailAverage | None:
    """Of which last states the result is the mean; None where it is the last one."""
    if not terms.tail_average:
        return None
    return TailAverage(
        start=tail_start(terms.tail_average, terms.rounds),
        roles=model.axes.trained(),
        fixed=model.fixed,
        turning=model.axes.turning,
    )


def ranks(terms: Terms, clients: Collection[str]) -> dict[ClientId, int]:
    """Each client's rank, if any differs from that of the shared adapter; else empty.

    Raises:
        ValueError: if a rank is given to a client that does not exist.
    """
    given, usual = terms.method.ranks or {}, terms.method.r
    matched = {name: rank_name(name, given) for name in clients}
    if strange := given.keys() - set(matched.values()):
        raise ValueError(
            f"ranks: {', '.join(sorted(strange))} is no silo of the data, whose silos are "
            f"{', '.join(clients)}"
        )
    found = {ClientId(name): usual if own is None else given[own] for name, own in matched.items()}
    return found if set(found.values()) != {terms.method.largest_rank} else {}
