"""What the courier of files notices of a site before it answers: a word that it has signed."""

import threading

import pytest

from runtimes.parties import COORDINATOR, FEDERATION, key, member
from silotune.keys import public_of
from silotune.runtimes import FolderCourier, answer_folder
from silotune.runtimes.courier import Noticing, Sign
from silotune.runtimes.folder import WORKING, about
from silotune.runtimes.nvflare import NvflareCourier
from silotune.runtimes.signed_files import digest_of, write_signed

ORDER = b"Task"


@pytest.fixture
def courier(tmp_path):
    with FolderCourier(
        tmp_path, FEDERATION, COORDINATOR, {"east": public_of(key("east"))}, lambda _: None
    ) as one:
        yield one


def word_of(root):
    return root / "inbox" / "east" / f"{digest_of(ORDER)}{WORKING}"


def say(root, who, number=0, about_site="east"):
    """As a site does that begins to work, and is never done."""
    place = word_of(root)
    place.parent.mkdir(parents=True, exist_ok=True)
    write_signed(place, key(who), about(WORKING, FEDERATION, about_site, place.stem), number, b"")


def noticed(courier, deadline=0.0):
    signs = []
    courier.tell(lambda site, sign: signs.append((site, sign)))
    answers = list(courier.exchange({"east": ORDER}, deadline))
    return signs, answers


def test_a_site_says_once_that_it_works_and_then_answers(courier, tmp_path):
    begun = threading.Event()
    signs = []

    def notice(site, sign):
        signs.append((site, sign))
        begun.set()

    def work(order):
        assert begun.wait(20), "its word is seen while it works"
        return b"R" + order

    def site():
        while not answer_folder(tmp_path, member("east"), work):
            pass

    courier.tell(notice)
    thread = threading.Thread(target=site)
    thread.start()
    assert list(courier.exchange({"east": ORDER}, 20)) == [("east", b"R" + ORDER)]
    thread.join()
    assert signs == [("east", Sign.WORKING)]
    assert not word_of(tmp_path).exists()


def test_a_word_that_its_site_has_not_signed_is_none(courier, tmp_path):
    say(tmp_path, "west")
    assert noticed(courier) == ([], [])
    say(tmp_path, "east", about_site="west")
    assert noticed(courier) == ([], [])
    say(tmp_path, "east")
    assert noticed(courier) == ([("east", Sign.WORKING)], [])


def test_a_word_of_before_the_last_answer_is_none(courier, tmp_path):
    def site():
        while not answer_folder(tmp_path, member("east"), lambda order: b"R"):
            pass

    thread = threading.Thread(target=site)
    thread.start()
    assert list(courier.exchange({"east": ORDER}, 20)) == [("east", b"R")]
    thread.join()
    say(tmp_path, "east", number=0)
    assert noticed(courier)[0] == []
    say(tmp_path, "east", number=1)
    assert noticed(courier)[0] == [("east", Sign.WORKING)]


def test_the_word_of_a_site_that_was_killed_goes_with_its_order(courier, tmp_path):
    say(tmp_path, "east")
    answers = courier.exchange({"east": b"another"}, 20)
    thread = threading.Thread(target=lambda: next(answers))
    thread.start()
    while not answer_folder(tmp_path, member("east"), lambda order: b"R"):
        pass
    thread.join()
    assert not word_of(tmp_path).exists()


def test_couriers_between_machines_notice_more_than_answers():
    assert all(issubclass(kind, Noticing) for kind in (FolderCourier, NvflareCourier))
