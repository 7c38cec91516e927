"""What is shown of a run over sites while it goes on: the same in JSON, in words and on a page."""

import base64
import hashlib
import html
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from itertools import product

import pytest

from reports.clinics import CLINICS, hostile, rounds
from reports.lookers import HOSTILE, going_on, live, site, write_looked_at
from silotune.certificate.guarantee import SEEDED
from silotune.core import RecordError
from silotune.core.files import finite
from silotune.reports import live_words
from silotune.reports.live_page import content_policy, curve, damaged_page, live_page
from silotune.reports.live_view import NOT_BEGUN, RUNNING, view_of
from silotune.reports.prometheus import prometheus
from silotune.runs.folder import RoundRecord, RunFolder
from silotune.runs.live import Doing, SiteLive, Stage, write_live
from silotune.runs.standing import CUT_SHORT


@pytest.fixture
def folder(tmp_path) -> RunFolder:
    return write_looked_at(tmp_path / "run")


@pytest.fixture
def view(folder):
    with going_on(folder):
        return view_of(folder)


def test_a_view_adds_up_what_the_folder_holds(view):
    done = rounds()[1:10]
    assert (view.status, view.rounds) == (RUNNING, 9)
    assert view.bytes_up == sum(record.bytes_up for record in done)
    assert view.epsilon == max(done[-1].epsilon.values())
    assert [round for round, _ in view.values] == list(range(10))
    assert {s.name: s.rounds for s in view.sites} == {"north": 9, "harbour": 9, "hill": 8}
    assert {s.name: s.num_examples for s in view.sites} == CLINICS
    [absence] = view.absences
    assert (absence.round, absence.site) == (8, "hill")


def test_the_status_tells_a_run_that_goes_on_from_one_that_was_killed(folder):
    with going_on(folder):
        assert view_of(folder).status == RUNNING
    assert view_of(folder).status == CUT_SHORT
    folder.run.unlink()
    assert view_of(folder).status == NOT_BEGUN
    assert view_of(folder).rounds == 0


def test_a_finished_run_is_shown_too(tmp_path):
    ended = live(stage=Stage.FINISH, sites=site(doing=Doing.IDLE, order="finish"))
    view = view_of(write_looked_at(tmp_path / "run", ended, 20, status="finished"))
    assert live_words.headline(view) == "round 20 of 20"
    assert live_words.doing(view.sites[0]) == "has the result"
    assert '<span class="status finished">finished</span>' in live_page(view)


def test_an_epsilon_without_privacy_is_said_to_be_none(tmp_path):
    now = live(privacy=f"NOT PRIVATE: {SEEDED}")
    folder = write_looked_at(tmp_path / "run", now)
    view = view_of(folder)
    assert {figure.more for figure in live_words.figures(view) if "ε" in figure.name} == {
        "NOT PRIVATE"
    }
    assert html.escape(SEEDED) in live_page(view)
    assert 'silotune_private{run="triage-7c2f91"} 0' in prometheus(view)


def test_a_folder_without_such_a_run_is_named(tmp_path):
    with pytest.raises(RecordError, match="no run over sites is here"):
        view_of(RunFolder(tmp_path))


def test_nothing_of_single_silos_is_shown_but_what_they_released(tmp_path):
    """Metrics of silos' own records, which only a simulation knows."""
    own = {name: {"accuracy": 0.98765} for name in CLINICS}
    folder = write_looked_at(tmp_path / "run")
    folder.write_rounds([replace(record, silos=own) for record in rounds()])
    view = view_of(folder)
    for text in (json.dumps(view.to_json()), live_page(view), prometheus(view)):
        assert "98765" not in text
        assert "98.8" not in text


def test_who_is_hidden_by_a_server_is_not_told(tmp_path):
    lines = [RoundRecord(round=0, bytes_up=5, epsilon={"every client": 1.5})]
    hidden = live(unit="client", privacy="client", sites=site(doing=Doing.HIDDEN, order="begin"))
    folder = write_looked_at(tmp_path / "run", hidden)
    folder.write_rounds(lines)
    with going_on(folder):
        view = view_of(folder)
    assert view.epsilon == 1.5
    assert {s.rounds for s in view.sites} == {None}
    page = live_page(view)
    assert "the server hides who takes part" in page
    assert "in the mean" not in page
    assert "site_rounds" not in prometheus(view)
    assert "site_missing" not in prometheus(view)


def test_there_are_words_for_everything_that_a_site_can_do(view):
    for doing, order in product(Doing, Stage):
        one = replace(view.sites[0], live=SiteLive(doing=doing, order=order, since=view.at))
        assert live_words.doing(one)


def test_words_say_when_and_for_how_long(view):
    north, harbour, hill = view.sites
    assert live_words.doing(north) == "trains"
    assert re.fullmatch(r"since [\d:]{8} \(\d s\)", live_words.since(view, north))
    assert re.fullmatch(r"\d s ago", live_words.heard(view, north))
    assert live_words.doing(harbour) == "idle"
    assert live_words.since(view, harbour).startswith("since 2026-03-02 ")
    assert live_words.doing(hill) == "asked, no word yet"
    assert live_words.heard(view, hill) == "–"
    assert [live_words.line(view, site) for site in view.sites] == [
        "connected",
        "",
        "not connected",
    ]
    assert live_words.epsilon_of(view, 1.234) == "1.24 of 6"


class Elements(HTMLParser):
    """What a browser would make of a page: the tags, and what attributes they have."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: set[str] = set()
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes |= {name for name, _ in attrs}


def attacked(tmp_path):
    """Every text that could be of somebody else is hostile."""
    now = live(
        run=HOSTILE,
        title=HOSTILE,
        coordinator=HOSTILE,
        metric=HOSTILE,
        privacy=f"NOT PRIVATE{HOSTILE}",
        sites={HOSTILE: SiteLive(doing=Doing.REFUSED, order="train", reason=HOSTILE)},
    )
    folder = write_looked_at(tmp_path / "attacked", now)
    told = replace(hostile(HOSTILE), silos={HOSTILE: {"num_examples": 5}})
    folder.run.write_text(json.dumps(finite({"version": 1, **told.to_json()})))
    folder.write_rounds(
        [
            RoundRecord(round=i, metrics={HOSTILE: 0.5 + i}, missing={HOSTILE: HOSTILE})
            for i in (-1, 0, 1)
        ]
    )
    return folder


def test_names_and_reasons_of_others_are_only_text(tmp_path):
    folder = attacked(tmp_path)
    with going_on(folder):
        page = live_page(view_of(folder))
    found = Elements(page)
    assert "table" in found.tags
    assert "img" not in found.tags
    assert found.tags.count("script") == 1
    assert not {name for name in found.attributes if name.startswith("on")}
    assert html.escape("<img src=x") in page
    assert "\x1b" not in page
    assert "\u202e" not in page
    assert "<img" not in damaged_page(HOSTILE)


def test_a_hostile_name_stays_within_its_label(tmp_path):
    folder = write_looked_at(tmp_path / "run")
    name = 'a"} 1\nsilotune_epsilon{run="x'
    write_live(folder.live, live(sites={name: SiteLive(doing=Doing.IDLE, order="train")}))
    text = prometheus(view_of(folder))
    assert r'site="a\"} 1\nsilotune_epsilon{run=\"x"' in text
    assert sum(line.startswith("silotune_epsilon{") for line in text.splitlines()) == 1


def test_every_line_for_prometheus_is_one(view):
    text = prometheus(view)
    sample = re.compile(r'silotune_\w+\{(\w+="[^"\\\n]*",?)+\} (NaN|[+-]Inf|-?[\d.e+-]+)')
    lines = text.splitlines()
    assert all(line.startswith("# ") or sample.fullmatch(line) for line in lines)
    assert 'silotune_rounds_done{run="triage-7c2f91"} 9' in lines
    assert 'silotune_site_doing{run="triage-7c2f91",site="north",doing="working"} 1' in lines
    assert 'silotune_site_connected{run="triage-7c2f91",site="hill"} 0' in lines
    assert not any("harbour" in line and "connected" in line for line in lines), "nobody knows"


def test_infinite_epsilon_is_said(tmp_path):
    folder = write_looked_at(tmp_path / "run")
    folder.write_rounds([RoundRecord(round=0, epsilon=dict.fromkeys(CLINICS, float("inf")))])
    view = view_of(folder)
    assert "+Inf" in prometheus(view)
    assert "∞ of 6" in live_page(view)
    assert json.loads(json.dumps(finite(view.to_json()), allow_nan=False))["epsilon"] is None


def test_a_page_runs_its_own_script_and_style_alone(view):
    page, policy = live_page(view), content_policy()
    assert policy.startswith("default-src 'none'; ")
    assert "unsafe" not in policy
    for tag in ("script", "style"):
        [text] = re.findall(f"<{tag}>(.*?)</{tag}>", page, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"; {tag}-src 'sha256-{digest}';" in policy
    assert "style" not in Elements(page).attributes
    assert not re.findall(r"(?:src|href)=", page)


def test_a_curve_stays_within_its_picture():
    found = curve([(0, 0.2), (1, 0.5), (4, 0.4)], 8, "accuracy")
    points = [tuple(map(float, pair.split(","))) for pair in found.points.split()]
    assert [x for x, _ in points] == [0, 12.5, 50]
    assert all(0 <= y <= 100 for _, y in points)
    assert points[1][1] < points[2][1] < points[0][1], "more is higher"
    assert curve([(0, 0.2)], 8, "accuracy") is None
    assert curve([(0, 1.0), (1, 1.0)], 8, "accuracy").points.endswith("50.00")
