"""Frames, and heads of JSON with a body behind them."""

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from silotune_link.frames import (
    LONGEST_FRAME,
    LONGEST_HEAD,
    PART,
    TornMessage,
    pack,
    read_frame,
    read_parts,
    unpack,
    write_frame,
    write_parts,
)

SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
HEADS = st.dictionaries(st.text(), SCALARS.filter(lambda x: x not in (float("inf"), -float("inf"))))


@given(st.lists(st.binary()))
def test_frames_come_out_as_they_went_in(payloads):
    pipe = io.BytesIO()
    for payload in payloads:
        write_frame(pipe, payload)
    pipe.seek(0)
    assert [read_frame(pipe) for _ in payloads] == payloads
    with pytest.raises(EOFError):
        read_frame(pipe)


@given(st.binary(min_size=1), st.data())
def test_a_frame_that_is_cut_short_has_ended(payload, data):
    pipe = io.BytesIO()
    write_frame(pipe, payload)
    cut = data.draw(st.integers(0, len(pipe.getvalue()) - 1))
    with pytest.raises(EOFError):
        read_frame(io.BytesIO(pipe.getvalue()[:cut]))


@pytest.mark.parametrize("size", [0, 1, PART - 1, PART, PART + 1, 3 * PART])
def test_a_frame_in_parts_is_the_same_frame(size):
    payload = bytes(range(256)) * (size // 256 + 1)
    whole, apart = io.BytesIO(), io.BytesIO()
    write_frame(whole, payload[:size])
    whole.seek(0)
    said, parts = read_parts(whole)
    taken = list(parts)
    assert said == size
    assert all(0 < len(part) <= PART for part in taken)
    write_parts(apart, size, taken)
    assert apart.getvalue() == whole.getvalue()


def test_a_frame_in_parts_that_is_cut_short_has_ended():
    pipe = io.BytesIO((2 * PART).to_bytes(8, "big") + bytes(PART + 5))
    _, parts = read_parts(pipe)
    assert len(next(parts)) == PART
    with pytest.raises(EOFError):
        next(parts)


@pytest.mark.parametrize("size", [LONGEST_FRAME + 1, 2**64 - 1])
def test_what_something_else_wrote_into_a_pipe_is_no_frame(size):
    with pytest.raises(EOFError, match="no frame"):
        read_frame(io.BytesIO(size.to_bytes(8, "big") + b"Loading weights"))


def test_a_pipe_that_was_closed_at_this_end_meanwhile_has_ended(tmp_path):
    with (tmp_path / "pipe").open("w+b") as pipe:
        pass
    for use in (lambda: write_frame(pipe, b"task"), lambda: read_frame(pipe)):
        with pytest.raises(EOFError):
            use()


@given(HEADS, st.binary())
def test_a_head_and_a_body_come_out_as_they_went_in(head, body):
    assert unpack(pack(head, body)) == (head, body)


@pytest.mark.parametrize(
    ("blob", "words"),
    [
        (b"", "0 bytes"),
        (b"\0\0\0", "3 bytes"),
        (b"\0\0\0\x05{}", "of 5 bytes ends after 2"),
        (b"\xff\xff\xff\xff{}", "would have 4294967295 bytes"),
        (b"\0\0\0\x02[]", "no JSON object"),
        (b"\0\0\0\x02{]", "no JSON"),
        (b"\0\0\0\x02\xff\xff", "no JSON"),
        (b'\0\0\0\x09{"a":NaN}', "no JSON"),
        ((LONGEST_HEAD // 2).to_bytes(4, "big") + b"[" * (LONGEST_HEAD // 2), "no JSON"),
    ],
)
def test_what_is_torn_is_said_in_words_without_its_content(blob, words):
    with pytest.raises(TornMessage, match=words):
        unpack(blob)


@given(st.binary(max_size=60))
def test_nothing_but_words_comes_of_any_bytes(blob):
    try:
        head, body = unpack(blob)
    except TornMessage:
        return
    assert isinstance(head, dict)
    assert blob.endswith(body)


def test_a_head_has_a_limit_and_finite_numbers():
    pack({"a": "x" * (LONGEST_HEAD - 9)})
    with pytest.raises(ValueError, match=f"{LONGEST_HEAD + 1} bytes; the limit"):
        pack({"a": "x" * (LONGEST_HEAD - 8)})
    with pytest.raises(ValueError, match="not JSON compliant"):
        pack({"a": float("nan")})
