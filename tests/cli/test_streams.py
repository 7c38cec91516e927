"""A stream that nobody reads, or that is full, is given up, and the work goes on."""

import os
import signal
import sys
from io import TextIOWrapper

import pytest

from silotune.cli.app import main
from silotune.cli.streams import replace_streams


@pytest.fixture
def streams(monkeypatch):
    """Make stdout and stderr files of ours, as a process finds them."""

    def find(out, err) -> None:
        for name, file in (("stdout", out), ("stderr", err)):
            monkeypatch.setattr(sys, name, None if file is None else TextIOWrapper(file))

    return find


def test_words_arrive(streams, tmp_path):
    with (tmp_path / "out").open("wb") as out, (tmp_path / "err").open("wb") as err:
        streams(out, err)
        stream = replace_streams()
        print("Zürich")
        print("wrong", file=sys.stderr)
        sys.stdout.flush()
        assert (tmp_path / "out").read_text() == "Zürich\n"
        assert (tmp_path / "err").read_text() == "wrong\n"
        assert stream.lost == ""


def test_a_pipe_that_nobody_reads_is_given_up(streams, tmp_path):
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "wb") as out, (tmp_path / "err").open("wb") as err:
        streams(out, err)
        stream = replace_streams()
        for _ in range(3):
            print("x" * 100_000, flush=True)
        assert stream.lost == "Broken pipe"
        assert stream.left, "which is no error"
        os.write(writer, b"others may go on writing there")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="this system has no /dev/full")
def test_a_full_device_is_given_up(streams):
    with open("/dev/full", "wb") as out, open("/dev/full", "wb") as err:
        streams(out, err)
        stream = replace_streams()
        print("words")
        print("words", file=sys.stderr)
        assert stream.lost == ""
        sys.stdout.flush()
        assert stream.lost == sys.stderr.lost == "No space left on device"
        assert not stream.left


@pytest.mark.parametrize("words", [["--help"], ["site", "serve", "--help"], ["methods"]])
def test_a_command_whose_reader_has_left_ends_quietly(streams, tmp_path, monkeypatch, words):
    """As ``| head`` does, with the status that shells give for it."""
    reader, writer = os.pipe()
    os.close(reader)
    monkeypatch.setattr(sys, "argv", ["silotune", *words])
    with os.fdopen(writer, "wb") as out, (tmp_path / "err").open("wb") as err:
        streams(out, err)
        with pytest.raises(SystemExit) as end:
            main()
        sys.stderr.flush()
    assert end.value.code == 128 + signal.SIGPIPE
    assert (tmp_path / "err").read_bytes() == b""
