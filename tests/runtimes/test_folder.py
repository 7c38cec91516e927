"""The courier of files: what it carries, and what it leaves alone. No model; sites echo."""

import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from runtimes.parties import COORDINATOR, FEDERATION, key, member
from silotune.core import RecordError
from silotune.keys import Member, public_of
from silotune.runtimes import FolderCourier, answer_folder
from silotune.runtimes import folder as folder_module
from silotune.runtimes import signed_files as signed_files_module
from silotune.runtimes.folder import ANSWER, ORDER, about
from silotune.runtimes.signed_files import Reader, digest_of, write_signed

SITES = ("east", "west", "Straße 9")


class Folder:
    """A folder, its courier, and what both ends noted."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.notes: list[str] = []
        self.asked: list[tuple[str, bytes]] = []

    def courier(self) -> FolderCourier:
        public = {name: public_of(key(name)) for name in SITES}
        return FolderCourier(self.root, FEDERATION, COORDINATOR, public, self.notes.append)

    def answer(
        self, who: Member | str = "east", say: Callable[[bytes], bytes] | None = None
    ) -> int:
        me = who if isinstance(who, Member) else member(who)

        def told(order: bytes) -> bytes:
            self.asked.append((me.site, order))
            return say(order) if say else b"R" + order

        return answer_folder(self.root, me, told, note=self.notes.append)

    @contextmanager
    def sites(self, *names: str) -> Iterator[None]:
        """Sites that look after their orders all the time."""
        over = threading.Event()

        def look(name: str) -> None:
            while not over.wait(0.005):
                self.answer(name)

        threads = [threading.Thread(target=look, args=(name,)) for name in names or SITES]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            over.set()
            for thread in threads:
                thread.join()

    def order(self, content: bytes, site="east") -> Path:
        return self.root / "outbox" / site / f"{digest_of(content)}{ORDER}"

    def answered(self, content: bytes, site="east") -> Path:
        return self.root / "inbox" / site / f"{digest_of(content)}{ANSWER}"


@pytest.fixture
def folder(tmp_path) -> Folder:
    return Folder(tmp_path / "stick")


def put(folder: Folder, content=b"Task", number=0) -> None:
    """An order to the east that lies there, as a courier that was killed leaves it."""
    place = folder.order(content)
    place.parent.mkdir(parents=True, exist_ok=True)
    write_signed(place, COORDINATOR, about(ORDER, FEDERATION, "east", place.stem), number, content)


def test_everybody_answers_once_and_nothing_is_left_but_answers(folder):
    orders = {name: f"T for {name}".encode() for name in SITES}
    with folder.courier() as courier, folder.sites():
        answers = list(courier.exchange(orders, 60.0))
    assert dict(answers) == {name: b"R" + order for name, order in orders.items()}
    assert len(answers) == len(SITES)
    assert sorted(folder.asked) == sorted(orders.items())
    assert not list(folder.root.rglob("*.order"))
    assert folder.notes == []


def test_an_empty_order_and_a_large_one(folder):
    large = os.urandom(20_000_000)
    with folder.courier() as courier, folder.sites():
        assert list(courier.exchange({"east": b""}, 60.0)) == [("east", b"R")]
        assert list(courier.exchange({"east": large}, 60.0)) == [("east", b"R" + large)]


def test_who_does_not_answer_is_given_up_at_the_deadline(folder):
    with folder.courier() as courier, folder.sites("east"):
        begun = time.monotonic()
        answers = list(courier.exchange({"east": b"1", "west": b"2"}, 0.5))
    assert answers == [("east", b"R1")]
    assert 0.5 <= time.monotonic() - begun < 5.0
    assert not folder.order(b"2", "west").exists(), "nobody needs to do what nobody waits for"


def test_a_deadline_that_is_over_still_takes_what_is_there(folder):
    with folder.courier() as courier:
        assert list(courier.exchange({"east": b"1"}, 0.0)) == []
        put(folder, b"1")
        folder.answer()
        assert list(courier.exchange({"east": b"1"}, 0.0)) == [("east", b"R1")]


def test_closing_the_iterator_gives_up_what_is_out(folder):
    with folder.courier() as courier, folder.sites("east"):
        answers = courier.exchange({"east": b"1", "west": b"2"}, 60.0)
        assert next(answers) == ("east", b"R1")
        assert folder.order(b"2", "west").exists()
        answers.close()
        assert not folder.order(b"2", "west").exists()


def test_orders_are_made_one_at_a_time(folder):
    made = []

    class Orders(dict):
        def __getitem__(self, client):
            assert all(folder.order(b"T" + c.encode(), c).exists() for c in made)
            made.append(client)
            return b"T" + client.encode()

    with folder.courier() as courier, folder.sites():
        assert len(list(courier.exchange(Orders.fromkeys(SITES), 60.0))) == len(made) == 3


def test_an_answer_that_was_carried_twice_costs_nothing(folder):
    """The coordinator was killed and asks again; the site answered meanwhile."""
    put(folder)
    assert folder.answer() == 1
    assert folder.answer() == 0, "the same order"
    with folder.courier() as courier:
        assert list(courier.exchange({"east": b"Task"}, 0.0)) == [("east", b"RTask")]
    assert folder.asked == [("east", b"Task")]


def test_who_asks_again_hears_what_the_site_says_now(folder):
    """Such as an offer that nobody had approved yet."""
    words = iter([b"N not yet", b"A yes"])
    with folder.courier() as courier:
        for expected in (b"N not yet", b"A yes"):
            answers = courier.exchange({"east": b"Offer"}, 60.0)
            thread = threading.Thread(target=wait_and_answer, args=(folder, words))
            thread.start()
            assert list(answers) == [("east", expected)]
            thread.join()


def wait_and_answer(folder, words):
    while not folder.answer(say=lambda order: next(words)):
        time.sleep(0.005)


def test_a_courier_that_was_killed_leaves_no_orders_to_the_next(folder):
    put(folder, b"of a round that is over")
    stranger = folder.root / "outbox" / "east" / f"{'0' * 64}.order"
    stranger.write_bytes(b"not ours")
    with folder.courier():
        assert not folder.order(b"of a round that is over").exists()
    assert stranger.read_bytes() == b"not ours"


def test_an_answer_goes_when_its_order_is_gone_and_another_came(folder):
    put(folder, b"1")
    folder.answer()
    foreign = folder.root / "inbox" / "east" / f"{'0' * 64}.answer"
    foreign.write_bytes(b"not ours")
    folder.order(b"1").unlink()
    folder.answer()
    assert folder.answered(b"1").exists(), "it may not have been carried back yet"
    put(folder, b"2")
    folder.answer()
    assert not folder.answered(b"1").exists()
    assert folder.answered(b"2").exists()
    assert foreign.read_bytes() == b"not ours"


def test_only_one_courier_and_one_answering_site_have_the_folder(folder):
    with folder.courier(), pytest.raises(RecordError, match="outbox: another process writes here"):
        folder.courier().__enter__()
    put(folder)
    with pytest.raises(RecordError, match="east: another process writes here"):
        folder.answer(say=lambda order: folder.answer() and b"")


def test_an_order_for_a_stranger_is_refused_before_anything_is_written(folder):
    with folder.courier() as courier, pytest.raises(ValueError, match="north are not of this"):
        list(courier.exchange({"east": b"1", "north": b"2"}, 1.0))
    assert not list(folder.root.rglob("*.order"))


@pytest.mark.parametrize("name", ["", "..", "a/b", "nul\0", " east", "x" * 101])
def test_a_name_that_is_no_folders(folder, name):
    with pytest.raises(ValueError, match="a name must be one that a folder can have"):
        FolderCourier(folder.root, FEDERATION, COORDINATOR, {name: public_of(key("east"))})
    with pytest.raises(ValueError, match="a name must be one that a folder can have"):
        answer_folder(folder.root, replace(member("east"), site=name), bytes)
    assert not folder.root.exists()


def test_watching_goes_on_until_it_is_ended(folder, monkeypatch):
    class Ended(BaseException):
        pass

    pauses = []

    def sleep(seconds):
        pauses.append(seconds)
        if len(pauses) == 3:
            put(folder, b"1")
        if len(pauses) == 30:
            raise Ended

    monkeypatch.setattr(folder_module.time, "sleep", sleep)
    with pytest.raises(Ended):
        answer_folder(folder.root, member("east"), lambda order: b"R" + order, watch=True)
    assert folder.answered(b"1").exists()
    assert pauses[0] < pauses[1] < pauses[2], "the longer nothing comes, the rarer it looks"
    assert pauses[3] == pauses[0], "and at once again when something did"
    assert max(pauses) == 2.0


# --- Files that lie


def lie(folder: Folder, place: Path, **changes) -> None:
    """An answer to ``Task`` that was signed as somebody else would."""
    said = {"key": key("east"), "suffix": ANSWER, "federation": FEDERATION, "site": "east"}
    said |= {"order": digest_of(b"Task"), "number": 0, "content": b"R lie"} | changes
    place.parent.mkdir(parents=True, exist_ok=True)
    what = about(said["suffix"], said["federation"], said["site"], said["order"])
    write_signed(place, said["key"], what, said["number"], said["content"])


LIES = {
    "another site's key": {"key": key("west")},
    "another site's answer": {"key": key("west"), "site": "west"},
    "the coordinator's own": {"key": COORDINATOR},
    "an order": {"suffix": ORDER},
    "of another federation": {"federation": "0" * 32},
    "to another order": {"order": digest_of(b"Another task")},
}


@pytest.mark.parametrize("changes", LIES.values(), ids=LIES)
def test_an_answer_that_is_not_the_sites_to_this_order_is_as_good_as_absent(folder, changes):
    place = folder.answered(b"Task")
    lie(folder, place, **changes)
    before = place.read_bytes()
    with folder.courier() as courier:
        assert list(courier.exchange({"east": b"Task"}, 0.1)) == []
        assert folder.notes == [f"{place}: is not signed by whom it should be from; left alone"]
        assert place.read_bytes() == before
        lie(folder, place)  # what is signed as it should be, comes through
        assert list(courier.exchange({"east": b"Task"}, 0.0)) == [("east", b"R lie")]


@pytest.mark.parametrize("changes", LIES.values(), ids=LIES)
def test_a_site_answers_over_an_answer_that_is_not_its_own(folder, changes):
    lie(folder, folder.answered(b"Task"), **changes)
    put(folder)
    assert folder.answer() == 1
    with folder.courier() as courier:
        assert list(courier.exchange({"east": b"Task"}, 0.0)) == [("east", b"RTask")]


ORDER_LIES = {
    "by the site itself": {"key": key("east")},
    "for another site": {"site": "west"},
    "of another federation": {"federation": "0" * 32},
    "an answer": {"suffix": ANSWER},
    "under another name": {"order": digest_of(b"Another task")},
}


@pytest.mark.parametrize("changes", ORDER_LIES.values(), ids=ORDER_LIES)
def test_an_order_that_is_not_the_coordinators_to_this_site_is_not_worked_on(folder, changes):
    place = folder.order(b"Task")
    lie(folder, place, **{"key": COORDINATOR, "suffix": ORDER, "content": b"Task"} | changes)
    assert folder.answer() == 0
    assert folder.asked == []
    assert folder.notes == [f"{place}: is not signed by whom it should be from; left alone"]
    lie(folder, place, key=COORDINATOR, suffix=ORDER, content=b"Task")
    assert folder.answer() == 1


def test_an_older_answer_to_the_same_order_is_not_taken_for_a_new_one(folder):
    with folder.courier() as courier:
        assert list(courier.exchange({"east": b"Offer"}, 0.0)) == []
        put(folder, b"Offer")
        folder.answer(say=lambda order: b"N not yet")
        old = folder.answered(b"Offer").read_bytes()
        assert list(courier.exchange({"east": b"Offer"}, 0.0)) == [("east", b"N not yet")]
        assert list(courier.exchange({"east": b"Offer"}, 0.1)) == []
        put(folder, b"Offer", number=1)
        folder.answer(say=lambda order: b"A yes")
        new = folder.answered(b"Offer").read_bytes()
        folder.answered(b"Offer").write_bytes(old[:8] + new[8:])
        assert list(courier.exchange({"east": b"Offer"}, 0.1)) == [], "numbers are signed too"
        folder.answered(b"Offer").write_bytes(new)
        assert list(courier.exchange({"east": b"Offer"}, 0.0)) == [("east", b"A yes")]


def test_a_refusal_that_a_courier_before_was_told_is_asked_for_again(folder):
    """The site's owner may have mended what stood in the way."""
    put(folder, b"Offer", number=2)
    folder.answer(say=lambda order: b"N policy")
    with folder.courier() as courier:
        assert list(courier.exchange({"east": b"Offer"}, 0.1)) == []
        put(folder, b"Offer", number=3)
        folder.answer(say=lambda order: b"N not yet")
        late = list(courier.exchange({"east": b"Offer"}, 0.0))
        assert late == [("east", b"N not yet")], "what came after this courier asked counts"
    with folder.courier() as courier, folder.sites("east"):
        assert list(courier.exchange({"east": b"Offer"}, 60.0)) == [("east", b"ROffer")]


def test_a_result_that_lies_there_is_not_worked_for_twice(folder):
    put(folder)
    folder.answer()
    with folder.courier() as courier, folder.sites("east"):
        assert list(courier.exchange({"east": b"Task"}, 60.0)) == [("east", b"RTask")]
    assert folder.asked == [("east", b"Task")]


DAMAGE = {
    "cut short": lambda data: data[:-1],
    "cut in the signature": lambda data: data[:50],
    "empty": lambda data: b"",
    "one bit": lambda data: data[:-1] + bytes([data[-1] ^ 1]),
    "longer": lambda data: data + b"0",
    "zeros instead": lambda data: bytes(len(data)),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_torn_files_are_absent_until_they_are_whole(folder, damage):
    put(folder)
    order = folder.order(b"Task").read_bytes()
    folder.order(b"Task").write_bytes(damage(order))
    assert folder.answer() == 0
    folder.order(b"Task").write_bytes(order)
    assert folder.answer() == 1
    answer = folder.answered(b"Task").read_bytes()
    folder.answered(b"Task").write_bytes(damage(answer))
    with folder.courier() as courier:
        assert list(courier.exchange({"east": b"Task"}, 0.0)) == []
        folder.answered(b"Task").write_bytes(answer)
        assert list(courier.exchange({"east": b"Task"}, 0.0)) == [("east", b"RTask")]


def test_two_signatures_that_were_swapped(folder):
    put(folder, b"1")
    put(folder, b"2")
    assert folder.answer() == 2
    one, two = (folder.answered(c).read_bytes() for c in (b"1", b"2"))
    folder.answered(b"1").write_bytes(two[:72] + one[72:])
    folder.answered(b"2").write_bytes(one)
    with folder.courier() as courier:
        assert list(courier.exchange({"east": b"1"}, 0.0)) == []
        assert list(courier.exchange({"east": b"2"}, 0.0)) == []


@pytest.mark.parametrize("kind", ["link", "dangling", "pipe", "folder"])
def test_what_is_no_file_is_not_opened_and_nobody_waits_for_it(folder, tmp_path, kind):
    put(folder)
    folder.answer()
    place, real = folder.answered(b"Task"), tmp_path / "real"
    shutil.move(place, real)
    make = {
        "link": lambda: place.symlink_to(real),
        "dangling": lambda: place.symlink_to(tmp_path / "nothing"),
        "pipe": lambda: os.mkfifo(place),
        "folder": place.mkdir,
    }
    make[kind]()
    with folder.courier() as courier:
        assert list(courier.exchange({"east": b"Task"}, 0.1)) == []
    assert len(folder.notes) == 1
    assert folder.notes[0].startswith(f"{place}: ")


@pytest.mark.parametrize("box", ["outbox", "inbox"])
def test_nothing_is_written_through_a_link(folder, tmp_path, box):
    precious = tmp_path / "precious"
    precious.write_bytes(b"mine")
    for name in (".draft", f"{digest_of(b'Task')}{ORDER if box == 'outbox' else ANSWER}"):
        place = folder.root / box / "east" / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.symlink_to(precious)
    with folder.courier() as courier, folder.sites("east"):
        assert list(courier.exchange({"east": b"Task"}, 60.0)) == [("east", b"RTask")]
    assert precious.read_bytes() == b"mine"


def test_a_huge_file_is_judged_without_holding_it(folder, tmp_path):
    """Sparse, so that it takes no room on the disk; four times what a process may take for it."""
    import resource

    place = folder.answered(b"Task")
    place.parent.mkdir(parents=True)
    with place.open("wb") as file:
        file.truncate(400_000_000)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with folder.courier() as courier:
        begun = time.process_time()
        assert list(courier.exchange({"east": b"Task"}, 0.0)) == []
        first, begun = time.process_time() - begun, time.process_time()
        assert list(courier.exchange({"east": b"Task"}, 0.0)) == []
        assert time.process_time() - begun < max(0.2, first / 2), "it is not read twice"
    kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert kib < 100_000


def test_a_file_that_cannot_be_read_now_is_looked_at_again(tmp_path, monkeypatch):
    notes, what = [], about(ANSWER, FEDERATION, "east", "0" * 64)
    write_signed(tmp_path / "a", key("east"), what, 0, b"R")
    reader, really_open = Reader(notes.append), os.open

    def stale(path, *rest):
        if path == tmp_path / "a":
            raise OSError(116, "Stale file handle")
        return really_open(path, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", stale)
        for _ in range(2):
            assert reader.read(tmp_path / "a", public_of(key("east")), what) is None
    assert notes == [f"{tmp_path / 'a'}: Stale file handle; left alone"]
    assert reader.read(tmp_path / "a", public_of(key("east")), what).content == b"R"


def test_an_order_that_cannot_be_read_now_is_answered_later(folder, monkeypatch):
    """By a site that watches: it remembers what it has done."""
    put(folder)
    really_read, sleeps = signed_files_module._read, []

    def stale(*_):
        raise OSError(116, "Stale file handle")

    def sleep(seconds):
        sleeps.append(seconds)
        monkeypatch.setattr(signed_files_module, "_read", really_read)
        if len(sleeps) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(signed_files_module, "_read", stale)
    monkeypatch.setattr(folder_module.time, "sleep", sleep)
    with pytest.raises(KeyboardInterrupt):
        answer_folder(folder.root, member("east"), bytes, watch=True, note=folder.notes.append)
    assert folder.answered(b"Task").exists()


def test_a_courier_that_cannot_begin_holds_nobody_up(folder, monkeypatch):
    courier = folder.courier()
    with monkeypatch.context() as patch:
        patch.setattr(FolderCourier, "_clear", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            courier.__enter__()
    with folder.courier():
        pass


def test_a_full_disk_is_said_in_words_and_leaves_no_order(folder, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    with folder.courier() as courier:
        monkeypatch.setattr(os, "fsync", full)
        with pytest.raises(RecordError, match="No space left on device"):
            list(courier.exchange({"east": b"1"}, 1.0))
    assert not list(folder.root.rglob("*.order"))
