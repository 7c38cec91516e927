import numpy as np
import pytest
import torch
from datasets import Dataset
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from silotune.core.dataset import ClientDataset
from silotune.data import text_examples
from silotune.data.tokenization import IGNORED

TEMPLATE = (
    "{% for m in messages %}{{ m.role + ' : ' + m.content + ' </s> ' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'assistant : ' }}{% endif %}"
)


def classified(texts, tokenizer, max_length=64, **more):
    table = Dataset.from_dict({"text": texts, **more, "label": [i % 2 for i in range(len(texts))]})
    return text_examples(table, tokenizer, max_length, "silo x, train")


def modelled(tokenizer, max_length=64, **columns):
    return text_examples(Dataset.from_dict(columns), tokenizer, max_length, "silo x, train")


def words(tokenizer, ids):
    return tokenizer.convert_ids_to_tokens([i for i in ids if i != tokenizer.pad_token_id])


def read_and_learned(tokenizer, examples, row=0):
    batch = examples.batch([row])
    labels = batch["labels"][0].tolist()
    assert all(
        y in (IGNORED, x) for x, y in zip(batch["input_ids"][0].tolist(), labels, strict=True)
    )
    learned = [y for y in labels if y != IGNORED]
    return words(tokenizer, batch["input_ids"][0].tolist()), words(tokenizer, learned)


def test_they_are_examples(bert):
    examples: ClientDataset = classified(["good film", "bad"], bert)
    assert list(examples.lengths) == [4, 3]


TEXTS = st.lists(
    st.lists(st.sampled_from(["good", "bad", "film", "what"]), min_size=1, max_size=20).map(
        " ".join
    ),
    min_size=1,
    max_size=8,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(TEXTS, st.data())
def test_a_batch_is_what_the_tokenizer_pads(bert, texts, data):
    examples = classified(texts, bert, max_length=12)
    rows = data.draw(st.lists(st.integers(0, len(texts) - 1), min_size=1, max_size=10))
    expected = bert(
        [texts[row] for row in rows],
        truncation=True,
        max_length=12,
        padding="longest",
        return_tensors="pt",
    )
    batch = examples.batch(rows)
    assert batch.keys() == {*expected, "labels"}
    for name, tensor in expected.items():
        assert torch.equal(batch[name], tensor)
        assert batch[name].dtype == torch.int64
    assert batch["labels"].tolist() == [row % 2 for row in rows]


def test_pairs_have_token_types(bert):
    batch = classified(["good", "bad film"], bert, text_pair=["film", None]).batch([0, 1])
    assert words(bert, batch["input_ids"][0].tolist()) == [
        "[CLS]",
        "good",
        "[SEP]",
        "film",
        "[SEP]",
    ]
    assert batch["token_type_ids"].tolist() == [[0, 0, 0, 1, 1], [0, 0, 0, 0, 1]]


def test_token_types_only_where_the_tokenizer_gives_them(llama):
    batch = classified(["good film"], llama).batch([0])
    assert batch.keys() == {"input_ids", "attention_mask", "labels"}


def test_more_records_than_one_slice(bert):
    texts = ["good " * (1 + i % 5) for i in range(2345)]
    examples = classified(texts, bert)
    assert list(examples.lengths) == [3 + i % 5 for i in range(2345)]
    last = examples.batch([2344])
    assert last["input_ids"][0].tolist() == bert(texts[2344])["input_ids"]


def test_tokens_are_stored_compactly(bert):
    examples = classified(["good film"] * 10, bert)
    assert {column.flat.nbytes for column in examples.tokens.values()} == {10 * 4 * 4}


def test_an_unknown_word_is_a_token(bert):
    assert list(classified(["unheard"], bert).lengths) == [3]


@pytest.mark.parametrize(
    ("change", "max_length", "message"),
    [
        ({"pad_token": None}, 8, "model: the tokenizer has no padding token"),
        ({}, 1, "max_length: 1 must be at least 2"),
    ],
)
def test_a_tokenizer_that_does_not_serve(bert, change, max_length, message):
    for name, value in change.items():
        setattr(bert, name, value)
    with pytest.raises(ValueError, match=message):
        classified(["good"], bert, max_length)


def test_plain_text_is_learned_with_its_end(llama):
    examples = modelled(llama, text=["good film", "bad"])
    assert read_and_learned(llama, examples) == (
        ["<s>", "good", "film", "</s>"],
        ["good", "film", "</s>"],
    )
    batch = examples.batch([1, 0])
    assert batch["labels"][0].tolist()[-1] == IGNORED
    assert batch["attention_mask"].tolist() == [[1, 1, 1, 0], [1, 1, 1, 1]]
    assert batch["input_ids"][0, -1] == llama.pad_token_id


def test_padding_that_is_the_end_token_keeps_its_one_label(llama):
    llama.pad_token = "</s>"
    batch = modelled(llama, text=["good film", "bad"]).batch([1, 0])
    assert (batch["labels"] == llama.eos_token_id).sum(dim=1).tolist() == [1, 1]


def test_an_end_is_not_put_twice(llama):
    whole, _ = read_and_learned(llama, modelled(llama, text=["good </s>"]))
    assert whole == ["<s>", "good", "</s>"]


def test_only_the_completion_is_learned(llama):
    examples = modelled(llama, prompt=["good film"], completion=[" yes"])
    assert read_and_learned(llama, examples) == (
        ["<s>", "good", "film", "yes", "</s>"],
        ["yes", "</s>"],
    )


CHAT = [
    {"role": "user", "content": "good film"},
    {"role": "assistant", "content": "yes"},
    {"role": "user", "content": "bad film"},
    {"role": "assistant", "content": "no no"},
]


def test_only_the_assistant_is_learned_without_a_template(llama):
    _, learned = read_and_learned(llama, modelled(llama, messages=[CHAT]))
    assert learned == ["yes", "no", "no", "</s>"]


def test_only_the_assistant_is_learned_with_a_template(llama):
    llama.chat_template = TEMPLATE
    whole, learned = read_and_learned(llama, modelled(llama, messages=[CHAT]))
    assert learned == ["yes", "</s>", "no", "no", "</s>"]
    assert whole[:5] == ["user", ":", "good", "film", "</s>"]  # the template adds no <s>


def test_a_chat_that_the_template_refuses_is_named(llama):
    llama.chat_template = "{{ raise_exception('roles must alternate') }}"
    with pytest.raises(ValueError, match=r"row 0 .* refuses it: roles must alternate"):
        modelled(llama, messages=[CHAT])


@pytest.mark.parametrize(
    ("prompt", "completion", "limit", "whole", "learned"),
    [
        ("1 2 3", "4 5", 7, "<s> 1 2 3 4 5 </s>", "4 5 </s>"),
        ("1 2 3", "4 5", 6, "<s> 2 3 4 5 </s>", "4 5 </s>"),
        ("1 2 3 4 5 6", "7", 4, "<s> 6 7 </s>", "7 </s>"),
        ("1 2 3 4", "5 6 7 8", 4, "<s> 4 5 6", "5 6"),
        ("1", "2 3 4 5 6", 4, "<s> 1 2 3", "2 3"),
        ("1 2 3 4", "5 6 7 8", 2, "<s> 5", "5"),
    ],
)
def test_what_is_too_long_keeps_something_to_learn(
    llama, prompt, completion, limit, whole, learned
):
    examples = modelled(llama, limit, prompt=[prompt], completion=[" " + completion])
    assert read_and_learned(llama, examples) == (whole.split(), learned.split())


def test_a_long_text_loses_its_end(llama):
    whole, learned = read_and_learned(llama, modelled(llama, 3, text=["1 2 3 4"]))
    assert (whole, learned) == (["<s>", "1", "2"], ["1", "2"])


def test_a_record_with_nothing_to_predict_is_left_out(llama):
    llama.eos_token = None
    examples = modelled(llama, prompt=["good", "good"], completion=[" film", ""])
    assert (examples.rows.tolist(), len(examples.lengths)) == ([0], 1)
    assert read_and_learned(llama, examples)[1] == ["film"]


def test_the_first_token_cannot_be_predicted(llama):
    llama.chat_template = "{% for m in messages %}{{ m.content }}{% endfor %}"
    turn = {"role": "assistant", "content": "good"}
    examples = modelled(llama, messages=[[turn], [turn, turn | {"content": " bad"}]])
    assert examples.rows.tolist() == [1]
    assert len(modelled(llama, messages=[[turn]]).lengths) == 0


def test_a_text_of_special_tokens_only_is_left_out(bert):
    examples = classified(["good", "[PAD] [SEP]", "[UNK]", "", "bad film"], bert)
    assert examples.rows.tolist() == [0, 2, 4]
    batch = examples.batch([2, 1])
    assert batch["labels"].tolist() == [0, 0]
    assert words(bert, batch["input_ids"][0].tolist()) == ["[CLS]", "bad", "film", "[SEP]"]
    assert len(classified(["[PAD] [PAD]", "[SEP]", ""], bert).lengths) == 0


def test_what_is_cut_is_counted(bert, llama):
    texts = ["good", "good bad", "good bad film", "good bad film good"]
    assert classified(texts, bert, max_length=4).truncated == 2
    assert classified(texts, bert).truncated == 0
    assert classified(["good"] * 2, bert, max_length=4, text_pair=["bad", "bad bad"]).truncated == 2
    assert modelled(llama, max_length=4, text=texts).truncated == 2, "<s> and </s> count"


def test_prompts_that_are_other_tokens_alone_are_counted(llama):
    """A space that a completion takes into its first token, or a word that goes on."""
    assert modelled(llama, prompt=["good", "bad"], completion=[" film", " film"]).unlike_alone == 0
    joined = modelled(llama, prompt=["good", "ba", None], completion=[" film", "d", "film"])
    assert joined.unlike_alone == 1


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 30), st.integers(1, 30), st.integers(2, 20))
def test_every_record_fits_and_teaches(llama, prompt, completion, limit):
    examples = modelled(llama, limit, prompt=["1 " * prompt], completion=["2 " * completion])
    labels = examples.batch([0])["labels"][0].numpy()
    assert len(labels) == examples.lengths[0] <= limit
    assert np.any(labels[1:] != IGNORED)
