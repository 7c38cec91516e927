"""Remote over couriers that lose, lie and forget; all in this process."""

import time
from dataclasses import replace

import pytest

from silotune.core import decode_result, encode_result
from silotune.engine import federate
from silotune.engine.checkpoint import everything
from silotune.optim import SGD
from silotune.runtimes import InProcess, Remote, Stragglers
from silotune.runtimes.messages import RESULT, WHOLE, message, opened
from silotune.runtimes.responder import Responder
from toys import axes, begin, experiment, silos, trainer

FOLDING = axes("fedex-lora", SGD(lr=0.3))
TURNS = axes("rolora", SGD(lr=0.3))  # half of the tensors rest in each round
RECIPE = axes("ffa-lora", SGD(lr=0.3))


pytestmark = pytest.mark.usefixtures("double_precision")


class Carrier:
    """A courier to one responder for each client."""

    def __init__(self, recipe, clients) -> None:
        self.responders = {name: Responder(trainer(recipe), clients) for name in clients}
        self.sent, self.answers = [], []

    def exchange(self, orders, deadline):
        assert deadline >= 0.0
        self.sent.append({client: len(orders[client]) for client in orders})
        for client in orders:
            yield client, self.answer(client, orders[client])

    def answer(self, client, order):
        self.answers.append(self.responders[client].answer(order))
        return self.answers[-1]


class Forgetful(Carrier):
    """Every client is started again before each order."""

    def answer(self, client, order):
        self.responders[client]._held.clear()
        return super().answer(client, order)


def remote(courier, recipe=RECIPE):
    return Remote(courier(recipe, silos()), list(silos()), 60.0)


def last(runtime, recipe=RECIPE, **changes):
    exp = experiment(recipe, runtime.clients(), **changes)
    return list(federate(exp, runtime, begin(recipe)))[-1]


@pytest.mark.parametrize("courier", [Carrier, Forgetful])
@pytest.mark.parametrize("recipe", [TURNS, FOLDING], ids=["rolora", "fedex-lora"])
def test_any_courier_ends_in_the_same_bits(courier, recipe):
    here = last(InProcess(trainer(recipe), silos()), recipe)
    there = last(remote(courier, recipe), recipe)
    assert everything(there.state).digest() == everything(here.state).digest()


def test_who_answered_before_is_sent_what_is_new():
    runtime, all_of_it = remote(Carrier, TURNS), remote(Forgetful, TURNS)
    last(runtime, TURNS, rounds=4)
    last(all_of_it, TURNS, rounds=4)
    parts, whole = runtime._courier.sent[-1], all_of_it._courier.sent[-1]
    assert all(parts[client] < whole[client] for client in silos())


def test_where_everything_is_new_nothing_is_leaned_on():
    runtime = remote(Forgetful)
    last(runtime, rounds=2)
    assert WHOLE not in [answer[:1] for answer in runtime._courier.answers]


def test_who_lost_its_state_is_sent_all_of_it_and_no_other_is():
    class OneForgets(Carrier):
        def answer(self, client, order):
            if client == "silo-1":
                self.responders[client]._held.clear()
            return super().answer(client, order)

    runtime = remote(OneForgets, TURNS)
    last(runtime, TURNS, rounds=3)
    courier, everybody = runtime._courier, list(silos())
    assert [answer[:1] for answer in courier.answers].count(WHOLE) == 1
    assert [list(sent) for sent in courier.sent] == [everybody, everybody, everybody, ["silo-1"]]


def test_who_never_has_its_state_is_missing_and_asked_once_more_at_most():
    class Hopeless(Carrier):
        def answer(self, client, order):
            return message(WHOLE) if client == "silo-0" else super().answer(client, order)

    runtime = remote(Hopeless)
    done = last(runtime, rounds=1, quorum=1)
    assert dict(done.pooled.missing) == {"silo-0": "no answer in time"}
    assert len(runtime._courier.sent) == 2


def test_nobody_speaks_for_another():
    class Lying(Carrier):
        def answer(self, client, order):
            answer = super().answer(client, order)
            if client != "silo-0":
                return answer
            foreign = replace(decode_result(opened(answer).body), client="silo-1")
            return message(RESULT, {}, encode_result(foreign))

    done = last(remote(Lying), rounds=1, quorum=1)
    assert "silo-0" not in done.pooled.clients
    assert done.pooled.missing["silo-0"] == "no answer in time"
    assert "silo-1" in done.pooled.clients


@pytest.mark.parametrize("answer", [b"", b"R", b"?what", b"R" + b"0" * 40, b"!an error"])
def test_what_is_no_answer_is_as_good_as_lost(answer):
    class Noisy(Carrier):
        def answer(self, client, order):
            return answer if client == "silo-0" else super().answer(client, order)

    done = last(remote(Noisy), rounds=1, quorum=1)
    assert dict(done.pooled.missing) == {"silo-0": "no answer in time"}


def test_orders_are_made_when_they_are_taken():
    """All orders of a round at once may be more than memory holds."""
    made = []

    class Counting(Carrier):
        def exchange(self, orders, deadline):
            real = orders.encode
            object.__setattr__(orders, "encode", lambda c: made.append(c) or real(c))
            for taken, client in enumerate(orders, start=1):
                yield client, self.answer(client, orders[client])
                assert len(made) == taken

    last(remote(Counting), rounds=1)
    assert len(made) == len(silos())


class Slow(Carrier):
    """One client never answers; every exchange ends at its deadline."""

    def exchange(self, orders, deadline):
        self.sent.append(dict.fromkeys(orders, deadline))
        for client in orders:
            if client != "silo-0":
                yield client, self.answer(client, orders[client])
        if "silo-0" in list(orders):
            time.sleep(deadline)


def test_a_dead_site_costs_its_wait_and_not_the_deadline():
    wait = Stragglers(quorum=1, wait=0.05)
    runtime = Remote(Slow(RECIPE, silos()), list(silos()), 60.0, None, wait)
    began = time.monotonic()
    done = last(runtime, rounds=3, quorum=1)
    assert time.monotonic() - began < 30.0
    assert dict(done.pooled.missing) == {"silo-0": "no answer in time"}
    assert all(deadline <= 0.05 for sent in runtime._courier.sent for deadline in sent.values())


def test_who_comes_while_others_are_waited_for_is_in_the_mean():
    class Late(Carrier):
        def exchange(self, orders, deadline):
            self.sent.append(list(orders))
            first = len(self.sent) == 1
            for client in orders:
                if client != "silo-0" or not first:
                    yield client, self.answer(client, orders[client])

    wait = Stragglers(quorum=1, wait=20.0)
    runtime = Remote(Late(RECIPE, silos()), list(silos()), 60.0, None, wait)
    done = last(runtime, rounds=1, quorum=1)
    assert "silo-0" in done.pooled.clients
    assert runtime._courier.sent[1] == ["silo-0"]


def test_what_a_client_says_cannot_move_a_cursor():
    class Painting(Carrier):
        def answer(self, client, order):
            answer = super().answer(client, order)
            result = decode_result(opened(answer).body)
            loud = replace(result, refusal="\x1b[2J" + "x" * 10_000)
            return message(RESULT, {}, encode_result(loud)) if client == "silo-0" else answer

    done = last(remote(Painting), rounds=1, quorum=1)
    why = done.pooled.missing["silo-0"]
    assert why.isprintable()
    assert len(why) < 300
