"""What a book for life must not lose, through kills, torn files, lost keys and other processes."""

import json
import os
import stat
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from silotune.privacy.accounting.charges import Charge
from silotune.privacy.lifetime import book as book_module
from silotune.privacy.lifetime.book import Book, BookError, Payment
from silotune.privacy.lifetime.record_set import RecordSet, keyed

CHARGE = Charge(0.25, 2.0, 10)


def records(*names: object, key: bytes = b"k") -> RecordSet:
    digests = keyed([str(name).encode() for name in names or (1, 2)], key)
    return RecordSet(where="/data/north.csv", whose="north", digests=digests)


def payment(of: RecordSet, round: int = 0, run: str = "r1", **changes) -> Payment:
    given = {
        "records": of.id,
        "run": run,
        "silo": "north",
        "round": round,
        "attempt": 0,
        "release": "update",
        "charge": CHARGE,
        "relation": "add-remove",
        "delta": 1e-5,
        "seeded": False,
        "time": "2026-01-02T03:04:05+00:00",
    }
    return Payment(**{**given, **changes})


def pay(book: Book, *rounds: int, run: str = "r1") -> None:
    of = records()
    for round in rounds:
        with book.locked():
            book.append(payment(of, round, run), of)


@pytest.fixture
def folder(tmp_path) -> Path:
    return tmp_path / "home" / "lifetime"


def refused(folder: Path) -> str:
    with pytest.raises(BookError) as error:
        Book(folder)
    assert str(error.value).startswith(f"lifetime: {folder}")
    return str(error.value)


# what is kept


def test_payments_and_sets_are_there_after_reopening(folder):
    book = Book(folder)
    pay(book, 0, 1)
    again = Book(folder)
    assert again.key == book.key
    assert again.payments == book.payments == [payment(records(), r) for r in (0, 1)]
    assert {name: each.id for name, each in again.sets().items()} == {records().id: records().id}


def test_all_of_it_is_for_its_owner_alone(folder):
    pay(Book(folder), 0)
    places = [folder, folder / "sets", *(f for f in folder.rglob("*") if f.is_file())]
    assert {stat.S_IMODE(p.stat().st_mode) for p in places if p.is_dir()} == {0o700}
    assert {stat.S_IMODE(p.stat().st_mode) for p in places if p.is_file()} == {0o600}


def test_nothing_that_a_record_says_is_in_it(folder):
    book = Book(folder)
    of = records("a very private note", key=book.key)
    with book.locked():
        book.append(payment(of), of)
    written = b"".join(f.read_bytes() for f in folder.rglob("*") if f.is_file())
    assert b"private note" not in written


def test_who_has_it_open_sees_what_others_write(folder):
    mine, other = Book(folder), Book(folder)
    pay(other, 0)
    pay(mine, 1)
    pay(other, 2)
    with mine.locked():
        assert [p.round for p in mine.payments] == [0, 1, 2]


def test_processes_that_write_at_once_lose_nothing(folder):
    program = textwrap.dedent(
        """
        import sys
        from pathlib import Path
        sys.path.insert(0, sys.argv[1])
        from privacy.lifetime.test_book import pay
        from silotune.privacy.lifetime.book import Book
        for round in range(20):
            pay(Book(Path(sys.argv[2])), round, run=sys.argv[3])
        """
    )
    tests = str(Path(__file__).parents[2])
    running = [
        subprocess.Popen([sys.executable, "-c", program, tests, str(folder), run])
        for run in ("a", "b")
    ]
    assert [process.wait() for process in running] == [0, 0]
    found = sorted((p.run, p.round) for p in Book(folder).payments)
    assert found == [(run, round) for run in "ab" for round in range(20)]


# what is lost


def cut_short(folder: Path) -> None:
    """A second payment, up to where its line is written and the head is not."""
    pay(Book(folder), 0)
    head = (folder / "head").read_bytes()
    pay(Book(folder), 1)
    (folder / "head").write_bytes(head)


def test_a_torn_last_line_that_says_nothing_is_dropped(folder):
    cut_short(folder)
    lines = folder / "book.jsonl"
    lines.write_bytes(lines.read_bytes()[:-9])
    book = Book(folder)
    assert [p.round for p in book.payments] == [0]
    pay(book, 1)
    assert [p.round for p in Book(folder).payments] == [0, 1]


def test_a_last_line_that_lacks_its_newline_alone_counts(folder):
    cut_short(folder)
    lines = folder / "book.jsonl"
    lines.write_bytes(lines.read_bytes()[:-1])
    assert [p.round for p in Book(folder).payments] == [0, 1]
    assert lines.read_bytes().endswith(b"}\n")


def test_a_line_that_the_head_lacks_counts_and_goes_into_it(folder):
    cut_short(folder)
    assert [p.round for p in Book(folder).payments] == [0, 1]
    assert json.loads((folder / "head").read_text())["lines"] == 2
    pay(Book(folder), 2)
    assert len(Book(folder).payments) == 3


@pytest.mark.parametrize("kept", [0, 1, 1.5])
def test_a_book_that_lost_lines_at_its_end_is_refused(folder, kept):
    """All its other files are there; half a line is no crash where the head has seen it."""
    pay(Book(folder), 0, 1)
    lines = folder / "book.jsonl"
    whole = lines.read_bytes()
    lines.write_bytes(whole[: round(kept * len(whole) / 2)])
    assert f"book.jsonl has {int(kept)} lines, and had 2" in refused(folder)


def test_a_book_whose_lines_are_gone_is_not_taken_for_a_new_one(folder):
    pay(Book(folder), 0, 1)
    (folder / "book.jsonl").unlink()
    assert "is gone" in refused(folder)
    (folder / "head").unlink()
    assert "is gone" in refused(folder)
    (folder / "key").unlink()
    assert "is gone" in refused(folder)
    (folder / "sets" / records().id).unlink()
    assert Book(folder).payments == [], "nothing of it is left"


@pytest.mark.parametrize(
    "content", [None, b"", b"{}", b'{"lines": "many"}', b'{"lines": -1, "digest": ""}']
)
def test_a_head_that_is_lost_or_damaged_is_refused(folder, content):
    pay(Book(folder), 0)
    head = folder / "head"
    head.unlink() if content is None else head.write_bytes(content)
    assert "its head" in refused(folder)


def test_an_older_head_or_older_lines_are_refused(folder):
    pay(Book(folder), 0)
    head = (folder / "head").read_bytes()
    pay(Book(folder), 1, 2)
    newest = (folder / "head").read_bytes()
    (folder / "head").write_bytes(head)
    assert "of another time" in refused(folder)
    (folder / "head").write_bytes(newest)
    assert len(Book(folder).payments) == 3


@pytest.mark.parametrize("line", [0, 1])
def test_a_charge_that_was_made_smaller_breaks_the_chain(folder, line):
    pay(Book(folder), 0, 1)
    lines = folder / "book.jsonl"
    each = lines.read_text().splitlines(keepends=True)
    each[line] = each[line].replace('"noise_multiplier": 2.0', '"noise_multiplier": 90.0')
    lines.write_text("".join(each))
    assert ("changed since" if line == 0 else "of another time") in refused(folder)


def test_a_start_that_was_cut_short_goes_on(folder):
    Book(folder)
    (folder / "key").unlink()
    Book(folder)
    (folder / "key").unlink()
    (folder / "head").unlink()
    pay(Book(folder), 0)
    assert len(Book(folder).payments) == 1


def test_a_full_disk_at_the_head_lets_the_line_count(folder, monkeypatch):
    book = Book(folder)
    pay(book, 0)

    def full(path, data):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(book_module, "write_private", full)
        for _ in range(2):
            with pytest.raises(BookError, match="No space left"):
                pay(book, 1)
    assert [p.round for p in Book(folder).payments] == [0, 1]


def test_a_line_that_cannot_be_read_is_refused(folder):
    pay(Book(folder), 0, 1)
    lines = folder / "book.jsonl"
    lines.write_bytes(b"x" + lines.read_bytes()[1:])
    assert "line 1 cannot be read" in refused(folder)


def test_a_line_taken_out_is_noticed(folder):
    pay(Book(folder), 0, 1, 2)
    lines = folder / "book.jsonl"
    first, _, third = lines.read_text().splitlines(keepends=True)
    lines.write_text(first + third)
    assert "a line before it is missing" in refused(folder)


@pytest.mark.parametrize(
    ("field", "value"),
    [("charge", None), ("relation", "near"), ("run", 7), ("delta", "x"), ("round", -1)],
)
def test_a_line_with_a_field_that_is_none_is_refused(folder, field, value):
    pay(Book(folder), 0)
    lines = folder / "book.jsonl"
    lines.write_text(json.dumps({**json.loads(lines.read_text()), field: value}) + "\n")
    assert "line 1 cannot be read" in refused(folder)


def test_a_line_of_another_version_is_refused(folder):
    pay(Book(folder), 0)
    lines = folder / "book.jsonl"
    lines.write_text(json.dumps({**json.loads(lines.read_text()), "version": 3}) + "\n")
    assert "of version 3" in refused(folder)


def test_a_book_that_grows_shorter_while_it_is_open_is_refused(folder):
    book = Book(folder)
    pay(book, 0, 1)
    lines = folder / "book.jsonl"
    lines.write_text(lines.read_text().splitlines(keepends=True)[0])
    with pytest.raises(BookError, match="shorter"):
        pay(book, 2)
    lines.unlink()
    with pytest.raises(BookError, match="gone"):
        pay(book, 2)


@pytest.mark.parametrize("content", [None, b"short"])
def test_a_key_that_is_lost_or_damaged_is_refused(folder, content):
    pay(Book(folder), 0)
    (folder / "key").unlink() if content is None else (folder / "key").write_bytes(content)
    assert "its key is" in refused(folder)


@pytest.mark.parametrize("content", [None, b"nonsense"])
def test_a_set_that_is_lost_or_damaged_is_refused(folder, content):
    pay(Book(folder), 0)
    file = folder / "sets" / records().id
    file.unlink() if content is None else file.write_bytes(content)
    with pytest.raises(BookError, match="set of records"):
        Book(folder).sets()


def test_a_set_whose_digests_were_changed_is_refused(folder):
    pay(Book(folder), 0)
    file = folder / "sets" / records().id
    file.write_bytes(file.read_bytes()[:-1] + b"?")
    with pytest.raises(BookError, match="damaged"):
        Book(folder).sets()


# places that cannot be written


def test_a_place_that_cannot_be_written_is_told_with_the_key(tmp_path):
    (tmp_path / "home").write_text("a file")
    told = refused(tmp_path / "home" / "lifetime")
    assert "Not a directory" in told
    assert "folder of lifetime" in told
    assert "SILOTUNE_LIFETIME_FOLDER" in told
    assert "off" in told


def test_a_read_only_home_is_told_with_the_key(folder, monkeypatch):
    def refuse(*_, **__):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(os, "open", refuse)
    assert "Read-only file system; name a folder" in refused(folder)


def test_a_full_disk_writes_nothing(folder, monkeypatch):
    book = Book(folder)
    pay(book, 0)

    def full(path, data):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(book_module, "append_bytes", full)
        with pytest.raises(BookError, match="No space left"):
            pay(book, 1)
    pay(book, 1)
    assert [p.round for p in Book(folder).payments] == [0, 1]
