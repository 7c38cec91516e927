"""Chats and instructions in the shapes that data sets have, as what a model reads of them."""

import json

import pytest
from datasets import Dataset

from silotune.data import Columns, load
from silotune.data.chat_templates import passage
from silotune.data.columns import filled_rows, readable

CHAT = [{"role": "user", "content": "hello"}, {"role": "assistant", "content": "yes no"}]
PARTS = [
    {"role": "user", "content": [{"type": "text", "text": "hel"}, {"type": "text", "text": "lo"}]},
    {"role": "assistant", "content": [{"type": "text", "text": "yes no"}]},
]
SHARED = [{"from": "human", "value": "hello"}, {"from": "gpt", "value": "yes no"}]


def read(chats, where="train"):
    return readable(Dataset.from_dict({"m": chats}), Columns(messages="m"), (), where)


@pytest.mark.parametrize("chat", [CHAT, PARTS, SHARED])
def test_every_shape_is_the_same_passage(chat):
    (record,) = read([chat])
    assert passage(record, None).text == "user: hello\nassistant: yes no\n"
    assert passage(record, None) == passage({"messages": CHAT}, None)


def test_other_things_of_a_turn_stay():
    calls = [{"role": "assistant", "content": [{"type": "text", "text": "x"}], "name": "y"}]
    assert read([calls])["messages"][0] == [{"role": "assistant", "content": "x", "name": "y"}]
    assert read([[{"from": "system", "value": "x"}, *SHARED]])["messages"][0][0]["role"] == "system"


def test_a_chat_of_nobody_or_of_parts_without_text_is_empty():
    silent = [{"role": "assistant", "content": [{"type": "text", "text": None}]}]
    assert list(filled_rows(read([PARTS, None, silent, []]))) == [0]


def test_a_file_that_mixes_parts_and_text(tmp_path):
    path = tmp_path / "chats.jsonl"
    path.write_text("\n".join(json.dumps({"m": chat}) for chat in (CHAT, PARTS)))
    table = readable(load(str(path)).train, Columns(messages="m"), (), "train")
    assert table["messages"][0] == table["messages"][1] == CHAT


@pytest.mark.parametrize(
    ("turn", "words"),
    [
        (
            {"role": "user", "content": [{"type": "image", "text": None}]},
            "messages: row 1 .*a part that is no text",
        ),
        ({"from": "zebra", "value": "x"}, "messages: row 1 .*none of human, gpt and system"),
    ],
)
def test_what_cannot_be_learned_from_is_named_by_its_row(turn, words):
    good = SHARED if "from" in turn else PARTS
    with pytest.raises(ValueError, match=words) as caught:
        read([good, [turn]])
    assert "zebra" not in str(caught.value)


def test_turns_that_are_none_are_refused():
    with pytest.raises(ValueError, match=r"does not hold lists of \{role, content\}"):
        read([[{"from": "human", "text": "x"}]])
    with pytest.raises(ValueError, match=r"does not hold lists of \{role, content\}"):
        read([[{"role": "user", "content": 3}]])


def test_alpaca():
    columns = Columns(prompt="instruction", input="input", completion="output")
    rows = {
        "instruction": ["add", "name one", "sing"],
        "input": ["1 and 2", "", None],
        "output": ["3", "cat", None],
    }
    table = readable(Dataset.from_dict(rows), columns, (), "train")
    assert table.column_names == ["prompt", "completion"]
    first, second, _ = table["prompt"][:]
    assert first.endswith("### Instruction:\nadd\n\n### Input:\n1 and 2\n\n### Response:\n")
    assert "further context" in first
    assert second.endswith("### Instruction:\nname one\n\n### Response:\n")
    assert "Input" not in second
    assert list(filled_rows(table)) == [0, 1]
