"""What is written down beside a courier: what was asked and said, and no more than that."""

import json
import threading

import pytest

import silotune as st
from federation.objects import classifier
from silotune.federation.federation import Federation
from silotune.federation.observed import SECRET, STAGES, Observed
from silotune.federation.sites import Sites
from silotune.runs.folder import RunFolder
from silotune.runs.live import Doing, Stage, read_live
from silotune.runtimes import messages
from silotune.runtimes.courier import Sign
from silotune.runtimes.messages import (
    ACCEPTED,
    BEGIN,
    FINISH,
    OFFER,
    RESULT,
    SCORE,
    TRAIN,
    WHOLE,
    message,
    refusal,
)

SITES = ("east", "west")


class Scripted:
    """A courier whose sites say what a test tells them to; what is None is not answered."""

    def __init__(self) -> None:
        self.says: dict[str, bytes | None] = {}
        self.notice = None
        self.signs: list[tuple[str, Sign]] = []

    def tell(self, notice):
        self.notice = notice

    def exchange(self, orders, deadline):
        taken = {}
        threads = [
            threading.Thread(target=lambda n=n: taken.update({n: orders[n]})) for n in orders
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for site, sign in self.signs:
            self.notice(site, sign)
        for name in orders:
            if self.says.get(name) is not None:
                yield name, self.says[name]


class Seen:
    """An observed run without any model."""

    def __init__(self, folder, privacy) -> None:
        self.folder, self.courier = RunFolder(folder), Scripted()
        federation = Federation(
            model="none",
            clients=Sites(SITES),
            objective=classifier(),
            optimizer=st.optim.SGD(lr=0.5),
            privacy=privacy,
            evaluation="site",
            rounds=3,
            coordinator="lead",
        )
        self.observed = Observed(self.courier, self.folder, federation, "r1", "2026-03-02T09:15:04")

    def ask(self, kind: bytes, signs=(), **says: bytes | None):
        """What is written down after one exchange."""
        self.courier.says, self.courier.signs = says, list(signs)
        orders = {name: message(kind) for name in SITES}
        assert dict(self.observed.exchange(orders, 1.0)) == {k: v for k, v in says.items() if v}
        return self.live

    @property
    def live(self):
        return read_live(self.folder.live)

    @property
    def does(self) -> dict[str, str]:
        return {name: site.doing.value for name, site in self.live.sites.items()}


@pytest.fixture
def seen(tmp_path):
    return Seen(tmp_path, st.ExampleDP(target_epsilon=6.0))


YES, DONE = message(ACCEPTED), message(RESULT)


def test_nothing_is_written_before_anything_is_asked(seen):
    assert not seen.folder.live.exists()


def test_what_sites_say_is_what_is_written(seen):
    seen.ask(OFFER, east=YES, west=refusal("approval"))
    assert seen.does == {"east": "idle", "west": "waiting"}
    seen.ask(OFFER, east=None, west=None)
    assert seen.does["west"] == "waiting", "until it says something else"
    seen.ask(OFFER, west=YES)
    seen.ask(BEGIN, east=YES, west=YES)
    live = seen.ask(TRAIN, east=DONE)
    assert live.stage == Stage.TRAIN
    assert seen.does == {"east": "idle", "west": "asked"}
    assert live.sites["west"].order == "train"
    seen.ask(TRAIN, east=message(WHOLE), west=refusal("budget"))
    assert seen.does == {"east": "asked", "west": "refused"}
    assert seen.live.sites["west"].reason == "its budget is spent"
    seen.ask(FINISH, east=YES, west=YES)
    assert seen.does == {"east": "idle", "west": "idle"}
    assert seen.live.sites["west"].reason == ""


def test_working_is_what_a_site_says_itself(seen):
    seen.ask(TRAIN, [("east", Sign.WORKING)])
    assert seen.does == {"east": "working", "west": "asked"}
    since = seen.live.sites["east"].since
    seen.ask(TRAIN, [])
    assert seen.does["east"] == "working", "nothing else was heard"
    assert seen.live.sites["east"].since == since
    assert seen.live.sites["west"].heard == "", "nothing was heard of it"
    seen.ask(TRAIN, [("west", Sign.GONE), ("east", Sign.HERE), ("mallory", Sign.WORKING)])
    assert (seen.live.sites["east"].connected, seen.live.sites["west"].connected) == (True, False)
    assert set(seen.live.sites) == set(SITES)
    seen.ask(TRAIN, [], east=DONE)
    seen.ask(SCORE, [])
    assert seen.does["east"] == "asked"


def test_a_word_that_is_torn_or_of_nobody_says_nothing(seen):
    seen.ask(TRAIN, east=b"?", west=b"N\x00")
    assert seen.does == {"east": "asked", "west": "refused"}
    assert seen.live.sites["west"].reason == "it refused"


def test_a_text_of_a_site_is_not_repeated(seen):
    for code in ("<script>alert(1)</script>", "data:\x1b[2J", "policy:" + "x" * 70, {"a": 1}):
        seen.ask(TRAIN, east=message(messages.REFUSED, {"code": code}))
    text = seen.folder.live.read_text()
    assert "script" not in text
    assert "\\u001b" not in text
    assert "xxx" not in text


def test_a_server_that_hides_its_clients_writes_down_no_round(tmp_path):
    seen = Seen(tmp_path, st.ClientDP(noise_multiplier=4.0, target_delta=1e-5))
    assert seen.courier.notice is None, "what a transport notices tells who is asked"
    seen.ask(OFFER, east=YES, west=YES)
    seen.ask(BEGIN, east=YES, west=YES)
    assert seen.does == {"east": "hidden", "west": "hidden"}
    before = seen.folder.live.read_bytes(), seen.folder.live.stat().st_mtime_ns
    for kind in sorted(SECRET):
        seen.ask(kind, east=DONE, west=refusal("budget"))
        assert (seen.folder.live.read_bytes(), seen.folder.live.stat().st_mtime_ns) == before
    seen.ask(FINISH, east=YES)
    assert seen.does == {"east": "idle", "west": "asked"}


def test_every_kind_of_order_has_a_stage():
    kinds = {OFFER, BEGIN, TRAIN, SCORE, messages.ACCOUNT, FINISH}
    assert set(STAGES) == kinds
    assert set(STAGES.values()) == set(Stage)


def test_a_folder_that_cannot_be_written_does_not_stop_a_run(seen):
    seen.folder.live.mkdir()
    seen.courier.says = {"east": DONE}
    assert list(seen.observed.exchange({"east": message(TRAIN)}, 1.0)) == [("east", DONE)]


def test_what_was_written_is_read_again(seen):
    live = seen.ask(TRAIN, [("east", Sign.WORKING)])
    assert live.sites["east"].doing is Doing.WORKING
    assert (live.budget, live.delta, live.unit, live.rounds) == (6.0, 1e-5, "example", 3)
    data = json.loads(seen.folder.live.read_text())
    data["sites"]["east"]["doing"] = "dancing"
    seen.folder.live.write_text(json.dumps(data))
    with pytest.raises(ValueError, match="damaged"):
        read_live(seen.folder.live)
