"""A silo and its book for life: charged before the run's ledger, whatever a run is called."""

import shutil
from dataclasses import replace

import pytest

from engine.test_client import mechanism, play, silo
from privacy.lifetime.test_record_set import set_of
from silotune.engine.client_errors import ERRORS, FAILED
from silotune.privacy import Gaussian, Poisson, SiloStore
from silotune.privacy.accounting.accountant import epsilon
from silotune.privacy.accounting.charges import Charge
from silotune.privacy.choice import PrivacyBudget
from silotune.privacy.lifetime.book import Book
from silotune.privacy.lifetime.budget import Account, Ceiling, Run

OWN = mechanism(Poisson(0.5), Gaussian(3.0))
DELTA = 1e-3
RUN = Run(silo="silo-0", relation="add-remove", delta=DELTA)
STEPS = 2  # of a round


def cost(rounds: int) -> float:
    return epsilon([Charge(0.5, 3.0, STEPS * rounds)], DELTA)


def client(tmp_path, most=None, book="book"):
    ceiling = None if most is None else Ceiling(epsilon=most, delta=DELTA)
    account = Account(Book(tmp_path / book), set_of(*range(12)), RUN, ceiling)
    return replace(silo(tmp_path / "home", OWN), lifetime=account)


def payments(tmp_path):
    return Book(tmp_path / "book").payments


def charges(tmp_path, run: str) -> int:
    with SiloStore(tmp_path / "home") as store:
        return len(store.entries(run))


def test_ten_names_are_not_ten_budgets(tmp_path):
    """A budget of each run lets all of them pass; the ceiling lets those that it pays for."""
    each = PrivacyBudget(epsilon=1.0001 * cost(1), delta=DELTA)
    own = replace(client(tmp_path, most=1.0001 * cost(4)), budget=each)
    refusals = []
    for i in range(10):
        (result,) = play(own, 0, run=f"name-{i}")
        refusals.append(result.refusal)
    assert refusals == [""] * 4 + [FAILED] * 6
    assert [p.run for p in payments(tmp_path)] == [f"name-{i}" for i in range(4)]
    assert client(tmp_path).lifetime.spent().epsilon == cost(4)
    assert charges(tmp_path, "name-7") == 0


def test_without_a_ceiling_all_of_it_is_remembered(tmp_path):
    for i in range(10):
        (result,) = play(client(tmp_path), 0, run=f"name-{i}")
        assert result.refusal == ""
    found = client(tmp_path).lifetime.spent()
    assert (found.runs, found.epsilon) == (10, cost(10))


def test_what_is_refused_is_not_trained(tmp_path, monkeypatch):
    def trained(*_):
        raise AssertionError("it was trained")

    monkeypatch.setattr("silotune.engine.client.local_training", trained)
    (result,) = play(client(tmp_path, most=0.5 * cost(1)), 0)
    assert (result.refusal, result.sealed) == (FAILED, b"")
    assert "CeilingReached" in (tmp_path / "home" / ERRORS).read_text()


def test_a_round_that_is_sent_again_is_paid_once(tmp_path):
    (first,) = play(client(tmp_path), 0)
    (again,) = play(client(tmp_path), 0)
    assert (again.sealed, again.resent) == (first.sealed, True)
    assert len(payments(tmp_path)) == 1


def test_a_round_that_is_trained_again_is_paid_again(tmp_path):
    list(play(client(tmp_path), 0))
    next((tmp_path / "home" / "sent").iterdir()).write_bytes(b"damaged")
    list(play(client(tmp_path), 0))
    assert [p.attempt for p in payments(tmp_path)] == [0, 1]


def test_a_crash_between_book_and_ledger_counts_too_much_and_never_too_little(
    tmp_path, monkeypatch
):
    def killed(*_):
        assert len(payments(tmp_path)) == 1, "the book is first"
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(SiloStore, "releasing", killed)
        with pytest.raises(KeyboardInterrupt):
            list(play(client(tmp_path), 0))
    assert (len(payments(tmp_path)), charges(tmp_path, "law")) == (1, 0)
    (result,) = play(client(tmp_path), 0)
    assert result.refusal == ""
    assert (len(payments(tmp_path)), charges(tmp_path, "law")) == (2, 1)


def test_a_crash_before_the_book_costs_nothing(tmp_path, monkeypatch):
    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Book, "append", killed)
        with pytest.raises(KeyboardInterrupt):
            list(play(client(tmp_path), 0))
    assert (payments(tmp_path), charges(tmp_path, "law")) == ([], 0)


@pytest.mark.parametrize("damage", ["rolled back", "cut", "unreadable", "another"])
def test_a_book_that_is_not_whole_stops_the_silo(tmp_path, damage):
    list(play(client(tmp_path), 0))
    book, copy = tmp_path / "book", tmp_path / "copy"
    shutil.copytree(book, copy)
    list(play(client(tmp_path), 1))
    own = client(tmp_path)
    lines = book / "book.jsonl"
    if damage == "rolled back":
        shutil.rmtree(book)
        copy.rename(book)
        own = client(tmp_path)
    elif damage == "cut":
        lines.write_text(lines.read_text().splitlines(keepends=True)[0])
    elif damage == "unreadable":
        lines.write_text(lines.read_text() + "not a line\nnor this\n")
    else:
        own = client(tmp_path, book="somebody else's")
    (result,) = play(own, 2)
    assert (result.refusal, result.sealed) == (FAILED, b""), "the words stay at home"
    reason = (tmp_path / "home" / ERRORS).read_text()
    assert "lifetime: " in reason
    assert charges(tmp_path, "law") == 2


def test_a_book_that_cannot_be_written_lets_nothing_leave(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("silotune.privacy.lifetime.book.append_bytes", full)
    (result,) = play(client(tmp_path), 0)
    assert (result.refusal, result.sealed) == (FAILED, b"")
    assert charges(tmp_path, "law") == 0
