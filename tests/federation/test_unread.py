"""What a model does not read of a text is told, whoever asks, before the first answer."""

import logging

import pytest
import torch
from transformers import AutoModelForSeq2SeqLM, AutoModelForTokenClassification, AutoTokenizer

import silotune as st
from silotune.federation.loaded_model import LoadedModel
from silotune.federation.unread import longer
from silotune.testing import tiny_models

TEXT = {"text": "text", "max_length": 12}
"""The tiny tokenizers have a token for each byte, and two more around them."""

CASES = {
    "label": (
        st.SequenceClassification(label="kind", labels=["a", "b"], **TEXT),
        ["a note", "ten bytes!", "eleven byte"],
        [2],
    ),
    "pairs": (
        st.SequenceClassification(text_pair="line", label="kind", labels=["a", "b"], **TEXT),
        [("a note", "a"), ("a note", "a line")],
        [1],
    ),
    "vectors": (
        st.TextEmbedding(text_pair="line", label="n", score_range=(0, 1), pooling="mean", **TEXT),
        ["ten bytes!", ("ten bytes!", "ten bytes!"), ("a", "eleven byte"), "eleven byte"],
        [2, 3],
    ),
    "words": (
        st.TokenClassification(words="words", tags="tags", labels=["NAME"], max_length=12),
        [["ten", "bytes!"], ["ten", None, "bytes!"], "ten bytes!"],
        [1],
    ),
    "source": (
        st.Seq2Seq(source="note", target="line", source_prefix="sum: ", max_length=12),
        ["five!", "sixer!"],
        [1],
    ),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny_models.tiny_bert(tmp_path_factory.mktemp("models") / "bert")


@pytest.mark.parametrize("case", CASES)
def test_rows_that_are_longer_than_what_is_read(folder, case):
    objective, asked, rows = CASES[case]
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert [*longer(tokenizer, objective, asked)] == rows
    assert [*longer(tokenizer, objective, asked * 1000)][-1] == len(asked) * 999 + rows[-1]


def loaded(model, folder, objective):
    return LoadedModel(
        model=model.eval(),
        objective=objective,
        tokenizer=AutoTokenizer.from_pretrained(folder),
        image_processor=None,
        labels=getattr(objective, "label_names", ()),
    )


def told(caplog):
    words = [r.getMessage() for r in caplog.records if r.getMessage().startswith("max_length")]
    caplog.clear()
    return words


def test_a_name_beyond_what_is_read_is_not_taken_for_none(folder, caplog):
    objective = st.TokenClassification(spans="spans", labels=["NAME"], **TEXT)
    torch.manual_seed(0)
    model = AutoModelForTokenClassification.from_pretrained(folder, num_labels=3)
    asked = loaded(model, folder, objective)
    with caplog.at_level(logging.WARNING):
        answers = asked.answers(["ten bytes!", "zebra came to see anna"])
        assert told(caplog) == [
            "max_length: 1 of 2 records are longer than the 12 tokens that are read, row 1 (the "
            "first is 0) before the others; what comes after is not looked at, and no entity is "
            "found there: cut long texts up"
        ]
        assert len([*answers]) == 2
        asked.predict(["ten bytes!"])
    assert told(caplog) == []


def test_a_source_that_is_cut_is_told(tmp_path, caplog):
    folder = tiny_models.tiny_t5(tmp_path / "t5")
    objective = CASES["source"][0]
    asked = loaded(AutoModelForSeq2SeqLM.from_pretrained(folder), folder, objective)
    with caplog.at_level(logging.WARNING):
        asked.generate(["five!", "sixer!"], max_new_tokens=1)
    assert [words.split(", row 1")[0] for words in told(caplog)] == [
        "max_length: 1 of 2 records are longer than the 12 tokens that are read"
    ]
