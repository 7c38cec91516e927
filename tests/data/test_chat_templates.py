import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from silotune.data.assistant_turns import PublicWordsError
from silotune.data.chat_templates import Passage, passage

CHAT = [
    {"role": "system", "content": "be brief"},
    {"role": "user", "content": "hello"},
    {"role": "assistant", "content": "yes"},
    {"role": "user", "content": "really"},
    {"role": "assistant", "content": "no"},
]


def learned_text(p):
    return [p.text[start:end] for start, end in p.spans]


def template(turns, asks):
    text = "".join(f"<{turn['role']}>{turn['content']}</>" for turn in turns)
    return text + "<assistant>" * asks


def test_a_plain_text_is_learned_whole():
    p = passage({"text": "good film"}, None)
    assert (p.text, learned_text(p), p.ends) == ("good film", ["good film"], True)


def test_a_completion_is_learned_and_its_prompt_is_not():
    p = passage({"prompt": "2 + 2 =", "completion": " 4"}, None)
    assert (p.text, learned_text(p), p.ends) == ("2 + 2 = 4", [" 4"], True)
    assert passage({"prompt": None, "completion": "4"}, None).text == "4"


def test_a_chat_without_a_template_is_lines():
    p = passage({"messages": CHAT}, None)
    assert p.text == "system: be brief\nuser: hello\nassistant: yes\nuser: really\nassistant: no\n"
    assert learned_text(p) == ["yes\n", "no\n"]
    assert p.ends


def test_a_chat_is_read_by_its_template():
    p = passage({"messages": CHAT}, template)
    assert p.text == template(CHAT, False)
    assert learned_text(p) == ["yes</>", "no</>"]
    assert not p.ends


def test_keys_that_other_turns_have_are_not_passed_as_null():
    turns = [{"role": "user", "content": "x", "name": None}, CHAT[2] | {"name": "y"}]
    seen = []
    passage({"messages": turns}, lambda turns, asks: seen.append(turns) or template(turns, asks))
    assert "name" not in seen[0][0]


def test_a_template_that_leaves_out_earlier_turns_is_refused():
    def forgetful(turns, asks):
        return template(turns[-1:], asks)

    with pytest.raises(ValueError, match="leaves out"):
        passage({"messages": CHAT}, forgetful)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (PublicWordsError("roles must alternate"), "refuses it: roles must alternate$"),
        (TypeError("secret has no role"), r"refuses it \(TypeError\)$"),
    ],
)
def test_what_a_template_refuses_is_said_in_its_own_words_alone(error, words):
    def strict(turns, asks):
        raise error

    with pytest.raises(ValueError, match=words):
        passage({"messages": CHAT}, strict)


@given(st.data())
def test_tokens_are_learned_if_one_of_their_characters_is(data):
    length = data.draw(st.integers(0, 12))
    cuts = data.draw(st.lists(st.integers(0, length), min_size=4, max_size=4).map(sorted))
    spans = [(cuts[0], cuts[1]), (cuts[2], cuts[3])]
    tokens = data.draw(
        st.lists(st.tuples(st.integers(0, length), st.integers(0, length)).map(sorted), max_size=6)
    )
    offsets = np.array(tokens, dtype=np.int64).reshape(-1, 2)
    learned = Passage("x" * length, spans).learned(offsets[:, 0], offsets[:, 1])
    inside = {place for start, end in spans for place in range(start, end)}
    assert learned.tolist() == [bool(inside & set(range(*token))) for token in tokens]
