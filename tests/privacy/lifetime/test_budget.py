"""What records have paid in their life: composed over runs, below a ceiling, on the safe side."""

import math
from dataclasses import replace

import pytest

from privacy.lifetime.test_record_set import set_of
from silotune.privacy.accounting.accountant import COARSE, epsilon, epsilon_over_silos
from silotune.privacy.accounting.charges import Charge, CorrelatedCharge, TruncatedCharge
from silotune.privacy.ledger.entry import LedgerEntry
from silotune.privacy.lifetime import budget
from silotune.privacy.lifetime.book import Book, BookError
from silotune.privacy.lifetime.budget import Account, Ceiling, CeilingReached, Run
from silotune.privacy.lifetime.composition import NOISELESS, SEEDED, Earlier, life

DELTA = 1e-5
CHARGE = Charge(0.1, 2.0, 10)
STREAM = CorrelatedCharge(4.0, 10, 3, 4)
CUT = TruncatedCharge(0.1, 2.0, 10, 40, 100)
RUN = Run(silo="north", relation="add-remove", delta=DELTA)


@pytest.fixture
def book(tmp_path) -> Book:
    return Book(tmp_path / "book")


def entry(run="r", round=0, charge=CHARGE, release="update") -> LedgerEntry:
    return LedgerEntry(
        run=run,
        silo="whoever",
        round=round,
        attempt=0,
        release=release,
        charge=charge,
        max_grad_norm=1.0,
        time="2026-01-02T03:04:05+00:00",
    )


def account(book, *records, most=None, run=RUN, where="", whose="north", **rest) -> Account:
    ceiling = None if most is None else Ceiling(epsilon=most, delta=DELTA)
    names = records or range(20)
    return Account(book, set_of(*names, where=where, whose=whose), run, ceiling, **rest)


def cost(*charges, **rest) -> float:
    return epsilon(charges, DELTA, **rest)


# over runs


def test_ten_runs_by_ten_names_compose(book):
    for i in range(10):
        account(book).pay(entry(f"name {i}"))
    found = account(book).spent()
    assert (found.runs, found.epsilon) == (10, cost(replace(CHARGE, steps=100)))
    assert found.epsilon > 2 * cost(CHARGE)


def test_an_eleventh_is_refused_and_nothing_is_written(book):
    ceiling = cost(replace(CHARGE, steps=100)) * 1.0001
    for i in range(10):
        own = account(book, most=ceiling)
        own.check(f"name {i}", "update", CHARGE, [])
        own.pay(entry(f"name {i}"))
    own = account(book, most=ceiling, run=replace(RUN, planned=(("update", CHARGE),)))
    with pytest.raises(CeilingReached):
        own.check("another name", "update", CHARGE, [])
    with pytest.raises(CeilingReached):
        own.pay(entry("another name"))
    with pytest.raises(ValueError, match=r"north have paid epsilon .* in 10 earlier runs, and .*"):
        own.check_plan()
    assert len(Book(book.folder).payments) == 10


def test_the_name_of_the_run_decides_nothing(book):
    """One run of ten rounds, or ten runs of one."""
    for i in range(10):
        account(book).pay(entry("one", round=i))
        account(book, *range(100, 120)).pay(entry(f"name {i}"))
    assert account(book).spent().epsilon == account(book, *range(100, 120)).spent().epsilon


def test_a_copy_with_a_record_less_is_the_same_and_a_disjoint_set_is_not(book):
    account(book, *range(20), where="/a.csv").pay(entry("first"))
    assert account(book, *range(19), where="/copy.csv").spent().runs == 1
    assert account(book, *range(20, 40), where="/new.csv").spent().runs == 0
    assert account(book, *range(20, 40), where="/a.csv").spent().runs == 1, "all may be edited"


def test_a_silo_that_is_renamed_and_all_edited_is_a_new_life(book):
    """A limit that the page on privacy names: nothing is left to know the records by."""
    account(book, *range(20), where="/a.csv").pay(entry("first"))
    edited = [f"{i} edited" for i in range(20)]
    assert account(book, *edited, where="/a.csv").spent().runs == 1
    assert account(book, *range(20), where="/a.csv", whose="south").spent().runs == 1
    assert account(book, *edited, where="/a.csv", whose="south").spent().runs == 0


def test_a_record_pays_for_the_sets_that_it_was_in(book):
    account(book, 1, 2).pay(entry("january"))
    account(book, 3, 4).pay(entry("february", charge=replace(CHARGE, steps=30)))
    assert account(book, 2, 3).spent().epsilon == cost(replace(CHARGE, steps=30))
    account(book, 2, 3).pay(entry("march"))
    both = pytest.approx(cost(replace(CHARGE, steps=40)))
    assert account(book, 2, 3).spent().epsilon == both
    assert account(book, 1).spent().epsilon == cost(CHARGE)


def test_silos_of_one_run_do_not_add_up_and_those_of_two_do(book):
    """A pool that is dealt out anew: a record was at one silo of each run."""
    north, south = RUN, replace(RUN, silo="south")
    account(book, 1, 2).pay(entry("first"))
    account(book, 3, 4, run=south, whose="south").pay(entry("first"))
    mine = account(book, 2, 3, run=north)
    mine.pay(entry("second"))
    account(book, 1, 4, run=south, whose="south").pay(entry("second"))
    assert mine.spent("second").runs == 2
    assert mine.spent("second").epsilon == cost(replace(CHARGE, steps=20))


def test_both_tables_count_of_other_runs_and_the_dearer_of_this_one(book):
    score = Charge(1.0, 3.0, 1)
    own = account(book)
    own.pay(entry("first"))
    own.pay(entry("first", charge=score, release="metric"))
    assert own.spent("first").epsilon == max(cost(CHARGE), cost(score))
    assert account(book).spent().epsilon == cost(CHARGE, score)


def test_streams_of_different_runs_are_different_streams(book):
    for run in ("a", "b"):
        for round in range(2):
            account(book).pay(entry(run, round, STREAM))
    whole = replace(STREAM, steps=20)
    together = epsilon_over_silos([[whole], [whole]], DELTA)
    assert account(book).spent().epsilon == together > cost(whole)


def test_what_was_priced_under_one_relation_is_priced_anew_under_another(book):
    account(book, run=replace(RUN, relation="zero-out")).pay(entry("first"))
    other = account(book, run=replace(RUN, relation="replace-one"))
    assert other.spent().epsilon == cost(CHARGE, relation="replace-one") > cost(CHARGE)


def test_charges_without_a_proved_price_together_are_refused_below_a_ceiling(book):
    account(book, run=replace(RUN, relation="zero-out")).pay(entry("first", charge=CUT))
    assert math.isinf(account(book).spent().epsilon)
    planned = replace(RUN, planned=(("update", CHARGE),))
    with pytest.raises(ValueError, match=r"no proved price together .*relation: truncated"):
        account(book, most=50, run=planned).check_plan()
    with pytest.raises(CeilingReached):
        account(book, most=50).pay(entry("second"))
    fits = account(book, most=50, run=replace(planned, relation="zero-out"))
    fits.check_plan()
    fits.pay(entry("second"))


def test_noise_from_a_seed_is_remembered_as_no_protection(book):
    account(book, run=replace(RUN, seeded=True)).pay(entry("seeded"))
    own = account(book)
    assert own.is_exposed()
    assert (own.spent().epsilon, own.spent().because) == (math.inf, SEEDED)
    with pytest.raises(CeilingReached):
        account(book, most=100).pay(entry("second"))
    with pytest.raises(ValueError, match="drew its noise from a seed"):
        account(book, most=100, run=replace(RUN, planned=(("update", CHARGE),))).check_plan()
    assert not account(book, *range(30, 40)).is_exposed()


def test_a_seeded_run_below_a_ceiling_is_refused(book):
    own = account(book, most=100, run=replace(RUN, seeded=True))
    with pytest.raises(ValueError, match="insecure_seeded_noise protects nothing"):
        own.check_plan()
    with pytest.raises(CeilingReached):
        own.pay(entry())


def test_noise_that_is_none_makes_life_infinite():
    bare = Earlier("a", (("update", replace(CHARGE, noise_multiplier=0.0)),))
    found = life([bare], [], DELTA, "add-remove")
    assert (found.epsilon, found.because) == (math.inf, NOISELESS)


# while a run goes on


def test_two_who_are_both_told_that_it_fits_do_not_both_pay(book):
    ceiling = cost(CHARGE) * 1.0001
    one, other = account(book, most=ceiling), account(Book(book.folder), most=ceiling)
    one.check("a", "update", CHARGE, [])
    other.check("b", "update", CHARGE, [])
    one.pay(entry("a"))
    with pytest.raises(CeilingReached):
        other.pay(entry("b"))


def test_a_run_that_keeps_to_its_plan_asks_the_accountant_once(book, monkeypatch):
    account(book).pay(entry("first"))
    plan = replace(RUN, planned=(("update", replace(CHARGE, steps=100)),))
    own = account(book, most=50.0, run=plan)
    asked = []
    composed = budget.life
    monkeypatch.setattr(budget, "life", lambda *a, **k: asked.append(a) or composed(*a, **k))
    for round in range(10):
        own.check("second", "update", CHARGE, [])
        own.pay(entry("second", round))
    assert len(asked) == 1
    own.check("second", "update", CHARGE, [])
    assert len(asked) == 2, "it is beyond its plan"
    account(book).pay(entry("third"))
    own.check("second", "update", CHARGE, [])
    assert len(asked) > 2, "somebody else has spent"


def test_a_book_that_lacks_what_the_ledger_has_is_refused(book):
    own = account(book)
    own.pay(entry("r", 0))
    ledger = [entry("r", 0), entry("r", 1)]
    for act in (
        lambda: own.check("r", "update", CHARGE, ledger),
        lambda: own.follow("r", ledger),
        lambda: own.check_plan("r", [("update", replace(CHARGE, steps=20))]),
    ):
        with pytest.raises(BookError, match=r"lacks 10 steps of this run that the ledger of north"):
            act()
    own.check("r", "update", CHARGE, ledger[:1])


def test_one_more_in_the_book_than_in_the_ledger_is_a_crash_and_counts(book):
    own = account(book)
    own.pay(entry("r", 0))
    own.check("r", "update", CHARGE, [])
    own.pay(entry("r", 0))
    assert own.spent("r").epsilon == cost(replace(CHARGE, steps=20))
    assert own.elsewhere("r", [("update", CHARGE)]) == [Earlier("r", (("update", CHARGE),))]
    again = account(book)
    again.follow("r", [])


@pytest.mark.parametrize("ledger", [[], [entry(round=0)]])
def test_a_ledger_that_lacks_more_than_the_newest_payment_was_put_back(book, ledger):
    for round in range(3):
        account(book).pay(entry(round=round))
    for act in (
        lambda: account(book).check("r", "update", CHARGE, ledger),
        lambda: account(book).follow("r", ledger),
    ):
        with pytest.raises(BookError, match=r"put back from an older copy"):
            act()
    account(book).follow("r", [entry(round=0), entry(round=1)])


def test_a_round_that_was_cut_short_and_left_behind_does_not_stop_a_run(book):
    for round in (0, 1, 2, 4):
        account(book).pay(entry(round=round))
    account(book).follow("r", [entry(round=0), entry(round=2), entry(round=4)])
    account(book).follow("r", [entry(round=0), entry(round=2)])
    with pytest.raises(BookError, match=r"put back from an older copy"):
        account(book).follow("r", [entry(round=0)])


def test_other_runs_and_silos_are_no_part_of_what_a_ledger_lacks(book):
    account(book).pay(entry("r"))
    for round in range(3):
        account(book).pay(entry("another", round))
        account(book, run=replace(RUN, silo="south")).pay(entry("r", round))
    account(book).follow("r", [])


def test_a_run_that_is_resumed_is_planned_once(book):
    plan = replace(RUN, planned=(("update", replace(CHARGE, steps=20)),))
    ceiling = cost(replace(CHARGE, steps=20)) * 1.0001
    account(book, most=ceiling, run=plan).pay(entry("r", 0))
    again = account(Book(book.folder), most=ceiling, run=plan)
    again.follow("r", [entry("r", 0)])
    again.check_plan("r")
    with pytest.raises(ValueError, match="max_epsilon"):
        again.check_plan()
    again.pay(entry("r", 1))
    with pytest.raises(CeilingReached):
        again.pay(entry("r", 2))


def test_records_that_paid_alike_are_priced_once(book, monkeypatch):
    """Twenty records, each at another of ten sets before: one sum, and not ten."""
    for i in range(10):
        account(book, 2 * i, 2 * i + 1, whose=f"silo {i}").pay(entry(f"run {i}"))
    asked = []
    composed = budget.life
    monkeypatch.setattr(budget, "life", lambda *a, **k: asked.append(a) or composed(*a, **k))
    found = account(book).spent()
    assert (found.runs, found.epsilon, len(asked)) == (1, cost(CHARGE), 1)
    account(book, 3, 30, whose="silo 30").pay(entry("dearer", charge=replace(CHARGE, steps=30)))
    asked.clear()
    found = account(book).spent()
    assert (found.runs, found.epsilon) == (2, pytest.approx(cost(replace(CHARGE, steps=40))))
    assert len(asked) == 2


# what is brought along, and what may be published


def test_what_another_run_charged_elsewhere_counts_unless_the_book_knows_the_run(book):
    brought = {"expert": Earlier("expert", (("update", CHARGE),))}
    own = account(book, brought=brought)
    assert own.spent().epsilon == cost(CHARGE)
    assert own.elsewhere("r", []) == [brought["expert"]]
    account(book).pay(entry("expert"))
    again = account(book, brought=brought)
    assert (again.spent().runs, again.spent().epsilon) == (1, cost(CHARGE))


def test_what_is_published_does_not_depend_on_the_records(book):
    account(book, 1, 2, where="/a.csv").pay(entry("first"))
    account(book, 1, 2, where="/b.csv").pay(entry("second"))
    same = account(book, 1, 2, where="/a.csv").elsewhere("r", [])
    other = account(book, 8, 9, where="/a.csv").elsewhere("r", [])
    assert same == other == [Earlier("first", (("update", CHARGE),))]
    assert account(book, 1, 2, where="/a.csv").spent().runs == 2, "the silo itself is told"


def test_figures_on_the_coarse_grid_are_never_lower():
    earlier = [Earlier("a", (("update", CHARGE),))]
    own = [("update", replace(CHARGE, steps=50))]
    fine, coarse = (life(earlier, own, DELTA, "add-remove", g) for g in (1e-4, COARSE))
    assert fine.epsilon <= coarse.epsilon
