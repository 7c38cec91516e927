"""Grounds: what decides the sentences of a certificate, besides its figures.

They stand in the certificate as plain values, so that whoever has it can make its sentences again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, get_args

from silotune.objectives import find, is_known
from silotune.privacy import ClientDP
from silotune.privacy.accounting.charges import typed
from silotune.terms import Terms
from silotune.terms.terms import Evaluation

from .circumstances import Circumstances

_LISTS = ("roles", "baselines", "counted")


@dataclass(frozen=True, kw_only=True)
class Grounds:
    """What was released, to whom, and how the run was made.

    Attributes:
        roles: of the trained tensors, which are sent in every round.
        count: whether silos release a noisy number of records.
        metric: whether silos release noisy scores.
        turns: rounds in which a rotation of clients asks each once; 0 where none is asked so.
        everybody: whether every client is asked in every round.
        evaluation: who scores on what.
        baselines: what was trained besides, without counting.
        limited: only some of the records were used, drawn by looking at all of them.
        dealt: records were dealt out to clients, which looks at all of them.
        composed: a column names the person of each record.
        counted: public numbers of records that nobody declared, so that the data did.
        labelled: whether records have labels.
        labels_from_data: whether nobody declared them.
        recorded: whether charges are in the silos' books for life.
        at_sites: whether clients are sites elsewhere.
        experts: whether adapters that were trained before take part.
        start: whether the run began from an adapter that was trained before.
        own_objective: whether the loss is none of this package's.
    """

    roles: tuple[str, ...] = ()
    count: bool = False
    metric: bool = False
    turns: int = 0
    everybody: bool = False
    evaluation: str = "simulation"
    baselines: tuple[str, ...] = ()
    limited: bool = False
    dealt: bool = False
    composed: bool = False
    counted: tuple[str, ...] = ()
    labelled: bool = True
    labels_from_data: bool = False
    recorded: bool = True
    at_sites: bool = False
    experts: bool = False
    start: bool = False
    own_objective: bool = False

    def to_json(self) -> dict[str, Any]:
        """The fields as JSON values."""
        lists = {name: list(getattr(self, name)) for name in _LISTS}
        return {**asdict(self), **lists}

    @classmethod
    def parse(cls, values: Mapping[str, Any]) -> Grounds:
        """The inverse of ``to_json``.

        Raises:
            ValueError: if a field is missing, unknown or of another type.
        """
        fields = typed(cls, values)
        for name in _LISTS:
            if not isinstance(fields[name], list) or not all(
                isinstance(item, str) for item in fields[name]
            ):
                raise ValueError(f"{name} is no list of names")
            fields[name] = tuple(fields[name])
        if fields["evaluation"] not in get_args(Evaluation):
            raise ValueError(f"evaluation is none of {', '.join(get_args(Evaluation))}")
        return cls(**fields)


def grounds(terms: Terms, circumstances: Circumstances) -> Grounds:
    """The grounds of a run.

    Args:
        terms: of the run.
        circumstances: how it was made.
    """
    privacy, objective = terms.hiding, terms.objective
    central = privacy if isinstance(privacy, ClientDP) else None
    return Grounds(
        roles=tuple(sorted(terms.axes(head=terms.trains_head).trained())),
        count=privacy.count_noise is not None,
        metric=privacy.metric_noise is not None,
        turns=central.turns if central and central.sampling == "rotation" else 0,
        everybody=central is not None and central.client_sampling_rate == 1.0,
        evaluation=terms.evaluation,
        baselines=tuple(circumstances.baselines),
        limited=circumstances.limited,
        dealt=circumstances.dealt,
        composed=circumstances.composed,
        counted=tuple(circumstances.counted),
        recorded=circumstances.recorded,
        at_sites=circumstances.at_sites,
        labelled=find(objective.task).labelled,
        labels_from_data="label" in objective.columns and objective.label_names is None,
        experts=bool(getattr(terms.method, "experts", ())),
        start=terms.method.init_from is not None,
        own_objective=not is_known(objective),
    )
