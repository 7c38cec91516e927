"""Why a silo failed stays with it: in its folder, and in the log of whoever acts for it."""

import errno
import os

import pytest

from silotune.core import ClientTask, Factors, RecordError
from silotune.core.files import in_words, read_lines
from silotune.core.round_plan import RoundPlan
from silotune.engine.client_errors import ERRORS, FAILED, discreet


@pytest.fixture
def task() -> ClientTask:
    none = frozenset()
    plan = RoundPlan(phases=(), share=none)
    return ClientTask(
        run="run",
        round=3,
        client="east",
        factors=Factors({}),
        seeded=(),
        plan=plan,
        steps=1,
        learning_rates=(0.1,),
        seed=0,
    )


def fails(error):
    def work():
        raise error

    return work


def full(path):
    def work():
        with in_words(path):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    return work


def test_only_one_sentence_leaves_and_no_text_of_a_record_is_logged(task, tmp_path, caplog):
    for error in (
        ValueError("secret"),
        RecordError("secret"),
        OSError("secret"),
        KeyError("secret"),
    ):
        assert discreet(task, tmp_path, fails(error)).refusal == FAILED
        assert f"east, round 3: {type(error).__name__}; more is in {tmp_path}" in caplog.text
    assert "secret" not in caplog.text
    assert all("secret" in line["error"] for line in read_lines(tmp_path / ERRORS))


def test_what_the_operating_system_says_is_logged(task, tmp_path, caplog):
    assert discreet(task, tmp_path, full(tmp_path / "secret.txt")).refusal == FAILED
    assert "east, round 3: No space left on device; more is in" in caplog.text
    missing = FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), "secret.png")
    assert discreet(task, tmp_path / "nowhere", fails(missing)).refusal == FAILED
    assert "No such file or directory; and more could not be written down" in caplog.text
    assert "secret" not in caplog.text
