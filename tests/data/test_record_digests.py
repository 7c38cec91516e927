import pytest
from datasets import Dataset

from silotune.data.record_digests import record_digests, tables_digest


def digests(**columns):
    return record_digests(Dataset.from_dict(columns))


def test_a_record_is_what_is_learned_from_whatever_its_label_place_or_person():
    one, two, again = digests(text=["a", "b", "a"], label=[0, 1, 1], person=["x", "y", "z"])
    assert one == again != two
    assert len(one) == 32
    assert [one, two] == digests(text=["a", "b"])
    assert digests(text=["a"], text_pair=["b"]) != digests(text=["ab"], text_pair=[""])
    assert digests(text=["a"], text_pair=["b"]) != digests(text=["b"], text_pair=["a"])


def test_chats_are_told_apart():
    chats = [[{"role": "user", "content": "hi"}], [{"role": "assistant", "content": "hi"}]]
    assert len(set(digests(messages=chats))) == 2


def test_records_are_read_slice_by_slice():
    texts = [f"note {i}" for i in range(2500)]
    assert digests(text=texts)[1700] == digests(text=texts[1700:1701])[0]


def test_an_image_is_its_bytes_wherever_it_lies(tmp_path):
    places = [tmp_path / name for name in ("a", "b")]
    for place in places:
        place.write_bytes(b"pixels")
    by_path = digests(image=list(map(str, places)), label=[0, 0])
    cells = [{"bytes": b"pixels", "path": None}, {"bytes": b"others", "path": str(places[0])}]
    same, other = digests(image=cells)
    assert by_path == [same, same]
    assert other != same
    assert digests(image=[b"pixels"]) == [same]


def test_an_image_that_is_not_there_is_named_by_its_row():
    with pytest.raises(ValueError, match=r"image: row 0 .*cannot be read") as caught:
        digests(image=["/nowhere/secret.png"])
    assert "secret" not in str(caught.value)


def test_case_spacing_and_width_do_not_tell_records_apart():
    said = digests(text=["A  note\r\n", "a note", "ａ note", " a\tNOTE"])
    assert len(set(said)) == 1
    assert digests(text=["an ote"])[0] not in said


def test_a_text_is_the_same_alone_and_beside_nothing():
    assert (
        digests(text=["a"], text_pair=[None])
        == digests(text=["a"])
        == digests(text=["a"], label=[1])
    )
    assert digests(text=["ab"], text_pair=["c"]) != digests(text=["a"], text_pair=["bc"])


def test_chats_are_told_by_their_turns():
    def chat(*turns):
        return digests(messages=[[{"role": role, "content": text} for role, text in turns]])

    one = chat(("user", "hello"), ("assistant", "yes"))
    assert one == chat(("user", "Hello "), ("assistant", "yes"))
    assert one != chat(("user", "hello"), ("assistant", "no"))
    assert one != chat(("user", "hello yes"))


@pytest.mark.parametrize("text", ["", "\u0130stanbul", "x" * 10_000])
def test_any_text_has_a_digest(text):
    (found,) = digests(text=[text])
    assert len(found) == 32


def test_whole_tables_count_to_the_letter():
    def whole(**columns):
        return tables_digest([Dataset.from_dict(columns)])

    one = whole(text=["a note", "b"], label=[0, 1])
    assert one == whole(text=["a note", "b"], label=[0, 1])
    others = [
        whole(text=["A note", "b"], label=[0, 1]),
        whole(text=["a note", "b"], label=[1, 0]),
        whole(text=["b", "a note"], label=[0, 1]),
        whole(text=["a note"], label=[0]),
    ]
    assert one not in others
