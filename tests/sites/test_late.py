"""Sites that accept after the run has begun: they take part from the next round on."""

import json
from contextlib import closing
from dataclasses import replace

import pytest

import silotune as st
from federation.objects import SEEDED
from silotune.federation.acceptance import SitesRefuseError
from silotune.runtimes.messages import message, opened
from silotune.site.home import Home
from silotune.site.own_books import verify_own
from sites.wire import OPEN, Wire, federation, weights, wire

PRIVATE = st.ExampleDP(noise_multiplier=2.0, target_delta=1e-3)


class Late(Wire):
    """West is not to be had until so many updates of east have come."""

    after = 1

    def carried(self, name, order):
        away = self.kinds.count(("east", "T", "R")) < self.after
        return None if name == "west" and away else super().carried(name, order)


def late(folder, model, kind=Late):
    courier = wire(folder, model, kind)
    for name in courier.own:
        courier.allow(name, privacy=replace(OPEN, min_other_sites=0))
    return courier


def impatient(model, **changes):
    """A coordinator that begins with whom it has at once."""
    asked = federation(model, **({"privacy": PRIVATE, "min_clients": 1} | changes))
    asked.offer_deadline = 0.2
    return asked


def cohorts(run):
    return [record.clients for record in run.metrics if record.round >= 0]


def checked(courier, run, folder):
    assert not run.privacy.verify().findings
    name = json.loads((folder / "run.json").read_text())["run"]
    for site, own in courier.own.items():
        assert not verify_own(Home(own.home), site, name).findings


@pytest.mark.parametrize(
    "changes",
    [
        {},
        pytest.param(
            {
                "privacy": replace(PRIVATE, count_noise=2.0, metric_noise=2.0),
                "weighting": "num_examples",
            },
            id="noisy numbers",
            marks=pytest.mark.full,
        ),
        pytest.param({"method": st.methods.FedSALoRA(r=2)}, marks=pytest.mark.full, id="personal"),
    ],
)
def test_who_accepts_late_takes_part_from_the_next_round_on(tmp_path, bert, changes):
    courier, folder = late(tmp_path, bert), tmp_path / "run"
    run = impatient(bert, **changes).fit(folder, courier=courier, progress=False)
    assert cohorts(run) == [("east",), ("east", "west"), ("east", "west")]
    silos = run.privacy.statement.silos
    assert {name: (silo.rounds, silo.last_heard is not None) for name, silo in silos.items()} == {
        "east": (3, True),
        "west": (2, True),
    }
    assert set(run.privacy.statement.federation["sites"]) == {"east", "west"}
    assert set(json.loads((folder / "run.json").read_text())["silos"]) == {"east", "west"}
    checked(courier, run, folder)


@pytest.mark.parametrize(
    "weighting", ["num_examples", pytest.param("uniform", marks=pytest.mark.full)]
)
def test_it_ends_in_the_bits_of_a_run_whose_first_round_it_missed(tmp_path, bert, weighting):
    class Missing(Late):
        """It has accepted, and its machine is away."""

        def carried(self, name, order):
            asked = name == "west" and order[:1] in b"TS"
            away = asked and self.kinds.count(("east", "S", "R")) == 0
            return None if away else Wire.carried(self, name, order)

    found = {}
    for kind in (Late, Missing):
        place = tmp_path / kind.__name__
        place.mkdir()
        asked = impatient(bert, privacy=SEEDED, weighting=weighting)
        run = asked.fit(place / "run", courier=late(place, bert, kind), progress=False)
        found[kind] = weights(place / "run")
        assert cohorts(run)[1] == ("east", "west")
    assert found[Late] == found[Missing]


@pytest.mark.full
def test_a_coordinator_that_is_killed_remembers_who_has_joined(tmp_path, bert):
    courier, folder = late(tmp_path, bert), tmp_path / "run"
    with closing(impatient(bert).rounds(folder, courier=courier)) as rounds:
        for record in rounds:
            if record.round == 1:
                break
    run = impatient(bert).fit(folder, courier=courier, progress=False, resume=True)
    assert cohorts(run) == [("east",), ("east", "west"), ("east", "west")]
    checked(courier, run, folder)


def test_a_person_who_approves_late(tmp_path, bert):
    """Asked again in every round, until somebody has looked; what was said is told once."""

    class Approving(Wire):
        def carried(self, name, order):
            if name == "west" and self.kinds.count(("east", "T", "R")) == 2:
                home = Home(self.own["west"].home)
                [offer] = home.offers()
                home.decide(offer, "approved")
            return super().carried(name, order)

    courier, folder = late(tmp_path, bert, Approving), tmp_path / "run"
    courier.allow("west", approve="each")
    run = impatient(bert).fit(folder, courier=courier, progress=False)
    assert cohorts(run) == [("east",), ("east",), ("east", "west")]
    checked(courier, run, folder)


@pytest.mark.full
def test_who_refuses_later_stays_outside(tmp_path, bert):
    class Refusing(Late):
        def carried(self, name, order):
            if name == "west" and self.kinds.count(("east", "T", "R")) == 1:
                self.allow("west", methods=())
            return super().carried(name, order)

    courier, folder = late(tmp_path, bert, Refusing), tmp_path / "run"
    run = impatient(bert).fit(folder, courier=courier, progress=False)
    assert cohorts(run) == [("east",)] * 3
    assert list(run.privacy.statement.silos) == ["east"]


def test_who_declares_another_number_than_was_planned_with_stays_outside(tmp_path, bert):
    planned = impatient(bert, num_examples={"east": 20, "west": 19})
    run = planned.fit(tmp_path / "run", courier=late(tmp_path, bert), progress=False)
    assert cohorts(run) == [("east",)] * 3


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"min_clients": None}, id="all are needed"),
        pytest.param({"min_clients": 2}, id="too few"),
        pytest.param({"clients_per_round": 1}, id="drawn"),
        pytest.param(
            {
                "method": st.methods.FlexLoRA(r=2, ranks={"west": 1}),
                "privacy": st.NoDP(),
            },
            id="ranks",
        ),
        pytest.param(
            {
                "min_clients": None,
                "privacy": st.ClientDP(noise_multiplier=2.0, target_delta=1e-3),
            },
            id="clients",
        ),
    ],
)
def test_where_all_must_have_accepted_nothing_begins(tmp_path, bert, changes):
    """Noise for whole clients is made for a number of them that stays; rounds draw among all."""
    courier, folder = late(tmp_path, bert), tmp_path / "run"
    everything = replace(OPEN, units=("example", "none", "client"), min_other_sites=0)
    courier.allow("east", privacy=everything)
    with pytest.raises(SitesRefuseError, match="west did not answer"):
        impatient(bert, **changes).fit(folder, courier=courier, progress=False)
    assert not (folder / "run.json").exists()


@pytest.mark.parametrize(
    "sizes",
    [
        {"east": 20},
        {"west": 20},
        {"east": 20, "west": 19},
        {"east": 20, "west": 20, "north": 20},
        {"east": 19, "west": 20},
    ],
    ids=str,
)
def test_a_site_lets_nobody_be_taken_out_or_changed(tmp_path, bert, sizes):
    """A mean of fewer than was approved, without itself, or with other numbers than were told."""
    orders = []

    class Kept(Wire):
        def carried(self, name, order):
            orders.append((name, order))
            return super().carried(name, order)

    courier = wire(tmp_path, bert, Kept)
    federation(bert, privacy=PRIVATE, rounds=1, min_clients=2).fit(
        tmp_path / "run", courier=courier, progress=False
    )
    [order] = [order for name, order in orders if name == "west" and order[:1] == b"B"]
    head = {**opened(order).head, "sizes": sizes}
    answer = opened(courier.sites["west"].answer(message(b"B", head)))
    assert answer.head == {"code": "order:sizes"}
