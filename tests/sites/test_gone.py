"""Sites that are silent, for a while or for good, and sites whose ledger is not to be believed.

The run ends with a certificate all the same: what may have been charged counts as charged.
"""

import json
from contextlib import closing
from dataclasses import replace

import pytest

import silotune as st
from silotune.runtimes.messages import lines_of, message, opened, with_lines
from silotune.site.home import Home
from silotune.site.own_books import verify_own
from sites.wire import OPEN, Wire, federation, wire

PRIVATE = st.ExampleDP(noise_multiplier=2.0, target_delta=1e-3)
ALONE = {"privacy": PRIVATE, "min_clients": 1}


def alone(courier):
    """Every site may be the only one in a mean."""
    for name in courier.own:
        courier.allow(name, privacy=replace(OPEN, min_other_sites=0))
    return courier


def lines(file):
    return file.read_text().splitlines(keepends=True)


def home_of(courier, name, folder):
    run = json.loads((folder / "run.json").read_text())["run"]
    return Home(courier.own[name].home).run(run)


def presumed(run):
    """Site -> release -> how often it counts as charged without being told."""
    found = {
        name: {line["release"]: line["times"] for line in silo.presumed}
        for name, silo in run.privacy.statement.silos.items()
    }
    return {name: releases for name, releases in found.items() if releases}


def checked(courier, run, folder):
    """Both sides find nothing wrong."""
    assert not run.privacy.verify().findings
    name = json.loads((folder / "run.json").read_text())["run"]
    for site, own in courier.own.items():
        if Home(own.home).certificate(name).exists():
            assert not verify_own(Home(own.home), site, name).findings


class Gone(Wire):
    """West answers nothing once so many of its updates have come."""

    after = 1
    back = ()

    def carried(self, name, order):
        gone = name == "west" and self.kinds.count(("west", "T", "R")) >= self.after
        if gone and order[:1].decode() not in self.back:
            return None
        return super().carried(name, order)


class Lost(Gone):
    """It works, and its answers are lost."""

    def carried(self, name, order):
        answer = Wire.carried(self, name, order)
        gone = name == "west" and self.kinds.count(("west", "T", "R")) >= self.after
        return None if gone and order[:1].decode() not in self.back else answer


@pytest.mark.parametrize("kind", [Gone, Lost])
def test_a_site_that_is_gone_for_good_counts_as_charged_for_all_it_was_asked(tmp_path, bert, kind):
    """Whether it worked or not, nobody can know; a site that is back finds its ledger covered."""
    courier, folder = alone(wire(tmp_path, bert, kind)), tmp_path / "run"
    courier.back = ("F",)
    run = federation(bert, **ALONE).fit(folder, courier=courier, progress=False)
    silos = run.privacy.statement.silos
    assert presumed(run) == {"west": {"update": 2}}
    assert silos["west"].last_heard == 0
    assert silos["west"].epsilon == pytest.approx(silos["east"].epsilon)
    assert len(lines(home_of(courier, "west", folder) / "ledger.jsonl")) == (
        3 if kind is Lost else 1
    )
    checked(courier, run, folder)
    said = "west (last heard: round 0)"
    assert said in (folder / "adapter" / "README.md").read_text()
    assert said in (folder / "report.html").read_text()


def test_it_is_asked_again_when_the_run_is_resumed_and_then_counts_what_it_charged(tmp_path, bert):
    courier, folder = alone(wire(tmp_path, bert, Lost)), tmp_path / "run"
    run = federation(bert, **ALONE).fit(folder, courier=courier, progress=False)
    assert presumed(run) == {"west": {"update": 2}}
    courier.after = 100
    run = federation(bert, **ALONE).fit(folder, courier=courier, progress=False, resume=True)
    assert not presumed(run)
    assert len(lines(folder / "ledger.jsonl")) == 6
    assert run.privacy.statement.silos["west"].last_heard == 2
    checked(courier, run, folder)


def test_a_coordinator_that_is_killed_goes_on_without_who_is_gone(tmp_path, bert):
    """What was sent before it was killed is on the disk; the same order counts once."""
    courier, folder = alone(wire(tmp_path, bert, Gone)), tmp_path / "run"
    with closing(federation(bert, **ALONE).rounds(folder, courier=courier)) as rounds:
        for record in rounds:
            if record.round == 1:
                break
    unheard = json.loads((folder / "unheard.json").read_text())["sites"]["west"]
    assert [order[:2] for order in unheard["orders"]] == [["update", 1]]
    run = federation(bert, **ALONE).fit(folder, courier=courier, progress=False, resume=True)
    assert presumed(run) == {"west": {"update": 2}}
    checked(courier, run, folder)


def test_a_lost_file_of_what_was_sent_forgets_no_charge(tmp_path, bert):
    """Whatever may have been sent counts; who is there says what it was."""
    courier, folder = alone(wire(tmp_path, bert, Lost)), tmp_path / "run"
    with closing(federation(bert, **ALONE).rounds(folder, courier=courier)) as rounds:
        for record in rounds:
            if record.round == 1:
                break
    (folder / "unheard.json").unlink()
    run = federation(bert, **ALONE).fit(folder, courier=courier, progress=False, resume=True)
    assert presumed(run) == {"west": {"update": 2}}
    checked(courier, run, folder)


@pytest.mark.full
def test_with_a_lost_file_scores_count_where_they_were_due(tmp_path, bert):
    """What cannot have been asked counts for nothing, or it would be more than the budget."""
    asked = ALONE | {"privacy": replace(PRIVATE, metric_noise=2.0), "eval_every": 2}
    courier, folder = alone(wire(tmp_path, bert, Lost)), tmp_path / "run"
    with closing(federation(bert, **asked).rounds(folder, courier=courier)) as rounds:
        for record in rounds:
            if record.round == 1:
                break
    (folder / "unheard.json").unlink()
    run = federation(bert, **asked).fit(folder, courier=courier, progress=False, resume=True)
    assert presumed(run) == {"west": {"metric": 2, "update": 2}}
    checked(courier, run, folder)


@pytest.mark.full
def test_a_noisy_number_and_scores_count_too(tmp_path, bert):
    """It never said a word after it began: the number is presumed once, scores one by one."""
    privacy = replace(PRIVATE, count_noise=2.0, metric_noise=2.0)
    courier, folder = alone(wire(tmp_path, bert, Lost)), tmp_path / "run"
    courier.after = 0

    def carried(name, order, silent=courier.carried):
        return Wire.carried(courier, name, order) if order[:1] in b"OB" else silent(name, order)

    courier.carried = carried
    run = federation(bert, **(ALONE | {"privacy": privacy, "weighting": "num_examples"})).fit(
        folder, courier=courier, progress=False
    )
    assert presumed(run) == {"west": {"count": 1, "metric": 3, "update": 3}}
    silos = run.privacy.statement.silos
    assert silos["west"].last_heard is None
    assert silos["west"].epsilon == pytest.approx(silos["east"].epsilon)
    checked(courier, run, folder)


@pytest.mark.parametrize(
    "lie",
    [
        pytest.param(lambda told: told.replace(b'"steps": 2', b'"steps": 1'), id="price"),
        pytest.param(lambda told: b"", id="nothing"),
        pytest.param(lambda told: b"[]\n", id="no-line", marks=pytest.mark.full),
    ],
)
def test_a_ledger_that_is_not_to_be_believed_is_left_out_and_presumed(tmp_path, bert, lie):
    """Whatever it is asked. It gave updates, so saying nothing of a charge does not help it."""

    class Lying(Wire):
        def carried(self, name, order):
            answer = super().carried(name, order)
            if name != "west" or order[:1] not in (b"T", b"S", b"L"):
                return answer
            said = opened(answer)
            told, body = lines_of(said)
            return message(said.kind, *with_lines(lie(told), body))

    courier, folder = alone(wire(tmp_path, bert, Lying)), tmp_path / "run"
    run = federation(bert, **ALONE).fit(folder, courier=courier, progress=False)
    assert presumed(run) == {"west": {"update": 3}}
    assert {record.clients for record in run.metrics if record.round >= 0} == {("east",)}
    assert all("west" in record.missing for record in run.metrics if record.round >= 0)
    checked(courier, run, folder)


def test_a_ledger_that_was_put_back_from_an_older_copy(tmp_path, bert):
    """What it told stays told; it refuses what goes on from that, and so is in no mean."""
    courier, folder = alone(wire(tmp_path, bert)), tmp_path / "run"
    with closing(federation(bert, **ALONE).rounds(folder, courier=courier)) as rounds:
        for record in rounds:
            if record.round == 1:
                break
    ledger = home_of(courier, "west", folder) / "ledger.jsonl"
    ledger.write_text(lines(ledger)[0])
    courier.restart("west")
    run = federation(bert, **ALONE).fit(folder, courier=courier, progress=False, resume=True)
    assert run.metrics[-1].missing == {"west": "its ledger is not the one that was told"}
    assert presumed(run) == {"west": {"update": 1}}
    assert run.privacy.statement.silos["west"].lines == 2
    assert not run.privacy.verify().findings
    told = json.loads((folder / "sites.json").read_text())["sites"]
    assert told["west"]["result"] == "its ledger is not the one that was told"


@pytest.mark.parametrize(
    "change",
    [
        lambda silo: silo | {"presumed": []},
        pytest.param(lambda silo: silo | {"last_heard": 2}, marks=pytest.mark.full),
        pytest.param(
            lambda silo: silo | {"presumed": [{**silo["presumed"][0], "times": 1}]},
            marks=pytest.mark.full,
        ),
    ],
)
def test_a_certificate_that_counts_less_is_found_out(tmp_path, bert, change):
    courier, folder = alone(wire(tmp_path, bert, Gone)), tmp_path / "run"
    federation(bert, **ALONE).fit(folder, courier=courier, progress=False)
    file = folder / "privacy.json"
    said = json.loads(file.read_text())
    said["silos"]["west"] = change(said["silos"]["west"])
    file.write_text(json.dumps(said))
    found = federation(bert, **ALONE).result(folder).privacy.verify().findings
    assert [one for one in found if one.where.startswith("silo west")]


def test_what_a_daemon_has_kept_is_no_answer_to_another_process(tmp_path, bert):
    """A coordinator that was killed asks again what was charged; an old answer says less."""

    class Keeping(Wire):
        lost = ()

        def __init__(self, owned):
            super().__init__(owned)
            self.kept = {}

        def carried(self, name, order):
            if (name, order) not in self.kept:
                self.kept[name, order] = super().carried(name, order)
            gone = name == "west" and order[:1].decode() in self.lost
            return None if gone else self.kept[name, order]

    courier, folder = wire(tmp_path, bert, Keeping), tmp_path / "run"
    alone(courier)
    asked = {"privacy": PRIVATE, "min_clients": 1, "rounds": 1}
    courier.lost = ("T", "S", "L")
    run = federation(bert, **asked).fit(folder, courier=courier, progress=False)
    assert presumed(run) == {"west": {"update": 1}}
    courier.lost = ("T", "S")
    run = federation(bert, **asked).fit(folder, courier=courier, progress=False, resume=True)
    assert run.privacy.verify().ok
    assert not presumed(run)
    silos = json.loads((folder / "privacy.json").read_text())["silos"]
    assert silos["west"]["epsilon"] == pytest.approx(silos["east"]["epsilon"])
