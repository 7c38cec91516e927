"""``site`` for people: offers, what they ask, what was said to them, what they have cost."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

from rich import box
from rich.table import Table
from rich.text import Text

from silotune.config.site_file import read_site
from silotune.core.files import RecordError
from silotune.core.plain import plain
from silotune.core.units import count_text, epsilon_text, number_text
from silotune.federation.offer import Offer
from silotune.site import OwnSite
from silotune.site.approval import hindrance
from silotune.site.counted import Counted, counted
from silotune.site.home import Home
from silotune.site.membership import coordinator_key
from silotune.site.own_books import verify_own
from silotune.site.refusal import refusal
from silotune.site.show import Shown, models_line, shown

from .console import busy, emit, say, speaker
from .spent import tell_sets
from .verify import tell

FEWEST = 8
"""Digits of a digest that are compared at least."""


def list_offers(file: Path, *, as_json: bool) -> None:
    """Every offer that is kept, a row each."""
    console, own = speaker(as_json=as_json), read_site(file)
    home, rows, damaged = Home(own.home), list[dict[str, Any]](), list[str]()
    for found in home.offers():
        if isinstance(found, RecordError):
            damaged.append(str(found))
        else:
            rows.append(_row(own, home, found))
    if rows:
        console.print(_table(rows))
    else:
        say(console, f"{own.name}: no run was offered")
    for text in damaged:
        say(console, text, style="bold red")
    if as_json:
        emit({"site": own.name, "offers": rows, "damaged": damaged})


def show_offer(file: Path, run: str, *, count: bool, as_json: bool) -> None:
    """One offer, with everything that follows from it."""
    console, own = speaker(as_json=as_json), read_site(file)
    home = Home(own.home)
    offer = home.offer(run)
    with busy(console, "computing what it costs"):
        sizes = _counted(own, offer) if count else None
        key = coordinator_key(home.path, offer.coordinator)
        spent = home.spent(_delta(own))
        found = shown(own, offer, home.approval(run), spent, key, sizes)
    with suppress(RecordError):  # approving then needs the digest
        home.note_shown(offer)
    for section in found.sections:
        say(console, section.heading, style="bold")
        for line in section.lines:
            say(console, f"  {line}")
    if as_json:
        emit(_json(found))


def decide(
    file: Path, run: str, digest: str | None, decision: Literal["approved", "refused"]
) -> None:
    """Write down what a person says.

    Raises:
        ValueError: if the offer is not the one that was looked at.
    """
    console, own = speaker(), read_site(file)
    home = Home(own.home)
    offer = home.offer(run)
    _check_same(home, offer, digest, decision)
    home.decide(offer, decision)
    say(console, f"{run}: {decision}, offer {offer.digest}")
    key = refusal(own.policy, offer, own.num_examples)
    if decision == "approved" and key is not None:
        say(
            console,
            f"it is refused all the same, by {key.replace(':', '.', 1)} in {file}; "
            f"`silotune site show {run}` says why",
            style="bold red",
        )
    if decision == "approved" and own.lacks(offer.base_files):
        say(
            console,
            f"it lacks the base; name its folder in {file}: {models_line(offer)}",
            style="bold red",
        )


def tell_spent(file: Path, delta: float | None, *, as_json: bool) -> None:
    """What the records have paid in all runs."""
    console, own = speaker(as_json=as_json), read_site(file)
    home, life = Home(own.home), own.policy.privacy.lifetime
    with busy(console, "composing the charges of all runs"):
        sets = home.spent(delta or _delta(own))
    tell_sets(console, home.life, sets)
    limit = (
        "none (policy.privacy.lifetime)"
        if life is None
        else f"epsilon {epsilon_text(life.epsilon)} at delta {number_text(life.delta)}"
    )
    say(console, f"limit for life: {limit}")
    if as_json:
        ceiling = None if life is None else asdict(life)
        emit({"site": own.name, "limit": ceiling, "sets": [asdict(found) for found in sets]})


def verify_certificate(file: Path, run: str, *, as_json: bool) -> None:
    """Verify, show it, and exit 1 if anything does not add up."""
    own = read_site(file)
    with busy(speaker(as_json=as_json), "computing every epsilon again"):
        found = verify_own(Home(own.home), own.name, run)
    tell(found, as_json=as_json)


def _counted(own: OwnSite, offer: Offer) -> Counted:
    key = refusal(own.policy, offer, own.num_examples)
    if key is not None:
        raise ValueError(
            f"count: an offer that the policy refuses ({key}) is not tried on a model; look at it "
            "without --count"
        )
    return counted(own, offer)


def _check_same(home: Home, offer: Offer, digest: str | None, decision: str) -> None:
    look = f"`silotune site show {offer.run}`"
    if digest is not None and len(digest) < FEWEST:
        raise ValueError(f"digest: give at least {FEWEST} digits, as {look} prints them")
    if digest is not None and not offer.digest.startswith(digest.lower()):
        raise ValueError(f"digest: is not that of the offer as it is now; look at it again: {look}")
    if digest is None and decision == "approved" and not home.was_shown(offer):
        raise ValueError(
            f"{offer.run}: the offer, as it is now, was not shown here; look at it first: {look}"
        )


def _row(own: OwnSite, home: Home, offer: Offer) -> dict[str, Any]:
    refused = refusal(own.policy, offer, own.num_examples)
    try:
        waiting = hindrance(own.policy, offer, home.approval(offer.run))
    except RecordError:
        waiting = "approval"  # nobody can tell what was said, so it is to be said again
    result_of = _rounds(home, offer)
    return {
        "run": offer.run,
        "coordinator": offer.coordinator,
        "title": plain(offer.title, 60),
        "unit": offer.terms.unit,
        "target_epsilon": offer.terms.privacy.target_epsilon,
        "rounds": offer.terms.rounds,
        "offer": offer.digest,
        "result_of": result_of,
        "finished": result_of is not None and result_of >= offer.terms.rounds,
        "refused": refused,
        "waits": waiting,
        "lacks_base": own.lacks(offer.base_files),
    }


def _rounds(home: Home, offer: Offer) -> int | None:
    """How many rounds are behind the result that came; None if none has, or nobody can tell."""
    try:
        return home.finished(offer.run)
    except RecordError:
        return None


def _epsilon(unit: str, target: float | None) -> str:
    if unit == "none":
        return "no limit"
    return "by noise" if target is None else epsilon_text(target)


def _table(rows: list[dict[str, Any]]) -> Table:
    table = Table("run", "asked by", "title", box=box.SIMPLE_HEAD, header_style="dim")
    for name in ("unit", "ε at most", "rounds"):
        table.add_column(name, justify="right")
    table.add_column("this site")
    for row in rows:
        target = row["target_epsilon"]
        table.add_row(
            *map(Text, (row["run"], row["coordinator"], row["title"], row["unit"])),
            _epsilon(row["unit"], target),
            f"{row['rounds']:,}",
            Text("; ".join(_state(row))),
        )
    return table


def _state(row: dict[str, Any]) -> Iterator[str]:
    if row["finished"]:
        yield "has the result"
        return
    if row["result_of"] is not None:  # it may go on from there, and asks again if it does
        yield f"has a result of {count_text(row['result_of'], 'round')}"
    if row["refused"] is not None:
        yield f"refuses ({row['refused']})"
    match row["waits"]:
        case None if row["refused"] is None and not row["lacks_base"]:
            yield "takes part"
        case "approval":
            yield "waits for a person"
        case str(code):
            yield f"refuses ({code})"
    if row["lacks_base"]:
        yield "lacks the base"


def _json(found: Shown) -> dict[str, Any]:
    values = asdict(found)
    values["refused"] = [reason._asdict() for reason in found.refused]
    values["sections"] = {s.heading: list(s.lines) for s in found.sections}
    return values


def _delta(own: OwnSite) -> float | None:
    life = own.policy.privacy.lifetime
    return None if life is None else life.delta
