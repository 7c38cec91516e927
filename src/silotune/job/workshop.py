"""Workshop: everything a run needs, built from its configuration and checked before it starts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from silotune.config import Config
from silotune.core import ClientId, GlobalState
from silotune.engine import Experiment, Silo
from silotune.privacy import Privacy
from silotune.reports.record import RunFolder

from .building import BuiltModel, open_model
from .mechanisms import budget, declared_sizes, mechanisms
from .reading import ReadData, known_labels, read_examples, read_tables


@dataclass(frozen=True, kw_only=True, eq=False)
class Workshop:
    """A run's parts.

    Attributes:
        config: as resolved.
        labels: the public label set.
        data: all records as the model reads them.
        model: what no record decides.
        privacy: each silo's mechanism.
        sizes: each silo's declared number of records.
        notices: what the user should know.
    """

    config: Config
    labels: tuple[str, ...]
    data: ReadData
    model: BuiltModel
    privacy: Mapping[str, Privacy]
    sizes: Mapping[str, int]
    notices: tuple[str, ...]

    @property
    def private(self) -> bool:
        """Whether the silos' mechanisms hide their records."""
        return self.config.privacy.unit != "none"


def open_workshop(config: Config) -> Workshop:
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
    return Workshop(
        config=config,
        labels=prepared.labels,
        data=read_examples(config, prepared, model.loaded),
        model=model,
        privacy=mechanisms(config, sizes),
        sizes=sizes,
        notices=(*prepared.notices, *model.loaded.notices, *said),
    )


def build_silos(workshop: Workshop, folder: RunFolder | None) -> dict[ClientId, Silo]:
    """The silos as clients; each owns a folder inside the run's."""
    return {
        ClientId(name): Silo(
            client=ClientId(name),
            train=examples.train,
            held_out=examples.held_out,
            privacy=workshop.privacy[name],
            home=folder.site(name) if folder else None,
            budget=budget(workshop.config),
        )
        for name, examples in workshop.data.silos.items()
    }


def build_experiment(
    config: Config, model: BuiltModel, sizes: Mapping[str, int], run: str
) -> Experiment:
    """What decides the run, but for the records.

    Args:
        config: as resolved.
        model: brings the recipe and what travels as a seed.
        sizes: each silo's declared number of records.
        run: identifies the run.
    """
    train = config.train
    uniform = train.weighting == "uniform"
    return Experiment(
        run=run,
        recipe=model.recipe,
        weights={ClientId(n): 1.0 if uniform else float(s) for n, s in sizes.items()},
        rounds=train.num_rounds,
        local_steps=train.local_steps,
        linear_decay=train.lr_scheduler_type == "linear",
        seed=train.seed,
        seeded=model.seeded,
        quorum=train.min_clients or len(sizes),
        private=config.privacy.unit != "none",
    )


def first_state(workshop: Workshop) -> GlobalState:
    """Before round 0."""
    return GlobalState(round=0, factors=workshop.model.first)
