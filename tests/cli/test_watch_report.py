"""``report --watch``: a grid's page over the loopback, drawn anew when something has ended."""

import pytest

from cli.test_watch import answering, asked
from comparison.grids import Runner, grid
from silotune import compare
from silotune.cli import watch_report
from silotune.cli.watch_report import served
from silotune.comparison import Compared

PAGE = "<!doctype html><p>{} runs</p>"


@pytest.fixture(autouse=True)
def drawn(monkeypatch, tmp_path):
    """How often a page was drawn; without pictures, which take a second."""
    times = []

    def html(found):
        times.append(1)
        return PAGE.format(sum(not run.failed for run in found.runs))

    monkeypatch.setattr(Compared, "html", html)
    monkeypatch.chdir(tmp_path)
    return times


def fill(folder, stops_after=None):
    try:
        compare(grid(), folder, runner=Runner(stops_after=stops_after))
    except KeyboardInterrupt:
        return


def page_of(*paths):
    return answering(served(paths, 0))


def test_it_goes_on_as_the_grid_does_and_is_drawn_when_something_ended(tmp_path, drawn):
    fill(tmp_path / "grid", stops_after=5)
    drawn.clear()
    with page_of(tmp_path / "grid") as port:
        status, headers, text = asked(port)
        assert (status, headers["Refresh"]) == (200, "10")
        assert text == PAGE.format(5)
        assert "script-src" not in headers["Content-Security-Policy"]
        assert asked(port)[2] == text
        assert len(drawn) == 1
        fill(tmp_path / "grid")
        drawn.clear()
        assert asked(port)[2] == PAGE.format(12)
        assert len(drawn) == 1


def test_nobody_else_may_look_and_there_is_nothing_else(tmp_path):
    fill(tmp_path / "grid", stops_after=1)
    with page_of(tmp_path / "grid") as port:
        assert asked(port, host=["evil.example"])[0] == 403
        assert asked(port, "/grid.json")[0] == 404
        assert asked(port, method="POST")[0] == 501


def test_what_cannot_be_read_is_said_and_mended(tmp_path):
    fill(tmp_path / "grid", stops_after=2)
    record = tmp_path / "grid" / "grid.json"
    whole = record.read_text()
    with page_of(tmp_path / "grid") as port:
        record.write_text(whole[:100])
        status, _, text = asked(port)
        assert status == 503
        assert "grid.json" in text
        record.write_text(whole)
        assert asked(port)[0] == 200


def test_runs_beside_each_other_have_one_too(tmp_path):
    fill(tmp_path / "grid", stops_after=2)
    runs = sorted(run.parent for run in (tmp_path / "grid").glob("cells/**/run.json"))
    with page_of(*runs) as port:
        assert asked(port)[2] == PAGE.format(2)


def test_the_command_says_where_and_refuses_what_it_cannot_do(silotune, tmp_path, monkeypatch):
    assert silotune("report", tmp_path, "--watch").exit_code == 1
    both = silotune("report", tmp_path, "--watch", "--output", tmp_path / "x.html")
    assert "--watch writes nothing" in both.output
    fill(tmp_path / "grid", stops_after=1)

    class Server:
        server_port = 1234
        served = 0

        def __enter__(self):
            return self

        def __exit__(self, *_):
            return None

        def serve_forever(self):
            Server.served += 1

    monkeypatch.setattr(watch_report, "serving", lambda *_: Server())
    done = silotune("report", tmp_path / "grid", "--watch")
    assert done.exit_code == 0
    assert "http://127.0.0.1:1234/" in done.output
    assert Server.served == 1
