"""What workers of a run are told and asked besides training, as bytes; both ends of it.

Workers are processes of one owner, who has all records: so what they are asked is a simulation's,
or of records that everybody may see, and no silo's order (``runtimes.messages``).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from safetensors.torch import load, save
from torch import Tensor

from silotune.core import Answers, pack, unpack
from silotune.core.answers import Derived
from silotune.core.folding import folded_of, tensors_of
from silotune.privacy.planned_charges import PlannedCharges
from silotune.runtimes.messages import message, opened

from .description import Description
from .identity import decoded, described, encoded, whole
from .scoring import Ask, Where
from .trained_models import ModelState

DESCRIBED, PLANNED = b"D", b"P"
"""What a worker is told as it starts: which federation it is of, and what calibration has found."""

MEASURE, ALONE = b"M", b"K"
"""Orders: score a share of records; train one silo from the beginning, by itself."""

_HERE = "what a worker was told"


class Opening(NamedTuple):
    """What a worker opens.

    Attributes:
        federation: as the coordinator has it.
        run: its identity.
        began: when it did, in ISO 8601.
    """

    federation: Description
    run: str
    began: str


class Share(NamedTuple):
    """One of ``of`` shares of a work, counted from 0."""

    number: int
    of: int


def opening_frame(opening: Opening) -> bytes:
    """What a worker is to open, while the coordinator opens the same.

    Raises:
        NoIdentityError: if something of the federation cannot be written.
    """
    told = {"federation": whole(opening.federation), "run": opening.run, "began": opening.began}
    return message(DESCRIBED, body=json.dumps(told).encode())


def opening_in(frame: bytes) -> Opening:
    """The inverse of ``opening_frame``.

    Raises:
        ValueError: if a class of it is not imported.
    """
    told = json.loads(_body(frame))
    return Opening(described(told["federation"], _HERE), told["run"], told["began"])


def planned_frame(planned: PlannedCharges) -> bytes:
    """Charges that the coordinator has certified, so that nobody calibrates again."""
    return message(PLANNED, body=json.dumps(encoded(planned, "planned")).encode())


def planned_in(frame: bytes) -> PlannedCharges:
    """The inverse of ``planned_frame``."""
    told = json.loads(_body(frame))
    return {int(size): decoded(charge, _HERE) for size, charge in told.items()}


def measure_order(asks: Sequence[Ask], share: Share) -> bytes:
    """The order to answer a share of the records of all asks together."""
    models = {id(model): model for ask in asks for model in ask.models}
    place = {key: i for i, key in enumerate(models)}
    listed = [[*ask.records, [place[id(model)] for model in ask.models]] for ask in asks]
    parts = [json.dumps(listed).encode(), *map(_packed, models.values())]
    return message(MEASURE, share._asdict(), b"".join(map(_with_length, parts)))


def measure_in(order: bytes) -> tuple[list[Ask], Share]:
    """The inverse of ``measure_order``."""
    asked = opened(order)
    assert asked is not None
    listed, *packed = _parts(asked.body)
    models = list(map(_unpacked, packed))
    asks = [
        Ask([models[i] for i in places], Where(silo, part))
        for silo, part, places in json.loads(listed)
    ]
    return asks, Share(**asked.head)


def answers_frame(answers: Sequence[Answers]) -> bytes:
    """A share of the answers to each ask."""
    tensors: dict[str, Tensor] = {}
    for i, own in enumerate(answers):
        tensors[f"{i} counts"] = own.counts
        tensors |= {f"{i} total {name}": total for name, total in own.totals.items()}
        tensors |= {f"{i} kept {name}": kept for name, kept in own.kept.items()}
    names = [[list(own.totals), list(own.kept)] for own in answers]
    return message(MEASURE, {"names": names}, save(tensors))


def answers_in(frame: bytes, derive: Callable[[Answers], Derived]) -> list[Answers]:
    """The inverse of ``answers_frame``.

    Args:
        frame: as it came.
        derive: makes the scores that are no sums, which no message tells.
    """
    told = opened(frame)
    assert told is not None
    tensors = load(told.body)
    return [
        Answers(
            totals={name: tensors[f"{i} total {name}"] for name in totals},
            counts=tensors[f"{i} counts"],
            kept={name: tensors[f"{i} kept {name}"] for name in kept},
            derive=derive,
        )
        for i, (totals, kept) in enumerate(told.head["names"])
    ]


def alone_order(silo: str, place: str) -> bytes:
    """The order to train one silo by itself, with a folder for what it keeps meanwhile."""
    return message(ALONE, {"silo": silo, "place": place})


def alone_in(order: bytes) -> tuple[str, str]:
    """The inverse of ``alone_order``."""
    asked = opened(order)
    assert asked is not None
    return asked.head["silo"], asked.head["place"]


def metrics_frame(metrics: Mapping[str, float]) -> bytes:
    """What a silo has reached by itself."""
    return message(ALONE, body=json.dumps(dict(metrics)).encode())


def metrics_in(frame: bytes) -> dict[str, float]:
    """The inverse of ``metrics_frame``."""
    told: dict[str, float] = json.loads(_body(frame))
    return told


def _packed(model: ModelState) -> bytes:
    return pack(model.factors.updated(tensors_of(model.folded)), {})


def _unpacked(blob: bytes) -> ModelState:
    tensors, _ = unpack(blob)
    folded = folded_of(tensors)
    return ModelState(factors=tensors.without(tensors_of(folded).keys()), folded=folded)


def _body(frame: bytes) -> Any:
    told = opened(frame)
    assert told is not None
    return told.body


def _with_length(part: bytes) -> bytes:
    return len(part).to_bytes(8, "big") + part


def _parts(body: bytes) -> Iterator[bytes]:
    at = 0
    while at < len(body):
        end = at + 8 + int.from_bytes(body[at : at + 8], "big")
        yield body[at + 8 : end]
        at = end
