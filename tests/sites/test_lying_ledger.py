"""Charges that a site tells and never made: they spoil neither the certificate nor the run."""

import hashlib
import json
from contextlib import closing
from dataclasses import replace

import pytest

import silotune as st
from silotune.runtimes.messages import RESULT, lines_of, message, opened, with_lines
from silotune.site.home import Home
from silotune.site.own_books import verify_own
from sites.wire import OPEN, Wire, federation, wire

PRIVATE = st.ExampleDP(noise_multiplier=2.0, target_delta=1e-3)
NOT_BELIEVED = "the charges that it tells do not go on from those that it told before"


class Adding(Wire):
    """West tells charges more, with its answer of a round."""

    round, changes, times = 0, {}, 1

    def carried(self, name, order):
        answer = super().carried(name, order)
        told = self.kinds.count(("west", "T", "R"))
        if name != "west" or order[:1] != b"T" or told != self.round or answer[:1] != RESULT:
            return answer
        lines, body = lines_of(opened(answer))
        *_, last = lines.splitlines(keepends=True)
        for attempt in range(1, self.times + 1):
            line = json.loads(last)
            line |= {"line": line["line"] + 1, "previous": hashlib.sha256(last).hexdigest()}
            line |= {"attempt": attempt, "sent": "0" * 64, **self.changes}
            last = json.dumps(line).encode() + b"\n"
            lines += last
        return message(RESULT, *with_lines(lines, body))


def adding(folder, model, at, **changes):
    courier = wire(folder, model, Adding)
    courier.round, courier.changes = at, changes
    for name in courier.own:
        courier.allow(name, privacy=replace(OPEN, min_other_sites=0))
    return courier


def asked(model, rounds=2):
    return federation(model, privacy=PRIVATE, rounds=rounds, min_clients=1)


@pytest.mark.parametrize(
    "changes",
    [{"round": 7}, {"round": 1}, {"max_grad_norm": 9.0}, {"time": "my patient is Ann"}],
    ids=["late", "next", "norm", "words"],
)
def test_a_charge_that_nothing_was_asked_for_is_not_believed(tmp_path, bert, changes):
    courier = adding(tmp_path, bert, 0, **changes)
    run = asked(bert).fit(tmp_path / "run", courier=courier, progress=False)
    assert run.metrics[1].missing == {"west": NOT_BELIEVED}
    assert run.privacy.verify().ok, run.privacy.verify().findings
    assert "Ann" not in (tmp_path / "run" / "ledger.jsonl").read_text()


def test_a_charge_of_a_round_that_is_behind_stops_nobody(tmp_path, bert):
    """It is counted: who says to have paid more has paid more, as far as anybody knows."""
    courier, folder = adding(tmp_path, bert, 1, round=0), tmp_path / "run"
    with closing(asked(bert, rounds=3).rounds(folder, courier=courier)) as rounds:
        for record in rounds:
            if record.round == 1:
                break
    run = asked(bert, rounds=3).fit(folder, courier=courier, progress=False, resume=True)
    assert [record.clients for record in run.metrics][-1] == ("east",)
    assert run.privacy.verify().ok, run.privacy.verify().findings
    silos = run.privacy.statement.silos
    assert silos["west"].epsilon >= silos["east"].epsilon


def test_charges_beyond_its_budget_are_its_own_affair(tmp_path, bert):
    """Others take the certificate, which says what it told; its own ledger has less."""
    budget = st.ExampleDP(target_epsilon=2.0, target_delta=1e-3)
    courier = adding(tmp_path, bert, 0)
    courier.times, folder = 20, tmp_path / "run"
    described = federation(bert, privacy=budget, rounds=2, min_clients=1)
    run = described.fit(folder, courier=courier, progress=False)
    assert run.privacy.verify().ok, run.privacy.verify().findings
    silos = run.privacy.statement.silos
    assert silos["west"].epsilon > 2.0 > silos["east"].epsilon
    assert verify_own(Home(courier.own["east"].home), "east", run.privacy.statement.run).ok
