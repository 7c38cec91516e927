"""Orders that come to a site after it has taken the result: none is worked on, or charged."""

from dataclasses import replace

import pytest

import silotune as st
from silotune.core import Factors, decode_result, decode_task, encode_task
from silotune.runtimes.messages import TRAIN, lines_of, message, opened
from silotune.site.home import Home
from silotune.site.own_books import verify_own
from sites.wire import OPEN, Wire, federation, wire

PRIVATE = st.ExampleDP(noise_multiplier=2.0, target_delta=1e-3)


class Delayed(Wire):
    """The last order of some kind to west is on its way for longer than the run."""

    kind, held, last = b"T", b"", b""

    def carried(self, name, order):
        if name == "west" and order[:1] == TRAIN:
            self.last = order
        if name == "west" and order[:1] == self.kind and self.kinds.count(("east", "T", "R")) >= 2:
            self.held = order
            return None
        return super().carried(name, order)


def taken(folder, model, privacy=PRIVATE, kind=b"T"):
    """A run whose result west has taken, before an order of the last round came."""
    courier = wire(folder, model, Delayed)
    courier.kind = kind
    for name in courier.own:
        courier.allow(name, privacy=replace(OPEN, min_other_sites=0))
    asked = federation(model, privacy=privacy, min_clients=1, rounds=2)
    run = asked.fit(folder / "run", courier=courier, progress=False)
    return courier, run.privacy.statement.run


def refused(courier, order):
    answer = opened(courier.sites["west"].answer(order))
    return answer.kind == b"N" or bool(decode_result(lines_of(answer)[1]).refusal)


@pytest.mark.parametrize(
    ("kind", "privacy"),
    [(b"T", PRIVATE), pytest.param(b"S", replace(PRIVATE, metric_noise=2.0), id="score")],
)
def test_an_order_that_was_long_on_its_way_is_not_charged(tmp_path, bert, kind, privacy):
    """The certificate that the site has checked and kept stays what its ledger says."""
    courier, run = taken(tmp_path, bert, privacy, kind)
    home = Home(courier.own["west"].home)
    assert verify_own(home, "west", run).ok
    for _ in range(2):
        assert refused(courier, courier.held)
        courier.restart("west")
    found = verify_own(home, "west", run)
    assert found.ok, found.findings


def test_a_coordinator_that_goes_on_asking_gets_no_more(tmp_path, bert):
    """One more update, from another state, of the last round that everybody has seen."""
    courier, run = taken(tmp_path, bert, kind=b"?")
    home = Home(courier.own["west"].home)
    asked = opened(courier.last)
    task = decode_task(asked.body)
    factors = Factors({key: tensor * 1.5 for key, tensor in task.factors.items()})
    other = encode_task(replace(task, factors=factors))
    assert refused(courier, message(TRAIN, asked.head, other))
    assert verify_own(home, "west", run).ok
