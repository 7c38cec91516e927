"""Of many accounts dp-accounting itself counts some, and all should ours differ from these."""

from dataclasses import replace

import pytest

from silotune.certificate import accounts, consistency
from silotune.certificate.accounts import cost_together, from_lines, membership_bound
from silotune.privacy.accounting.accountant import COARSE, FINE
from silotune.runs.folder import RunFolder
from silotune.runs.privacy_statement import read_statement


@pytest.fixture
def many(finished):
    """Seven silos that have taken 2, 4, ... steps."""
    statement = read_statement(RunFolder(finished))
    silo = statement.silos["east"]
    [line] = silo.charges

    def with_steps(n: int):
        return replace(silo, charges=[{**line, "charge": {**line["charge"], "steps": n}}])

    return replace(statement, silos={f"silo-{n}": with_steps(n) for n in range(2, 16, 2)})


def test_those_that_paid_most_and_least_and_others_between_are_counted_by_the_library(
    many, monkeypatch
):
    assert consistency.by_library(many) == set(many.silos)
    whole = consistency.recompute(many)
    monkeypatch.setattr(consistency, "MOST_BY_LIBRARY", 3)
    assert consistency.by_library(many) == {"silo-2", "silo-8", "silo-14"}
    some = consistency.recompute(many)
    assert some.keys() == whole.keys()
    for name, figures in whole.items():
        assert some[name].epsilon == pytest.approx(figures.epsilon, rel=1e-7)
        assert some[name].epsilon_rdp == figures.epsilon_rdp


@pytest.mark.parametrize("lied_about", [2, 8, 14])
def test_should_ours_differ_where_both_count_the_library_counts_all(many, monkeypatch, lied_about):
    monkeypatch.setattr(consistency, "MOST_BY_LIBRARY", 3)
    true = consistency.cost

    def wrong(account, *rest, library):
        found = true(account, *rest, library=library)
        lies = not library and account[0].charge.steps == lied_about
        return found * (1 - 1e-5) if lies else found

    monkeypatch.setattr(consistency, "cost", wrong)
    assert consistency.by_library(many) == set(many.silos)


def test_what_an_attack_can_reach_is_counted_by_the_library_where_it_is_most(many, monkeypatch):
    charged = [from_lines(silo.charges) for silo in many.silos.values()]
    asked, real = [], accounts.epsilons

    def spy(charges, *rest, library, **others):
        asked.extend([charge.steps for charge in charges] if library else [])
        return real(charges, *rest, library=library, **others)

    monkeypatch.setattr(accounts, "epsilons", spy)
    bound = membership_bound(charged, many.relation, library=True)
    assert asked == [14]
    one_by_one = [membership_bound([c], many.relation, library=True)["at_most"] for c in charged]
    assert bound["at_most"] == max(one_by_one)


def test_while_a_run_goes_on_many_accounts_together_are_counted_as_dearer_ones(many, monkeypatch):
    charged = [from_lines(silo.charges) for silo in many.silos.values()]
    exact = cost_together(charged, 1e-3, many.relation, FINE)
    coarse = cost_together(charged, 1e-3, many.relation, COARSE)
    assert exact == pytest.approx(coarse, rel=1e-3)
    monkeypatch.setattr(accounts, "MOST_UNLIKE", 6)
    dearer = cost_together(charged, 1e-3, many.relation, COARSE)
    assert coarse < dearer < 1.3 * coarse
    assert cost_together(charged, 1e-3, many.relation, FINE) == exact
