"""A loop of one's own, and the book for life of its records."""

import numpy as np
import pytest
import torch

from custom_loop.test_privacy_engine import NOISE, SEEDED, private
from custom_loop_toys import notes, train
from silotune.custom_loop.contents import contents
from silotune.privacy.accounting.accountant import epsilon
from silotune.privacy.lifetime.book import Book
from silotune.privacy.lifetime.choice import Lifetime

DELTA = 1e-3


def cost(loop, steps: int) -> float:
    return epsilon([loop.mechanism.charge(steps)], DELTA)


def most(loop, steps: int) -> Lifetime:
    return Lifetime(max_epsilon=1.0001 * cost(loop, steps), max_delta=DELTA)


def test_every_step_is_in_the_book_and_trainings_on_the_same_records_add_up(book_folder):
    for _ in range(2):
        loop, adapted = private()
        train(loop, adapted)
    found = Book(book_folder).payments
    assert [p.round for p in found] == [0, 1, 2, 3] * 2
    assert len({p.run for p in found}) == 2
    assert loop._account.spent().epsilon == cost(loop, 8)


def test_a_training_above_the_ceiling_is_refused_before_it_begins(book_folder):
    loop, adapted = private()
    train(loop, adapted)
    loop, adapted = private(lifetime=most(loop, 7))
    with pytest.raises(ValueError, match=r"lifetime: the records of dataset have paid epsilon"):
        next(iter(loop.loader))
    assert len(Book(book_folder).payments) == 4
    other, adapted = private(lifetime=most(loop, 7), dataset=notes(90))
    train(other, adapted)


def test_a_state_restored_twice_pays_twice_and_stops_at_the_ceiling(book_folder):
    loop, adapted = private()
    ceiling = most(loop, 5)
    train(loop, adapted, 2)
    state = loop.state_dict()
    first, adapted = private(lifetime=ceiling)
    first.load_state_dict(state)
    train(first, adapted)
    second, adapted = private(lifetime=ceiling)
    second.load_state_dict(state)
    with pytest.raises(ValueError, match="have paid all that they may in their life"):
        train(second, adapted)
    assert [p.round for p in Book(book_folder).payments] == [0, 1, 2, 3, 2]


def test_with_a_folder_book_and_ledger_agree(tmp_path, book_folder):
    loop, adapted = private(folder=tmp_path / "ledger")
    train(loop, adapted, 2)
    state = loop.state_dict()
    loop.close()
    again, adapted = private(folder=tmp_path / "ledger")
    again.load_state_dict(state)
    train(again, adapted)
    again.close()
    assert len(Book(book_folder).payments) == 4


def test_a_book_that_lacks_what_the_state_says_is_refused(tmp_path, monkeypatch):
    loop, adapted = private()
    train(loop, adapted, 2)
    state = loop.state_dict()
    monkeypatch.setenv("SILOTUNE_LIFETIME_FOLDER", str(tmp_path / "another"))
    again, adapted = private()
    again.load_state_dict(state)
    with pytest.raises(ValueError, match="lacks 2 steps of this run"):
        train(again, adapted)


def test_off_writes_nothing(book_folder):
    loop, adapted = private(lifetime="off")
    train(loop, adapted)
    assert not book_folder.exists()


def test_seeded_noise_is_remembered_as_no_protection(book_folder):
    loop, adapted = private(terms=SEEDED)
    train(loop, adapted)
    assert all(p.seeded for p in Book(book_folder).payments)
    refused, _ = private(terms=SEEDED, lifetime=Lifetime(max_epsilon=9))
    with pytest.raises(ValueError, match="insecure_seeded_noise protects nothing"):
        next(iter(refused.loader))


class Opaque:
    """A record of which nobody knows what it holds."""

    def __init__(self, record: dict) -> None:
        self.record = record


def test_records_that_cannot_be_told_again_are_in_no_book_and_it_is_said(book_folder):
    from custom_loop_toys import collate

    given = {
        "dataset": [Opaque(r) for r in notes()],
        "collate_fn": lambda records: collate([r.record for r in records]),
    }
    with pytest.warns(UserWarning, match="lifetime: a record holds a Opaque"):
        loop, adapted = private(**given)
    train(loop, adapted, 1)
    assert Book(book_folder).payments == []
    with pytest.raises(ValueError, match="lifetime: a record holds a Opaque"):
        private(**given, lifetime=Lifetime(max_epsilon=9))
    private(**given, lifetime="off")


def test_contents_are_those_of_the_values():
    def told(*records):
        return list(contents(records))

    tensor, array = torch.tensor([1, 2]), np.array([1, 2])
    assert told(tensor) == told(array) != told(torch.tensor([2, 1]))
    assert told({"a": 1, "b": "x"}) == told({"b": "x", "a": 1}) != told({"a": 1, "b": b"x"})
    assert told(("a", "b")) == told(["a", "b"]) != told(["ab"])
    assert told(["a", "b"]) != told(["a,b"])
    assert told(1) != told("1")
    assert NOISE["target_delta"] == DELTA
