"""By what a record is known again in another table."""

import pytest
from datasets import Dataset

from silotune.data.contents import contents


def told(**columns) -> list[bytes]:
    return list(contents(Dataset.from_dict(columns)))


def test_equal_texts_are_equal_whatever_their_labels_and_persons():
    one = told(text=["a note", "another"], label=[0, 1], person=["x", "y"])
    other = told(text=["another", "a note"], label=[0, 0])
    assert one == other[::-1]
    assert len(set(one)) == 2


def test_case_spacing_and_width_do_not_tell_records_apart():
    said = told(text=["A  note\r\n", "a note", "ａ note", " a\tNOTE"])
    assert len(set(said)) == 1
    assert told(text=["an ote"])[0] not in said


def test_a_text_is_the_same_alone_and_beside_nothing():
    assert told(text=["a"], text_pair=[None]) == told(text=["a"]) == told(text=["a"], label=[1])
    assert told(text=["ab"], text_pair=["c"]) != told(text=["a"], text_pair=["bc"])


def test_chats_are_told_by_their_turns():
    def chat(*turns):
        return told(messages=[[{"role": role, "content": text} for role, text in turns]])

    one = chat(("user", "hello"), ("assistant", "yes"))
    assert one == chat(("user", "Hello "), ("assistant", "yes"))
    assert one != chat(("user", "hello"), ("assistant", "no"))
    assert one != chat(("user", "hello yes"))


def test_an_image_is_told_by_its_bytes_wherever_it_is(tmp_path):
    for name in ("a.png", "b.png"):
        (tmp_path / name).write_bytes(b"pixels")
    (tmp_path / "c.png").write_bytes(b"others")
    one, two, three = told(image=[str(tmp_path / f"{name}.png") for name in "abc"])
    assert one == two != three
    assert told(image=[b"pixels"]) == [one]
    assert told(image=[{"bytes": b"pixels", "path": None}]) == [one]


@pytest.mark.parametrize("text", ["", "\ud800", "\u0130stanbul", "x" * 10_000])
def test_any_text_has_a_content(text):
    (found,) = contents_of(text)
    assert len(found) == 32


def contents_of(text):
    from silotune.data.contents import _digest, _text

    return [_digest(iter([_text(text)]))]
