"""What a run costs at a site stays below what its policy allows, whatever is asked for again."""

import json
from dataclasses import replace

import silotune as st
from silotune.core import Factors, Role, decode_task, encode_task
from silotune.privacy.accounting.accountant import epsilon
from silotune.privacy.ledger.chain import read_ledger
from silotune.runtimes.messages import FINISH, TRAIN, message, opened
from silotune.site.home import Home
from silotune.site.price import epsilon_of
from sites.wire import OPEN, Wire, federation, wire

PRIVATE = st.ExampleDP(noise_multiplier=2.0, target_delta=1e-3)


class Kept(Wire):
    """Sites that are asked for the whole state each time, and the orders that west got.

    No result comes to west: after it, it would work on no order of the run.
    """

    def __init__(self, owned):
        super().__init__(owned)
        self.orders = []

    def carried(self, name, order):
        self.restart(name)
        if name == "west" and order[:1] == TRAIN:
            self.orders.append(order)
        if name == "west" and order[:1] == FINISH:
            return None
        return super().carried(name, order)


def asked_again(order, times):
    """The same round from a state that is moved a little, as often as a server may ask."""
    asked = opened(order)
    task = decode_task(asked.body)
    for i in range(1, times + 1):
        moved = {k: t * (1 + i / 1000) if k.role is Role.B else t for k, t in task.factors.items()}
        yield message(TRAIN, asked.head, encode_task(replace(task, factors=Factors(moved))))


def test_noise_that_is_given_buys_no_more_rounds_than_were_priced(tmp_path, bert):
    courier, folder = wire(tmp_path, bert, Kept), tmp_path / "run"
    federation(bert, privacy=PRIVATE, rounds=2).fit(folder, courier=courier, progress=False)
    home = Home(courier.own["west"].home)
    [offer] = home.offers()
    priced = epsilon_of(offer, 20)
    courier.allow("west", privacy=replace(OPEN, max_epsilon=priced))
    ledger = home.run(offer.run) / "ledger.jsonl"
    before = len(read_ledger(ledger))
    for order in asked_again(courier.orders[-1], 6):
        courier.carried("west", order)
    charges = [entry.charge for entry in read_ledger(ledger)]
    assert len(charges) == before + 1, "the reserve can be spent, and no more"
    assert epsilon(charges, 1e-3) <= priced


def test_the_ledger_of_an_honest_run_is_the_same_with_a_limit_that_fits(tmp_path, bert):
    courier, folder = wire(tmp_path, bert), tmp_path / "run"
    for name in courier.own:
        courier.allow(name, privacy=replace(OPEN, max_epsilon=9.0))
    federation(bert, privacy=PRIVATE, rounds=2).fit(folder, courier=courier, progress=False)
    told = json.loads((folder / "privacy.json").read_text())
    assert {silo["rounds"] for silo in told["silos"].values()} == {2}
    assert max(silo["epsilon"] for silo in told["silos"].values()) <= 9.0
