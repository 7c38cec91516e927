"""What a silo must not lose, through kills, torn files, full disks and mistaken folders."""

import hashlib
import json
import os
import random
import resource
import stat
import subprocess
import sys
import textwrap
from contextlib import contextmanager
from dataclasses import replace

import pytest

from covering import full
from silotune.core import RecordError
from silotune.privacy import SiloStore
from silotune.privacy.accounting.calibration import calibrate
from silotune.privacy.accounting.charges import Charge, CorrelatedCharge, TruncatedCharge
from silotune.privacy.choice import PrivacyBudget
from silotune.privacy.ledger.chain import read_ledger
from silotune.privacy.ledger.entry import LedgerEntry, LedgerLine, SiloStoreError
from silotune.privacy.ledger.ledger import Ledger
from silotune.privacy.ledger.parcel import read_parcel

CHARGE = Charge(0.25, 2.0, 10)
STREAM = CorrelatedCharge(2.0, 10, 3, 4)


def entry(round=0, attempt=0, run="r1", charge=CHARGE, release="update"):
    return LedgerEntry(
        run=run,
        silo="north",
        round=round,
        attempt=attempt,
        release=release,
        charge=charge,
        max_grad_norm=1.0,
        time="2026-01-02T03:04:05+00:00",
    )


def release(store, round=0, run="r1", sealed=b"bytes", task="task", charge=CHARGE):
    charged = entry(round, store.attempts(run, round), run, charge)
    store.release(run, round, task, sealed, charged)


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "runs" / "sites" / "north"


@pytest.fixture
def ledger(folder):
    """A ledger of two rounds; the store is closed again."""
    with SiloStore(folder) as store:
        release(store, 0)
        release(store, 1)
    return folder / "ledger.jsonl"


# what is kept


def test_a_release_is_there_after_reopening(folder):
    sealed = bytes(range(256)) * 10
    with SiloStore(folder) as store:
        assert store.entries("r1") == []
        assert store.sealed("r1", 7, "task") is None
        release(store, 7, sealed=sealed)
        before = store.entries("r1")
    with SiloStore(folder) as store:
        assert store.entries("r1") == before
        assert store.spent("r1") == [CHARGE]
        assert store.sealed("r1", 7, "task") == sealed
    assert [f.name for f in (folder / "sent").iterdir()] == ["round-000007.bin"]
    assert read_ledger(folder / "ledger.jsonl") == before


def test_a_ledger_line_has_the_agreed_fields(ledger):
    first, second = ledger.read_text().splitlines(keepends=True)
    line = json.loads(second)
    assert line == {
        "version": 3,
        "line": 2,
        "previous": hashlib.sha256(first.encode()).hexdigest(),
        "run": "r1",
        "silo": "north",
        "round": 1,
        "attempt": 0,
        "release": "update",
        "charge": {
            "kind": "poisson",
            "sampling_rate": 0.25,
            "noise_multiplier": 2.0,
            "steps": 10,
            "grid_points": 0,
        },
        "max_grad_norm": 1.0,
        "time": "2026-01-02T03:04:05+00:00",
        "sent": hashlib.sha256(b"bytes").hexdigest(),
    }
    assert json.loads(first)["previous"] == ""


def test_a_ledger_without_a_chain_is_refused_in_words(folder):
    line = {
        "version": 1,
        "run": "r1",
        "silo": "north",
        "round": 0,
        "attempt": 0,
        "sampling_rate": 0.25,
        "noise_multiplier": 2.0,
        "max_grad_norm": 1.0,
        "steps": 10,
        "time": "2026-01-02T03:04:05+00:00",
    }
    folder.mkdir(parents=True)
    ledger = folder / "ledger.jsonl"
    ledger.write_text(json.dumps(line) + "\n")
    for open_it in (read_ledger, lambda _: SiloStore(folder)):
        with pytest.raises(SiloStoreError, match=r"version 1 has no chain.*that wrote it"):
            open_it(ledger)


@pytest.mark.parametrize("charge", [TruncatedCharge(0.25, 2.0, 10, 40, 99), STREAM])
def test_every_kind_of_charge_is_there_after_reopening(folder, charge):
    with SiloStore(folder) as store:
        release(store, charge=charge)
    with SiloStore(folder) as store:
        assert store.spent("r1") == [charge]
        assert store.sealed("r1", 0, "task") == b"bytes"


def test_only_the_newest_round_is_kept(folder):
    with SiloStore(folder) as store:
        for round in range(3):
            release(store, round, sealed=b"%d" % round)
        assert [store.sealed("r1", r, "task") for r in range(3)] == [None, None, b"2"]
        assert len(store.entries("r1")) == 3


def test_another_task_or_run_is_not_answered_with_these_bytes(folder):
    with SiloStore(folder) as store:
        release(store, 4)
        assert store.sealed("r1", 4, "another task") is None
        assert store.sealed("r2", 4, "task") is None
        assert store.sealed("r1", 3, "task") is None


def test_training_a_round_again_is_another_charge(folder):
    with SiloStore(folder) as store:
        release(store, 5, task="task", sealed=b"first")
        assert store.attempts("r1", 5) == 1
        release(store, 5, task="task after a restart", sealed=b"second")
        assert [e.attempt for e in store.entries("r1")] == [0, 1]
        assert store.spent("r1") == [CHARGE, CHARGE]
        assert store.sealed("r1", 5, "task after a restart") == b"second"
        assert store.sealed("r1", 5, "task") is None


@pytest.mark.parametrize(
    "wrong", [{"attempt": 0}, {"attempt": 2}, {"round": 4, "attempt": 1}, {"run": "r2"}]
)
def test_a_charge_is_taken_once_and_for_its_own_round(folder, wrong):
    with SiloStore(folder) as store:
        release(store, 5)
        with pytest.raises(ValueError, match="must be"):
            store.release("r1", 5, "task", b"x", entry(**{"round": 5, "attempt": 1, **wrong}))
        assert len(store.entries("r1")) == 1
        assert store.sealed("r1", 5, "task") == b"bytes"


def test_runs_share_a_folder_and_not_a_budget(folder):
    with SiloStore(folder) as store:
        release(store, 3, run="r1")
        release(store, 3, run="r2", sealed=b"other")
        assert store.attempts("r1", 3) == store.attempts("r2", 3) == 1
        assert [e.run for e in store.entries("r2")] == ["r2"]
        assert store.sealed("r2", 3, "task") == b"other"
        assert store.sealed("r1", 3, "task") is None


def test_without_privacy_bytes_are_kept_and_nothing_is_charged(folder):
    with SiloStore(folder) as store:
        store.release("r1", 2, "task", b"plain", None)
        assert store.entries("r1") == []
    with SiloStore(folder) as store:
        assert store.sealed("r1", 2, "task") == b"plain"


@pytest.mark.parametrize("covers", [False, True])
def test_the_budget_pays_for_the_planned_rounds_and_no_more(folder, covers):
    sigma = calibrate(2.0, 1e-5, lambda sigma: Charge(0.25, sigma, 3 * 10))
    charge, budget = Charge(0.25, sigma, 10), PrivacyBudget(epsilon=2.0, delta=1e-5)
    if covers:
        budget = budget.covering([Charge(0.26, sigma, 10), Charge(0.25, sigma, 3 * 10)])
        assert not budget.covers
        budget = budget.covering([Charge(0.25, sigma, 3 * 10)])
        assert budget.covers
        assert not replace(budget, relation="replace-one").covers
    with SiloStore(folder) as store:
        for round in range(3):
            assert store.affords("r1", charge, budget)
            store.release("r1", round, "task", b"", entry(round, charge=charge))
        assert not store.affords("r1", charge, budget)
        assert not store.affords("r1", replace(charge, steps=1), budget)
        assert store.affords("r1", replace(charge, steps=0), budget)
        assert store.affords("r2", charge, budget)


def test_what_a_budget_pays_for_depends_on_the_relation(folder):
    budget = PrivacyBudget(epsilon=3.0, delta=1e-5)
    with SiloStore(folder) as store:
        assert store.affords("r1", CHARGE, budget)
        assert store.affords("r1", CHARGE, replace(budget, relation="zero-out"))
        assert not store.affords("r1", CHARGE, replace(budget, relation="replace-one"))


def test_another_release_of_a_round_is_another_charge(folder):
    with SiloStore(folder) as store:
        release(store, 5)
        with pytest.raises(ValueError, match="must be"):
            store.release("r1", 5, "task", b"", entry(5, 1, release="count"))
        store.release("r1", 5, "task", b"", entry(5, 0, release="count"))
        assert [store.attempts("r1", 5, name) for name in ("update", "count")] == [1, 1]
        assert store.spent("r1") == [CHARGE, CHARGE]


# what a silo remembers of a run


def test_a_run_has_one_key_and_another_run_another(folder):
    with SiloStore(folder) as store:
        first = store.past("r1")
        assert (len(first.key), first.steps) == (32, 0)
        assert store.past("r1") == first
        assert store.past("../r2").key != first.key
    with SiloStore(folder) as store:
        assert store.past("r1") == first
    with SiloStore(folder.parent / "south") as store:
        assert store.past("r1").key != first.key


def test_keys_are_for_the_owners_eyes_and_stay_in_the_folder(folder):
    with SiloStore(folder) as store:
        store.past("../../r1")
        keys = list((folder / "keys").iterdir())
    assert [stat.S_IMODE(key.stat().st_mode) for key in keys] == [0o600]
    assert stat.S_IMODE((folder / "keys").stat().st_mode) & 0o077 == 0


def test_a_key_is_on_the_disk_before_anybody_has_it(folder, monkeypatch):
    with SiloStore(folder) as store:
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError("power cut")))
            with pytest.raises(RecordError):
                store.past("r1")
        key = store.past("r1").key
    with SiloStore(folder) as store:
        assert store.past("r1").key == key


def test_past_steps_are_those_of_updates_in_this_run(folder):
    with SiloStore(folder) as store:
        release(store, 0)
        release(store, 0, task="again")
        store.release("r1", 0, "task", b"", entry(0, 0, release="count"))
        release(store, 0, run="r2")
        assert store.past("r1").steps == 20
        assert store.past("r2").steps == 10


@pytest.mark.parametrize("damage", [lambda key: key.unlink(), lambda key: key.write_bytes(b"x")])
def test_a_stream_without_its_key_is_refused_in_words(folder, damage):
    with SiloStore(folder) as store:
        store.past("r1")
        release(store, 0, charge=STREAM)
        [key] = (folder / "keys").iterdir()
        damage(key)
        with pytest.raises(SiloStoreError, match="begin a new run"):
            store.past("r1")


def test_fresh_noise_needs_no_old_key(folder):
    with SiloStore(folder) as store:
        before = store.past("r1")
        release(store, 0)
        [key] = (folder / "keys").iterdir()
        key.unlink()
        after = store.past("r1")
        assert after.key != before.key
        assert after.steps == 10


def test_steps_of_correlated_noise_are_drawn_once(folder):
    with SiloStore(folder) as store:
        assert store.may_train("r1", 0)
        release(store, 0, charge=STREAM)
        assert not store.may_train("r1", 0)
        assert store.may_train("r1", 1)
        assert store.may_train("r2", 0)
        with pytest.raises(ValueError, match="correlated noise"):
            release(store, 0, charge=STREAM, task="again")
        assert store.sealed("r1", 0, "task") == b"bytes"
        assert store.spent("r1") == [STREAM]


def test_other_noise_may_be_drawn_again(folder):
    with SiloStore(folder) as store:
        release(store, 0)
        assert store.may_train("r1", 0)


# crashes

RELEASE = """
    import os, sys
    from pathlib import Path
    from silotune.privacy import Charge, LedgerEntry, SiloStore

    def release(store, round):
        entry = LedgerEntry(
            run="r1", silo="north", round=round, attempt=0, charge=Charge(0.25, 2.0, 10),
            max_grad_norm=1.0, time="",
        )
        store.release("r1", round, "task", b"bytes of %d" % round, entry)
"""

CRASHES = """
    REAL = {name: getattr(os, name) for name in ("write", "fsync", "replace", "unlink")}

    def dies(store, at):
        calls = 0
        def trapped(name):
            def call(*arguments):
                nonlocal calls
                calls += 1
                if calls == at:
                    if name == "write":
                        REAL[name](arguments[0], arguments[1][: len(arguments[1]) // 2])
                    os._exit(9)
                return REAL[name](*arguments)
            return call
        for name in REAL:
            setattr(os, name, trapped(name))
        release(store, 1)
        os._exit(0)

    for at in range(1, 50):
        folder = Path(sys.argv[1]) / str(at)
        with SiloStore(folder) as store:
            release(store, 0)
        child = os.fork()
        if child == 0:
            dies(SiloStore(folder), at)
        if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0:
            break
"""

FOREVER = """
    store = SiloStore(Path(sys.argv[1]))
    for round in range(10**6):
        release(store, round)
        print(round, flush=True)
"""


def script(text, folder):
    return [sys.executable, "-c", textwrap.dedent(RELEASE + text), str(folder)]


def test_a_crash_between_any_two_steps_leaves_all_or_nothing(tmp_path):
    subprocess.run(script(CRASHES, tmp_path), check=True, timeout=120)
    outcomes = []
    folders = sorted(tmp_path.iterdir(), key=lambda f: int(f.name))
    for folder in folders:
        with SiloStore(folder) as store:
            assert store.attempts("r1", 0) == 1
            charged = store.attempts("r1", 1)
            assert store.sealed("r1", 1, "task") == (b"bytes of 1" if charged else None)
            outcomes.append(charged)
            release(store, 1, sealed=b"again", task="asked anew")
            assert store.attempts("r1", 1) == charged + 1
            assert store.sealed("r1", 1, "asked anew") == b"again"
        with SiloStore(folder) as store:
            assert len(store.entries("r1")) == charged + 2
    assert len(outcomes) >= 7
    assert outcomes[0] == 0
    assert outcomes[-2:] == [1, 1]  # the last one was not killed
    assert outcomes == sorted(outcomes)


@pytest.mark.parametrize("acknowledged", [full(1), 5])
def test_what_was_acknowledged_before_a_kill_is_charged_once(folder, acknowledged):
    with subprocess.Popen(script(FOREVER, folder), stdout=subprocess.PIPE, text=True) as process:
        seen = [int(process.stdout.readline()) for _ in range(acknowledged)]
        with pytest.raises(SiloStoreError, match="another process"):
            SiloStore(folder)
        process.kill()
        seen += map(int, process.stdout.read().split())
    with SiloStore(folder) as store:  # the lock died with the process
        charged = [e.round for e in store.entries("r1")]
        assert charged in (seen, [*seen, seen[-1] + 1])
        last = charged[-1]
        assert store.sealed("r1", last, "task") in (b"bytes of %d" % last, None)
        if charged != seen:
            assert store.sealed("r1", last, "task")  # charged, so it must still be there


def test_a_torn_last_line_is_dropped_unless_it_can_be_read(folder, ledger):
    whole = ledger.read_bytes()
    second = whole.index(b"\n") + 1
    for end in range(second + 1, len(whole)):
        for sent in (folder / "sent").iterdir():
            sent.unlink()
        ledger.write_bytes(whole[:end])
        with SiloStore(folder) as store:
            readable = end == len(whole) - 1
            assert len(store.entries("r1")) == (2 if readable else 1)
        if end % 40 == 0 or readable:
            with SiloStore(folder) as store:
                release(store, 2)
                assert [e.round for e in store.entries("r1")] == ([0, 1, 2] if readable else [0, 2])
            assert len(read_ledger(ledger)) == (3 if readable else 2)


def test_zeros_behind_the_last_line_are_dropped(folder, ledger):
    ledger.write_bytes(ledger.read_bytes() + bytes(100))
    with SiloStore(folder) as store:
        release(store, 2)
    assert [e.round for e in read_ledger(ledger)] == [0, 1, 2]


# damage


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: "x" + text[1:],
        lambda text: text[:-2] + "\n",
        lambda text: text + "\n",
        lambda text: text.replace('"steps": 10', '"steps": "10"'),
        lambda text: text.replace('"steps": 10', '"steps": -10'),
        lambda text: text.replace('"steps": 10, ', ""),
        lambda text: text.replace('"steps": 10', '"steps": 10, "extra": 1'),
        lambda text: text.replace('"attempt": 0', '"attempt": 0, "extra": 1'),
        lambda text: text.replace('"kind": "poisson"', '"kind": "shuffled"'),
        lambda text: text.replace('"kind": "poisson"', '"kind": "correlated"'),
        lambda text: text.replace('"release": "update", ', ""),
        lambda text: text.replace('"noise_multiplier": 2.0', '"noise_multiplier": NaN'),
        lambda text: text.replace('"version": 3', '"version": 4'),
        lambda text: text + "[1]\n",
    ],
)
def test_a_ledger_that_cannot_be_read_is_refused_in_words(folder, ledger, damage):
    damaged = damage(ledger.read_text())
    assert damaged != ledger.read_text()
    ledger.write_text(damaged)
    with pytest.raises(RecordError, match=r"ledger\.jsonl"):
        SiloStore(folder)
    assert ledger.read_text() == damaged
    with pytest.raises(RecordError, match=r"ledger\.jsonl"):
        SiloStore(folder)  # and not because the first one kept the lock


def test_lost_charges_are_noticed(folder, ledger):
    ledger.unlink()
    with pytest.raises(RecordError, match="holds 0 charges, but there were at least 2 when round"):
        SiloStore(folder)


def swapped(lines):
    return [lines[1], lines[0]]


def twice(lines):
    return lines * 2


def without_the_first(lines):
    return lines[1:]


def without_the_last(lines):
    return lines[:-1]


def louder(lines):
    return [lines[0].replace(b'"noise_multiplier": 2.0', b'"noise_multiplier": 9.0'), lines[1]]


def louder_at_last(lines):
    return [lines[0], lines[1].replace(b'"noise_multiplier": 2.0', b'"noise_multiplier": 9.0')]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (swapped, "line 1: is line 2 of north and comes after line 0"),
        (twice, "line 3: is line 1 of north and comes after line 2"),
        (without_the_first, "line 1: is line 2 of north and comes after line 0"),
        (
            without_the_last,
            "holds 1 charges, but there were at least 2 when round-000001.bin was sent",
        ),
        (louder, "line 2: is not chained to the line before it"),
        (louder_at_last, "has other lines up to 2 than there were when round-000001.bin was sent"),
    ],
)
def test_no_line_can_be_changed_lost_or_moved(folder, ledger, change, said):
    ledger.write_bytes(b"".join(change(ledger.read_bytes().splitlines(keepends=True))))
    with pytest.raises(SiloStoreError, match=said) as refused:
        SiloStore(folder)
    assert "bring the file back" in str(refused.value)


def test_bytes_that_were_charged_for_get_their_name(folder, ledger):
    """Killed between the charge and the name; the one of the attempt before is still there."""
    with SiloStore(folder) as store:
        release(store, 1, sealed=b"again", task="asked anew")
    sent = folder / "sent" / "round-000001.bin"
    sent.rename(sent.with_suffix(".draft"))
    with SiloStore(folder) as store:
        assert store.sealed("r1", 1, "asked anew") == b"again"
    assert [path.name for path in (folder / "sent").iterdir()] == ["round-000001.bin"]


def test_a_ledger_is_read_once_and_then_followed(folder, ledger, monkeypatch):
    known, other = Ledger(ledger), Ledger(ledger)
    whole = known.follow()
    assert whole == ledger.read_bytes()
    assert other.follow() == whole
    assert known.follow() == b""
    with SiloStore(folder, known) as store:
        release(store, 2)
    parsed = []
    parse = LedgerLine.parse
    monkeypatch.setattr(
        LedgerLine, "parse", lambda line, where: parsed.append(line) or parse(line, where)
    )
    assert other.follow() == ledger.read_bytes()[len(whole) :]
    assert len(parsed) == 1, "only what is new is read again"
    assert other.chain.head == known.chain.head
    assert other.chain.book("r1").steps == 30


def test_a_ledger_that_changes_behind_its_end_is_refused(folder, ledger):
    known = Ledger(ledger)
    known.follow()
    lines = ledger.read_bytes().splitlines(keepends=True)
    for changed in ([], lines[:1], louder_at_last(lines)):
        ledger.write_bytes(b"".join(changed))
        with pytest.raises(SiloStoreError, match="is not what it was when it was read"):
            known.follow()


def test_bytes_that_are_not_those_charged_for_are_not_sent(folder, ledger):
    sent = folder / "sent" / "round-000001.bin"
    forged = replace(read_parcel(sent), sealed=b"other")
    sent.write_bytes(forged.to_bytes())
    with pytest.raises(SiloStoreError, match="has other lines up to 2"):
        SiloStore(folder)


@pytest.mark.parametrize("place", [0, 20, 85, 120, -1])
def test_corrupt_bytes_count_as_absent_and_are_charged_again(folder, ledger, place):
    sent = folder / "sent" / "round-000001.bin"
    data = bytearray(sent.read_bytes())
    data[place] ^= 1
    sent.write_bytes(data)
    with SiloStore(folder) as store:
        assert store.sealed("r1", 1, "task") is None
        release(store, 1, sealed=b"again")
        assert store.sealed("r1", 1, "task") == b"again"
        assert store.attempts("r1", 1) == 2


@pytest.mark.parametrize("end", [0, 10, 79, 80, 100, -1])
def test_cut_bytes_count_as_absent(folder, ledger, end):
    sent = folder / "sent" / "round-000001.bin"
    sent.write_bytes(sent.read_bytes()[:end])
    with SiloStore(folder) as store:
        assert store.sealed("r1", 1, "task") is None


def test_bytes_without_their_charge_do_not_count(folder, ledger):
    """Killed between the bytes and the charge."""
    sent = folder / "sent" / "round-000001.bin"
    sent.rename(sent.with_suffix(".draft"))
    ledger.write_bytes(ledger.read_bytes().splitlines(keepends=True)[0])
    with SiloStore(folder) as store:
        assert store.sealed("r1", 1, "task") is None
        release(store, 1, sealed=b"again")
    assert [path.name for path in (folder / "sent").iterdir()] == ["round-000001.bin"]


# full disks and other owners


@contextmanager
def files_of_at_most(size):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_disk_too_full_for_the_bytes_charges_nothing(folder):
    with SiloStore(folder) as store:
        release(store, 0)
        with files_of_at_most(4096), pytest.raises(RecordError, match="round-000001"):
            release(store, 1, sealed=random.randbytes(10_000))
        assert store.attempts("r1", 1) == 0
        assert store.sealed("r1", 1, "task") is None
        assert store.sealed("r1", 0, "task") == b"bytes"
        release(store, 1)
        assert store.sealed("r1", 1, "task") == b"bytes"


def test_a_disk_too_full_for_the_charge_sends_nothing(folder):
    with SiloStore(folder) as store:
        for round in range(20):
            release(store, round)
        ledger = folder / "ledger.jsonl"
        before = ledger.read_bytes()
        with (
            files_of_at_most(len(before) + 50),
            pytest.raises(RecordError, match=r"ledger\.jsonl"),
        ):
            release(store, 20)
        assert ledger.read_bytes() == before
        assert store.attempts("r1", 20) == 0
        assert store.sealed("r1", 20, "task") is None
        release(store, 20)
    with SiloStore(folder) as store:
        assert [e.round for e in store.entries("r1")] == list(range(21))


def test_a_folder_has_one_user_at_a_time(folder):
    with SiloStore(folder), pytest.raises(RecordError, match="another process is using"):
        SiloStore(folder)
    with SiloStore(folder):
        pass


def test_a_folder_that_cannot_be_is_refused_in_words(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RecordError, match="file"):
        SiloStore(tmp_path / "file" / "north")


@pytest.mark.parametrize(
    "wrong",
    [
        {"round": -1},
        {"attempt": -1},
        {"max_grad_norm": 0.0},
        {"max_grad_norm": float("inf")},
    ],
)
def test_an_entry_that_means_nothing_cannot_be_made(wrong):
    with pytest.raises(ValueError):
        replace(entry(), **wrong)
