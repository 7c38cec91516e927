"""Partitions: which records of one pool belong to which silo, as the configuration says.

By a column that names the silos, or cut for simulation: such a partition reads labels from
everywhere at once, which no real federation can do. Silos that exist already come as folders or
by a column. The functions that cut return one sorted index array a silo.
Shapes: N records, K silos, C classes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from datasets import Dataset, List
from numpy.typing import NDArray

from silotune.core import seed_of
from silotune.core.names import case_twins

from .columns import require
from .labels import are_names, label_text, values_of

Indices = NDArray[np.int64]

ATTEMPTS = 100
"""How often a random partition is drawn again while a silo would be empty."""

SKEWS: dict[tuple[str, int], tuple[tuple[int, ...], ...]] = {
    ("mild", 2): ((15, 85), (85, 15), (50, 50)),
    ("mild", 3): ((60, 20, 20), (20, 60, 20), (20, 20, 60)),
    ("severe", 2): ((5, 95), (95, 5), (50, 50)),
    ("severe", 3): ((90, 5, 5), (5, 90, 5), (5, 5, 90)),
}
"""Per cent of each class in each silo, by level and number of classes.

Severe with three classes is how public code follows FFA-LoRA (arXiv 2403.12313); the
other rows circulate with it and could not be checked against the paper.
"""

_STEP = 20  # the smallest silo in which every share above is a whole number of records


def by_column(values: Sequence[object], where: str = "the table") -> dict[str, Indices]:
    """Silos as the data names them, in order of their names; spaces around a name do not count.

    Args:
        values: by row.
        where: what the table is called in an error.

    Raises:
        ValueError: at a record without a name, or a name that could not be a folder; or if these
            are no names of silos. None is quoted: a wrong column may have been named.
    """
    members: dict[str, list[int]] = {}
    for row, value in enumerate(values):
        name = label_text(value)
        if name is None:
            raise ValueError(f"by: row {row} (the first is 0) of {where} names no silo")
        members.setdefault(name, []).append(row)
    for name, rows in members.items():
        if name.startswith(".") or set(name) & set("/\\:") or not name.isprintable():
            raise ValueError(
                f"by: the silo of row {rows[0]} (the first is 0) of {where} cannot name a folder; "
                "rename it without / \\ : or a leading dot"
            )
    if twins := case_twins(members):
        one, other = (members[name][0] for name in twins)
        raise ValueError(
            f"by: the silos of rows {one} and {other} (the first is 0) of {where} differ in case "
            "only; write them alike, or rename one"
        )
    if not are_names(members, len(values)):
        raise ValueError(
            f"by: the column does not look like names of silos: it has {len(members)} different "
            f"values in {len(values)} records, or long ones. Names of silos are public, so they "
            "are not taken from there; name the right column"
        )
    return {name: np.array(rows, dtype=np.int64) for name, rows in sorted(members.items())}


def check_apart(names: Iterable[str], field: str) -> None:
    """That no two clients have names that differ in case only.

    They are taken for one by people, and get one folder on some disks.

    Args:
        names: of all clients.
        field: where they come from, for the message.

    Raises:
        ValueError: naming two.
    """
    if twins := case_twins(names):
        raise ValueError(
            f"{field}: {twins[0]!r} and {twins[1]!r} differ in case only, so that some disks give "
            "them one folder; rename one"
        )


def iid(records: int, silos: int, seed: int) -> list[Indices]:
    """Shuffled and dealt out evenly: sizes differ by one at most. For simulation.

    Raises:
        ValueError: if there are fewer records than silos.
    """
    _enough(records, silos)
    order = _coins(seed, "iid").permutation(records)
    return [np.sort(part) for part in np.array_split(order, silos)]


def quantity(records: int, silos: int, alpha: float, seed: int) -> list[Indices]:
    """Same mix, different sizes: shares of the records are Dirichlet(alpha). For simulation.

    Raises:
        ValueError: if alpha is not positive, or some silo stays empty.
    """
    _enough(records, silos)
    coins = _coins(seed, "quantity")
    order = coins.permutation(records)
    shares = _shares(silos, alpha, coins)
    return _until_filled(lambda: _cut(order, shares()), alpha)


def dirichlet(labels: Sequence[int], silos: int, alpha: float, seed: int) -> list[Indices]:
    """Label skew: each class is shared out by its own Dirichlet(alpha). For simulation.

    The partition of Hsu, Qi and Brown (arXiv 1909.06335) in its per-class form (arXiv 1905.12022).
    Small alpha means strong skew.

    Raises:
        ValueError: if alpha is not positive, or some silo stays empty.
    """
    _enough(len(labels), silos)
    coins = _coins(seed, "dirichlet")
    classes = [coins.permutation(rows) for rows in _rows_by_class(labels)]
    shares = _shares(silos, alpha, coins)

    def draw() -> list[Indices]:
        cuts = [_cut(rows, shares()) for rows in classes]
        return [np.sort(np.concatenate(parts)) for parts in zip(*cuts, strict=True)]

    return _until_filled(draw, alpha)


def label_skew(labels: Sequence[int], silos: int, level: str, seed: int) -> list[Indices]:
    """Fixed label mixes of ``SKEWS`` in silos of equal size, as large as the classes allow.

    Equal silos with exact mixes leave records of the commoner classes over; those are not used.
    For simulation.

    Args:
        labels: (N,) class ids.
        silos: must be 3.
        level: "mild" or "severe".
        seed: of the run.

    Raises:
        ValueError: if the mix is not defined for these numbers, or a class is too rare.
    """
    classes = _rows_by_class(labels)
    mixes = SKEWS.get((level, len(classes)))
    if mixes is None or silos != len(mixes):
        raise ValueError(
            f"split: label-skew-{level} is defined for 3 silos and 2 or 3 classes, not "
            f"for {silos} silos and {len(classes)} classes; use dirichlet"
        )
    coins = _coins(seed, "label-skew", level)
    rest = [coins.permutation(rows) for rows in classes]
    wanted = np.sum(mixes, axis=0)  # of each class, in per cent of a silo
    size = min(len(rows) * 100 // int(n) for rows, n in zip(rest, wanted, strict=True))
    size -= size % _STEP
    if size == 0:
        raise ValueError(
            f"split: the rarest class, {min(map(len, classes))} in number, is too rare "
            f"for label-skew-{level}; use dirichlet"
        )
    silos_rows: list[Indices] = []
    for mix in mixes:
        counts = [size * share // 100 for share in mix]
        taken = [rows[:count] for rows, count in zip(rest, counts, strict=True)]
        rest = [rows[count:] for rows, count in zip(rest, counts, strict=True)]
        silos_rows.append(np.sort(np.concatenate(taken)))
    return silos_rows


def _coins(seed: int, *purpose: str) -> np.random.Generator:
    return np.random.default_rng(seed_of(seed, "partition", *purpose))


def _enough(records: int, silos: int) -> None:
    if silos < 1:
        raise ValueError(f"num: {silos} silos are too few; at least 1")
    if records < silos:
        raise ValueError(f"num: {silos} silos, but only {records} records")


def _rows_by_class(labels: Sequence[int]) -> list[Indices]:
    ids = np.asarray(labels, dtype=np.int64)
    return [np.flatnonzero(ids == label) for label in np.unique(ids)]


def _shares(
    silos: int, alpha: float, coins: np.random.Generator
) -> Callable[[], NDArray[np.float64]]:
    if not 0 < alpha < float("inf"):
        raise ValueError(f"alpha: {alpha} must be a positive number")
    return lambda: coins.dirichlet(np.full(silos, alpha))


def _cut(order: Indices, shares: NDArray[np.float64]) -> list[Indices]:
    """``order`` in consecutive pieces of about these shares, each sorted."""
    ends = np.rint(np.cumsum(shares)[:-1] * len(order)).astype(np.int64)
    return [np.sort(piece) for piece in np.split(order, ends)]


def _until_filled(draw: Callable[[], list[Indices]], alpha: float) -> list[Indices]:
    for _ in range(ATTEMPTS):
        parts = draw()
        if all(len(part) for part in parts):
            return parts
    raise ValueError(
        f"alpha: with {alpha} a silo stayed empty in {ATTEMPTS} draws; "
        "raise alpha or use fewer silos"
    )


Division = Literal["iid", "dirichlet", "quantity", "label-skew-mild", "label-skew-severe"]


@dataclass(frozen=True, kw_only=True)
class Partition:
    """How one pool of records becomes silos: by a column, or ``num`` of them by a partition.

    Attributes:
        by: the column whose values name the silos.
        num: how many silos a partition makes (simulation).
        split: which partition.
        alpha: concentration of ``dirichlet`` and ``quantity``; small is uneven.
    """

    by: str | None = None
    num: int | None = None
    split: Division = "iid"
    alpha: float = 0.5


def named_rows(table: Dataset, by: str, where: str) -> dict[str, Indices]:
    """Rows of the silos that a column names.

    Raises:
        ValueError: if the column is missing, or a record names no silo.
    """
    require(table, by, "by", where)
    return by_column(values_of(table, by), where)


def drawn_rows(pool: Dataset, silos: Partition, seed: int) -> dict[str, Indices]:
    """Rows of the silos that a partition makes, by ``dealt_names``. For simulation only.

    Args:
        pool: a readable table without empty records.
        silos: with ``num``.
        seed: of the run.

    Raises:
        ValueError: if the partition cannot be made of these records.
    """
    parts = _partition(pool, silos, silos.num or 0, seed)
    return dict(zip(dealt_names(len(parts)), parts, strict=True))


def dealt_names(num: int) -> list[str]:
    """What so many silos are called that records are dealt out to."""
    digits = len(str(num - 1))
    return [f"silo-{i:0{digits}}" for i in range(num)]


def _partition(pool: Dataset, silos: Partition, num: int, seed: int) -> list[Indices]:
    if silos.split == "iid":
        return iid(len(pool), num, seed)
    if silos.split == "quantity":
        return quantity(len(pool), num, silos.alpha, seed)
    if "label" not in pool.column_names:
        raise ValueError(f"split: {silos.split} needs label")
    if isinstance(pool.features["label"], List):
        raise ValueError(
            f"split: {silos.split} goes by labels, of which each record must have one; use iid or "
            "quantity"
        )
    labels: list[int] = pool["label"][:]
    if silos.split == "dirichlet":
        return dirichlet(labels, num, silos.alpha, seed)
    return label_skew(labels, num, silos.split.removeprefix("label-skew-"), seed)
