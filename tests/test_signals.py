"""A signal to end is heard like Ctrl-C, once, where nobody else handles it."""

import signal
import threading

import pytest
import typer

from silotune.cli.errors import reported
from silotune.signals import Terminated, heard, how

pytestmark = pytest.mark.usefixtures("hearing")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_to_end_is_raised_once(number):
    said = []

    def work() -> None:
        try:
            signal.raise_signal(number)
        finally:
            signal.raise_signal(signal.SIGTERM)  # impatience does not cut what is being written
            said.append("in order")

    with pytest.raises(Terminated) as caught, heard():
        work()
    assert said == ["in order"]
    assert isinstance(caught.value, KeyboardInterrupt)
    assert how(caught.value) == f"interrupted by {number.name}"
    assert signal.getsignal(number) is signal.SIG_DFL
    assert how(KeyboardInterrupt()) == "interrupted"


@pytest.mark.parametrize("own", [signal.SIG_IGN, lambda *_: None], ids=["nohup", "a handler"])
def test_what_somebody_handles_or_ignores_is_theirs(own):
    before = signal.signal(signal.SIGHUP, own)
    try:
        with heard():
            assert signal.getsignal(signal.SIGHUP) is own
            signal.raise_signal(signal.SIGHUP)
        assert signal.getsignal(signal.SIGHUP) is own
    finally:
        signal.signal(signal.SIGHUP, before)


def test_another_thread_hears_none():
    found = []

    def work() -> None:
        with heard():
            found.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [signal.SIG_DFL]


@pytest.mark.parametrize(
    ("interrupt", "code", "words"),
    [
        (KeyboardInterrupt(), 130, "stopped: interrupted\n"),
        (Terminated(signal.SIGTERM), 143, "stopped: interrupted by SIGTERM\n"),
    ],
)
def test_whoever_is_ended_made_no_error(capsys, interrupt, code, words):
    @reported
    def verb() -> None:
        raise interrupt

    with pytest.raises(typer.Exit) as caught:
        verb()
    assert caught.value.exit_code == code
    assert capsys.readouterr().err == words
