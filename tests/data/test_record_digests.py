import pytest
from datasets import Dataset

from silotune.data.record_digests import record_digests


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
