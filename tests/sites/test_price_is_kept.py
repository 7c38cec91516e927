"""What a run may cost a site is what was shown to those who approved it, and no more."""

from dataclasses import replace

from silotune.core import decode_result
from silotune.engine.client_errors import FAILED, SPENT
from silotune.privacy.accounting.accountant import epsilon
from silotune.privacy.ledger.chain import read_ledger
from silotune.privacy.ledger.entry import METRIC
from silotune.runtimes.messages import RESULT, SCORE, TRAIN, lines_of, message, opened
from silotune.site.home import Home
from silotune.site.price import epsilon_of
from sites.test_limit import PRIVATE, Kept, asked_again
from sites.wire import federation, wire


def refusal_of(answer):
    _, result = lines_of(opened(answer))
    return decode_result(result).refusal


def test_noise_that_is_given_costs_no_more_than_was_shown(tmp_path, bert):
    """The policy allows an epsilon of 10; what was approved is the price of two rounds."""
    courier, folder = wire(tmp_path, bert, Kept), tmp_path / "run"
    federation(bert, privacy=PRIVATE, rounds=2).fit(folder, courier=courier, progress=False)
    home = Home(courier.own["west"].home)
    [offer] = home.offers()
    answers = [courier.carried("west", o) for o in asked_again(courier.orders[-1], 6)]
    charges = [line.charge for line in read_ledger(home.run(offer.run) / "ledger.jsonl")]
    assert epsilon(charges, 1e-3) <= epsilon_of(offer, 20) < 10.0
    assert [refusal_of(answer) for answer in answers] == ["", *[SPENT] * 5]


class Curious(Kept):
    """A coordinator that has every state scored, also those whose score nobody priced."""

    def __init__(self, owned):
        super().__init__(owned)
        self.refusals = []

    def carried(self, name, order):
        asked = opened(order)
        if name == "west" and asked.kind == TRAIN:
            self.restart(name)
            scored = self.sites[name].answer(message(SCORE, asked.head, asked.body))
            if opened(scored).kind == RESULT:  # else the state was not sent whole
                self.refusals.append(refusal_of(scored))
        return super().carried(name, order)


def test_a_round_whose_score_is_not_due_is_not_scored(tmp_path, bert):
    courier, folder = wire(tmp_path, bert, Curious), tmp_path / "run"
    terms = {"privacy": replace(PRIVATE, metric_noise=3.0), "rounds": 3, "eval_every": 3}
    federation(bert, **terms).fit(folder, courier=courier, progress=False)
    home = Home(courier.own["west"].home)
    [offer] = home.offers()
    ledger = read_ledger(home.run(offer.run) / "ledger.jsonl")
    assert [line.round for line in ledger if line.release == METRIC] == [3]
    assert courier.refusals == [FAILED] * 3
