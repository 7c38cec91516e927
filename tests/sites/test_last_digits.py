"""Machines compute noise to other last digits, and are of one federation all the same."""

from dataclasses import replace

import pytest

import silotune as st
from silotune.site import site as at_site
from silotune.site.home import Home
from silotune.site.own_books import verify_own
from sites.wire import OPEN, Wire, federation, wire

PRIVATE = st.ExampleDP(target_epsilon=5.0, target_delta=1e-3)


class Gone(Wire):
    """West is away after its first update, and there again for the result."""

    def carried(self, name, order):
        answer = super().carried(name, order)
        away = name == "west" and self.kinds.count(("west", "T", "R")) >= 1
        return None if away and order[:1] in b"TSL" else answer


@pytest.mark.parametrize("kind", [Wire, Gone])
def test_a_site_may_differ_in_the_last_digits(tmp_path, bert, monkeypatch, kind):
    agree, more = at_site.agree, 1 + 1e-12

    def otherwise(*given):
        agreement = agree(*given)
        if given[-1] != "west":
            return agreement
        own = agreement.mechanisms["west"]
        noise = replace(own.noise, multiplier=own.noise.multiplier * more)
        return replace(agreement, mechanisms={"west": replace(own, noise=noise)})

    monkeypatch.setattr(at_site, "agree", otherwise)
    courier = wire(tmp_path, bert, kind)
    for name in courier.own:
        courier.allow(name, privacy=replace(OPEN, min_other_sites=0))
    asked = federation(bert, privacy=PRIVATE, rounds=2, min_clients=1)
    run = asked.fit(tmp_path / "run", courier=courier, progress=False)
    assert run.privacy.verify().ok, run.privacy.verify().findings
    for name, own in courier.own.items():
        assert verify_own(Home(own.home), name, run.privacy.statement.run).ok
