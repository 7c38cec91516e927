"""Federation: all a run needs, built from its configuration and checked before it starts."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from silotune.config import Config
from silotune.core import ClientId, GlobalState
from silotune.data.persons import People
from silotune.engine import Client, Experiment
from silotune.privacy import AnyCharge, ClientMechanism
from silotune.privacy.mechanisms.server import FullParticipation, ServerMechanism
from silotune.runs.folder import RunFolder

from .build import BuiltModel, open_model
from .inputs import ReadData, known_labels, read_examples, read_tables
from .mechanisms import (
    budget,
    central_mechanism,
    declared_held_out,
    declared_sizes,
    mechanisms,
    releases,
)


@dataclass(frozen=True, kw_only=True, eq=False)
class Federation:
    """A run's parts.

    Attributes:
        config: as resolved.
        labels: the public label set.
        data: all records as the model reads them.
        model: what no record decides.
        privacy: each silo's mechanism.
        central: the server's.
        sizes: each silo's declared number of records.
        held_out: each silo's declared number of held-out ones; empty unless scores are released.
        people: whose the records are; None outside a simulation, or where nothing says so.
        notices: what the user should know.
    """

    config: Config
    labels: tuple[str, ...]
    data: ReadData
    model: BuiltModel
    privacy: Mapping[str, ClientMechanism]
    central: ServerMechanism
    sizes: Mapping[str, int]
    held_out: Mapping[str, int]
    people: People | None
    notices: tuple[str, ...]

    @property
    def private(self) -> bool:
        """Whether a mechanism, at the silos or at the server, hides their records."""
        return self.config.privacy.unit != "none"

    def price(self, account: str) -> AnyCharge | None:
        """Of one more round for an account: a silo, or every client under client-level privacy."""
        if self.central.private:
            return self.central.charge()
        return self.privacy[account].charge(self.config.train.local_steps)


def open_federation(config: Config) -> Federation:
    """Open data and model, build every part, and prove the coverage of the gradients.

    Raises:
        ValueError: in words, naming the key of the configuration; nothing has been trained.
    """
    labels = known_labels(config)
    prepared = read_tables(config) if labels is None else None
    model = open_model(config, prepared.labels if prepared else labels or ())
    prepared = prepared or read_tables(config)
    records = {name: len(silo.train) for name, silo in prepared.silos.items()}
    sizes, said = declared_sizes(config, records)
    ranks(config, sizes)  # a silo that does not exist ends here, before anything is written
    held = {name: len(silo.valid) for name, silo in prepared.silos.items() if silo.valid}
    held_out, said_held = declared_held_out(config, held)
    return Federation(
        config=config,
        labels=prepared.labels,
        data=read_examples(config, prepared, model.loaded),
        model=model,
        privacy=mechanisms(config, sizes),
        central=central_mechanism(config, len(sizes)),
        sizes=sizes,
        held_out=held_out,
        people=prepared.people,
        notices=(*prepared.notices, *model.loaded.notices, *said, *said_held),
    )


def build_silos(workshop: Federation, folder: RunFolder | None) -> dict[ClientId, Client]:
    """The silos as clients; each owns a folder inside the run's."""
    return {
        ClientId(name): Client(
            client=ClientId(name),
            train=examples.train,
            held_out=examples.held_out,
            privacy=workshop.privacy[name],
            home=folder.site(name) if folder else None,
            budget=budget(workshop.config),
            releases=releases(workshop.config, name, workshop.held_out.get(name, 0)),
            discreet=workshop.central.private,
        )
        for name, examples in workshop.data.silos.items()
    }


def build_experiment(
    config: Config,
    model: BuiltModel,
    sizes: Mapping[str, int],
    run: str,
    central: ServerMechanism | None = None,
) -> Experiment:
    """What decides the run, but for the records.

    Args:
        config: as resolved.
        model: brings the recipe and what travels as a seed.
        sizes: each silo's declared number of records.
        run: identifies the run.
        central: the server's mechanism; None for none.

    Raises:
        ValueError: if the silos do not fit the configuration.
    """
    train = config.train

    def weight(size: int) -> float | None:
        if train.weighting == "uniform":
            return 1.0
        return float(size) if config.privacy.count_noise is None else None

    return Experiment(
        run=run,
        recipe=model.recipe,
        weights={ClientId(n): weight(s) for n, s in sizes.items()},
        rounds=train.num_rounds,
        local_steps=train.local_steps,
        linear_decay=train.lr_scheduler_type == "linear",
        seed=train.seed,
        draw=model.bench.draw,
        sites=tuple(model.bench.adapted.layers),
        fixed=model.fixed,
        ranks=ranks(config, sizes),
        largest_update=train.largest_update,
        quorum=train.min_clients or len(sizes),
        private=config.privacy.unit != "none",
        central=central or FullParticipation(),
    )


def ranks(config: Config, silos: Collection[str]) -> dict[ClientId, int]:
    """Each silo's rank, if any differs from that of the shared adapter; else empty.

    Raises:
        ValueError: if a rank is given to a silo that does not exist.
    """
    method = config.method.build()
    given, usual = method.ranks or {}, method.r
    if strange := given.keys() - set(silos):
        raise ValueError(
            f"method.ranks: {', '.join(sorted(strange))} is no silo of the data, whose silos are "
            f"{', '.join(silos)}"
        )
    found = {ClientId(name): given.get(name, usual) for name in silos}
    return found if set(found.values()) != {method.largest_rank} else {}


def first_state(workshop: Federation) -> GlobalState:
    """Before round 0."""
    return model_state(workshop.model)


def model_state(model: BuiltModel) -> GlobalState:
    """A model that has not learned."""
    return GlobalState(round=0, factors=model.first, drawn=model.drawn)
